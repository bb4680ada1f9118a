"""Graphs whose every tensor has the type that an engine shall compute it in.

TensorRT networks are strongly typed: precision is no wish of the builder's, it lives in the graph. Here products run in
float16 or bfloat16, and stay in float32

- statistics: the norms and the softmax, with what is computed from their results alone, such as the SiLU behind a norm
  (an engine fuses it with the norm, so nothing more is read or written);
- the sine and cosine of the time, and all before them;
- what stands behind the last product and leads to an output, such as the clamp of the frames.

Inputs and outputs stay float32, but for what a denoiser reads again at every step: the portrait's keys and values, and
the landmark features.
"""

from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fye_rt.errors import ExportError

LOW = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
PRODUCTS = frozenset({"Attention", "Conv", "Gemm", "MatMul", "MultiHeadAttention"})
EXACT = frozenset({"Cos", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "Sin", "Softmax"})
# what moves numbers and changes none does so in the type in which they are read
MOVES = frozenset({"Concat", "Expand", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})
_HELD = ("clip_key.", "clip_value.", "landmark_features", "reference_key.", "reference_value.")
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
# which inputs are data, where the others say what is to be done with it
_DATA = {"Expand": (0,), "Pad": (0, 2), "Reshape": (0,), "Resize": (0,), "Slice": (0,)}


def set_precision(model: ir.Model, precision: str) -> None:
    """Give every tensor of a float32 graph its type; the model is changed in place.

    Args:
        model: as a bundle has it: float32, its weights stored as float32, or as float16 with a Cast behind each.
        precision: "fp16" or "bf16"; "fp32" changes nothing.

    Raises:
        ExportError: a graph that already computes in another type.
    """
    if precision == "fp32":
        return
    _Typing(model.graph, LOW[precision]).run()
    RemoveUnusedNodesPass()(model)


class _Typing:
    def __init__(self, graph: ir.Graph, low: ir.DataType) -> None:
        self._graph, self._low = graph, low
        self._types: dict[ir.Value, ir.DataType | None] = {}
        self._constants: set[ir.Value] = set()
        self._cast: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        for value in (*graph.inputs, *graph.initializers.values()):
            self._types[value] = value.dtype
        self._constants.update(graph.initializers.values())

    def run(self) -> None:
        kinds = self._decide()
        for node in list(self._graph):
            kind = kinds.get(node)
            if kind is None:
                continue
            for number in self._data(node):
                value = node.inputs[number]
                if value is not None and self._types[value] in _FLOATS and self._types[value] != kind:
                    node.replace_input_with(number, self._as(value, kind, node))
            for value in node.outputs:
                self._types[value] = value.dtype = kind
        for number, value in enumerate(self._graph.outputs):
            if self._types[value] == self._low:
                self._graph.outputs[number] = self._output(value)
        self._lower_inputs()

    def _decide(self) -> dict[ir.Node, ir.DataType]:
        """In what each node computes that has to do with floating point."""
        ends = self._behind_products()
        kinds: dict[ir.Node, ir.DataType] = {}
        for node in self._graph:
            if node.op_type == "Cast":
                self._see_cast(node)
                continue
            types = {value: self._types[value] for i in self._data(node) if (value := node.inputs[i]) is not None}
            moving = [kind for value, kind in types.items() if value not in self._constants]
            if node.op_type == "Shape" or not _FLOATS & set(types.values()):
                made = ir.DataType.INT64 if node.op_type == "Shape" else next(iter(types.values()), None)
            elif node.op_type in PRODUCTS:
                made = kinds[node] = self._low
            else:
                exact = node.op_type in EXACT or node in ends or self._low not in moving
                made = kinds[node] = ir.DataType.FLOAT if exact else self._low
            for value in node.outputs:
                self._types[value] = made
                if not moving:
                    self._constants.add(value)
        for node in reversed(list(self._graph)):
            users = [user for value in node.outputs for user, _ in value.uses()]
            if node.op_type in MOVES and node in kinds and users and all(kinds.get(u) == self._low for u in users):
                kinds[node] = self._low
        return kinds

    def _see_cast(self, node: ir.Node) -> None:
        (source,), (made,) = node.inputs, node.outputs
        kind = ir.DataType(node.attributes["to"].as_int())
        stored = source in self._constants
        if (
            source is None
            or kind not in (ir.DataType.FLOAT, ir.DataType.INT64)
            or (self._types[source] in _FLOATS) > stored
        ):
            raise ExportError(f"the graph casts {made.name} to {kind.name.lower()}; only weights and time are expected")
        self._types[made] = made.dtype = kind
        if stored:
            self._constants.add(made)
            self._cast[made, self._types[source] or kind] = source

    def _as(self, value: ir.Value, kind: ir.DataType, before: ir.Node) -> ir.Value:
        """`value` in another type: there is one Cast for all who read it so."""
        if (value, kind) not in self._cast:
            node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", kind)])
            self._graph.insert_before(before, node)
            self._types[node.outputs[0]] = node.outputs[0].dtype = kind
            self._cast[value, kind] = node.outputs[0]
        return self._cast[value, kind]

    def _output(self, value: ir.Value) -> ir.Value:
        """An output in float32, under its own name."""
        node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", ir.DataType.FLOAT)])
        self._graph.append(node)
        made = node.outputs[0]
        made.name, made.shape, made.dtype = value.name, value.shape, ir.DataType.FLOAT
        value.name = f"{value.name}.low"
        return made

    def _lower_inputs(self) -> None:
        """Held inputs that nobody reads in float32 come in the lower type."""
        for value in (value for value in self._graph.inputs if (value.name or "").startswith(_HELD)):
            users = [node for node, _ in value.uses() if node.op_type != "Shape"]
            cast = self._cast.get((value, self._low))
            if cast is not None and users == [cast.producer()]:
                value.dtype = self._low
                ir.convenience.replace_all_uses_with(cast, value)

    def _data(self, node: ir.Node) -> list[int]:
        """The numbers of its inputs that are data."""
        return [number for number in _DATA.get(node.op_type, range(len(node.inputs))) if number < len(node.inputs)]

    def _behind_products(self) -> set[ir.Node]:
        """Nodes from which a product is no longer reached, so that all they do is make outputs."""
        before: set[ir.Node] = set()
        for node in reversed(list(self._graph)):
            users: Iterator[ir.Node] = (user for value in node.outputs for user, _ in value.uses())
            if node.op_type in PRODUCTS or any(user in before for user in users):
                before.add(node)
        return {node for node in self._graph if node not in before}
