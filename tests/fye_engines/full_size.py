"""Graphs of the full-size model, without its weights."""

import math
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from fye_export import onnx_graph
from fye_export.config import ModelConfig
from fye_export.graphs import graph_specs
from fye_rt.bundle import Bundle, Graph, TensorSpec, shipped_bundles


def full_size(folder: Path, name: str) -> Bundle:
    """A bundle with one graph of the full-size model; its weights are 0."""
    config = ModelConfig()
    spec = graph_specs(config)[name]
    graph = onnx_graph.trace(spec, config)
    shapes = {value.name: tuple(value.shape) for value in graph.model.graph.inputs}
    rows = {tensor: 0 for tensor, _, _ in graph.rows.values()}
    for part, (tensor, first, end) in graph.rows.items():
        rows[tensor] = max(rows[tensor], end or first + shapes[part][0])
        shapes[tensor] = (rows[tensor], *shapes[part][1:])
    sizes = {each: 2 * math.prod(shapes[each]) for each in graph.weights}
    ends = dict(zip(sizes, accumulate(sizes.values()), strict=True))  # the parser wants every tensor at its own address
    weights = {
        each: onnx_graph.Weight("float16", shapes[each], ends[each] - size, size) for each, size in sizes.items()
    }
    onnx_graph.save(graph, folder / f"{name}.onnx", "weights.safetensors", weights)
    with open(folder / "weights.safetensors", "wb") as file:
        file.truncate(sum(sizes.values()))  # zeros that take no space
    inputs = tuple(TensorSpec(each.name, each.dtype, each.shape) for each in spec.inputs)
    outputs = tuple(TensorSpec(each.name, each.dtype, each.shape) for each in spec.outputs)
    tiny = Bundle.load(shipped_bundles() / "tiny", verify=False)
    return replace(tiny, path=folder, graphs={name: Graph(name, f"{name}.onnx", {}, inputs, outputs)})
