"""Putting nodes into an ONNX graph in place of others."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def node_before(
    graph: ir.Graph, before: ir.Node, op: str, inputs: Sequence[ir.Value], attributes: Sequence[ir.Attr] = ()
) -> ir.Value:
    """Insert a standard operator; returns its output."""
    node = ir.Node("", op, inputs, attributes)
    graph.insert_before(before, node)
    return node.outputs[0]


def constant(graph: ir.Graph, array: NDArray[Any]) -> ir.Value:
    """A new initializer."""
    number = len(graph.initializers)
    while f"constant_{number}" in graph.initializers:
        number += 1
    tensor = ir.tensor(array, name=f"constant_{number}")
    value = ir.Value(name=tensor.name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def int64s(graph: ir.Graph, *numbers: int) -> ir.Value:
    """A new initializer of whole numbers, int64 (n,)."""
    return constant(graph, np.array(numbers, np.int64))


def replace_node(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """Put `new` in the place of `old`; both have one output, which keeps its name."""
    graph.insert_before(old, new)
    value, successor = old.outputs[0], new.outputs[0]
    successor.name, successor.shape, successor.type = value.name, value.shape, value.type
    value.name = f"{value.name}.replaced"
    ir.convenience.replace_all_uses_with(value, successor, replace_graph_outputs=True)
    graph.remove(old, safe=True)
