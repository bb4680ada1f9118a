"""Every graph is valid ONNX of operators and types that TensorRT's parser takes: as exported and as prepared for it.

What the parser takes is what its project publishes; nothing has been parsed here. Whole numbers are shapes, indices and
the timestep alone.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fye_engines.attention import write_out_attention
from fye_engines.precision import LOW, set_precision
from fye_engines.prepare import ATTENTIONS, Shapes, prepare
from fye_engines.quantize import BASE, KINDS, places, quantize, stored
from fye_engines.quantize import GRAPHS as DENOISERS
from fye_export import onnx_graph
from fye_export.config import ModelConfig
from fye_export.graphs import graph_specs
from fye_rt.bundle import GRAPHS, Bundle, Graph, TensorSpec, shipped_bundles
from tests.fye_engines.operators import NAMES, refusals, table

SHIPPED = sorted(file.parent.name for file in shipped_bundles().glob("*/bundle.json"))
SHAPES = Shapes((1, 8, 24), (64, 64, 128), (64, 72, 128))
ATTENDED = "float[a, b, c, d] y"
SMALL = "guider"  # of the full size, what takes seconds to cut


@pytest.fixture(scope="module", params=[*SHIPPED, "golden"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    path = request.getfixturevalue("golden_bundle") if request.param == "golden" else shipped_bundles() / request.param
    return Bundle.load(path, verify=False)


def exported(bundle: Bundle, graph: str) -> onnx.ModelProto:
    return onnx.load(bundle.file(graph), load_external_data=False)


def prepared(bundle: Bundle, graph: str, precision: str, attention: str) -> onnx.ModelProto:
    return onnx.load_from_string(prepare(bundle, graph, SHAPES, precision, attention).onnx)


def quantized(bundle: Bundle, graph: str, kind: str, attention: str) -> onnx.ModelProto:
    """A graph with 8 bits wherever they are worth it, as a plan of a denoiser has them; its ranges are invented."""
    model = ir.load(bundle.file(graph))
    if attention == "written-out":
        write_out_attention(model)
    set_precision(model, BASE)
    ranges = {str(stored(node.inputs[0]).name): 4.0 for node in places(model)}
    assert quantize(model, ranges, kind) > 0 or graph not in DENOISERS
    return onnx.load_from_string(ir.to_proto(model).SerializeToString())


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
    weights = {each: onnx_graph.Weight("float16", shapes[each], 0, size) for each, size in sizes.items()}
    onnx_graph.save(graph, folder / f"{name}.onnx", "weights.safetensors", weights)
    with open(folder / "weights.safetensors", "wb") as file:
        file.truncate(max(sizes.values()))  # zeros that take no space; all begin at 0
    inputs = tuple(TensorSpec(each.name, each.dtype, each.shape) for each in spec.inputs)
    outputs = tuple(TensorSpec(each.name, each.dtype, each.shape) for each in spec.outputs)
    tiny = Bundle.load(shipped_bundles() / "tiny", verify=False)
    return replace(tiny, path=folder, graphs={name: Graph(name, f"{name}.onnx", {}, inputs, outputs)})


@pytest.mark.parametrize("graph", GRAPHS)
def test_exported_graphs_have_only_operators_of_tensorrt(graph: str, bundle: Bundle) -> None:
    assert refusals(exported(bundle, graph)) == []


@pytest.mark.slow
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("graph", GRAPHS)
def test_prepared_graphs_have_only_operators_of_tensorrt(
    graph: str, precision: str, attention: str, bundle: Bundle
) -> None:
    model = prepared(bundle, graph, precision, attention)
    assert refusals(model) == []
    assert attention == "fused" or "Attention" not in {node.op_type for node in model.graph.node}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "attention"), list(zip(KINDS, ATTENTIONS, strict=True)))
@pytest.mark.parametrize("graph", GRAPHS)
def test_quantized_graphs_have_only_operators_of_tensorrt(
    graph: str, kind: str, attention: str, bundle: Bundle
) -> None:
    assert refusals(quantized(bundle, graph, kind, attention)) == []


@pytest.mark.parametrize(
    "graph", [pytest.param(graph, marks=[] if graph == SMALL else pytest.mark.full) for graph in GRAPHS]
)
def test_full_size_graphs_have_only_operators_of_tensorrt(graph: str, tmp_path: Path) -> None:
    bundle = full_size(tmp_path, graph)
    assert refusals(exported(bundle, graph)) == []
    for precision in LOW:
        for attention in ATTENTIONS:
            assert refusals(prepared(bundle, graph, precision, attention)) == []
    for kind in KINDS:
        assert refusals(quantized(bundle, graph, kind, "written-out")) == []


def test_the_operator_table_has_types_for_every_operator() -> None:
    kinds = {kind for entry in table()["operators"].values() for kind in entry["types"]}
    assert all(entry["types"] for entry in table()["operators"].values())
    assert set(NAMES.values()) <= kinds and kinds - set(NAMES.values()) == {"FP4", "INT4", "UINT8"}


def model(nodes: str, inputs: str = "", output: str = "float[a, b, c] y", opset: int = 23) -> onnx.ModelProto:
    given = f"float[2, 3, 4] x, int64[1] timestep{inputs}"
    return onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {opset}]> graph ({given}) => ({output}) {{ {nodes} }}'
    )


def test_a_graph_that_is_no_valid_onnx_is_refused() -> None:
    with pytest.raises(onnx.shape_inference.InferenceError, match="Add"):
        refusals(model("y = Add(x, z)", ", float16[2, 3, 4] z"))


INT8, FP8, FLOAT16 = onnx.TensorProto.INT8, onnx.TensorProto.FLOAT8E4M3FN, onnx.TensorProto.FLOAT16


def pair(
    scale: object = 0.5,
    zero: object = 0,
    back: object | None = None,
    of: str = "x",
    low: int = INT8,
    high: int = onnx.TensorProto.FLOAT,
    axis: int = 1,
    given: tuple[str, ...] = (),
) -> onnx.ModelProto:
    """x or the weight w, (2, 3, 4), quantized and back; `given` are inputs, which initializers are else."""
    single = onnx.TensorProto.FLOAT
    arrays = {"w": (high, np.ones((2, 3, 4))), "scale": (high, scale), "zero": (low, zero)}
    arrays["back"] = (single, scale if back is None else back)
    tensors = {
        name: onnx.numpy_helper.from_array(
            np.asarray(numbers, np.float32).astype(onnx.helper.tensor_dtype_to_np_dtype(kind)), name
        )
        for name, (kind, numbers) in arrays.items()
    }
    nodes = [
        onnx.helper.make_node("QuantizeLinear", [of, "scale", "zero"], ["low"], axis=axis),
        onnx.helper.make_node("DequantizeLinear", ["low", "back", "zero"], ["y"], axis=axis),
    ]
    inputs = [onnx.helper.make_tensor_value_info("x", high, (2, 3, 4))]
    inputs += [onnx.helper.make_tensor_value_info(name, tensors[name].data_type, tensors[name].dims) for name in given]
    kept = [tensor for name, tensor in tensors.items() if name not in given]
    outputs = [onnx.helper.make_tensor_value_info("y", single, ("a", "b", "c"))]
    graph = onnx.helper.make_graph(nodes, "pair", inputs, outputs, kept)
    return onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 23)])


@pytest.mark.parametrize(
    "right",
    [
        model("t = Cast<to = 1>(timestep) y = Mul(x, t)"),
        model("s = Shape(x) y = Expand(x, s)"),
        model("s = Shape(x) n = Mul(s, timestep) y = Expand(x, s)"),
        model("y = Attention<q_num_heads = 2, kv_num_heads = 2>(x, x, x)"),
        pair(),
        pair(low=FP8),
        pair(high=FLOAT16),
        pair([0.5]),
        pair([0.5] * 3, [0] * 3, of="w"),
        pair([0.5] * 4, [0] * 4, of="w", axis=-1, low=FP8),
    ],
)
def test_a_graph_that_tensorrt_takes_is_accepted(right: onnx.ModelProto) -> None:
    assert refusals(right) == []


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (model("s = Shape(x) y = CenterCropPad(x, s)"), "CenterCropPad is not supported"),
        (model("y = Hardmax(x)"), "Hardmax has restrictions that no rule here knows"),
        (model("y = Relu(x)", opset=25), "opset 25 of ['']"),
        (model("d = Cast<to = 11>(x) y = Cast<to = 1>(d)"), "d is DOUBLE"),
        (model("y = Relu(x)", ", double[1] spare"), "spare is DOUBLE"),
        (model("y = Mish(z)", ", bfloat16[1] z", "bfloat16[a] y"), "Mish does not take BFLOAT16"),
        (model("s = Shape(x) y = Cast<to = 1>(s)", output="float[a] y"), "Cast makes floating-point numbers of INT64"),
        (model("s = Shape(x) m = MatMul(s, s) y = Expand(x, s)"), "MatMul does not take INT64"),
        (model("y = Relu(x)", ", int64[1] other"), "the input other is INT64"),
        (model("y = Shape(x)", output="int64[3] y"), "the output y is INT64"),
        (model("y, k = Attention<q_num_heads = 2, kv_num_heads = 2>(x, x, x)"), "Attention has 2 outputs"),
        (model("y = Attention<softcap = 2.0>(q, q, q)", ", float[1, 2, 3, 4] q", ATTENDED), "softcap=2.0"),
        (model("y = Attention(q, q, q, m)", ", float[1, 2, 3, 4] q, float[3, 3] m", ATTENDED), "Attention takes m"),
        (model("y = Unsqueeze(x, timestep)"), "the axes of Unsqueeze are computed"),
        (model('s = Shape(x) y = Resize<mode = "cubic">(x, , , s)'), "Resize has mode=cubic"),
        (model("y, m = LayerNormalization(x, z)", ", float[4] z"), "LayerNormalization has 2 outputs"),
        (pair(low=onnx.TensorProto.UINT8), "QuantizeLinear does not take UINT8, low"),
        (pair(low=onnx.TensorProto.FLOAT8E5M2), "low is FLOAT8E5M2"),
        (pair(high=onnx.TensorProto.INT32), "QuantizeLinear does not take INT32, x"),
        (pair(0.0), "the scale scale is not above 0"),
        (pair([0.5, float("inf"), 0.5], [0] * 3, of="w"), "the scale scale is not above 0"),
        (pair(back=-0.5), "the scale back is not above 0"),
        (pair(given=("scale",)), "the scale scale is computed"),
        (pair(given=("zero",)), "the zero point zero is computed"),
        (pair(zero=1), "the zero point zero is not 0 for each scale"),
        (pair(zero=1, low=FP8), "the zero point zero is not 0 for each scale"),
        (pair([0.5] * 3, of="w"), "the zero point zero is not 0 for each scale"),
        (pair([0.5] * 3, [0] * 3), "x is no weight, but has a scale for each channel"),
        (pair([0.5] * 4, [0] * 4, of="w"), "the scale scale is not one for each channel of w along axis 1"),
        (pair(np.full((2, 3, 1), 0.5), np.zeros((2, 3, 1)), of="w"), "is not one for each channel of w"),
    ],
)
def test_a_graph_that_tensorrt_does_not_take_is_refused(wrong: onnx.ModelProto, reason: str) -> None:
    found = refusals(wrong)
    assert any(reason in each for each in found), found


def test_a_scale_of_another_type_than_its_tensor_is_refused() -> None:
    made = pair()
    low = onnx.numpy_helper.from_array(np.array(0.5, np.float16), "scale")
    made.graph.initializer[1].CopyFrom(low)
    assert "the scale scale is FP16, and x FP32" in refusals(made)


def test_an_operator_that_takes_no_8_bits_is_refused() -> None:
    made = pair()
    made.graph.node.insert(1, onnx.helper.make_node("Relu", ["low"], ["relu"]))
    made.graph.node[2].input[0] = "relu"
    assert "Relu does not take INT8" in refusals(made)
