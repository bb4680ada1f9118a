"""What TensorRT's ONNX parser takes, as its project publishes it, and what a graph has that it does not take.

The table is tests/data/onnx_tensorrt/operators.json. It gives types by operator: they are held against an operator's
data, not against what ONNX has for integers alone, such as a shape or an axis. Restrictions are sentences: `_RULES` has
what they say for the operators that graphs have, and one without a rule is refused.

Of QuantizeLinear and DequantizeLinear the table gives the type of the first input: that of the one is the output's of
the other. What TensorRT wants of their scales and zero points stands beside the table.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

TABLE = Path(__file__).resolve().parents[1] / "data" / "onnx_tensorrt" / "operators.json"
NAMES = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
    TensorProto.INT8: "INT8",
    TensorProto.FLOAT8E4M3FN: "FP8",
}
_INTEGERS = {"tensor(int32)", "tensor(int64)"}
_TIME = "timestep"
_PAIR = ("QuantizeLinear", "DequantizeLinear")


@cache
def table() -> dict[str, Any]:
    return dict(json.loads(TABLE.read_text()))


def without_weights(model: ModelProto) -> ModelProto:
    """The model with its weights as inputs: checkers need no numbers, and look for no file."""
    made = ModelProto()
    made.CopyFrom(model)
    stored = [each for each in made.graph.initializer if each.data_location == TensorProto.EXTERNAL]
    made.graph.input.extend(helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in stored)
    kept = [each for each in made.graph.initializer if each.data_location != TensorProto.EXTERNAL]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    return made


def refusals(model: ModelProto) -> list[str]:
    """Why TensorRT would not take a model, or not compute it as it is meant.

    Raises:
        onnx.checker.ValidationError, onnx.shape_inference.InferenceError: it is no valid ONNX.
    """
    bare = without_weights(model)
    onnx.checker.check_model(bare)
    inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True)  # the rest of a full check
    return sorted(set(_Graph(inferred, {each.name for each in model.graph.initializer}).refusals()))


@dataclass(eq=False)
class _Graph:
    """A model whose shapes are inferred."""

    model: ModelProto  # without weights
    constants: set[str]  # names of its initializers, weights included

    def __post_init__(self) -> None:
        graph = self.model.graph
        values: list[ValueInfoProto] = [*graph.input, *graph.value_info, *graph.output]
        self.types = {each.name: each.type.tensor_type.elem_type for each in values}
        self.types |= {each.name: each.data_type for each in graph.initializer}
        self.shapes = {
            each.name: [dim.dim_value for dim in each.type.tensor_type.shape.dim]  # 0: not known
            for each in values
            if each.type.tensor_type.HasField("shape")
        }
        self.shapes |= {each.name: list(each.dims) for each in graph.initializer}
        self.ranks = {name: len(shape) for name, shape in self.shapes.items()}
        self.numbers = {each.name: each for each in graph.initializer}
        self.weights = set(self.constants)
        for node in graph.node:
            if node.op_type in (*_PAIR, "Cast") and node.input[0] in self.weights:
                self.weights.update(node.output)
        self.opset = next((each.version for each in self.model.opset_import if not each.domain), 0)

    def refusals(self) -> Iterator[str]:
        first, last = table()["opsets"]
        if [each.domain for each in self.model.opset_import] != [""] or not first <= self.opset <= last:
            yield f"opset {self.opset} of {[each.domain for each in self.model.opset_import]}"
        if self.model.functions:
            yield "it has functions"
        yield from self._types()
        time = {_TIME}
        for node in self.model.graph.node:
            if node.domain or node.op_type not in table()["operators"]:
                yield f"{node.domain}.{node.op_type} is not supported".removeprefix(".")
            elif any(each.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for each in node.attribute):
                yield f"{node.op_type} has a graph of its own"
            else:
                yield from self._node(node, time)
            if any(name in time for name in node.input):
                time.update(name for name in node.output if self.types.get(name) == TensorProto.INT64)

    def _types(self) -> Iterator[str]:
        for name, kind in self.types.items():
            if kind not in NAMES:
                yield f"{name} is {TensorProto.DataType.Name(kind)}"
        for node in self.model.graph.node:
            for name in node.output:
                if name and not self.types.get(name):
                    yield f"the type of {name}, from {node.op_type}, cannot be told"
        for each in self.model.graph.input:
            if self.types[each.name] == TensorProto.INT64 and each.name not in self.constants | {_TIME}:
                yield f"the input {each.name} is INT64"
        for each in self.model.graph.output:
            if self.types[each.name] == TensorProto.INT64:
                yield f"the output {each.name} is INT64"

    def _node(self, node: NodeProto, time: set[str]) -> Iterator[str]:
        entry = table()["operators"][node.op_type]
        if node.op_type not in _PAIR:
            yield from self._kinds(node, time, entry["types"])
        if "restrictions" in entry:
            rule = _RULES.get(node.op_type)
            yield from rule(self, node) if rule else [f"{node.op_type} has restrictions that no rule here knows"]

    def _kinds(self, node: NodeProto, time: set[str], taken: Sequence[str]) -> Iterator[str]:
        formal = _whole_only(node.op_type, self.opset)
        data = [name for number, name in enumerate(node.input) if name and not formal[min(number, len(formal) - 1)]]
        kinds = {self.types.get(name, 0) for name in (*data, *node.output) if name}
        for kind in sorted(kinds):
            if NAMES.get(kind) not in taken:
                yield f"{node.op_type} does not take {TensorProto.DataType.Name(kind)}"
        whole = [name for name in data if self.types.get(name) == TensorProto.INT64]
        floating = [name for name in node.output if self.types.get(name) not in (TensorProto.INT64, TensorProto.BOOL)]
        if whole and floating and not (node.op_type == "Cast" and set(whole) <= time):
            yield f"{node.op_type} makes floating-point numbers of INT64, {whole[0]}"

    def kind(self, name: str) -> str:
        kind = self.types.get(name, 0)
        return NAMES.get(kind, TensorProto.DataType.Name(kind))

    def stored(self, name: str) -> NDArray[Any] | None:
        """The numbers of an initializer that lies in the model itself."""
        return numpy_helper.to_array(self.numbers[name]) if name in self.numbers else None


@cache
def _whole_only(operator: str, opset: int) -> list[bool]:
    """Which inputs ONNX has for integers alone; the last may be given several times."""
    return [set(each.types) <= _INTEGERS for each in onnx.defs.get_schema(operator, opset, "").inputs]


def _attributes(node: NodeProto) -> Mapping[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _attention(graph: _Graph, node: NodeProto) -> Iterator[str]:
    given, ranks = _attributes(node), [graph.ranks.get(name) for name in node.input[:3]]
    if len(node.output) != 1:
        yield f"Attention has {len(node.output)} outputs"
    if ranks != [4] * 3 and not (ranks == [3] * 3 and given.get("q_num_heads") and given.get("kv_num_heads")):
        yield f"Attention of ranks {ranks}, with {sorted(given)}"
    if any(node.input[4:]) or (any(node.input[3:4]) and graph.ranks.get(node.input[3]) != 4):
        yield f"Attention takes {', '.join(node.input[3:])}"
    for name in ("qk_matmul_output_mode", "softcap", "softmax_precision"):
        if given.get(name):
            yield f"Attention has {name}={given[name]}"


def _resize(graph: _Graph, node: NodeProto) -> Iterator[str]:
    given = {name: each.decode() if isinstance(each, bytes) else each for name, each in _attributes(node).items()}
    coordinates = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")
    allowed = {
        "coordinate_transformation_mode": coordinates,
        "mode": ("nearest", "linear"),
        "nearest_mode": ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"),
        "keep_aspect_ratio_policy": ("stretch",),
        "antialias": (0,),
    }
    for name, values in allowed.items():
        if name in given and given[name] not in values:
            yield f"Resize has {name}={given[name]}"
    if "axes" in given and any(node.input[2:3]) and given["axes"] != list(range(graph.ranks.get(node.input[0], 0))):
        yield f"Resize has axes={given['axes']}"


def _only_one_output(graph: _Graph, node: NodeProto) -> Iterator[str]:
    if any(node.output[1:]):
        yield f"{node.op_type} has {len(node.output)} outputs"


def _constant_axes(graph: _Graph, node: NodeProto) -> Iterator[str]:
    if any(name not in graph.constants for name in node.input[1:]):
        yield f"the axes of {node.op_type} are computed"


def _pair(graph: _Graph, node: NodeProto) -> Iterator[str]:
    entries = table()["operators"]
    (value, scale), zero, (made,) = node.input[:2], "".join(node.input[2:]), node.output
    high, low = (value, made) if node.op_type == "QuantizeLinear" else (made, value)
    for name, first in ((high, "QuantizeLinear"), (scale, "QuantizeLinear"), (low, "DequantizeLinear")):
        if graph.kind(name) not in entries[first]["types"]:
            yield f"{node.op_type} does not take {graph.kind(name)}, {name}"
    if graph.kind(scale) != graph.kind(high):
        yield f"the scale {scale} is {graph.kind(scale)}, and {high} {graph.kind(high)}"
    scales, zeros = graph.stored(scale), graph.stored(zero)
    if scales is None:
        yield f"the scale {scale} is computed"
        return
    if not scales.size or not (np.isfinite(scales) & (scales > 0)).all():
        yield f"the scale {scale} is not above 0"
    if zero and zeros is None:
        yield f"the zero point {zero} is computed"
    elif zeros is not None and (zeros.size != scales.size or zeros.astype(np.float32).any()):
        yield f"the zero point {zero} is not 0 for each scale"
    if scales.size != 1:
        axis = _attributes(node).get("axis", 1)
        if scales.ndim != 1 or graph.shapes.get(value, [])[axis:][:1] != [scales.size]:
            yield f"the scale {scale} is not one for each channel of {value} along axis {axis}"
        elif value not in graph.weights:
            yield f"{value} is no weight, but has a scale for each channel"


_RULES: dict[str, Callable[[_Graph, NodeProto], Iterator[str]]] = {
    "Attention": _attention,
    "DequantizeLinear": _pair,
    "LayerNormalization": _only_one_output,
    "QuantizeLinear": _pair,
    "Resize": _resize,
    "Squeeze": _constant_axes,
    "Unsqueeze": _constant_axes,
}
