"""Prepares a bundle's graph for TensorRT."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from fye_engines.attention import allow_decomposition, write_out_attention
from fye_engines.precision import LOW, set_precision
from fye_engines.quantize import KINDS, kept, quantize
from fye_rt.bundle import Bundle, Graph, symbols
from fye_rt.errors import OptionError
from fye_rt.plans.matching import BASE, precision_of

PRECISIONS = ("fp32", *LOW, *KINDS)
FUSED, WRITTEN_OUT = ATTENTIONS = ("fused", "written-out")

Shape = tuple[int, ...]
Range = tuple[int, int, int]  # smallest, usual, largest


@dataclass(frozen=True, slots=True)
class Shapes:
    """Ranges of the sizes of clips that an engine takes.

    Attributes:
        frames: frames per window.
        height: height of a frame in pixels.
        width: width of a frame in pixels.

    Raises:
        OptionError: a range decreases, or a side is not a multiple of 8.
    """

    frames: Range
    height: Range
    width: Range

    def __post_init__(self) -> None:
        for name, values in (("frames", self.frames), ("height", self.height), ("width", self.width)):
            if not 1 <= values[0] <= values[1] <= values[2]:
                text = ":".join(map(str, values))
                raise OptionError(f"{name}={text} is not valid; give one number, or smallest:usual:largest")
        for height, width in zip(self.height, self.width, strict=True):
            if height % 8 or width % 8:
                raise OptionError(f"size={height}x{width} is not valid; sides are multiples of 8")

    def sizes(self) -> Iterator[dict[str, int]]:
        """Yield the values of the symbolic dimensions: smallest, usual, largest."""
        for frames, height, width in zip(self.frames, self.height, self.width, strict=True):
            yield symbols(frames, height, width)

    def fixed(self) -> dict[str, int]:
        """Return the values of the symbolic dimensions that never change."""
        smallest, _, largest = self.sizes()
        return {name: size for name, size in smallest.items() if size == largest[name]}

    def profile(self, graph: Graph) -> dict[str, tuple[Shape, Shape, Shape]]:
        """Return the smallest, usual and largest shape of each input with symbolic dimensions."""
        smallest, usual, largest = (
            {
                spec.name: tuple(sizes[size] if isinstance(size, str) else size for size in spec.shape)
                for spec in graph.inputs
            }
            for sizes in self.sizes()
        )
        varying = [spec.name for spec in graph.inputs if any(isinstance(size, str) for size in spec.shape)]
        return {name: (smallest[name], usual[name], largest[name]) for name in varying}


@dataclass(frozen=True, eq=False)
class Prepared:
    """A graph for the builder.

    Attributes:
        name: name of the graph.
        onnx: the model, with fixed dimensions as numbers; its weights lie in the bundle's weights file.
        weights: offset and length in bytes, in that file, of each tensor that the model reads, by name.
        profile: smallest, usual and largest shape of each input whose shape changes.
        decomposed: head size of each attention that TensorRT has no kernel for, and computes in several layers.
        written_out: number of attentions that are written out in the model.
    """

    name: str
    onnx: bytes
    weights: Mapping[str, tuple[int, int]]
    profile: Mapping[str, tuple[Shape, Shape, Shape]]
    decomposed: tuple[int, ...] = ()
    written_out: int = 0

    @property
    def decomposition(self) -> str:
        """Say which attention is not computed by a kernel of its own, and why; "" if all is."""
        if self.written_out:
            return f"attention is written out (layers: {self.written_out})"
        if not self.decomposed:
            return ""
        sizes = ", ".join(map(str, sorted(set(self.decomposed))))
        return f"attention without a kernel is decomposed (layers: {len(self.decomposed)}; head sizes: {sizes})"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the model."""
        return hashlib.sha256(self.onnx).hexdigest()


def check_names(precision: str, attention: str) -> None:
    """Check the names of a precision and an attention.

    Raises:
        OptionError: a name is not in `PRECISIONS` or `ATTENTIONS`.
    """
    for name, value, allowed in (("precision", precision, PRECISIONS), ("attention", attention, ATTENTIONS)):
        if value not in allowed:
            raise OptionError(f"{name}={value!r} is not valid; allowed: {', '.join(allowed)}")


def typed(bundle: Bundle, graph: str, precision: str, variant: str = "") -> bytes:
    """Serialise a graph, or an engine's variant of it, with its types and all its symbolic dimensions."""
    model, _ = _typed(bundle, graph, variant, precision, FUSED)
    return ir.to_proto(model).SerializeToString(deterministic=True)


def prepare(bundle: Bundle, graph: str, shapes: Shapes, precision: str, attention: str) -> Prepared:
    """Give a graph its types; the same bundle and settings always give the same bytes.

    Args:
        bundle: the bundle with the graph.
        graph: name of the graph.
        shapes: shapes of the clips.
        precision: precision of products, one of `PRECISIONS`; 8 bits apply to the denoisers, whose ranges the bundle
            must have (see `fye_engines.quantize`).
        attention: "fused" leaves the operator to TensorRT, which decomposes it where it has no kernel; "written-out"
            replaces it by MatMul, Softmax and MatMul.

    Raises:
        OptionError: a setting does not exist, or the bundle allows fewer frames.
        ExportError: a graph cannot be rewritten.
    """
    if shapes.frames[2] > bundle.max_frames:
        raise OptionError(f"frames={shapes.frames[2]} is not valid; this bundle allows {bundle.max_frames}")
    model, written_out = _typed(bundle, graph, "", precision, attention)
    decomposed = allow_decomposition(model)
    weights = {}
    for name, value in model.graph.initializers.items():
        if isinstance(tensor := value.const_value, ir.ExternalTensor):
            weights[name] = (int(tensor.offset or 0), int(tensor.length or tensor.nbytes))
    fixed = shapes.fixed()
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape([fixed.get(str(size), size) for size in value.shape or ()])
    varying = {value.name for value in model.graph.inputs if not all(isinstance(n, int) for n in value.shape or ())}
    profile = {name: shape for name, shape in shapes.profile(bundle.graphs[graph]).items() if name in varying}
    onnx = ir.to_proto(model).SerializeToString(deterministic=True)
    return Prepared(graph, onnx, weights, profile, tuple(decomposed), written_out)


def _typed(bundle: Bundle, graph: str, variant: str, precision: str, attention: str) -> tuple[ir.Model, int]:
    """Return a graph with its types, and how many of its attentions are written out."""
    check_names(precision, attention)
    precision = precision_of(graph, precision)
    model = ir.load(bundle.file(graph, variant))
    written_out = write_out_attention(model) if attention == WRITTEN_OUT else 0
    set_precision(model, BASE if precision in KINDS else precision)
    if precision in KINDS:
        quantize(model, kept(bundle, graph), precision)
    return model, written_out
