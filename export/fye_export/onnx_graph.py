"""Cuts a graph as an ONNX model that refers to its weights by name.

Tracing uses fake tensors, so that cutting the full-size model takes a few hundred megabytes. Every graph points into
the bundle's weights.safetensors, which holds the numbers.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import optimizer
from torch._subclasses import FakeTensorMode

from fye_export.config import ModelConfig
from fye_export.graphs import GraphSpec
from fye_export.linear import linears_to_gemm
from fye_export.networks import build
from fye_rt.bundle import symbols
from fye_rt.errors import ExportError

OPSET = 23
DTYPES = {"float16": ir.DataType.FLOAT16, "float32": ir.DataType.FLOAT, "int64": ir.DataType.INT64}
# All unequal, so that tracing cannot mistake one symbolic dimension for another or for a constant
_TRACED = {"frames": 5, "height": 96, "width": 160}


@dataclass(frozen=True, slots=True)
class Weight:
    """Location of a tensor in weights.safetensors."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int

    def rows(self, first: int, end: int | None) -> "Weight":
        """Locate some of its rows, which are contiguous in the file."""
        end = self.shape[0] if end is None else end
        row = self.length // self.shape[0]
        return Weight(self.dtype, (end - first, *self.shape[1:]), self.offset + first * row, (end - first) * row)


@dataclass(frozen=True, slots=True)
class Graph:
    """An ONNX model without weights.

    Attributes:
        model: the model; weights are graph inputs under their names, to be bound by `save`.
        weights: names of the tensors that the model reads from weights.safetensors.
        rows: inputs of the model that are some rows of such a tensor: name -> (tensor, first row, end).
    """

    model: ir.Model
    weights: tuple[str, ...]
    rows: Mapping[str, tuple[str, int, int]]


def trace(spec: GraphSpec, config: ModelConfig) -> Graph:
    """Cut one graph out of freshly built networks, at opset 23, with symbolic frames, height and width."""
    with FakeTensorMode(), _quiet():
        module = spec.module(*(build(config, name) for name in spec.networks)).eval().requires_grad_(False)
        sizes = symbols(**_TRACED)
        inputs, dynamic = [], []
        for tensor in spec.inputs:
            shape = [sizes[d] if isinstance(d, str) else d for d in tensor.shape]
            inputs.append(torch.zeros(shape, dtype=getattr(torch, tensor.dtype)))
            dynamic.append({i: torch.export.Dim.AUTO for i, d in enumerate(tensor.shape) if isinstance(d, str)})
        program = torch.onnx.export(
            module,
            tuple(inputs),
            dynamo=True,
            opset_version=OPSET,
            optimize=False,
            dynamic_shapes=_match_signature(spec, dynamic),
            verbose=False,
        )
    if program is None:
        raise ExportError(f"PyTorch did not export {spec.name}")
    model = program.model
    graph = model.graph
    weights = set(_weights_to_inputs(graph))
    optimizer.inline(model)
    optimizer.fold_constants(model)
    rows = linears_to_gemm(graph, weights)
    tidy(model)
    used = {value.name for value in graph.inputs if value.name in weights | set(rows) and value.uses()}
    graph.inputs[:] = [*graph.inputs[: len(spec.inputs)], *(v for v in graph.inputs if v.name in used)]
    frames = _frames_symbol(graph, spec)
    _set_signature(graph, spec)
    _remove_tracing_data(model, frames)
    rows = {name: source for name, source in rows.items() if name in used}
    tensors = (used - set(rows)) | {source[0] for source in rows.values()}
    return Graph(model, tuple(sorted(tensors)), rows)


def tidy(model: ir.Model) -> None:
    """Remove unused nodes, merge equal initializers and nodes, and turn constants into initializers."""
    ir.passes.Sequential(
        ir.passes.common.RemoveUnusedNodesPass(),
        ir.passes.common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        ir.passes.common.DeduplicateInitializersPass(),
        ir.passes.common.CommonSubexpressionEliminationPass(),
    )(model)


def save(graph: Graph, path: Path, weights_file: str, weights: Mapping[str, Weight]) -> None:
    """Write the model, whose weights point into `weights_file` (the name of a file beside `path`).

    Weights stored as float16 pass through a Cast, which engines fold when they load the model.
    """
    model = graph.model.clone()
    casts: list[ir.Node] = []
    for value in list(model.graph.inputs):
        name, first, end = graph.rows.get(value.name, (value.name, 0, None))
        if name not in graph.weights:
            continue
        weight = weights[name].rows(first, end)
        tensor = ir.ExternalTensor(
            weights_file,
            weight.offset,
            weight.length,
            DTYPES[weight.dtype],
            shape=ir.Shape(weight.shape),
            name=value.name,
            base_dir=path.parent,
        )
        stored = ir.Value(name=value.name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        model.graph.inputs.remove(value)
        if weight.dtype == "float16":
            cast = ir.Node("", "Cast", [stored], [ir.AttrInt64("to", ir.DataType.FLOAT)])
            cast.outputs[0].name = f"weight.{len(casts)}"
            casts.append(cast)
            ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        else:
            ir.convenience.replace_all_uses_with(value, stored)
        model.graph.register_initializer(stored)
    model.graph.insert_before(model.graph[0], casts)
    ir.save(model, path)


def _match_signature(spec: GraphSpec, dynamic: list[dict[int, Any]]) -> tuple[Any, ...]:
    """Nest the dimensions of the portrait, which the denoiser takes as *args, in one tuple for torch.export."""
    plain = 3 if spec.name.startswith("denoiser") else len(dynamic)
    return (*dynamic[:plain], tuple(dynamic[plain:])) if plain < len(dynamic) else tuple(dynamic)


def _weights_to_inputs(graph: ir.Graph) -> list[str]:
    """Turn initializers into inputs, so that the optimizer does not look for numbers, which fake tensors lack."""
    names = list(graph.initializers)
    for name in names:
        value = graph.initializers.pop(name)
        value.const_value = None
        graph.inputs.append(value)
    return names


def _set_signature(graph: ir.Graph, spec: GraphSpec) -> None:
    """Give inputs and outputs the names, symbolic shapes and types of the specification."""
    for values, tensors in ((graph.inputs, spec.inputs), (graph.outputs, spec.outputs)):
        for value, tensor in zip(values, tensors, strict=False):
            value.name = tensor.name
            value.shape = ir.Shape(tensor.shape)
            value.dtype = DTYPES[tensor.dtype]


def _frames_symbol(graph: ir.Graph, spec: GraphSpec) -> object:
    """Return the symbol that tracing gave the number of frames; None if the graph has no frames."""
    for value, tensor in zip(graph.inputs, spec.inputs, strict=False):
        if "frames" in tensor.shape:
            return value.shape[tensor.shape.index("frames")]
    return None


def _remove_tracing_data(model: ir.Model, frames: object) -> None:
    """Remove stack traces and inferred shapes: they make up most of the file, and engines infer their own.

    Attention keeps its widths, which ONNX's own shape inference would otherwise take for 0, and the name of the frames,
    which identifies temporal attention.
    """
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.producer_name = "fye-rt"
    model.producer_version = None
    interface = {id(v) for v in (*model.graph.inputs, *model.graph.outputs)}
    attended = {id(v) for node in model.graph if node.op_type == "Attention" for v in (*node.inputs, *node.outputs)}
    for node in model.graph:
        node.metadata_props.clear()
        node.name = None  # engines assign their own
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if id(value) in attended:
                value.shape = ir.Shape(
                    d if isinstance(d, int) else "frames" if d == frames else None for d in value.shape
                )
            elif id(value) not in interface:
                value.shape, value.type = None, None
    for value in model.graph.inputs:
        value.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings, which concern packages and internals and not the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
