"""Every graph is valid ONNX of operators and types that TensorRT's parser takes: as exported and as prepared for it.

What the parser takes is what its project publishes; nothing has been parsed here. Whole numbers are shapes, indices and
the timestep alone.
"""

import math
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from fye_engines.precision import LOW
from fye_engines.prepare import ATTENTIONS, Shapes, prepare
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


def full_size(folder: Path, name: str) -> Bundle:
    """A bundle with one graph of the full-size model, and without its weights."""
    config = ModelConfig()
    spec = graph_specs(config)[name]
    graph = onnx_graph.trace(spec, config)
    shapes = {value.name: tuple(value.shape) for value in graph.model.graph.inputs}
    rows = {tensor: 0 for tensor, _, _ in graph.rows.values()}
    for part, (tensor, first, end) in graph.rows.items():
        rows[tensor] = max(rows[tensor], end or first + shapes[part][0])
        shapes[tensor] = (rows[tensor], *shapes[part][1:])
    weights = {
        each: onnx_graph.Weight("float16", shapes[each], 0, 2 * math.prod(shapes[each])) for each in graph.weights
    }
    onnx_graph.save(graph, folder / f"{name}.onnx", "weights.safetensors", weights)
    inputs, outputs = (
        tuple(TensorSpec(each.name, each.dtype, each.shape) for each in tensors)
        for tensors in (spec.inputs, spec.outputs)
    )
    tiny = Bundle.load(shipped_bundles() / "tiny", verify=False)
    return replace(tiny, path=folder, graphs={name: Graph(name, f"{name}.onnx", {}, inputs, outputs)})


@pytest.mark.parametrize("graph", GRAPHS)
def test_exported_graphs_have_what_tensorrt_takes(graph: str, bundle: Bundle) -> None:
    assert refusals(exported(bundle, graph)) == []


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("graph", GRAPHS)
def test_prepared_graphs_have_what_tensorrt_takes(graph: str, precision: str, attention: str, bundle: Bundle) -> None:
    model = prepared(bundle, graph, precision, attention)
    assert refusals(model) == []
    assert attention == "fused" or "Attention" not in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(
    "graph", [pytest.param(graph, marks=[] if graph == SMALL else pytest.mark.full) for graph in GRAPHS]
)
def test_graphs_of_the_full_size_have_what_tensorrt_takes(graph: str, tmp_path: Path) -> None:
    bundle = full_size(tmp_path, graph)
    assert refusals(exported(bundle, graph)) == []
    for precision in LOW:
        for attention in ATTENTIONS:
            assert refusals(prepared(bundle, graph, precision, attention)) == []


def test_the_table_has_types_for_every_operator() -> None:
    kinds = {kind for entry in table()["operators"].values() for kind in entry["types"]}
    assert all(entry["types"] for entry in table()["operators"].values())
    assert set(NAMES.values()) <= kinds and kinds - set(NAMES.values()) == {"FP4", "FP8", "INT4", "INT8", "UINT8"}


def model(nodes: str, inputs: str = "", output: str = "float[a, b, c] y", opset: int = 23) -> onnx.ModelProto:
    """Nodes between x, timestep and y, in ONNX's textual form."""
    given = f"float[2, 3, 4] x, int64[1] timestep{inputs}"
    return onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {opset}]> graph ({given}) => ({output}) {{ {nodes} }}'
    )


@pytest.mark.parametrize(
    "right",
    [
        model("t = Cast<to = 1>(timestep) y = Mul(x, t)"),
        model("s = Shape(x) y = Expand(x, s)"),
        model("s = Shape(x) n = Mul(s, timestep) y = Expand(x, s)"),
        model("y = Attention<q_num_heads = 2, kv_num_heads = 2>(x, x, x)"),
    ],
)
def test_what_tensorrt_takes_is_let_through(right: onnx.ModelProto) -> None:
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
    ],
)
def test_what_tensorrt_does_not_take_is_found(wrong: onnx.ModelProto, reason: str) -> None:
    found = refusals(wrong)
    assert any(reason in each for each in found), found


def test_graphs_that_are_no_valid_onnx_are_refused() -> None:
    with pytest.raises(onnx.shape_inference.InferenceError):
        refusals(model("y = Add(x, z)", ", float16[2, 3, 4] z"))
