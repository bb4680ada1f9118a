"""ONNX networks of a node or two, whose outputs are known."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper


def save(path: Path, nodes: Sequence[NodeProto], shape: Sequence[int | str], *constants: TensorProto) -> Path:
    """A network from the input "x", float32 of a shape, to the output "y"."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    returned = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "network", [given], [returned], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def mean_colour(path: Path, shape: Sequence[int | str]) -> Path:
    """Of pictures or videos (N, 3, ...): (N, 3)."""
    axes = numpy_helper.from_array(np.arange(2, len(shape)), "axes")
    return save(path, [helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)], shape, axes)


def pixels(path: Path, shape: Sequence[int | str]) -> Path:
    """All of them, as a row."""
    return save(path, [helper.make_node("Flatten", ["x"], ["y"])], shape)
