"""Gives every tensor of a graph the type in which an engine computes it.

TensorRT networks are strongly typed: the graph decides precision, not the builder. Products run in float16 or bfloat16.
These stay in float32:

- statistics: norms and softmax, and whatever is computed from their results alone, such as the SiLU after a norm (an
  engine fuses it with the norm, so it costs no extra reads or writes);
- the sine and cosine of the timestep, and everything before them;
- everything between the last product and an output, such as the clamp of the frames.

Inputs and outputs stay float32, except what a denoiser reads again at every step: the portrait's keys and values, and
the landmark features.
"""

from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from fye_rt.errors import ExportError

LOW = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
PRODUCTS = frozenset({"Attention", "Conv", "Gemm", "MatMul", "MultiHeadAttention"})
EXACT = frozenset({"Cos", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "Sin", "Softmax"})
# operators that only move numbers keep the type of their input
MOVES = frozenset({"Concat", "Expand", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})
_HELD = ("clip_key.", "clip_value.", "landmark_features", "reference_key.", "reference_value.")
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
# indices of the inputs that are data; the other inputs are parameters
_DATA = {"Expand": (0,), "Pad": (0, 2), "Reshape": (0,), "Resize": (0,), "Slice": (0,)}


def set_precision(model: ir.Model, precision: str) -> None:
    """Give every tensor of a float32 graph its type, in place.

    Args:
        model: float32 graph of a bundle, its weights stored as float32, or as float16 with a Cast after each.
        precision: "fp16" or "bf16"; "fp32" changes nothing.

    Raises:
        ExportError: the graph already computes in another type.
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
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
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
                    node.replace_input_with(number, self._cast_to(value, kind, node))
            for value in node.outputs:
                self._types[value] = value.dtype = kind
        for number, value in enumerate(self._graph.outputs):
            if self._types[value] == self._low:
                self._graph.outputs[number] = self._cast_output(value)
        self._lower_inputs()

    def _decide(self) -> dict[ir.Node, ir.DataType]:
        """Decide in which type each floating-point node computes."""
        ends = self._behind_products()
        kinds: dict[ir.Node, ir.DataType] = {}
        for node in self._graph:
            if node.op_type == "Cast":
                self._see_cast(node)
                continue
            types = {value: self._types[value] for i in self._data(node) if (value := node.inputs[i]) is not None}
            data_types = [dtype for value, dtype in types.items() if value not in self._constants]
            if node.op_type == "Shape" or not _FLOATS & set(types.values()):
                kind = ir.DataType.INT64 if node.op_type == "Shape" else next(iter(types.values()), None)
            elif node.op_type in PRODUCTS:
                kind = kinds[node] = self._low
            else:
                exact = node.op_type in EXACT or node in ends or self._low not in data_types
                kind = kinds[node] = ir.DataType.FLOAT if exact else self._low
            for value in node.outputs:
                self._types[value] = kind
                if not data_types:
                    self._constants.add(value)
        for node in reversed(list(self._graph)):
            users = [user for value in node.outputs for user, _ in value.uses()]
            if node.op_type in MOVES and node in kinds and users and all(kinds.get(u) == self._low for u in users):
                kinds[node] = self._low
        return kinds

    def _see_cast(self, node: ir.Node) -> None:
        (source,), (output,) = node.inputs, node.outputs
        kind = ir.DataType(node.attributes["to"].as_int())
        stored = source in self._constants
        if (
            source is None
            or kind not in (ir.DataType.FLOAT, ir.DataType.INT64)
            or (self._types[source] in _FLOATS) > stored
        ):
            raise ExportError(
                f"the graph casts {output.name} to {kind.name.lower()}; only weights and time may be cast"
            )
        self._types[output] = output.dtype = kind
        if stored:
            self._constants.add(output)
            self._casts[output, self._types[source] or kind] = source

    def _cast_to(self, value: ir.Value, kind: ir.DataType, before: ir.Node) -> ir.Value:
        """Return `value` in another type; all its readers in that type share one Cast."""
        if (value, kind) not in self._casts:
            node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", kind)])
            self._graph.insert_before(before, node)
            self._types[node.outputs[0]] = node.outputs[0].dtype = kind
            self._casts[value, kind] = node.outputs[0]
        return self._casts[value, kind]

    def _cast_output(self, value: ir.Value) -> ir.Value:
        node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", ir.DataType.FLOAT)])
        self._graph.append(node)
        output = node.outputs[0]
        output.name, output.shape, output.dtype = value.name, value.shape, ir.DataType.FLOAT
        value.name = f"{value.name}.low"
        return output

    def _lower_inputs(self) -> None:
        """Give held inputs the lower type if no node reads them in float32."""
        for value in (value for value in self._graph.inputs if (value.name or "").startswith(_HELD)):
            users = [node for node, _ in value.uses() if node.op_type != "Shape"]
            cast = self._casts.get((value, self._low))
            if cast is not None and users == [cast.producer()]:
                value.dtype = self._low
                ir.convenience.replace_all_uses_with(cast, value)

    def _data(self, node: ir.Node) -> list[int]:
        """List the indices of a node's inputs that are data."""
        return [number for number in _DATA.get(node.op_type, range(len(node.inputs))) if number < len(node.inputs)]

    def _behind_products(self) -> set[ir.Node]:
        """Collect the nodes from which no path leads to a product; they only prepare outputs."""
        before: set[ir.Node] = set()
        for node in reversed(list(self._graph)):
            users: Iterator[ir.Node] = (user for value in node.outputs for user, _ in value.uses())
            if node.op_type in PRODUCTS or any(user in before for user in users):
                before.add(node)
        return {node for node in self._graph if node not in before}
