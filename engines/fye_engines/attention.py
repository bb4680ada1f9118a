"""Attention written out, for engines that don't take the operator or fuse it badly."""

import onnx_ir as ir

from fye_export.rewrite import int64s, node_before, replace_node
from fye_rt.errors import ExportError


def write_out_attention(model: ir.Model) -> int:
    """Replace every Attention by MatMul, Softmax and MatMul.

    Queries are scaled before they meet the keys, so that in float16 no score is larger than the softmax needs it.

    Args:
        model: opset 23; changed in place. Attention is over (batch, tokens, heads x width), whose last dimension is
            known, or over (batch, heads, tokens, width); without mask, cache, soft cap and causality.

    Returns:
        How many there were.

    Raises:
        ExportError: an Attention of another kind.
    """
    found = [node for node in model.graph if node.op_type == "Attention"]
    for node in found:
        _write_out(model.graph, node)
    return len(found)


def _write_out(graph: ir.Graph, node: ir.Node) -> None:
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    plain = not attributes.get("is_causal") and not attributes.get("softcap") and len(node.outputs) == 1
    if not plain or any(value is not None for value in node.inputs[3:]):
        raise ExportError(
            f"the attention that makes {node.outputs[0].name} has a mask or a cache; it cannot be lowered"
        )
    query, key, value = (given for given in node.inputs[:3] if given is not None)
    heads = int(attributes.get("q_num_heads", 0))
    if heads != int(attributes.get("kv_num_heads", 0)) or query.shape is None or not isinstance(query.shape[-1], int):
        raise ExportError(
            f"the attention that makes {node.outputs[0].name} has other heads for keys, or no known width"
        )
    width = query.shape[-1] // (heads or 1)
    if heads:
        split = int64s(graph, 0, 0, heads, width)
        query, key, value = (node_before(graph, node, "Reshape", [given, split]) for given in (query, key, value))
    to_heads, to_columns = ([0, 2, 1, 3], [0, 2, 3, 1]) if heads else (None, [0, 1, 3, 2])

    def turned(given: ir.Value, order: list[int] | None) -> ir.Value:
        if order is None:
            return given
        return node_before(graph, node, "Transpose", [given], [ir.AttrInt64s("perm", order)])

    scale = float(attributes.get("scale") or width**-0.5)
    query = node_before(graph, node, "Mul", [turned(query, to_heads), _number(graph, scale)])
    key = turned(key, to_columns)
    scores = node_before(graph, node, "MatMul", [query, key])
    shares = node_before(graph, node, "Softmax", [scores], [ir.AttrInt64("axis", -1)])
    if not heads:
        replace_node(graph, node, ir.Node("", "MatMul", [shares, value]))
        return
    attended = turned(node_before(graph, node, "MatMul", [shares, turned(value, to_heads)]), to_heads)
    replace_node(graph, node, ir.Node("", "Reshape", [attended, int64s(graph, 0, 0, heads * width)]))


def _number(graph: ir.Graph, number: float) -> ir.Value:
    """An initializer that all who need the number share, float32 ()."""
    name = f"attention_scale_{number:.9g}"
    if name not in graph.initializers:
        tensor = ir.tensor(number, ir.DataType.FLOAT, name=name)
        graph.register_initializer(
            ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        )
    return graph.initializers[name]
