"""Graphs whose products are computed with 8 bits: int8, or fp8 (E4M3).

A QuantizeLinear and a DequantizeLinear stand before each input of a product, and an engine computes the product with
what lies between them. Weights stay as they are stored; a graph only gains scales:

- one for a tensor, from the largest number that was seen in it while the model ran in float32;
- one for each output channel of a weight in int8, one for a weight in fp8, from the largest number in it.

Quantised are convolutions and linear layers that pictures flow through. Left as they are: what has few channels, such
as the first and the last convolution of a UNet, whose errors nothing averages; the shortcuts of ResNet blocks, which
read what no norm has made small: 13 of 512 products of mini's denoiser, and a sixth of its error; time and CLIP's
tokens, which are a few rows; and attention's own products.

The largest number is not the best range, but near to it: on mini's denoiser the relative RMS error of int8 is 1.6 %
with it, 1.3 % with 99.99 % of all numbers as with the range of the least squared error, and 3.4 % with 99.9 %. It is
one number per tensor, which the graph finds itself, where percentiles need the tensors. ONNX Runtime's own calibrators
and `quantize_static` are not used: where a Cast stands between a weight and its product they take the weight for data,
so that they measure three times as many tensors; they quantise what products give as well as what they take; and they
write a file of weights of their own.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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

STEPS = 8  # of a clip that ranges are measured on
KINDS = {"int8": ir.DataType.INT8, "fp8": ir.DataType.FLOAT8E4M3FN}
BASE = "fp16"  # what everything else is computed in
# graphs that an 8-bit precision means, with guidance and without; the others run once per portrait or frame, and stay
# in `BASE`
GRAPHS = ("denoiser", "denoiser_cond")
# against float32, on inputs like those that ranges were measured on: bench/results/quantization.json
BOUNDS = {"int8": (0.99, 0.15), "fp8": (0.97, 0.25)}  # the least cosine, the most relative RMS difference
LEAST_CHANNELS = 16  # of a product's input and output
SHORTCUT = ".conv_shortcut.weight"
FILE = "ranges.json"
FORMAT, VERSION = "fye-ranges", 1
_LARGEST = {"int8": 127.0, "fp8": 448.0}
_MAX_BYTES = 4 << 20

Image = NDArray[np.uint8]
Ranges = Mapping[str, float]  # the largest absolute value of each tensor, by its name


def record(
    bundle: Bundle, graph: str, clips: Iterable[tuple[Image, Image]], options: Options, threads: int = 0
) -> Iterator[Arrays]:
    """What a graph is given while clips are made by ONNX Runtime in float32.

    Args:
        bundle: with the graph.
        graph: its name.
        clips: portraits uint8 (H, W, 3) and their landmark images uint8 (F, H, W, 3), as `Animator.encode_portrait`
            and `encode_motion` take them.
        options: of the clips, the next seed for each. Eight steps without a forecast show the denoiser what it sees in
            thirty, the first, in which nothing but noise is left, included.
        threads: as in `fye_rt.engine.Settings`.

    Yields:
        Named arrays, one call of the graph after another.

    Raises:
        OptionError: the other denoiser runs at this guidance.
        FyeError: as `Animator`.
    """
    guidance = bundle.resolve(options).guidance or 0
    if graph in GRAPHS and graph != GRAPHS[guidance <= 1]:
        raise OptionError(f"guidance={guidance} runs {GRAPHS[guidance <= 1]}, not {graph}; give another")
    with _Recorder(bundle, graph, threads) as animator:
        for number, (image, landmarks) in enumerate(clips):
            animator.heard.clear()
            portrait = animator.encode_portrait(image)
            if not animator.heard:
                motion = animator.encode_motion(landmarks)
            if not animator.heard:
                latents = animator.denoise(portrait, motion, options=replace(options, seed=options.seed + number))
            if not animator.heard:
                animator.decode(latents)
            yield from animator.heard


def calibrate(bundle: Bundle, graph: str, inputs: Iterable[Mapping[str, Any]], threads: int = 0) -> Ranges:
    """Measure the tensors that `quantize` needs to know.

    Args:
        bundle: with the graph.
        graph: its name.
        inputs: of the graph, by name; see `record`.
        threads: as in `fye_rt.engine.Settings`.

    Returns:
        By name, of each tensor before a product that `quantize` would lower; empty where no product is worth it.

    Raises:
        OptionError: no inputs.
        NumericalError: a tensor is not finite.
        ExportError: ONNX Runtime's variant of the graph lacks a tensor of the standard one.
    """
    wanted = sorted({str(stored(node.inputs[0]).name) for node in places(ir.load(bundle.file(graph)))})
    if not wanted:
        return {}
    model = ir.load(bundle.file(graph, "onnxruntime"))
    there = {value.name: value for node in model.graph for value in node.outputs}
    there |= {value.name: value for value in model.graph.inputs}
    if missing := [name for name in wanted if name not in there]:
        raise ExportError(f"ONNX Runtime's variant of {graph} has no tensor {missing[0]}; export the bundle again")
    model.graph.outputs.clear()
    for name in wanted:
        size = ir.Node("", "Abs", [there[name]])
        # an empty list of axes means all of them
        largest = ir.Node("", "ReduceMax", size.outputs, [ir.AttrInt64("keepdims", 0)])
        made = largest.outputs[0]
        made.name, made.dtype, made.shape = f"{name}.largest", ir.DataType.FLOAT, ir.Shape(())
        model.graph.extend([size, largest])
        model.graph.outputs.append(made)
    opened = session(bundle, _bytes(model), threads)
    found = np.zeros(len(wanted), np.float32)
    count = 0
    for given in inputs:
        found = np.maximum(found, np.array(opened.run(None, dict(given)), np.float32))  # NaN stays NaN
        count += 1
    if not count:
        raise OptionError(f"ranges of {graph} need inputs; record some clips")
    if not np.isfinite(found).all():
        name = wanted[int(np.argmin(np.isfinite(found)))]
        raise NumericalError(f"{name} of {graph} is not finite; check the bundle with: fye verify {bundle.path}")
    return dict(zip(wanted, found.tolist(), strict=True))


def measure(
    bundle: Bundle,
    clips: Sequence[tuple[Image, Image]],
    guidance: Sequence[float],
    threads: int = 0,
    progress: Progress = no_progress,
) -> dict[str, Ranges]:
    """Measure the ranges of the denoisers on clips, and put them into the bundle beside those of other graphs.

    Args:
        bundle: to measure, and to write to.
        clips: see `record`.
        guidance: guidance scales; which denoiser is measured depends on them.
        threads: as in `fye_rt.engine.Settings`.
        progress: called with (stage, done, total).

    Returns:
        What was measured, by the graph.

    Raises:
        FyeError: as `record` and `keep`.
    """
    found: dict[str, Ranges] = {}
    for graph in GRAPHS:
        scales = [scale for scale in guidance if graph == GRAPHS[scale <= 1]]
        if scales:
            chosen = [bundle.resolve(Options(steps=STEPS, guidance=scale)) for scale in scales]
            given = chain.from_iterable(record(bundle, graph, clips, options, threads) for options in chosen)
            progress(f"measure {graph}", 0, 1)
            found[graph] = calibrate(bundle, graph, given, threads)
            progress(f"measure {graph}", 1, 1)
    there = {graph: kept(bundle, graph) for graph in _kept_graphs(bundle)}
    keep(bundle, there | found)
    return found


def quantize(model: ir.Model, ranges: Ranges, kind: str) -> int:
    """Compute the products of a graph with 8 bits; the model is changed in place.

    Args:
        model: after `fye_engines.precision.set_precision`, "fp16" or "fp32": scales have the types that they meet.
        ranges: from `calibrate`, of this graph.
        kind: one of `KINDS`.

    Returns:
        How many products there are now with 8 bits.

    Raises:
        OptionError: another kind, or ranges that lack a tensor.
    """
    if kind not in KINDS:
        raise OptionError(f"kind={kind!r} is not valid; allowed: {', '.join(KINDS)}")
    chosen = places(model)
    for node in chosen:
        if (name := stored(node.inputs[0]).name) not in ranges:
            raise OptionError(f"the ranges have no {name}; measure those of this very graph")
    pairs = _Pairs(model.graph, kind)
    for node in chosen:
        data, weight = node.inputs[:2]
        assert data is not None and weight is not None
        node.replace_input_with(0, pairs.data(data, ranges[str(stored(data).name)], node))
        node.replace_input_with(1, pairs.weight(weight, output_axis(node), node))
    RemoveUnusedNodesPass()(model)
    return len(chosen)


def places(model: ir.Model) -> list[ir.Node]:
    """The products that are worth 8 bits, in the order of the graph; see the module."""
    # pictures, latents and features have four or five axes; timesteps, tokens, keys and values fewer
    pictures = {value for value in model.graph.inputs if len(value.shape or ()) > 3}
    found = []
    for node in model.graph:
        if not pictures.intersection(node.inputs):
            continue
        pictures.update(node.outputs)
        if (
            node.op_type in PRODUCTS - {"Attention", "MultiHeadAttention"}
            and node.inputs[0] in pictures
            and _is_worth_it(node)
        ):
            found.append(node)
    return found


def output_axis(product: ir.Node) -> int:
    """The axis of a product's weight that its output channels lie along."""
    transposed = product.attributes.get("transB")
    return 0 if product.op_type == "Conv" or (transposed is not None and transposed.as_int()) else 1


def stored(value: ir.Value | None) -> ir.Value:
    """What lies before a Cast: there is one where a weight is stored, or a tensor is made, in another type."""
    assert value is not None
    node = value.producer()
    return node.inputs[0] or value if node is not None and node.op_type == "Cast" else value


def keep(bundle: Bundle, ranges: Mapping[str, Ranges]) -> None:
    """Put the ranges of graphs, by their names, into a bundle, in place of those it had.

    Raises:
        BundleError: the folder holds no bundle.
        OutputError: it cannot be written.
    """
    content = {"format": FORMAT, "version": VERSION, "source": bundle.manifest["source"], "ranges": dict(ranges)}
    put_file(bundle.path, FILE, (json.dumps(content, indent=1) + "\n").encode())


def kept(bundle: Bundle, graph: str) -> Ranges:
    """The ranges of a graph that a bundle has.

    Raises:
        OptionError: it has none.
        BundleError: they are damaged, or of another checkpoint.
    """
    file = bundle.path / FILE
    if FILE not in bundle.manifest["files"]:
        raise OptionError(
            f"{bundle.path} has no {FILE}; measure it: fye calibrate {bundle.path} --ranges, or choose {BASE}"
        )
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError(f"over {_MAX_BYTES >> 20} MB")
        content = json.loads(file.read_bytes())
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise ValueError(f"not a {FORMAT} of version {VERSION}")
        if content["source"] != bundle.manifest["source"]:
            raise ValueError("of another checkpoint")
        found = {
            str(of): {str(name): float(top) for name, top in each.items()} for of, each in content["ranges"].items()
        }
        if not all(np.isfinite(top) and top >= 0 for each in found.values() for top in each.values()):
            raise ValueError("a range that is not finite")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BundleError(
            f"{file} cannot be used ({error}); measure again: fye calibrate {bundle.path} --ranges"
        ) from error
    if graph not in found:
        raise OptionError(
            f"{file} has no ranges of {graph}; measure them: fye calibrate {bundle.path} --ranges --guidance N"
        )
    return found[graph]


def _kept_graphs(bundle: Bundle) -> list[str]:
    """The graphs whose ranges a bundle has, of this very checkpoint."""
    graphs = []
    for graph in GRAPHS:
        try:
            kept(bundle, graph)
        except (BundleError, OptionError):
            continue
        graphs.append(graph)
    return graphs


def session(bundle: Bundle, onnx: bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """Open a model whose weights lie in a bundle, with ONNX Runtime on the CPU.

    Pairs of QuantizeLinear and DequantizeLinear run as they are written, and products in floating point of what they
    give: the operators that ONNX Runtime would make of both don't take fp8.

    Args:
        bundle: with the weights.
        onnx: the model.
        threads: as in `fye_rt.engine.Settings`.
    """
    options = session_options(threads)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(bundle.path))
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


class _Recorder(Animator):
    """An animator that keeps what one graph is given, in `heard`."""

    def __init__(self, bundle: Bundle, graph: str, threads: int) -> None:
        super().__init__(bundle, "onnxruntime", threads=threads)
        self.heard: list[Arrays] = []
        opened = self.graphs.open

        def open_engine(bundle: Bundle, name: str, settings: Settings) -> Engine:
            engine = opened(bundle, name, settings)
            return _Listening(engine, self.heard) if name == graph else engine

        self.graphs.open = open_engine


class _Listening(Engine):
    """An engine that keeps its inputs."""

    def __init__(self, engine: Engine, heard: list[Arrays]) -> None:
        self.compute, self.pixels = engine.compute, engine.pixels
        self._engine, self._heard = engine, heard

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        self._heard.append(dict(inputs))
        return self._engine.run(inputs)


@dataclass(eq=False)
class _Pairs:
    """Puts pairs into a graph: one for all products that read the same tensor."""

    graph: ir.Graph
    kind: str

    def __post_init__(self) -> None:
        self._made: dict[ir.Value, ir.Value] = {}

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
        # what is read is what stood before a Cast: it would be rounded twice, and the Cast is not needed any more
        source = stored(value)
        if source not in self._made:
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
            (made,) = back.outputs
            made.name, made.dtype = name, value.dtype or ir.DataType.FLOAT
            self.graph.insert_before(before, [pair, back])
            self._made[source] = made
        return self._made[source]

    def _typed(self, source: ir.Value, like: ir.Value, scale: NDArray[np.float16]) -> ir.Value:
        """The scale in the type of `like`, as both TensorRT and ONNX Runtime want it."""
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
    """Scales that float16 has, so that they are the same in both types; up, so that the largest number still fits."""
    scale = exact.astype(np.float16)
    scale = np.where(scale < exact, np.nextafter(scale, np.float16(np.inf)), scale)
    return np.asarray(np.where(scale > 0, scale, 1), np.float16)  # a tensor that is 0 everywhere


def _is_worth_it(product: ir.Node) -> bool:
    """Whether one of its inputs is a weight, with channels enough, and not a shortcut's."""
    weight = stored(product.inputs[1])
    if weight.const_value is None or str(weight.name).endswith(SHORTCUT):
        return False
    return int(min(weight.const_value.shape.numpy()[:2])) >= LEAST_CHANNELS


def _bytes(model: ir.Model) -> bytes:
    return bytes(ir.to_proto(model).SerializeToString(deterministic=True))
