"""Quantises a graph so that engines compute its products with 8 bits: int8, or fp8 (E4M3).

A pair of QuantizeLinear and DequantizeLinear precedes each input of a product, and an engine computes the product from
the 8-bit values between them. Weights stay as they are stored; a graph only gains scales:

- one per tensor, from its largest absolute value while the model ran in float32;
- one per output channel of an int8 weight, or one per fp8 weight, from the largest absolute value.

Convolutions and linear layers over images and features are quantised. Other products keep their precision:

- layers with few channels, such as a UNet's first and last convolution, because nothing averages their errors;
- shortcuts of ResNet blocks, whose inputs no norm has scaled down: 13 of 512 products of mini's denoiser, but a sixth
  of its error;
- layers over the timestep and CLIP's tokens, which have few rows;
- the products inside attention.

The largest value is a range close to the best one: on mini's denoiser the relative RMS error of int8 is 1.6 % with it,
1.3 % with the 99.99th percentile or the range of least squared error, and 3.4 % with the 99.9th percentile. It is one
number per tensor, which the graph itself computes, whereas percentiles need the tensors. ONNX Runtime's calibrators and
`quantize_static` do not fit: they mistake a weight behind a Cast for data, and so measure three times as many tensors;
they quantise the outputs of products as well as their inputs; and they write a separate weights file.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fye_engines.precision import PRODUCTS
from fye_rt.animator import Animator
from fye_rt.backends.onnxruntime import session_options
from fye_rt.bundle import Bundle, put_file
from fye_rt.engine import Arrays, Engine, Settings
from fye_rt.errors import BundleError, ExportError, NumericalError, OptionError
from fye_rt.options import Options
from fye_rt.timings import Progress, no_progress

STEPS = 8  # denoising steps of a clip on which ranges are measured
KINDS = {"int8": ir.DataType.INT8, "fp8": ir.DataType.FLOAT8E4M3FN}
BASE = "fp16"  # precision of everything else
# graphs that an 8-bit precision applies to, with and without guidance; the others run once per portrait or frame, and
# stay in `BASE`
GRAPHS = ("denoiser", "denoiser_cond")
# least cosine and largest relative RMS difference to float32, on inputs like those that ranges were measured on:
# bench/results/quantization.json
BOUNDS = {"int8": (0.99, 0.15), "fp8": (0.97, 0.25)}
LEAST_CHANNELS = 16  # in the input and output of a quantised product
SHORTCUT = ".conv_shortcut.weight"
FILE = "ranges.json"
FORMAT, VERSION = "fye-ranges", 1
_LARGEST = {"int8": 127.0, "fp8": 448.0}
_MAX_BYTES = 4 << 20

Image = NDArray[np.uint8]
Ranges = Mapping[str, float]  # largest absolute value of each tensor, by name


def record(
    bundle: Bundle, graph: str, clips: Iterable[tuple[Image, Image]], options: Options, threads: int = 0
) -> Iterator[Arrays]:
    """Record a graph's inputs while ONNX Runtime makes clips in float32.

    Args:
        bundle: the bundle with the graph.
        graph: name of the graph.
        clips: portraits uint8 (H, W, 3) and their landmark images uint8 (F, H, W, 3), as `Animator.encode_portrait`
            and `encode_motion` take them.
        options: options of the clips; seeds count up from clip to clip. Eight steps without a forecast cover what the
            denoiser sees in thirty, including the first step, which is pure noise.
        threads: see `fye_rt.engine.Settings`.

    Yields:
        The named inputs of each call of the graph.

    Raises:
        OptionError: this guidance runs the other denoiser.
        FyeError: the animator fails; see `fye_rt.animator.Animator`.
    """
    guidance = bundle.resolve(options).guidance or 0
    if graph in GRAPHS and graph != GRAPHS[guidance <= 1]:
        raise OptionError(f"guidance={guidance} runs {GRAPHS[guidance <= 1]}, not {graph}; give another guidance")
    with _Recorder(bundle, graph, threads) as animator:
        for number, (image, landmarks) in enumerate(clips):
            animator.calls.clear()
            portrait = animator.encode_portrait(image)
            if not animator.calls:
                motion = animator.encode_motion(landmarks)
            if not animator.calls:
                latents = animator.denoise(portrait, motion, options=replace(options, seed=options.seed + number))
            if not animator.calls:
                animator.decode(latents)
            yield from animator.calls


def calibrate(bundle: Bundle, graph: str, inputs: Iterable[Mapping[str, Any]], threads: int = 0) -> Ranges:
    """Measure the ranges of the tensors that `quantize` needs.

    Args:
        bundle: the bundle with the graph.
        graph: name of the graph.
        inputs: inputs of the graph's calls, by name; see `record`.
        threads: see `fye_rt.engine.Settings`.

    Returns:
        The range of each tensor that a product to be quantised reads, by name; empty if there is no such product.

    Raises:
        OptionError: there are no inputs.
        NumericalError: a tensor is not finite.
        ExportError: ONNX Runtime's variant of the graph lacks a tensor of the standard one.
    """
    names = sorted({str(stored(node.inputs[0]).name) for node in places(ir.load(bundle.file(graph)))})
    if not names:
        return {}
    model = ir.load(bundle.file(graph, "onnxruntime"))
    values = {value.name: value for node in model.graph for value in node.outputs}
    values |= {value.name: value for value in model.graph.inputs}
    if missing := [name for name in names if name not in values]:
        raise ExportError(f"ONNX Runtime's variant of {graph} has no tensor {missing[0]}; export the bundle again")
    model.graph.outputs.clear()
    for name in names:
        size = ir.Node("", "Abs", [values[name]])
        # without axes it reduces over all of them
        reduction = ir.Node("", "ReduceMax", size.outputs, [ir.AttrInt64("keepdims", 0)])
        largest = reduction.outputs[0]
        largest.name, largest.dtype, largest.shape = f"{name}.largest", ir.DataType.FLOAT, ir.Shape(())
        model.graph.extend([size, reduction])
        model.graph.outputs.append(largest)
    runner = session(bundle, _bytes(model), threads)
    ranges = np.zeros(len(names), np.float32)
    count = 0
    for call in inputs:
        ranges = np.maximum(ranges, np.array(runner.run(None, dict(call)), np.float32))  # NaN stays NaN
        count += 1
    if not count:
        raise OptionError(f"ranges of {graph} need inputs; record some clips")
    if not np.isfinite(ranges).all():
        name = names[int(np.argmin(np.isfinite(ranges)))]
        raise NumericalError(f"{name} of {graph} is not finite; check the bundle with: fye verify {bundle.path}")
    return dict(zip(names, ranges.tolist(), strict=True))


def measure(
    bundle: Bundle,
    clips: Sequence[tuple[Image, Image]],
    guidance: Sequence[float],
    threads: int = 0,
    progress: Progress = no_progress,
) -> dict[str, Ranges]:
    """Measure the ranges of the denoisers on clips, and store them in the bundle beside those of other graphs.

    Args:
        bundle: the bundle to measure and to write to.
        clips: see `record`.
        guidance: guidance scales; they decide which denoisers are measured.
        threads: see `fye_rt.engine.Settings`.
        progress: called with (stage, done, total).

    Returns:
        The measured ranges, by graph.

    Raises:
        FyeError: see `record` and `keep`.
    """
    measured: dict[str, Ranges] = {}
    for graph in GRAPHS:
        scales = [scale for scale in guidance if graph == GRAPHS[scale <= 1]]
        if scales:
            settings = [bundle.resolve(Options(steps=STEPS, guidance=scale)) for scale in scales]
            calls = chain.from_iterable(record(bundle, graph, clips, options, threads) for options in settings)
            progress(f"measure {graph}", 0, 1)
            measured[graph] = calibrate(bundle, graph, calls, threads)
            progress(f"measure {graph}", 1, 1)
    keep(bundle, _usable_ranges(bundle) | measured)
    return measured


def quantize(model: ir.Model, ranges: Ranges, kind: str) -> int:
    """Quantise the products of a graph to 8 bits, in place.

    Args:
        model: the graph after `fye_engines.precision.set_precision` to "fp16" or "fp32"; scales take the types of their
            tensors.
        ranges: ranges of this graph, from `calibrate`.
        kind: one of `KINDS`.

    Returns:
        Number of quantised products.

    Raises:
        OptionError: the kind does not exist, or the ranges lack a tensor.
    """
    if kind not in KINDS:
        raise OptionError(f"kind={kind!r} is not valid; allowed: {', '.join(KINDS)}")
    chosen = places(model)
    for node in chosen:
        if (name := stored(node.inputs[0]).name) not in ranges:
            raise OptionError(f"the ranges have no {name}; measure the ranges of this very graph")
    pairs = _Pairs(model.graph, kind)
    for node in chosen:
        data, weight = node.inputs[:2]
        assert data is not None and weight is not None
        node.replace_input_with(0, pairs.data(data, ranges[str(stored(data).name)], node))
        node.replace_input_with(1, pairs.weight(weight, output_axis(node), node))
    RemoveUnusedNodesPass()(model)
    return len(chosen)


def places(model: ir.Model) -> list[ir.Node]:
    """List the products to quantise, in the order of the graph; the module's docstring says which and why."""
    # images, latents and features have four or five axes; timesteps, tokens, keys and values fewer
    images = {value for value in model.graph.inputs if len(value.shape or ()) > 3}
    products = []
    for node in model.graph:
        if not images.intersection(node.inputs):
            continue
        images.update(node.outputs)
        if (
            node.op_type in PRODUCTS - {"Attention", "MultiHeadAttention"}
            and node.inputs[0] in images
            and _is_worth_it(node)
        ):
            products.append(node)
    return products


def output_axis(product: ir.Node) -> int:
    """Return the axis of a product's weight that holds the output channels."""
    transposed = product.attributes.get("transB")
    return 0 if product.op_type == "Conv" or (transposed is not None and transposed.as_int()) else 1


def stored(value: ir.Value | None) -> ir.Value:
    """Return the value before a Cast, or the value itself; a Cast follows a weight or tensor stored in another type."""
    assert value is not None
    node = value.producer()
    return node.inputs[0] or value if node is not None and node.op_type == "Cast" else value


def keep(bundle: Bundle, ranges: Mapping[str, Ranges]) -> None:
    """Store ranges, by graph, in a bundle, in place of those it had.

    Raises:
        BundleError: the folder holds no bundle.
        OutputError: the bundle cannot be written.
    """
    content = {"format": FORMAT, "version": VERSION, "source": bundle.manifest["source"], "ranges": dict(ranges)}
    put_file(bundle.path, FILE, (json.dumps(content, indent=1) + "\n").encode())


def kept(bundle: Bundle, graph: str) -> Ranges:
    """Read the ranges of a graph from a bundle.

    Raises:
        OptionError: the bundle has none.
        BundleError: they are damaged, or belong to another checkpoint.
    """
    file = bundle.path / FILE
    if FILE not in bundle.manifest["files"]:
        raise OptionError(
            f"{bundle.path} has no {FILE}; measure ranges: fye calibrate {bundle.path} --ranges, or choose {BASE}"
        )
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError(f"over {_MAX_BYTES >> 20} MB")
        content = json.loads(file.read_bytes())
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise ValueError(f"not a {FORMAT} of version {VERSION}")
        if content["source"] != bundle.manifest["source"]:
            raise ValueError("of another checkpoint")
        stored_ranges = {
            str(name): {str(tensor): float(top) for tensor, top in tops.items()}
            for name, tops in content["ranges"].items()
        }
        if not all(np.isfinite(top) and top >= 0 for tops in stored_ranges.values() for top in tops.values()):
            raise ValueError("a range is not finite")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BundleError(
            f"{file} cannot be used ({error}); measure again: fye calibrate {bundle.path} --ranges"
        ) from error
    if graph not in stored_ranges:
        raise OptionError(
            f"{file} has no ranges of {graph}; measure them: fye calibrate {bundle.path} --ranges --guidance N"
        )
    return stored_ranges[graph]


def _usable_ranges(bundle: Bundle) -> dict[str, Ranges]:
    """Read a bundle's ranges by graph, skipping those that are absent, damaged or of another checkpoint."""
    ranges = {}
    for graph in GRAPHS:
        with suppress(BundleError, OptionError):
            ranges[graph] = kept(bundle, graph)
    return ranges


def session(bundle: Bundle, onnx: bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """Open a model whose weights lie in a bundle, with ONNX Runtime on the CPU.

    Pairs of QuantizeLinear and DequantizeLinear run as written, and products run in floating point on their outputs:
    the operators into which ONNX Runtime would fuse both do not take fp8. For `threads` see `fye_rt.engine.Settings`.
    """
    options = session_options(threads)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(bundle.path))
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


class _Recorder(Animator):
    """An animator that records the inputs of one graph in `calls`."""

    def __init__(self, bundle: Bundle, graph: str, threads: int) -> None:
        super().__init__(bundle, "onnxruntime", threads=threads)
        self.calls: list[Arrays] = []
        original_open = self.graphs.open

        def open_engine(bundle: Bundle, name: str, settings: Settings) -> Engine:
            engine = original_open(bundle, name, settings)
            return _RecordingEngine(engine, self.calls) if name == graph else engine

        self.graphs.open = open_engine


class _RecordingEngine(Engine):
    def __init__(self, engine: Engine, calls: list[Arrays]) -> None:
        self.compute, self.pixels = engine.compute, engine.pixels
        self._engine, self._calls = engine, calls

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        self._calls.append(dict(inputs))
        return self._engine.run(inputs)


class _Pairs:
    """Inserts pairs of QuantizeLinear and DequantizeLinear, one for all products that read the same tensor."""

    def __init__(self, graph: ir.Graph, kind: str) -> None:
        self.graph, self.kind = graph, kind
        self._outputs: dict[ir.Value, ir.Value] = {}  # dequantised values, by their source

    def data(self, value: ir.Value, largest: float, before: ir.Node) -> ir.Value:
        return self._pair(value, np.array(largest), None, before)

    def weight(self, value: ir.Value, axis: int, before: ir.Node) -> ir.Value:
        numbers = stored(value).const_value
        assert numbers is not None
        sizes = np.abs(numbers.numpy())
        if self.kind == "fp8":
            return self._pair(value, sizes.max(), None, before)
        return self._pair(value, sizes.max(axis=tuple(n for n in range(sizes.ndim) if n != axis)), axis, before)

    def _pair(self, value: ir.Value, largest: NDArray[Any], axis: int | None, before: ir.Node) -> ir.Value:
        # read the value before a Cast: otherwise it would be rounded twice; this leaves the Cast unused
        source = stored(value)
        if source not in self._outputs:
            scale = _scale(largest.astype(np.float64) / _LARGEST[self.kind])
            zero = self._constant(f"{source.name}.zero", np.zeros(scale.shape, KINDS[self.kind].numpy()))
            attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
            name = f"{source.name}.{self.kind}"
            pair = ir.Node(
                "", "QuantizeLinear", [source, self._typed(source, source, scale), zero], attributes, name=name
            )
            (low,) = pair.outputs
            low.name, low.dtype = name, KINDS[self.kind]
            name = f"{source.name}.dequantized"
            back = ir.Node(
                "", "DequantizeLinear", [low, self._typed(source, value, scale), zero], attributes, name=name
            )
            (output,) = back.outputs
            output.name, output.dtype = name, value.dtype or ir.DataType.FLOAT
            self.graph.insert_before(before, [pair, back])
            self._outputs[source] = output
        return self._outputs[source]

    def _typed(self, source: ir.Value, like: ir.Value, scale: NDArray[np.float16]) -> ir.Value:
        """Return the scale in the type of `like`, as both TensorRT and ONNX Runtime require."""
        kind = like.dtype or ir.DataType.FLOAT
        return self._constant(f"{source.name}.scale.{kind.name.lower()}", scale.astype(kind.numpy()))

    def _constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        if name not in self.graph.initializers:
            tensor = ir.tensor(array, name=name)
            value = ir.Value(
                name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
            self.graph.register_initializer(value)
        return self.graph.initializers[name]


def _scale(exact: NDArray[np.float64]) -> NDArray[np.float16]:
    """Round scales up to float16: up keeps the largest number in range, and both types then hold the same scale."""
    scale = exact.astype(np.float16)
    scale = np.where(scale < exact, np.nextafter(scale, np.float16(np.inf)), scale)
    return np.asarray(np.where(scale > 0, scale, 1), np.float16)  # scale 0: the tensor is 0 everywhere


def _is_worth_it(product: ir.Node) -> bool:
    """Return whether a product has a weight with enough channels that is not a shortcut's."""
    weight = stored(product.inputs[1])
    if weight.const_value is None or str(weight.name).endswith(SHORTCUT):
        return False
    return int(min(weight.const_value.shape.numpy()[:2])) >= LEAST_CHANNELS


def _bytes(model: ir.Model) -> bytes:
    return bytes(ir.to_proto(model).SerializeToString(deterministic=True))
