"""Graphs made fit for TensorRT say what the bundle's say, in the types that an engine shall compute in."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from fye_engines.attention import write_out_attention
from fye_engines.precision import EXACT, LOW, PRODUCTS, set_precision
from fye_rt.bundle import GRAPHS, Bundle, shipped_bundle, symbols
from fye_rt.errors import ExportError

FLOAT, FLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16
SIZES = symbols(frames=3, height=64, width=72)
STORED = ("mini", "golden_bundle")


@pytest.fixture(scope="module", params=STORED)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    """mini, whose weights are stored in float16, and the golden checkpoint's, in float32."""
    path = shipped_bundle() if request.param == "mini" else request.getfixturevalue(request.param)
    return Bundle.load(path, verify=False)


@pytest.fixture(scope="module")
def folder(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the weights: ONNX Runtime follows no link out of a model's folder."""
    made = tmp_path_factory.mktemp("graphs")
    shutil.copyfile(bundle.path / bundle.weights, made / bundle.weights)
    return made


def feeds(bundle: Bundle, graph: str, timestep: int = 999) -> dict[str, Any]:
    random = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for spec in bundle.graphs[graph].inputs:
        shape = [SIZES[size] if isinstance(size, str) else size for size in spec.shape]
        made[spec.name] = random.standard_normal(shape, dtype=np.float32)
    if "timestep" in made:
        made["timestep"] = np.array([timestep], np.int64)
    return made


def run(file: Path, given: dict[str, Any]) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options)
    kinds = {each.name: np.float16 if "float16" in each.type else None for each in session.get_inputs()}
    arrays = {name: array.astype(kinds[name] or array.dtype) for name, array in given.items()}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, arrays), strict=True))


def save(model: ir.Model, folder: Path) -> Path:
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value.base_dir = folder
    ir.save(model, folder / "graph.onnx")
    return folder / "graph.onnx"


def types_of(model: ir.Model) -> dict[str, onnx.TypeProto]:
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(model), check_type=True, strict_mode=True)
    values = (*proto.graph.input, *proto.graph.value_info, *proto.graph.output)
    return {value.name: value.type for value in values}


@pytest.mark.slow
@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_with_written_out_attention_computes_the_same(graph: str, bundle: Bundle, folder: Path) -> None:
    model = ir.load(bundle.file(graph))
    there = sum(node.op_type == "Attention" for node in model.graph)
    assert write_out_attention(model) == there and (there > 0) == (graph != "guider")
    assert not any(node.op_type == "Attention" for node in model.graph)
    given = feeds(bundle, graph)
    expected, made = run(bundle.file(graph), given), run(save(model, folder), given)
    assert made.keys() == expected.keys() == {spec.name for spec in bundle.graphs[graph].outputs}
    for name, array in expected.items():
        np.testing.assert_allclose(made[name], array, rtol=1e-4, atol=1e-5 * float(np.abs(array).max()))


# ONNX Runtime takes twenty seconds to open a denoiser in float16: one of four stands for all
OPENED = [(bundle, graph) for bundle in STORED for graph in GRAPHS if "denoiser" not in graph] + [("mini", "denoiser")]


@pytest.mark.slow
@pytest.mark.parametrize("written_out", [False, True], ids=["attention", "written out"])
@pytest.mark.parametrize(("bundle", "graph"), OPENED, indirect=["bundle"])
def test_a_float16_graph_computes_the_same_within_tolerance(
    graph: str, written_out: bool, bundle: Bundle, folder: Path
) -> None:
    model = ir.load(bundle.file(graph))
    if written_out:
        write_out_attention(model)
    set_precision(model, "fp16")
    given = feeds(bundle, graph)  # the first step, at which nothing but noise is left, included
    expected, made = run(bundle.file(graph), given), run(save(model, folder), given)
    assert made.keys() == expected.keys() == {spec.name for spec in bundle.graphs[graph].outputs}
    for name, array in expected.items():
        assert made[name].dtype == np.float32 and np.isfinite(made[name]).all()
        assert np.linalg.norm(made[name] - array) <= 1e-2 * np.linalg.norm(array)
        assert np.vdot(made[name], array) >= 0.999 * np.linalg.norm(made[name]) * np.linalg.norm(array)


@pytest.mark.slow
@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("graph", GRAPHS)
def test_matrix_products_have_low_precision_and_statistics_float32(graph: str, precision: str, bundle: Bundle) -> None:
    model = ir.load(bundle.file(graph))
    write_out_attention(model)
    set_precision(model, precision)
    types = types_of(model)
    stored = {name: value.dtype for name, value in model.graph.initializers.items()}

    def kind(value: ir.Value) -> ir.DataType:
        return stored.get(value.name) or ir.DataType(types[value.name].tensor_type.elem_type)

    products = 0
    for node in model.graph:
        kinds = {kind(value) for value in (*node.inputs, *node.outputs) if value is not None}
        if node.op_type in PRODUCTS:
            assert kinds == {LOW[precision]}, node
            products += 1
        elif node.op_type in EXACT:
            assert kinds == {FLOAT}, node
        elif node.op_type != "Cast":
            assert not {FLOAT, LOW[precision]} <= kinds - {ir.DataType.INT64} or node.op_type == "Resize", node
    assert products > 5
    assert [value.dtype for value in model.graph.outputs] == [FLOAT] * len(bundle.graphs[graph].outputs)
    for value in model.graph.inputs:
        held = graph.startswith("denoiser") and value.name not in ("latents", "timestep")
        assert value.dtype == (LOW[precision] if held else FLOAT if value.name != "timestep" else ir.DataType.INT64)


def test_float16_weights_are_read_without_casts() -> None:
    model = ir.load(Bundle.load(shipped_bundle(), verify=False).file("guider"))
    before = sum(node.op_type == "Cast" for node in model.graph)
    set_precision(model, "fp16")
    cast = [node.inputs[0].name for node in model.graph if node.op_type == "Cast"]
    assert before == 16 and cast == ["landmark_images", "landmark_features.low"]


def test_a_float32_graph_is_not_changed(bundle: Bundle) -> None:
    model = ir.load(bundle.file("guider"))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    set_precision(model, "fp32")
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_graph_with_a_chosen_precision_is_refused(bundle: Bundle) -> None:
    model = ir.load(bundle.file("guider"))
    set_precision(model, "fp16")
    with pytest.raises(ExportError, match="casts"):
        set_precision(model, "fp16")


@pytest.mark.parametrize("reason", ["is_causal", "mask", "kv_num_heads"])
def test_attention_that_cannot_be_written_out_is_refused(reason: str) -> None:
    values = [ir.Value(name=name, shape=ir.Shape((1, 4, 8)), type=ir.TensorType(FLOAT)) for name in "qkvm"]
    attributes = {"q_num_heads": 2, "kv_num_heads": 2}
    if reason != "mask":
        attributes[reason] = 1
    inputs = values if reason == "mask" else values[:3]
    node = ir.Node("", "Attention", inputs, [ir.AttrInt64(name, number) for name, number in attributes.items()])
    node.outputs[0].name = "attended"
    model = ir.Model(ir.Graph(values, node.outputs, nodes=[node], opset_imports={"": 23}), ir_version=10)
    with pytest.raises(ExportError, match="attended"):
        write_out_attention(model)
