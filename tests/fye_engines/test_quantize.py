"""Quantised graphs compute on the grid that their ranges give them, and say what float32 says within a stated error."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from fye_engines import quantize
from fye_engines.attention import write_out_attention
from fye_engines.checking import compare, exact_engine, random_inputs
from fye_engines.precision import set_precision
from fye_engines.quantize import BOUNDS, KINDS, Ranges
from fye_rt.bundle import Bundle, put_file, shipped_bundles
from fye_rt.errors import BundleError, NumericalError, OptionError
from fye_rt.options import Options

FLOAT, FLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16
GRIDS = {"int8": (np.int8, 127.0), "fp8": (ir.DataType.FLOAT8E4M3FN.numpy(), 448.0)}
OPTIONS = Options(steps=4, guidance=1.5)
COUNT = 16


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle, verify=False)


@pytest.fixture(scope="module")
def mini() -> Bundle:
    return Bundle.load(shipped_bundles() / "mini", verify=False)


@pytest.fixture
def copied(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def clips(*numbers: int) -> list[tuple[Any, Any]]:
    from fye_bench.metrics.truth import calibration_clips

    drawn = list(calibration_clips(max(numbers) + 1, (64, 64), 2))
    return [drawn[number] for number in numbers]


def any_ranges(model: ir.Model) -> Ranges:
    return {str(quantize.stored(node.inputs[0]).name): 4.0 for node in quantize.places(model)}


def quantized(bundle: Bundle, graph: str, kind: str, attention: str = "fused") -> ir.Model:
    model = ir.load(bundle.file(graph))
    if attention == "written-out":
        write_out_attention(model)
    set_precision(model, "fp16")
    assert quantize.quantize(model, any_ranges(model), kind) > 0
    return model


def bytes_of(model: ir.Model) -> bytes:
    return bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def run(bundle: Bundle, model: ir.Model, *given: Mapping[str, Any]) -> list[dict[str, NDArray[Any]]]:
    session = quantize.session(bundle, bytes_of(model), 1)
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, dict(inputs)), strict=True)) for inputs in given]


def product(operator: str, weight: NDArray[Any], kind: ir.DataType = FLOAT) -> ir.Model:
    """A model with one product, whose weight has its output channels first as Conv and "Gemm transB" have it."""
    pictures = ir.Value(name="pictures", shape=ir.Shape((1, COUNT, 1, COUNT)), type=ir.TensorType(FLOAT))
    rows = ir.Value(name="rows", const_value=ir.tensor(np.array([COUNT, COUNT]), name="rows"))
    value = ir.Value(name="weight", const_value=ir.tensor(weight.astype(kind.numpy()), name="weight"))
    value.dtype, value.shape = kind, ir.Shape(weight.shape)
    nodes, given, used = [], pictures, value
    if kind != FLOAT:
        nodes.append(ir.Node("", "Cast", [value], [ir.AttrInt64("to", FLOAT)]))
        used = nodes[-1].outputs[0]
    if operator.startswith("Gemm"):
        nodes.append(ir.Node("", "Reshape", [pictures, rows]))
        nodes[-1].outputs[0].name, given = "flat", nodes[-1].outputs[0]
    attributes = [ir.AttrInt64("transB", 1)] if operator == "Gemm transB" else []
    nodes.append(ir.Node("", operator.split()[0], [given, used], attributes))
    made = nodes[-1].outputs[0]
    made.name, made.dtype = "made", FLOAT
    graph = ir.Graph([pictures], [made], nodes=nodes, opset_imports={"": 23}, initializers=[value, rows])
    return ir.Model(graph, ir_version=10)


def on_grid(array: NDArray[Any], scale: Any, kind: str) -> NDArray[Any]:
    number, most = GRIDS[kind]
    scaled = array / scale
    low = np.clip(np.rint(scaled), -128, 127) if kind == "int8" else np.clip(scaled, -most, most)
    return low.astype(number).astype(np.float32) * scale


@pytest.mark.parametrize("stored", [FLOAT, FLOAT16], ids=["float32", "float16"])
@pytest.mark.parametrize("operator", ["Conv", "Gemm transB", "Gemm", "MatMul"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_product_multiplies_numbers_on_the_grid(
    kind: str, operator: str, stored: ir.DataType, tiny: Bundle
) -> None:
    random = np.random.default_rng(0)
    most = GRIDS[kind][1]
    # powers of 2 as scales, another for each output channel, so that a scale along the other axis is found out
    scales = np.float32(2.0) ** -(np.arange(COUNT) % 5 + 6)
    rows = random.uniform(-1, 1, (COUNT, COUNT)).astype(np.float32)
    rows /= np.abs(rows).max(axis=1, keepdims=True)
    rows = (rows * most * scales[:, None]).astype(np.float16).astype(np.float32)
    data = random.uniform(-6, 6, (COUNT, COUNT)).astype(np.float32)
    weight = rows[..., None, None] if operator == "Conv" else rows if operator == "Gemm transB" else rows.T
    model = product(operator, weight, stored)
    name = "flat" if operator.startswith("Gemm") else "pictures"
    assert quantize.quantize(model, {name: most / 32}, kind) == 1  # numbers beyond are cut off in int8
    given = data.T[None, :, None] if operator == "Conv" else data.reshape(1, COUNT, 1, COUNT)
    made = run(tiny, model, {"pictures": np.ascontiguousarray(given)})[0]["made"]
    made = made[0, :, 0].T if operator == "Conv" else made.reshape(COUNT, COUNT)
    low = on_grid(rows, scales[:, None] if kind == "int8" else scales.max(), kind)
    assert not np.array_equal(low, rows)
    np.testing.assert_allclose(made, on_grid(data, np.float32(1 / 32), kind) @ low.T, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_points_are_zero_and_scales_have_the_types_they_meet(kind: str, mini: Bundle) -> None:
    model = quantized(mini, "denoiser", kind)
    seen = {"data": 0, "weights": 0}
    for node in model.graph:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        value, scale, zero = node.inputs
        assert value is not None and scale is not None and zero is not None
        met = value if node.op_type == "QuantizeLinear" else node.outputs[0]
        scales, zeros = scale.const_value.numpy(), zero.const_value.numpy()
        assert (scale.dtype, zero.dtype) == (met.dtype, KINDS[kind]) and scales.shape == zeros.shape
        assert not zeros.astype(np.float32).any() and (scales > 0).all()
        if node.op_type == "QuantizeLinear":
            back = node.outputs[0].uses()[0].node
            np.testing.assert_array_equal(scales, back.inputs[1].const_value.numpy())
            if value.is_initializer():
                seen["weights"] += 1
                axes = [node.attributes["axis"].as_int()] if kind == "int8" else []
                assert list(scales.shape) == [value.shape[axis] for axis in axes] and back.attributes == node.attributes
                weight = np.abs(value.const_value.numpy().astype(np.float64))
                largest = weight.max(axis=tuple(axis for axis in range(weight.ndim) if axis not in axes))
                used = largest / scales.astype(np.float64) / GRIDS[kind][1]  # nothing is cut off, and nothing wasted
                assert used.max() <= 1 and np.median(used) > 0.998
            else:
                seen["data"] += 1
                assert not scales.shape
    assert seen["weights"] > seen["data"] > 300


def test_sensitive_and_small_layers_are_not_quantised(mini: Bundle) -> None:
    model = quantized(mini, "denoiser", "int8")
    left = [
        quantize.stored(node.inputs[1]).name
        for node in model.graph
        if node.op_type in ("Conv", "Gemm") and node.inputs[0].producer().op_type != "DequantizeLinear"
    ]
    in_blocks = [name for name in left if name.endswith((".time_emb_proj.weight", ".conv_shortcut.weight"))]
    others = ["conv_in", "time_embedding.linear_1", "time_embedding.linear_2", "conv_out"]
    assert [name for name in left if name not in in_blocks] == [f"unet.{name}.weight" for name in others]
    assert len(in_blocks) == 22 + 13  # one in every ResNet block, one in each whose channels change
    attentions = [node for node in model.graph if node.op_type == "Attention"]
    assert len(attentions) > 50
    for node in attentions:
        assert "DequantizeLinear" not in {value.producer().op_type for value in node.inputs if value.producer()}


def test_keys_of_pictures_are_quantised_and_tokens_are_not(mini: Bundle) -> None:
    found = {quantize.stored(node.inputs[1]).name for node in quantize.places(ir.load(mini.file("reference")))}
    assert any(".attn1.to_k." in name for name in found)
    assert not any(".attn2.to_k." in name or "clip" in name for name in found)


@pytest.mark.parametrize(
    ("graph", "kind", "attention"),
    [("denoiser", "int8", "written-out"), ("denoiser_cond", "fp8", "fused"), ("reference", "fp8", "written-out")],
)
def test_a_quantised_graph_is_valid_and_shares_the_weights_of_the_bundle(
    graph: str, kind: str, attention: str, mini: Bundle
) -> None:
    made = quantized(mini, graph, kind, attention)
    onnx.shape_inference.infer_shapes(onnx.load_from_string(bytes_of(made)), check_type=True, strict_mode=True)
    given = ir.load(mini.file(graph)).graph.initializers
    unmoved = 0
    for name, value in made.graph.initializers.items():
        if isinstance(value.const_value, ir.ExternalTensor):
            unmoved += 1
            before = given[name].const_value
            assert (value.const_value.offset, value.const_value.length) == (before.offset, before.length)
        else:
            assert value.const_value.size <= 2048, name  # scales of channels, and constants of the graph
    assert unmoved > 50


def test_the_same_ranges_give_the_same_quantised_graph(mini: Bundle) -> None:
    def made(ranges: Ranges) -> bytes:
        model = ir.load(mini.file("vae_decoder"))
        set_precision(model, "fp16")
        quantize.quantize(model, ranges, "int8")
        return bytes_of(model)

    ranges = any_ranges(ir.load(mini.file("vae_decoder")))
    assert made(ranges) == made(dict(reversed(ranges.items()))) != made({name: 5.0 for name in ranges})


def test_ranges_of_another_graph_are_refused(mini: Bundle) -> None:
    model = ir.load(mini.file("guider"))
    ranges = any_ranges(model)
    missing = sorted(ranges)[0]
    before = bytes_of(model)
    with pytest.raises(OptionError, match=f"no {missing};"):
        quantize.quantize(model, {name: top for name, top in ranges.items() if name != missing}, "int8")
    assert bytes_of(model) == before
    with pytest.raises(OptionError, match="int4"):
        quantize.quantize(model, ranges, "int4")


def test_calibrated_ranges_are_the_largest_inputs(mini: Bundle) -> None:
    model = ir.load(mini.file("image_encoder"))
    model.graph.outputs.clear()
    for value in {quantize.stored(node.inputs[0]) for node in quantize.places(model)}:
        value.dtype = FLOAT
        model.graph.outputs.append(value)
    given = [random_inputs(mini, "image_encoder", {})]
    given = [{name: top * array for name, array in given[0].items()} for top in (3, 0.1)]
    first, second = run(mini, model, *given)
    assert any(array.max() < -array.min() for array in first.values())
    largest = {name: max(np.abs(first[name]).max(), np.abs(second[name]).max()) for name in first}
    assert quantize.calibrate(mini, "image_encoder", given, 1) == pytest.approx(largest, rel=1e-5)
    given[0]["clip_pixels"][0, 0, 0, 0] = np.nan
    with pytest.raises(NumericalError, match="not finite"):
        quantize.calibrate(mini, "image_encoder", given, 1)
    with pytest.raises(OptionError, match="record some clips"):
        quantize.calibrate(mini, "image_encoder", [], 1)


@pytest.mark.parametrize("graph", ["vae_encoder", "guider"])
def test_the_inputs_of_a_graph_are_recorded(graph: str, tiny: Bundle, opencv: None) -> None:
    heard = list(quantize.record(tiny, graph, clips(0, 1), OPTIONS, 1))
    assert len(heard) == 2
    ranks = {spec.name: len(spec.shape) for spec in tiny.graphs[graph].inputs}
    for inputs in heard:
        assert {name: array.ndim for name, array in inputs.items()} == ranks


@pytest.mark.parametrize(("graph", "guidance"), [("denoiser", 1.0), ("denoiser_cond", 1.5)])
def test_guidance_that_runs_the_other_denoiser_is_refused(graph: str, guidance: float, tiny: Bundle) -> None:
    with pytest.raises(OptionError, match=f"not {graph};"):
        list(quantize.record(tiny, graph, [], Options(guidance=guidance), 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mini", pytest.param("golden", marks=pytest.mark.full)])  # 2 minutes
def test_the_quantised_denoiser_is_within_its_bound_at_every_step(
    name: str, opencv: None, request: pytest.FixtureRequest
) -> None:
    path = shipped_bundles() / name if name == "mini" else request.getfixturevalue("golden_bundle")
    bundle = Bundle.load(path, verify=False)
    heard = list(quantize.record(bundle, "denoiser", clips(0, 1, 2), OPTIONS, 1))
    assert [int(inputs["timestep"][0]) for inputs in heard] == 3 * [999, 749, 499, 249]
    assert len({inputs["latents"].tobytes() for inputs in heard}) == len(heard)  # not those of the last step
    seen, held = heard[: -OPTIONS.steps], heard[-OPTIONS.steps :]
    ranges = quantize.calibrate(bundle, "denoiser", seen, 1)
    exact = exact_engine(bundle, "denoiser")
    # ONNX Runtime's variant in float32 opens in a third of the time; what float16 adds is a fiftieth (test_graphs)
    model = ir.load(bundle.file("denoiser", "onnxruntime"))
    quantize.quantize(model, ranges, "int8")
    found = differences(bundle, model, held, [exact.run(inputs) for inputs in held])
    assert len(found) == 2 * OPTIONS.steps and within_bound(found, "int8")
    assert min(each["relative_rms"] for each in found) > 1e-3  # it is quantised


def within_bound(found: Sequence[Mapping[str, Any]], kind: str) -> bool:
    least, most = BOUNDS[kind]
    return all(each["cosine"] >= least and each["relative_rms"] <= most for each in found)


def differences(
    bundle: Bundle, model: ir.Model, given: Sequence[Mapping[str, Any]], right: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    made = run(bundle, model, *given)
    return [each for ours, theirs in zip(made, right, strict=True) for each in compare(ours, theirs).values()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_float16_graph_is_within_its_bound(kind: str, mini: Bundle, opencv: None) -> None:
    heard = list(quantize.record(mini, "vae_encoder", clips(0, 1), OPTIONS, 1))
    ranges = quantize.calibrate(mini, "vae_encoder", heard[:1], 1)
    model = ir.load(mini.file("vae_encoder"))
    set_precision(model, "fp16")
    quantize.quantize(model, ranges, kind)
    found = differences(mini, model, heard[1:], [exact_engine(mini, "vae_encoder").run(heard[1])])
    assert len(found) == 1 and within_bound(found, kind)


def test_a_bundle_with_ranges_stays_valid(copied: Path) -> None:
    bundle = Bundle.load(copied)
    with pytest.raises(OptionError, match=r"has no ranges\.json"):
        quantize.kept(bundle, "denoiser")
    quantize.keep(bundle, {"denoiser": {"a": 0.1, "b": 0.0}})
    again = Bundle.load(copied)
    assert quantize.kept(again, "denoiser") == {"a": 0.1, "b": 0.0} and again.digest != bundle.digest
    with pytest.raises(OptionError, match="no ranges of reference"):
        quantize.kept(again, "reference")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": 2}, "version 1"),
        ({"source": {"digest": "another"}}, "another checkpoint"),
        ({"ranges": {"denoiser": {"a": float("nan")}}}, "finite"),
        ({"ranges": {"denoiser": {"a": -1.0}}}, "finite"),
        ({"ranges": {"denoiser": ["a"]}}, "list"),
        ({"ranges": None}, "NoneType"),
        ("[" * 100_000, "measure again"),
    ],
    ids=["version", "source", "nan", "negative", "list", "none", "nested too deeply"],
)
def test_ranges_that_do_not_belong_to_a_bundle_are_refused(change: Any, why: str, copied: Path) -> None:
    quantize.keep(Bundle.load(copied), {"denoiser": {"a": 1.0}})
    content = json.loads((copied / quantize.FILE).read_text())
    text = change if isinstance(change, str) else json.dumps(content | change)
    put_file(copied, quantize.FILE, text.encode())
    with pytest.raises(BundleError, match=why):
        quantize.kept(Bundle.load(copied), "denoiser")
