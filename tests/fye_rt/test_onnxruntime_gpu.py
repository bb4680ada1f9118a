"""ONNX Runtime's GPU backend, on the CPU's memory and provider: binding, places and types are the same there."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from fye_rt import Animator, Bundle, Options, backends
from fye_rt.backends import gpu, onnxruntime_gpu
from fye_rt.backends.onnxruntime_gpu import CUDA, RTX, TENSORRT, Held, Provider
from fye_rt.bundle import GRAPHS, symbols
from fye_rt.demo import shipped_bundle
from fye_rt.errors import BackendError

HERE = replace(CUDA, name="CPUExecutionProvider", device="cpu")
ONE_GPU = gpu.Found((gpu.Gpu("a GPU", "sm_90", 80 << 30),), "13.0", "")

pytestmark = pytest.mark.filterwarnings("ignore:Duplicate provider")


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Path) -> Bundle:
    return Bundle.load(tiny_bundle)


def given(bundle: Bundle, graph: str, frames: int = 3) -> dict[str, Any]:
    random, sizes = np.random.default_rng(frames), symbols(frames, 64, 72)
    made: dict[str, Any] = {}
    for spec in bundle.graphs[graph].inputs:
        shape = [sizes[size] if isinstance(size, str) else size for size in spec.shape]
        whole = spec.dtype == "int64"
        made[spec.name] = np.array([500]) if whole else random.standard_normal(shape, np.float32)
    return made


def relative(made: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(made - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_graph_says_what_it_says_on_the_cpu(graph: str, tiny: Bundle) -> None:
    inputs = given(tiny, graph)
    made = HERE.open_here(tiny, graph, "fp32").run(inputs)
    expected = backends.load("onnxruntime")(tiny, graph, backends.Settings(threads=1)).run(inputs)
    assert set(made) == set(expected)
    for name, array in expected.items():
        assert made[name].shape == array.shape and relative(made[name], array) < 1e-4


@pytest.mark.parametrize("graph", ["reference", "vae_decoder", "denoiser_cond"])
def test_in_float16_it_is_near(graph: str) -> None:
    mini = Bundle.load(shipped_bundle(), verify=False)
    engine = HERE.open_here(mini, graph, "fp16")
    inputs = given(mini, graph)
    held = {name: array if name in ("latents", "timestep") else engine.hold(array) for name, array in inputs.items()}
    made = engine.run(held if graph == "denoiser_cond" else inputs)
    exact = HERE.open_here(mini, graph, "fp32").run(inputs)
    for name, array in exact.items():
        assert made[name].dtype == np.float32
        assert 0 < relative(made[name], array) < 1e-2


def test_shapes_alternate_and_outputs_belong_to_the_caller(tiny: Bundle) -> None:
    engine = HERE.open_here(tiny, "guider", "fp32")
    first = engine.run(given(tiny, "guider", 2))["landmark_features"]
    kept = first.copy()
    for frames in (3, 2, 3):
        other = engine.run(given(tiny, "guider", frames))["landmark_features"]
        assert other.shape[0] == frames
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(engine.run(given(tiny, "guider", 2))["landmark_features"], kept)


def test_what_is_held_is_copied_when_it_changes(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = HERE.open_here(tiny, "denoiser", "fp32")
    one, other = given(tiny, "denoiser"), given(tiny, "denoiser", 3) | {}
    other["reference_key.0"] = other["reference_key.0"] + 1
    copied: list[str] = []
    value = Held.value
    monkeypatch.setattr(Held, "value", lambda self, dtype, device: copied.append("") or value(self, dtype, device))

    def held(inputs: dict[str, Any]) -> dict[str, Any]:
        return {name: x if name in ("latents", "timestep") else engine.hold(x) for name, x in inputs.items()}

    first, second = held(one), held(other)
    a = engine.run(first)["v_conditional"]
    assert len(copied) == len(one) - 2
    np.testing.assert_array_equal(engine.run(first)["v_conditional"], a)
    assert len(copied) == len(one) - 2
    assert relative(engine.run(second)["v_conditional"], a) > 1e-3
    np.testing.assert_array_equal(engine.run(first)["v_conditional"], a)


def test_a_clip_is_what_the_cpu_makes(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (9, 64, 72, 3), np.uint8)
    monkeypatch.setattr(onnxruntime_gpu, "CUDA", HERE)  # with windows that share features, and one that is shorter
    monkeypatch.setattr(Provider, "unusable", lambda self, bundle=None: "")
    made = []
    for backend in ("onnxruntime-cuda", "onnxruntime"):
        with Animator(tiny, backend, compute="fp32") as animator:
            state, motion = animator.encode_portrait(images[0]), animator.encode_motion(images)
            options = Options(steps=3, guidance=2.0, window_size=5, window_overlap=2)
            made.append(animator.denoise(state, motion, options=options))
    assert relative(*made) < 1e-4


@pytest.mark.parametrize(
    ("provider", "replayed"), [(CUDA, True), (CUDA, False), (TENSORRT, True), (TENSORRT, False), (RTX, False)]
)
def test_options_are_those_of_the_real_libraries(
    provider: Provider, replayed: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    wheels = json.loads((data / "onnxruntime_gpu" / "options.json").read_text())
    (wheel,) = (wheel for wheel in wheels.values() if provider.name in wheel)
    options = provider._options(replayed)
    assert options and set(options) <= set(wheel[provider.name]) and provider.graph_id in wheel["run"]
    graphs = {"enable_cuda_graph": "1", "trt_cuda_graph_enable": "1"}.items() & options.items()
    assert bool(graphs) == replayed


def test_a_provider_that_refuses_a_cuda_graph_runs_without(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[bool] = []

    def session(self: Provider, bundle: Bundle, graph: str, compute: str, options: dict[str, str]) -> Any:
        tried.append(options["enable_cuda_graph"] == "1")
        if tried[-1]:
            raise RuntimeError("not all nodes are on the GPU")
        return onnxruntime.InferenceSession(bundle.file(graph), providers=["CPUExecutionProvider"])

    monkeypatch.setattr(Provider, "_session", session)
    CUDA.open_here(tiny, "denoiser_cond", "fp32")
    assert tried == [True, False] and "denoiser_cond runs without a CUDA graph" in caplog.text
    CUDA.open_here(tiny, "guider", "fp32")
    assert tried == [True, False, False]


def test_a_graph_that_does_not_open_is_told(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Provider, "_session", lambda *given: 1 / 0)
    with pytest.raises(BackendError, match="onnxruntime-cuda cannot open guider: division by zero"):
        CUDA.open_here(tiny, "guider", "fp32")


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt", "onnxruntime-rtx"])
def test_without_a_gpu_or_its_provider_it_says_so(name: str, tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "gpus", lambda: gpu.Found((), "", "there is no NVIDIA driver"))
    with pytest.raises(BackendError, match="there is no NVIDIA driver"):
        backends.load(name)(tiny, "guider", backends.Settings())
    monkeypatch.setattr(gpu, "gpus", lambda: ONE_GPU)
    with pytest.raises(BackendError, match=r"has no \w+ExecutionProvider; run: pip"):
        backends.load(name)(tiny, "guider", backends.Settings())


def test_the_plugged_in_provider_is_registered_once_and_given_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("onnxruntime_ep_nv_tensorrt_rtx")
    module.get_ep_name = lambda: RTX.name  # type: ignore[attr-defined]
    module.get_library_path = lambda: "provider.so"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    devices: list[Any] = [SimpleNamespace(ep_name="CPUExecutionProvider")]
    registered: list[tuple[str, str]] = []

    def register(name: str, path: str) -> None:
        registered.append((name, path))
        devices.append(SimpleNamespace(ep_name=name))

    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: devices)
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", register)
    assert onnxruntime_gpu._rtx_devices() == onnxruntime_gpu._rtx_devices() == devices[1:]
    assert registered == [(RTX.name, "provider.so")]


class Driver:
    """What libcuda answers on a machine with some GPUs."""

    def __init__(self, devices: int, error: int = 0) -> None:
        self.devices, self.error = devices, error

    def cuInit(self, flags: int) -> int:
        return self.error

    def cuDriverGetVersion(self, out: Any) -> None:
        out._obj.value = 13020

    def cuDeviceGetCount(self, out: Any) -> None:
        out._obj.value = self.devices

    def cuDeviceGetName(self, text: Any, size: int, device: int) -> None:
        text.value = f"GPU {device}".encode()

    def cuDeviceTotalMem_v2(self, out: Any, device: int) -> None:
        out._obj.value = (device + 1) << 30

    def cuDeviceGetAttribute(self, out: Any, attribute: int, device: int) -> None:
        out._obj.value = {75: 9, 76: device}[attribute]


def missing(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (missing, "there is no NVIDIA driver"),
        (lambda name: Driver(0, 100), "finds no GPU (CUDA error 100)"),
        (lambda name: Driver(0), "shows no GPU"),
    ],
)
def test_machines_without_a_gpu_are_told_apart(load: Callable[[str], Any], reason: str) -> None:
    found = gpu.look(load)
    assert found.gpus == () and reason in found.reason


def test_the_driver_tells_of_every_gpu() -> None:
    found = gpu.look(lambda name: Driver(2))
    assert found.gpus == (gpu.Gpu("GPU 0", "sm_90", 1 << 30), gpu.Gpu("GPU 1", "sm_91", 2 << 30))
    assert (found.cuda, found.reason) == ("13.2", "")


@pytest.mark.parametrize(
    ("works", "chosen"),
    [
        ((), "onnxruntime"),
        (("onnxruntime-cuda",), "onnxruntime-cuda"),
        (("torch", "onnxruntime-cuda"), "torch"),
        (("tensorrt", "torch", "onnxruntime-cuda"), "tensorrt"),
        (("onnxruntime-tensorrt", "onnxruntime-rtx", "openvino"), "onnxruntime"),
    ],
)
def test_auto_is_the_best_that_works(works: tuple[str, ...], chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def module(name: str) -> Any:
        return SimpleNamespace(unusable=lambda bundle=None: "" if name in works else "it is Monday")

    monkeypatch.setattr(gpu, "gpus", lambda: ONE_GPU)
    monkeypatch.setattr(backends, "_module", module)
    assert backends.choose() == chosen and backends.choose("openvino") == "openvino"
    assert backends.unusable("torch") == ("" if "torch" in works else "it is Monday")


def test_without_a_gpu_auto_imports_nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "gpus", lambda: gpu.Found((), "", "there is no NVIDIA driver"))
    monkeypatch.setattr(backends, "_module", lambda name: pytest.fail(f"{name} is imported"))
    assert backends.choose() == "onnxruntime"
