"""Linear layers as Gemm over flattened tokens.

The exporter writes a linear layer over three dimensions as MatMul with a transposed weight and an Add. As Gemm it
takes the weight as the state dict has it, and the bias at no cost.
"""

from itertools import count

import numpy as np
import onnx_ir as ir


def linears_to_gemm(graph: ir.Graph, weights: set[str]) -> dict[str, tuple[str, int, int]]:
    """Rewrite every MatMul with a transposed weight, in place.

    A layer whose output is split into equal parts becomes one Gemm for each part (GEGLU's value and gate): a Split
    is a copy, while the rows of a weight are parts of the file already.

    Args:
        graph: weights are graph inputs.
        weights: their names.

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

    for matmul in [node for node in graph if node.op_type == "MatMul"]:
        x, turned = matmul.inputs
        transpose = turned.producer() if turned is not None else None
        if x is None or transpose is None or transpose.op_type != "Transpose":
            continue
        weight = transpose.inputs[0]
        if weight is None or weight.name not in weights or len(weight.shape or ()) != 2:
            continue
        last = matmul
        bias = _bias(matmul, weights)
        if bias is not None:
            last = next(iter(matmul.outputs[0].uses())).node
        out_features, in_features = (int(n) for n in weight.shape)
        split = _even_split(last.outputs[0])
        outputs = list(split.outputs) if split else [last.outputs[0]]
        step = out_features // len(outputs)
        before = split or last
        for i, output in enumerate(outputs):
            operands = [weight] if bias is None else [weight, bias]
            if split:
                operands = [part(operand, i * step, (i + 1) * step) for operand in operands]
            builder.before = before
            result = builder.linear(x, operands, in_features, step)
            result.shape, result.type = output.shape, output.type
            ir.convenience.replace_all_uses_with(output, result, replace_graph_outputs=True)
        for node in (split, last if last is not matmul else None, matmul):
            if node is not None:
                graph.remove(node, safe=True)
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
        """(..., in) -> (..., out)."""
        flat = self.node("Reshape", [x, self.integers([-1, in_features])])
        flat.shape = ir.Shape((None, in_features))
        product = self.node("Gemm", [flat, *operands], {"transB": 1})
        leading = self.node("Shape", [x], {"start": 0, "end": -1})
        return self.node(
            "Reshape", [product, self.node("Concat", [leading, self.integers([out_features])], {"axis": 0})]
        )


def _bias(matmul: ir.Node, weights: set[str]) -> ir.Value | None:
    uses = list(matmul.outputs[0].uses())
    if len(uses) != 1 or uses[0].node.op_type != "Add":
        return None
    other = uses[0].node.inputs[1 - uses[0].idx]
    return other if other is not None and other.name in weights and len(other.shape or ()) == 1 else None


def _even_split(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    if len(uses) != 1 or uses[0].node.op_type != "Split" or len(uses[0].node.inputs) > 1:
        return None
    split = uses[0].node
    rank = len(value.shape or ())
    return split if split.attributes["axis"].as_int() in (-1, rank - 1) else None
