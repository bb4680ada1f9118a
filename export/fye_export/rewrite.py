"""Inserts and replaces nodes in ONNX graphs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def node_before(
    graph: ir.Graph, before: ir.Node, op: str, inputs: Sequence[ir.Value], attributes: Sequence[ir.Attr] = ()
) -> ir.Value:
    """Insert a standard operator before a node; returns its output."""
    node = ir.Node("", op, inputs, attributes)
    graph.insert_before(before, node)
    return node.outputs[0]


def constant(graph: ir.Graph, array: NDArray[Any]) -> ir.Value:
    """Add an initializer with an unused name."""
    number = len(graph.initializers)
    while f"constant_{number}" in graph.initializers:
        number += 1
    tensor = ir.tensor(array, name=f"constant_{number}")
    value = ir.Value(name=tensor.name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def int64s(graph: ir.Graph, *numbers: int) -> ir.Value:
    """Add an initializer of integers, int64 (n,)."""
    return constant(graph, np.array(numbers, np.int64))


def replace_node(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """Replace `old` by `new`; each has one output, whose name stays the same."""
    graph.insert_before(old, new)
    value, successor = old.outputs[0], new.outputs[0]
    successor.name, successor.shape, successor.type = value.name, value.shape, value.type
    value.name = f"{value.name}.replaced"
    ir.convenience.replace_all_uses_with(value, successor, replace_graph_outputs=True)
    graph.remove(old, safe=True)
