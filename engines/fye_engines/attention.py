"""Attention for engines: lets TensorRT decompose what it has no kernel for, or writes attention out.

TensorRT fails to build a network with an attention that none of its kernels takes, unless the attention is marked as
decomposable. Its ONNX parser reads the mark from an attribute that ONNX itself does not know, so it must not be in a
graph that ONNX Runtime opens.
"""

import onnx_ir as ir

from fye_export.rewrite import int64s, node_before, replace_node
from fye_rt.errors import ExportError

_DECOMPOSABLE = "TRT_decomposable"
# head sizes and types of TensorRT's kernels (its documentation of IAttention)
_FUSED_SIZES = range(16, 257, 8)
_FUSED_TYPES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def allow_decomposition(model: ir.Model) -> list[int]:
    """Mark every Attention of a typed model as decomposable, in place.

    Returns:
        The head size of each Attention that TensorRT has no kernel for, and therefore decomposes.
    """
    decomposed = []
    for node in (node for node in model.graph if node.op_type == "Attention"):
        node.attributes[_DECOMPOSABLE] = ir.AttrInt64(_DECOMPOSABLE, 1)
        _, size = _heads(node)
        if node.outputs[0].dtype not in _FUSED_TYPES or size not in _FUSED_SIZES:
            decomposed.append(size)
    return decomposed


def write_out_attention(model: ir.Model) -> int:
    """Replace every Attention of an opset 23 model by MatMul, Softmax and MatMul, in place; returns their number.

    Queries are scaled before the product with the keys, so that float16 scores get no larger than the softmax needs.
    Attention is over (batch, tokens, heads x width) with a known last dimension, or over (batch, heads, tokens, width),
    without mask, cache, soft cap or causality.

    Raises:
        ExportError: an Attention is of another kind.
    """
    nodes = [node for node in model.graph if node.op_type == "Attention"]
    for node in nodes:
        _write_out(model.graph, node)
    return len(nodes)


def _write_out(graph: ir.Graph, node: ir.Node) -> None:
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    plain = not attributes.get("is_causal") and not attributes.get("softcap") and len(node.outputs) == 1
    if not plain or any(value is not None for value in node.inputs[3:]):
        raise ExportError(
            f"the attention that makes {node.outputs[0].name} has a mask, a cache, a soft cap or causality; "
            "use attention='fused'"
        )
    query, key, value = (operand for operand in node.inputs[:3] if operand is not None)
    heads, width = _heads(node)
    if heads:
        split = int64s(graph, 0, 0, heads, width)
        query, key, value = (node_before(graph, node, "Reshape", [operand, split]) for operand in (query, key, value))
    to_heads, to_columns = ([0, 2, 1, 3], [0, 2, 3, 1]) if heads else (None, [0, 1, 3, 2])

    def transpose(operand: ir.Value, order: list[int] | None) -> ir.Value:
        if order is None:
            return operand
        return node_before(graph, node, "Transpose", [operand], [ir.AttrInt64s("perm", order)])

    scale = float(attributes.get("scale") or width**-0.5)
    query = node_before(graph, node, "Mul", [transpose(query, to_heads), _number(graph, scale)])
    key = transpose(key, to_columns)
    scores = node_before(graph, node, "MatMul", [query, key])
    shares = node_before(graph, node, "Softmax", [scores], [ir.AttrInt64("axis", -1)])
    if not heads:
        replace_node(graph, node, ir.Node("", "MatMul", [shares, value]))
        return
    attended = transpose(node_before(graph, node, "MatMul", [shares, transpose(value, to_heads)]), to_heads)
    replace_node(graph, node, ir.Node("", "Reshape", [attended, int64s(graph, 0, 0, heads * width)]))


def _heads(node: ir.Node) -> tuple[int, int]:
    """Return the number of heads, 0 if they are a dimension of the inputs, and the size of a head."""
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    heads, shape = int(attributes.get("q_num_heads", 0)), node.inputs[0].shape if node.inputs[0] is not None else None
    if heads != int(attributes.get("kv_num_heads", 0)) or shape is None or not isinstance(shape[-1], int):
        raise ExportError(
            f"the attention that makes {node.outputs[0].name} has other heads for keys, or no known width"
        )
    return heads, shape[-1] // (heads or 1)


def _number(graph: ir.Graph, number: float) -> ir.Value:
    name = f"attention_scale_{number:.9g}"
    if name not in graph.initializers:
        tensor = ir.tensor(number, ir.DataType.FLOAT, name=name)
        graph.register_initializer(
            ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        )
    return graph.initializers[name]
