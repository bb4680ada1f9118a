"""Group norms in an operator that ONNX Runtime's CUDA provider has a kernel for."""

from typing import Any

_ONE = "layer_norm.one"


def as_layer_norms(model: bytes) -> bytes:
    """A graph whose InstanceNormalization nodes are LayerNormalization over the same rows.

    The variant for ONNX Runtime has a group norm as InstanceNormalization of (batch, groups, rest), with a scale of 1
    and a shift of 0. The CUDA provider (onnxruntime-gpu 1.31.1) has that operator as it was before opset 22, which
    does not count: each norm would run on the CPU, with a copy there and back, and then no CUDA graph can be made. Its
    LayerNormalization is found, and sums up deviations from the mean, so that nothing cancels.

    Args:
        model: ONNX, its weights elsewhere.
    """
    import onnx
    from onnx import helper, numpy_helper

    proto = onnx.load_model_from_string(model)
    graph = proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}

    def has(name: str, number: float) -> bool:
        return name in constants and bool((numpy_helper.to_array(constants[name]) == number).all())

    nodes: list[Any] = []
    for node in graph.node:
        if node.op_type == "InstanceNormalization" and has(node.input[1], 1) and has(node.input[2], 0):
            (rows, *_), (made,) = node.input, node.output
            (epsilon,) = (each.f for each in node.attribute if each.name == "epsilon")
            length, scale = f"{made}.length", f"{made}.scale"
            nodes.append(helper.make_node("Shape", [rows], [length], start=2, end=3))
            nodes.append(helper.make_node("Expand", [_ONE, length], [scale]))
            nodes.append(helper.make_node("LayerNormalization", [rows, scale], [made], axis=-1, epsilon=epsilon))
        else:
            nodes.append(node)
    if len(nodes) == len(graph.node):
        return model
    graph.initializer.append(helper.make_tensor(_ONE, onnx.TensorProto.FLOAT, [1], [1.0]))
    del graph.node[:]
    graph.node.extend(nodes)
    return bytes(proto.SerializeToString(deterministic=True))
