"""Rewrites linear layers as Gemm over flattened tokens.

The exporter writes a linear layer over three dimensions as MatMul with a transposed weight, and an Add. A Gemm takes
the weight as the state dict stores it, and adds the bias at no cost.
"""

from itertools import count

import numpy as np
import onnx_ir as ir


def linears_to_gemm(graph: ir.Graph, weights: set[str]) -> dict[str, tuple[str, int, int]]:
    """Rewrite every linear layer, in place.

    A layer whose output is split into equal parts, such as GEGLU's value and gate, becomes one Gemm per part: a Split
    copies, whereas the rows of a weight are separate in the file already.

    Args:
        graph: the graph, with weights as inputs.
        weights: names of the weights.

    Returns:
        New graph inputs that are rows of a weight: name -> (weight, first row, end).
    """
    builder = _Builder(graph)
    rows: dict[str, tuple[str, int, int]] = {}
    inputs = {value.name: value for value in graph.inputs}

    def part(value: ir.Value, first: int, end: int) -> ir.Value:
        name = f"{value.name}[{first}:{end}]"
        if name not in inputs:
            shape = ir.Shape((end - first, *(value.shape or ())[1:]))
            inputs[name] = ir.Value(name=name, shape=shape, type=value.type)
            graph.inputs.append(inputs[name])
            rows[name] = (value.name or "", first, end)
        return inputs[name]

    for node in list(graph):
        layer = _linear_layer(node, weights)
        if layer is None:
            continue
        x, operands, last = layer
        split = _even_split(last.outputs[0])
        if node.op_type == "Gemm" and split is None:
            continue
        outputs = list(split.outputs) if split else [last.outputs[0]]
        out_features, in_features = (int(n) for n in operands[0].shape or ())
        step = out_features // len(outputs)
        builder.before = split or last
        for i, output in enumerate(outputs):
            parts = [part(operand, i * step, (i + 1) * step) for operand in operands] if split else operands
            result = builder.linear(x, parts, in_features, step)
            result.shape, result.type = output.shape, output.type
            ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
        for old in dict.fromkeys((split, last, node)):
            if old is not None:
                graph.remove(old, safe=True)
    return rows


class _Builder:
    """Inserts nodes before `before`."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.before = graph[0]
        self._numbers = count()

    def node(self, op: str, inputs: list[ir.Value], attributes: dict[str, int | float] | None = None) -> ir.Value:
        attrs = [
            ir.AttrInt64(k, v) if isinstance(v, int) else ir.AttrFloat32(k, v) for k, v in (attributes or {}).items()
        ]
        node = ir.Node("", op, inputs, attrs)
        node.outputs[0].name = f"gemm.{next(self._numbers)}"
        self.graph.insert_before(self.before, node)
        return node.outputs[0]

    def integers(self, values: list[int]) -> ir.Value:
        tensor = ir.tensor(np.array(values, np.int64), name=f"gemm.{next(self._numbers)}")
        value = ir.Value(
            name=tensor.name, shape=tensor.shape, type=ir.TensorType(ir.DataType.INT64), const_value=tensor
        )
        self.graph.register_initializer(value)
        return value

    def linear(self, x: ir.Value, operands: list[ir.Value], in_features: int, out_features: int) -> ir.Value:
        """Apply a linear layer: (..., in) -> (..., out)."""
        if len(x.shape or ()) == 2:
            return self.node("Gemm", [x, *operands], {"transB": 1})
        flat = self.node("Reshape", [x, self.integers([-1, in_features])])
        flat.shape = ir.Shape((None, in_features))
        product = self.node("Gemm", [flat, *operands], {"transB": 1})
        leading = self.node("Shape", [x], {"start": 0, "end": -1})
        return self.node(
            "Reshape", [product, self.node("Concat", [leading, self.integers([out_features])], {"axis": 0})]
        )


def _linear_layer(node: ir.Node, weights: set[str]) -> tuple[ir.Value, list[ir.Value], ir.Node] | None:
    """Find the linear layer that begins at `node`: its input, its weight and optional bias, and its last node."""
    if node.op_type == "Gemm":
        x, *operands = node.inputs
        return (x, operands, node) if all(v is not None and v.name in weights for v in operands) else None
    if node.op_type != "MatMul":
        return None
    x, transposed = node.inputs
    transpose = transposed.producer() if transposed is not None else None
    weight = transpose.inputs[0] if transpose is not None and transpose.op_type == "Transpose" else None
    if x is None or weight is None or weight.name not in weights or len(weight.shape or ()) != 2:
        return None
    uses = list(node.outputs[0].uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add":
        bias = uses[0].node.inputs[1 - uses[0].idx]
        if bias is not None and bias.name in weights and len(bias.shape or ()) == 1:
            return x, [weight, bias], uses[0].node
    return x, [weight], node


def _even_split(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    if len(uses) != 1 or uses[0].node.op_type != "Split" or len(uses[0].node.inputs) > 1:
        return None
    split = uses[0].node
    rank = len(value.shape or ())
    return split if split.attributes["axis"].as_int() in (-1, rank - 1) else None
