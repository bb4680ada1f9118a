"""Plans are built as asked for, with TensorRT 10 and 11; it is the fake one, which takes what the real ones take."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from fye_engines.building import Built, Settings, build
from fye_engines.checking import random_inputs
from fye_engines.prepare import Prepared, Shapes, prepare
from fye_rt.bundle import Bundle, symbols
from fye_rt.errors import BackendError, OptionError
from fye_rt.plans.matching import RECIPE
from tests.fye_engines.fake_behaviour import TensorRT, load
from tests.fye_engines.fake_tensorrt import VERSIONS

ROOT = Path(__file__).resolve().parents[2]
STATIC = Shapes((8, 8, 8), (64, 64, 64), (72, 72, 72))
FRAMES = Shapes((1, 8, 24), (64, 64, 64), (72, 72, 72))
DYNAMIC = Shapes((1, 8, 24), (64, 64, 128), (64, 72, 128))


@pytest.fixture(params=VERSIONS)
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TensorRT:
    made = load(request.param)
    made.install(monkeypatch)
    return made


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle, verify=False)


@pytest.fixture(scope="module")
def denoiser(tiny: Bundle) -> Prepared:
    return prepare(tiny, "denoiser", STATIC, "fp16", "fused")


@pytest.fixture
def built(fake: TensorRT, tiny: Bundle, denoiser: Prepared) -> Callable[..., Any]:
    def call(prepared: Prepared = denoiser, settings: Settings | None = None, **more: Any) -> Any:
        return fake.read_plan(build(prepared, tiny.path / tiny.weights, settings or Settings(), **more).plan)

    return call


def test_the_same_settings_prepare_the_same_bytes(tiny: Bundle, denoiser: Prepared) -> None:
    again = prepare(tiny, "denoiser", STATIC, "fp16", "fused")
    assert again.onnx == denoiser.onnx and again.digest == denoiser.digest
    settings = (("denoiser", "bf16", "fused"), ("denoiser", "fp16", "written-out"), ("denoiser_cond", "fp16", "fused"))
    others = [prepare(tiny, graph, STATIC, precision, attention) for graph, precision, attention in settings]
    assert len({each.digest for each in (denoiser, *others)}) == 4


def test_a_change_of_prepared_graphs_needs_a_new_recipe(tiny: Bundle) -> None:
    """Plans of an older recipe are not run any more: if this fails, count `matching.RECIPE` up."""
    seen = hashlib.sha256()
    for graph in tiny.graphs:
        for precision, attention in (("fp16", "fused"), ("fp16", "written-out"), ("fp32", "fused")):
            model = onnx.load_model_from_string(prepare(tiny, graph, STATIC, precision, attention).onnx)
            values = (*model.graph.input, *model.graph.output)
            kinds = {value.name: value.type.tensor_type.elem_type for value in values}
            seen.update(repr([(node.op_type, *node.input, *node.output) for node in model.graph.node]).encode())
            seen.update(repr(sorted(kinds.items())).encode())
    assert (RECIPE, seen.hexdigest()[:16]) == ("recipe=1", "17bb3616ff487b88")


def test_fixed_shapes_are_numbers_in_the_graph(tiny: Bundle, denoiser: Prepared) -> None:
    def shapes(prepared: Prepared) -> dict[str, list[int | str]]:
        graph = onnx.load_model_from_string(prepared.onnx).graph
        return {
            value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.output)
        }

    static = shapes(denoiser)
    assert denoiser.profile == {} and static["latents"] == static["v_conditional"] == [1, 4, 8, 8, 9]
    frames = prepare(tiny, "denoiser", FRAMES, "fp16", "fused")
    assert shapes(frames)["latents"] == [1, 4, "frames", 8, 9] and shapes(frames)["reference_key.0"] == [1, 72, 8]
    assert set(frames.profile) == {"latents", "landmark_features"}
    assert frames.profile["latents"] == ((1, 4, 1, 8, 9), (1, 4, 8, 8, 9), (1, 4, 24, 8, 9))
    names = {spec.name for spec in tiny.graphs["denoiser"].inputs}
    fixed = {spec.name for spec in tiny.graphs["denoiser"].inputs if all(isinstance(n, int) for n in spec.shape)}
    dynamic = prepare(tiny, "denoiser", DYNAMIC, "fp16", "fused")
    assert set(dynamic.profile) == names - fixed and "timestep" in fixed
    assert dynamic.profile["latents"] == ((1, 4, 1, 8, 8), (1, 4, 8, 8, 9), (1, 4, 24, 16, 16))
    assert dynamic.profile["reference_key.0"][0][1] == 64


@pytest.mark.slow
@pytest.mark.parametrize("shapes", [STATIC, FRAMES, DYNAMIC], ids=["static", "frames", "dynamic"])
@pytest.mark.parametrize("graph", ["denoiser", "vae_decoder", "vae_encoder"])
def test_a_graph_with_fixed_shapes_computes_the_same(graph: str, shapes: Shapes, tiny: Bundle) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(tiny.path))
    session = onnxruntime.InferenceSession(prepare(tiny, graph, shapes, "fp32", "fused").onnx, options)
    given = random_inputs(tiny, graph, symbols(8, 64, 72))
    names = [output.name for output in session.get_outputs()]
    made = dict(zip(names, session.run(names, given), strict=True))
    expected = onnxruntime.InferenceSession(tiny.file(graph)).run(names, given)
    for name, array in zip(names, expected, strict=True):
        assert np.linalg.norm(made[name] - array) <= 1e-4 * np.linalg.norm(array)  # other sums of float32


@pytest.mark.parametrize(
    ("frames", "height", "width"),
    [((2, 1, 3), (64,) * 3, (64,) * 3), ((0, 1, 1), (64,) * 3, (64,) * 3), ((1,) * 3, (64, 68, 72), (64,) * 3)],
)
def test_invalid_shapes_of_a_plan_are_refused(frames: Any, height: Any, width: Any) -> None:
    with pytest.raises(OptionError, match="is not valid"):
        Shapes(frames, height, width)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"precision": "fp4"}, "precision='fp4'"),
        ({"precision": "fp8"}, "has no ranges.json"),
        ({"attention": "flash"}, "attention='flash'"),
        ({"shapes": Shapes((33,) * 3, (64,) * 3, (64,) * 3)}, "this bundle allows 32"),
    ],
)
def test_unknown_settings_of_a_plan_are_refused(settings: dict[str, Any], text: str, tiny: Bundle) -> None:
    asked = {"shapes": STATIC, "precision": "fp16", "attention": "fused"} | settings
    with pytest.raises(OptionError, match=text):
        prepare(tiny, "denoiser", asked["shapes"], asked["precision"], asked["attention"])


@pytest.mark.parametrize(
    ("wrong", "text"), [({"level": 6}, "level=6"), ({"workspace": 0}, "workspace=0"), ({"stripped": True}, "refit")]
)
def test_contradictory_settings_of_a_plan_are_refused(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        Settings(**wrong)


@pytest.mark.slow
def test_a_plan_is_strongly_typed_and_uses_no_tf32(built: Callable[..., Any], denoiser: Prepared) -> None:
    plan = built()
    assert plan["onnx"] == denoiser.digest and plan["network_flags"] == ["STRONGLY_TYPED"]
    assert not {"TF32", "REFIT", "STRIP_PLAN", "FP16"} & set(plan["flags"]) and plan["profiles"] == []
    assert not plan["refittable"] and not plan["stripped"]


@pytest.mark.slow
def test_a_plan_has_the_requested_settings(built: Callable[..., Any]) -> None:
    plan = built(settings=Settings(level=5, workspace=2**30, refit=True, stripped=True))
    assert {"REFIT", "STRIP_PLAN"} <= set(plan["flags"]) and plan["refittable"] and plan["stripped"]
    assert plan["settings"]["builder_optimization_level"] == 5 and plan["memory_pools"] == {"WORKSPACE": 2**30}


@pytest.mark.slow
def test_a_plan_takes_the_requested_shapes(built: Callable[..., Any], tiny: Bundle) -> None:
    plan = built(prepare(tiny, "denoiser", FRAMES, "fp16", "fused"))
    assert [profile["latents"] for profile in plan["profiles"]] == [[[1, 4, n, 8, 9] for n in (1, 8, 24)]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "graph", ["image_encoder", "vae_encoder", "reference", "guider", "denoiser_cond", "vae_decoder"]
)
def test_every_graph_is_built_into_a_plan(graph: str, built: Callable[..., Any], tiny: Bundle) -> None:
    prepared = prepare(tiny, graph, DYNAMIC, "fp16", "written-out")
    tensors = {tensor["name"]: tensor["dtype"] for tensor in built(prepared)["tensors"]}
    specs = tiny.graphs[graph]
    assert set(tensors) == {spec.name for spec in (*specs.inputs, *specs.outputs)}
    assert {tensors[spec.name] for spec in specs.outputs} == {"FLOAT"}


@pytest.mark.slow
def test_a_build_reuses_the_timing_cache_of_an_earlier_build(fake: TensorRT, tiny: Bundle, denoiser: Prepared) -> None:
    first = build(denoiser, tiny.path / tiny.weights, Settings())
    other = prepare(tiny, "guider", STATIC, "fp16", "fused")
    second = build(other, tiny.path / tiny.weights, Settings(), first.timing)
    assert len(second.timing) > len(first.timing) > 0
    alone = build(other, tiny.path / tiny.weights, Settings(), b"not what TensorRT has written")
    assert len(alone.timing) < len(second.timing)


@pytest.mark.slow
def test_a_build_ignores_the_timing_cache_of_another_gpu(fake: TensorRT, tiny: Bundle, denoiser: Prepared) -> None:
    first = build(denoiser, tiny.path / tiny.weights, Settings())
    fake.device = f"another than {fake.device}"  # of the same architecture
    other = prepare(tiny, "guider", STATIC, "fp16", "fused")
    alone = build(other, tiny.path / tiny.weights, Settings(), first.timing)
    assert alone.timing == build(other, tiny.path / tiny.weights, Settings()).timing


@pytest.mark.slow
def test_a_graph_refused_by_tensorrt_is_reported_in_its_words(fake: TensorRT, built: Callable[..., Any]) -> None:
    fake.refusals += ["In node 7:\n  Attention is\tnot supported", *(f"more {number}" for number in range(9))]
    said = rf"{fake.record['version']} refuses denoiser: In node 7: Attention is not"
    with pytest.raises(BackendError, match=said) as told:
        built()
    assert "and 5 more" in str(told.value) and "\n" not in str(told.value)


@pytest.mark.slow
def test_a_failed_build_is_reported_in_the_words_of_tensorrt(fake: TensorRT, built: Callable[..., Any]) -> None:
    def fail(this: Any, network: Any, config: Any, kernel_text: Any = None) -> None:
        fake.say(fake.state(network)["builder"], "no kernel fits into 3 bytes")

    fake.implement("Builder", "build_serialized_network", fail)
    with pytest.raises(BackendError, match="cannot build denoiser: no kernel fits into 3 bytes"):
        built()


@pytest.mark.slow
def test_build_progress_rises_to_the_end_of_the_outermost_phase(built: Callable[..., Any]) -> None:
    told: list[tuple[str, float, float]] = []
    built(progress=lambda *report: told.append(report))
    assert {stage for stage, _, _ in told} == {"build denoiser: Building Engine"}
    shares = [done / total for _, done, total in told]
    assert shares == sorted(shares) and shares[-1] == 1 and len(set(shares)) > 3


INTERRUPTED = """
import os, signal, sys, threading, time, traceback
import pytest
from fye_engines.building import Settings, build
from fye_engines.prepare import Shapes, prepare
from fye_rt.bundle import Bundle
from tests.fye_engines.fake_behaviour import load

version, folder = sys.argv[1:]
load(version).install(pytest.MonkeyPatch())
tiny = Bundle.load(folder, verify=False)
guider = prepare(tiny, "guider", Shapes((8, 8, 8), (64, 64, 64), (72, 72, 72)), "fp16", "fused")

heard = threading.Event()

def where(thread):
    frame = sys._current_frames()[thread.ident]
    return [function.name for function in traceback.extract_stack(frame)][:-4:-1]

def interrupt(number, frame):
    heard.set()
    raise KeyboardInterrupt

def progress(stage, done, total):
    if len(told) == 2:
        while where(threading.main_thread()) != ["wait", "wait", "_interruptible"]:  # for the build
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        heard.wait(60)
        time.sleep(0.2)  # what it heard is noted by then
    told.append(done)

everything, told = [], []
build(guider, tiny.path / tiny.weights, Settings(), progress=lambda stage, done, total: everything.append(done))
signal.signal(signal.SIGINT, interrupt)  # a shell's background job starts without one
with pytest.raises(KeyboardInterrupt):
    build(guider, tiny.path / tiny.weights, Settings(), progress=progress)
assert len(told) == 3 < len(everything), (told, everything)
print("ended")
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_ctrl_c_ends_a_build(version: str, tiny: Bundle) -> None:
    """In a process of its own: whatever runs the tests has a use of its own for that signal."""
    command = [sys.executable, "-c", INTERRUPTED, version, str(tiny.path)]
    paths = [ROOT, *(ROOT / folder for folder in ("export", "engines", "kernels"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "ended\n"), run.stderr


@pytest.mark.slow
def test_an_error_of_the_progress_callback_ends_a_build_and_is_raised(built: Callable[..., Any]) -> None:
    def progress(stage: str, done: float, total: float) -> None:
        raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="the terminal is gone"):
        built(progress=progress)


@pytest.mark.slow
def test_a_build_reads_the_weights_from_the_file_of_the_bundle(
    fake: TensorRT, tiny: Bundle, denoiser: Prepared
) -> None:
    assert isinstance(build(denoiser, tiny.path / tiny.weights, Settings()), Built)
    given = [call for call in fake.calls if call.name == "OnnxParser.load_initializer"]
    assert {call.arguments["name"] for call in given} == set(denoiser.weights) and len(given) > 100
    assert len(denoiser.onnx) < 2_000_000
