"""ONNX Runtime's CUDA backend, on the CPU's memory and provider: binding, places and types are the same there."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from fye_rt import Animator, Bundle, Options, backends
from fye_rt.backends import gpu, onnxruntime_bound, onnxruntime_gpu
from fye_rt.backends.onnxruntime_gpu import PROVIDER, open_here
from fye_rt.backends.onnxruntime_norms import as_layer_norms
from fye_rt.bundle import GRAPHS, shipped_bundle
from fye_rt.engine import DeviceInput, Settings
from fye_rt.errors import BackendError
from tests.fye_rt.networks import graph_inputs

opened_here = partial(open_here, provider="CPUExecutionProvider", device="cpu")
ONE_GPU = gpu.Found((gpu.Gpu("a GPU", "sm_90", 80 << 30),), "13.0", "")
EVERY_RUN = ("latents", "timestep")


def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend runs on the CPU."""
    monkeypatch.setattr(onnxruntime_gpu, "open_here", opened_here)
    monkeypatch.setattr(onnxruntime_gpu, "unusable", lambda bundle=None: "")


def relative(made: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(made - expected) / np.linalg.norm(expected))


@pytest.mark.slow
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_graph_agrees_with_the_cpu(graph: str, bundle: Bundle) -> None:
    inputs = graph_inputs(bundle, graph, 3)
    made = opened_here(bundle, graph, "fp32").run(inputs)
    expected = backends.load("onnxruntime")(bundle, graph, Settings(threads=1)).run(inputs)
    assert made.keys() == expected.keys() == {spec.name for spec in bundle.graphs[graph].outputs}
    for name, array in expected.items():
        # norms of this bundle's random weights amplify rounding: PyTorch and OpenVINO differ from the CPU by 5e-5 too
        assert made[name].shape == array.shape and relative(made[name], array) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["reference", "vae_decoder", "denoiser_cond"])
def test_float16_stays_near_float32(graph: str) -> None:
    mini = Bundle.load(shipped_bundle(), verify=False)
    engine = opened_here(mini, graph, "fp16")
    inputs = graph_inputs(mini, graph, 3)
    held = {name: array if name in EVERY_RUN else engine.to_device(array) for name, array in inputs.items()}
    made = engine.run(held if graph == "denoiser_cond" else inputs)
    exact = opened_here(mini, graph, "fp32").run(inputs)
    assert made.keys() == exact.keys() == {spec.name for spec in mini.graphs[graph].outputs}
    for name, array in exact.items():
        assert made[name].dtype == np.float32
        assert 0 < relative(made[name], array) < 1e-2


def test_shapes_alternate_and_outputs_belong_to_the_caller(bundle: Bundle) -> None:
    engine = opened_here(bundle, "guider", "fp32")
    first = engine.run(graph_inputs(bundle, "guider", 2))["landmark_features"]
    kept = first.copy()
    for frames in (3, 2, 3):
        other = engine.run(graph_inputs(bundle, "guider", frames))["landmark_features"]
        assert other.shape[0] == frames
    darker = {name: array / 2 for name, array in graph_inputs(bundle, "guider", 2).items()}
    assert relative(engine.run(darker)["landmark_features"], kept) > 1e-3
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(engine.run(graph_inputs(bundle, "guider", 2))["landmark_features"], kept)


def test_inputs_on_the_device_are_copied_only_when_they_change(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened_here(bundle, "denoiser_cond", "fp32")
    same, other = (graph_inputs(bundle, "denoiser_cond", 3) for _ in range(2))
    short = graph_inputs(bundle, "denoiser_cond", 2)
    other["reference_key.0"] = other["reference_key.0"] + 1
    copied: list[int] = []
    value = DeviceInput.value

    def counted(self: DeviceInput, copy: Any, dtype: Any) -> Any:
        copied.append(1)
        return value(self, copy, dtype)

    monkeypatch.setattr(DeviceInput, "value", counted)

    def held(inputs: dict[str, Any]) -> dict[str, Any]:
        return {name: x if name in EVERY_RUN else engine.to_device(x) for name, x in inputs.items()}

    def copies() -> int:
        number = len(copied)
        copied.clear()
        return number

    first, second = held(same), held(other)
    a = engine.run(first)["v_conditional"]
    assert copies() == len(same) - len(EVERY_RUN)
    addresses = {key: place.value.data_ptr() for key, place in engine._places.items()}
    np.testing.assert_array_equal(engine.run(first)["v_conditional"], a)
    assert copies() == 0
    assert relative(engine.run(second)["v_conditional"], a) > 1e-3
    np.testing.assert_array_equal(engine.run(first)["v_conditional"], a)
    copies()
    # of another length of window only what depends on its length is copied: the portrait is there already
    features = engine.to_device(short["landmark_features"])
    fewer = {name: short[name] for name in EVERY_RUN} | {"landmark_features": features}
    engine.run(first | fewer)
    assert copies() == 1
    np.testing.assert_array_equal(engine.run(first)["v_conditional"], a)
    assert addresses.items() <= {key: place.value.data_ptr() for key, place in engine._places.items()}.items()
    ids = [options.get_run_config_entry("gpu_graph_id") for _, options in engine._bound.values()]
    assert ids == ["1", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["guider", "denoiser_cond"])
def test_the_memory_of_many_shapes_is_bounded(graph: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = sessions(monkeypatch)
    monkeypatch.setattr(onnxruntime_bound, "_BOUND_SHAPES", 2)
    engine = opened_here(bundle, graph, "fp32")
    name = {"guider": "landmark_features", "denoiser_cond": "v_conditional"}[graph]
    inputs = {frames: graph_inputs(bundle, graph, frames) for frames in (1, 2, 3)}
    expected: dict[int, np.ndarray] = {}
    most = 0
    for frames in (1, 2, 3, 1, 3, 2):
        made = engine.run(inputs[frames])[name]
        np.testing.assert_array_equal(made, expected.setdefault(frames, made))
        assert len(engine._bound) <= 2
        most = max(most, len(engine._places))
        ids = [options.get_run_config_entry("gpu_graph_id") for _, options in engine._bound.values() if asked[0]]
        assert ids == ["1", "2"][: len(ids)]
    per_shape = len(inputs[1]) + 1
    assert most <= 2 * per_shape
    # a CUDA graph lives as long as its session
    assert asked == ([True, True, True] if graph == "denoiser_cond" else [False])


@pytest.mark.slow
def test_a_clip_agrees_with_the_cpu_s(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (9, 64, 72, 3), np.uint8)
    here(monkeypatch)  # with windows that share features, and one that is shorter
    made = []
    for backend in ("onnxruntime-cuda", "onnxruntime"):
        with Animator(bundle, backend, compute="fp32") as animator:
            state, motion = animator.encode_portrait(images[0]), animator.encode_motion(images)
            options = Options(steps=3, guidance=2.0, window_size=5, window_overlap=2)
            made.append(animator.denoise(state, motion, options=options))
    assert relative(*made) < 1e-4


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_the_cuda_provider_has_every_operator(graph: str, precision: str, bundle: Bundle, data: Path) -> None:
    found = json.loads((data / "onnxruntime_gpu" / "operators.json").read_text())
    model = onnx.load_model_from_string(onnxruntime_gpu._model(bundle, graph, precision))
    names = {f"{node.domain}:{node.op_type}".lstrip(":") for node in model.graph.node}
    assert names - set(found["onnxruntime_gpu 1.31.1"]) <= {"Squeeze"}  # of sizes, which stay on the CPU


def a_norm(scale: float) -> bytes:
    shape = ["frames", 4, "rest"]
    node = helper.make_node("InstanceNormalization", ["x", "scale", "shift"], ["y"], epsilon=1e-6)
    constants = {"scale": np.full(4, scale, np.float32), "shift": np.zeros(4, np.float32)}
    graph = helper.make_graph(
        [node],
        "norm",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    return bytes(model.SerializeToString())


def test_a_norm_of_rows_becomes_an_equal_layer_norm() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 50), np.float32) * 3 + 5
    before, after = (
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for model in (a_norm(1), as_layer_norms(a_norm(1)))
    )
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5)  # a mean of 5 in float32
    checked = onnx.load_model_from_string(as_layer_norms(a_norm(1)))
    onnx.checker.check_model(checked, full_check=True)
    assert [node.op_type for node in checked.graph.node] == ["Shape", "Expand", "LayerNormalization"]


def test_a_norm_with_its_own_scale_is_left_alone() -> None:
    assert as_layer_norms(a_norm(2)) == a_norm(2)


@pytest.mark.parametrize("replayed", [True, False])
def test_options_exist_in_the_real_library(replayed: bool, data: Path) -> None:
    (wheel,) = (
        names
        for name, names in json.loads((data / "onnxruntime_gpu" / "options.json").read_text()).items()
        if name != "about"
    )
    options = onnxruntime_gpu.provider_options(replayed)
    assert set(options) <= set(wheel[PROVIDER]) and options["enable_cuda_graph"] == str(int(replayed))


def sessions(monkeypatch: pytest.MonkeyPatch, refused: bool = False) -> list[bool]:
    """Whether each session is asked for with a CUDA graph; such a one does not open if `refused`."""
    asked: list[bool] = []
    session = onnxruntime_gpu._session

    def opened(*what: Any) -> Any:
        asked.append(what[-1])
        if refused and what[-1]:
            raise RuntimeError("not all nodes\nare on the GPU")
        return session(*what)

    monkeypatch.setattr(onnxruntime_gpu, "_session", opened)
    return asked


def test_a_graph_that_cannot_be_captured_runs_without_capture(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = sessions(monkeypatch, refused=True)
    inputs = graph_inputs(bundle, "denoiser_cond", 3)
    opened_here(bundle, "denoiser_cond", "fp32").run(inputs)
    assert asked == [True, False]
    assert caplog.messages == [
        "denoiser_cond runs without a CUDA graph, and a little slower (not all nodes are on the GPU)"
    ]
    opened_here(bundle, "guider", "fp32")
    assert asked == [True, False, False]


@pytest.mark.slow
def test_a_capture_that_fails_in_a_run_is_given_up(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = sessions(monkeypatch)
    engine = opened_here(bundle, "denoiser_cond", "fp32")
    inputs = graph_inputs(bundle, "denoiser_cond", 3)
    expected = engine.run(inputs)["v_conditional"]
    run = onnxruntime.InferenceSession.run_with_iobinding

    def capture(self: Any, binding: Any, options: Any) -> None:
        try:
            options.get_run_config_entry("gpu_graph_id")
        except RuntimeError:  # it has none
            return run(self, binding, options)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", capture)
    for _ in range(2):
        np.testing.assert_array_equal(engine.run(inputs)["v_conditional"], expected)
    assert asked == [True, False]
    assert len(caplog.messages) == 1 and "stream is capturing" in caplog.text


def test_a_failed_run_is_reported_with_a_remedy(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*given: Any) -> None:
        raise RuntimeError("Failed to allocate memory\nfor requested buffer")

    engine = opened_here(bundle, "guider", "fp32")
    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", exhausted)
    text = r"onnxruntime-cuda cannot run guider: Failed to allocate memory for requested buffer; make smaller clips"
    with pytest.raises(BackendError, match=text):
        engine.run(graph_inputs(bundle, "guider", 3))


def test_a_graph_that_does_not_open_is_reported(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_gpu, "_session", lambda *given: 1 / 0)
    with pytest.raises(BackendError, match="onnxruntime-cuda cannot open guider: division by zero; check with: fye"):
        open_here(bundle, "guider", "fp32")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_session_without_its_provider_is_refused(bundle: Bundle) -> None:
    if PROVIDER in onnxruntime.get_available_providers():
        pytest.skip("needs an onnxruntime without it")
    with pytest.raises(BackendError, match=rf"ONNX Runtime leaves {PROVIDER} out, .* run: pip uninstall"):
        open_here(bundle, "guider", "fp32")


def test_a_missing_gpu_or_provider_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(gpu, "gpus", lambda: gpu.Found((), "", "there is no NVIDIA driver"))
    with pytest.raises(BackendError, match="there is no NVIDIA driver"):
        backends.load("onnxruntime-cuda")(bundle, "guider", Settings())
    monkeypatch.setattr(gpu, "gpus", lambda: ONE_GPU)
    with pytest.raises(BackendError, match=rf"{PROVIDER}; run: pip"):
        backends.load("onnxruntime-cuda")(bundle, "guider", Settings())


def test_an_old_driver_and_a_missing_library_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "gpus", lambda: ONE_GPU)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [PROVIDER])
    monkeypatch.setattr(onnxruntime, "cuda_version", "14.1")
    assert onnxruntime_gpu.unusable() == (
        "this onnxruntime is for CUDA 14.1, the driver for CUDA 13.0; install a newer driver"
    )
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0")
    asked: list[str] = []

    def load(name: str) -> None:
        asked.append(name)
        if name == missing:
            raise OSError

    monkeypatch.setattr(onnxruntime_gpu.sys, "platform", "linux")
    monkeypatch.setattr(onnxruntime_gpu.ctypes, "CDLL", load)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudnn.so.9"))
    for missing in ("", "libcublas.so.13", "libcudnn.so.9"):
        onnxruntime_gpu._missing.cache_clear()
        expected = f"{missing} is missing; run: {backends.gpu.ONNXRUNTIME_GPU}" if missing else ""
        assert onnxruntime_gpu.unusable() == expected
    onnxruntime_gpu._missing.cache_clear()
    assert "libcudart.so.13" in asked


def test_without_onnx_ir_graphs_stay_in_float32(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    here(monkeypatch)
    assert backends.computes("onnxruntime-cuda") == ("fp32",)
    with pytest.raises(BackendError, match=r"computes in fp32 here, not in fp16; .* run: pip install onnx-ir$"):
        backends.resolve_compute("onnxruntime-cuda", "fp16")
    engine = backends.load("onnxruntime-cuda")(bundle, "denoiser_cond", Settings())
    assert engine.compute == "fp32" and "run: pip install onnx-ir" in caplog.text
    inputs = graph_inputs(bundle, "denoiser_cond", 3)
    expected = backends.load("onnxruntime")(bundle, "denoiser_cond", Settings()).run(inputs)["v_conditional"]
    np.testing.assert_array_equal(engine.run(inputs)["v_conditional"], expected)
