"""The .onnx files of a bundle are what docs/reference/bundle.md says."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from safetensors import safe_open

from fye_export.checkpoint import Checkpoint
from fye_export.graphs import graph_specs
from fye_rt.bundle import GRAPHS, Bundle, symbols

LOWERED = [graph for graph in GRAPHS if graph != "image_encoder"]  # CLIP's few tokens suit every engine as they are
FILES = [f"{graph}.onnx" for graph in GRAPHS] + [f"{graph}.onnxruntime.onnx" for graph in LOWERED]
SELF, CROSS, TEMPORAL = 16, 16, 42  # attentions of the denoiser; twice as many of the first with guidance


@pytest.fixture(scope="module")
def bundle(golden_bundle: Path) -> Bundle:
    return Bundle.load(golden_bundle)


@pytest.fixture(scope="module")
def checkpoint(golden_checkpoint: Path) -> Checkpoint:
    return Checkpoint.open(golden_checkpoint)


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest, bundle: Bundle) -> Path:
    return bundle.path / request.param


@pytest.fixture
def model(file: Path) -> onnx.ModelProto:
    return onnx.load(file, load_external_data=False)


def operators(bundle: Bundle, graph: str, variant: str = "") -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(bundle.file(graph, variant), load_external_data=False).graph.node)


def weights_of(bundle: Bundle, graph: str) -> set[str]:
    initializers = onnx.load(bundle.file(graph), load_external_data=False).graph.initializer
    return {t.name.partition("[")[0] for t in initializers if t.data_location == TensorProto.EXTERNAL}


def signature(values: Any) -> Iterator[dict[str, Any]]:
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
        yield {"name": value.name, "shape": shape, "dtype": dtype}


def test_a_bundle_has_the_documented_graphs_and_no_others(bundle: Bundle) -> None:
    assert sorted(path.name for path in bundle.path.glob("*.onnx")) == sorted(FILES)


def test_onnx_accepts_every_graph_and_infers_its_shapes(file: Path) -> None:
    onnx.checker.check_model(file, full_check=True)


def test_graphs_use_opset_23_and_variants_add_operators_of_onnx_runtime(file: Path, model: onnx.ModelProto) -> None:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    assert opsets == ({"": 23, "com.microsoft": 1} if file.name.endswith(".onnxruntime.onnx") else {"": 23})
    assert {node.domain for node in model.graph.node} <= set(opsets) and not model.functions


def test_inputs_and_outputs_of_graphs_match_bundle_json(
    file: Path, model: onnx.ModelProto, bundle: Bundle, checkpoint: Checkpoint
) -> None:
    graph = bundle.graphs[file.name.partition(".")[0]]
    spec = graph_specs(checkpoint.config)[graph.name]
    for values, recorded, specified in (
        (model.graph.input, graph.inputs, spec.inputs),
        (model.graph.output, graph.outputs, spec.outputs),
    ):
        tensors = list(signature(values))
        assert tensors == [asdict(tensor) for tensor in recorded]
        assert tensors == [asdict(tensor) for tensor in specified]
    sizes = {dim for value in signature(model.graph.input) for dim in value["shape"] if isinstance(dim, str)}
    assert sizes <= set(symbols(1, 64, 64))
    if graph.name.startswith("denoiser"):
        assert sizes == {"frames", "latent_height", "latent_width", *(f"tokens{level}" for level in range(4))}


def test_graphs_compute_nothing_in_float64(model: onnx.ModelProto) -> None:
    inferred = onnx.shape_inference.infer_shapes(model)
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    kinds |= {value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    kinds |= {attr.i for node in model.graph.node for attr in node.attribute if node.op_type == "Cast"}
    assert {TensorProto.FLOAT, TensorProto.INT64} >= kinds


def test_graphs_hold_only_small_constants_and_refer_to_the_safetensors_file(
    file: Path, model: onnx.ModelProto, bundle: Bundle
) -> None:
    used = {}
    shared = bundle.manifest["weights"]["shared"]
    with safe_open(bundle.path / bundle.weights, "np") as weights:
        names = set(weights.keys())
        raw = np.memmap(bundle.path / bundle.weights, np.uint8, "r")
        for tensor in model.graph.initializer:
            if tensor.data_location != TensorProto.EXTERNAL:
                assert len(tensor.SerializeToString()) < 1000, tensor.name
                continue
            data = {entry.key: entry.value for entry in tensor.external_data}
            assert data["location"] == bundle.weights
            name, _, rows = tensor.name.partition("[")
            first, _, end = rows.rstrip("]").partition(":")
            under = shared.get(name, name)
            assert under in names
            expected = weights.get_tensor(under)[slice(int(first), int(end)) if rows else slice(None)]
            assert list(tensor.dims) == list(expected.shape)
            offset, length = int(data["offset"]), int(data["length"])
            assert raw[offset : offset + length].tobytes() == expected.tobytes()
            used[name] = weights.get_tensor(under).size
    assert sum(used.values()) == bundle.manifest["graphs"][file.name.partition(".")[0]]["parameters"]
    nodes = model.graph.node
    assert not [node.name for node in nodes if any(attr.HasField("t") for attr in node.attribute)]


def test_every_tensor_that_a_graph_reads_exists(model: onnx.ModelProto) -> None:
    known = {value.name for value in (*model.graph.input, *model.graph.initializer)} | {""}
    for node in model.graph.node:
        assert set(node.input) <= known, node.name
        known |= set(node.output)
    assert {value.name for value in model.graph.output} <= known


def test_the_denoiser_holds_no_weights_of_portrait_tokens_or_the_discarded_half(bundle: Bundle) -> None:
    weights = weights_of(bundle, "denoiser")
    unused = ("clip_fc", ".attn2.to_k.", ".attn2.to_v.")
    assert weights and not [name for name in weights if any(part in name for part in unused)]
    assert operators(bundle, "denoiser")["Attention"] == 2 * SELF + CROSS + TEMPORAL
    assert operators(bundle, "denoiser_cond")["Attention"] == SELF + CROSS + TEMPORAL
    assert operators(bundle, "reference")["Attention"] == 2 * (SELF - 1)  # its last layer ends in the first norm


def test_both_denoisers_share_all_weights_but_the_unconditional_halfs(bundle: Bundle) -> None:
    guided, conditional = weights_of(bundle, "denoiser"), weights_of(bundle, "denoiser_cond")
    assert conditional < guided
    assert {name.rpartition(".")[2] for name in guided - conditional} == {"unconditional"}


@pytest.mark.parametrize("graph", LOWERED)
def test_the_onnx_runtime_variant_fuses_attention_and_expands_no_group_norm(graph: str, bundle: Bundle) -> None:
    standard, lowered = operators(bundle, graph), operators(bundle, graph, "onnxruntime")
    temporal = TEMPORAL if graph.startswith("denoiser") else 0
    assert lowered["Attention"] in (0, temporal)
    assert lowered["Attention"] + lowered["MultiHeadAttention"] == standard["Attention"]
    assert lowered["GroupNormalization"] == 0
    assert lowered["InstanceNormalization"] == standard["GroupNormalization"]


@pytest.mark.parametrize("frames", [1, 32])
def test_the_denoiser_equals_pytorch_for_1_and_32_frames(frames: int, bundle: Bundle, checkpoint: Checkpoint) -> None:
    rng = np.random.default_rng(frames)
    spec, sizes = graph_specs(checkpoint.config)["denoiser"], symbols(frames, 64, 72)
    shapes = {tensor.name: [sizes.get(dim, dim) for dim in tensor.shape] for tensor in spec.inputs}
    inputs = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    inputs["timestep"] = np.array([500])
    with torch.inference_mode():
        denoiser = spec.module(checkpoint.load("unet"))
        want = denoiser(*(torch.from_numpy(inputs[tensor.name]) for tensor in spec.inputs))
    session = onnxruntime.InferenceSession(bundle.file("denoiser", "onnxruntime"), providers=["CPUExecutionProvider"])
    for got, expected in zip(session.run(None, inputs), want, strict=True):
        assert np.abs(got - expected.numpy()).max() < 1e-4  # float32 in another order, on values up to 5
