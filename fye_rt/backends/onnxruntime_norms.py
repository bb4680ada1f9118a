"""Rewrites group norms to an operator that ONNX Runtime's CUDA provider has a kernel for."""

from typing import Any

_ONE = "layer_norm.one"


def as_layer_norms(model: bytes) -> bytes:
    """Replace InstanceNormalization nodes by LayerNormalization over the same rows.

    In the variant for ONNX Runtime a group norm is an InstanceNormalization of (batch, groups, rest), with a scale of 1
    and a shift of 0. The CUDA provider (onnxruntime-gpu 1.31.1) has only the version of that operator before opset 22,
    which does not match: each norm would run on the CPU, with a copy there and back, and rule out a CUDA graph. The
    provider's LayerNormalization does match, and sums deviations from the mean, so nothing cancels.

    Args:
        model: serialized ONNX model with external weights.
    """
    import onnx
    from onnx import helper, numpy_helper

    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}

    def equals(name: str, number: float) -> bool:
        return name in constants and bool((numpy_helper.to_array(constants[name]) == number).all())

    nodes: list[Any] = []
    for node in graph.node:
        if node.op_type == "InstanceNormalization" and equals(node.input[1], 1) and equals(node.input[2], 0):
            (rows, *_), (normed,) = node.input, node.output
            (epsilon,) = (attribute.f for attribute in node.attribute if attribute.name == "epsilon")
            length, scale = f"{normed}.length", f"{normed}.scale"
            nodes.append(helper.make_node("Shape", [rows], [length], start=2, end=3))
            nodes.append(helper.make_node("Expand", [_ONE, length], [scale]))
            nodes.append(helper.make_node("LayerNormalization", [rows, scale], [normed], axis=-1, epsilon=epsilon))
        else:
            nodes.append(node)
    if len(nodes) == len(graph.node):
        return model
    graph.initializer.append(helper.make_tensor(_ONE, onnx.TensorProto.FLOAT, [1], [1.0]))
    del graph.node[:]
    graph.node.extend(nodes)
    return bytes(proto.SerializeToString(deterministic=True))
