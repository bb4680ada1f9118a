"""Which backend "auto" takes, what the driver tells of GPUs, and how doctor says both."""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from fye_rt import backends
from fye_rt.backends import gpu
from fye_rt.cli import doctor
from fye_rt.errors import BackendError

ONE_GPU = gpu.Found((gpu.Gpu("a GPU", "sm_90", 80 << 30),), "13.0", "")
NO_GPU = gpu.Found((), "", "there is no NVIDIA driver")


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine with a GPU, where certain backends work."""

    def set_up(*names: str) -> None:
        def module(name: str) -> Any:
            reason = "" if name in names else "it is Monday"
            return SimpleNamespace(unusable=lambda bundle=None: reason, open_engine=None)

        monkeypatch.setattr(gpu, "gpus", lambda: ONE_GPU)
        monkeypatch.setattr(backends, "_module", module)

    return set_up


class Driver:
    """What libcuda answers on a machine with some GPUs; their handles are not their numbers."""

    def __init__(self, devices: int, error: int = 0) -> None:
        self.devices, self.error = devices, error

    def cuInit(self, flags: int) -> int:
        return self.error

    def cuDriverGetVersion(self, out: Any) -> None:
        out._obj.value = 13020

    def cuDeviceGetCount(self, out: Any) -> None:
        out._obj.value = self.devices

    def cuDeviceGet(self, out: Any, ordinal: int) -> None:
        out._obj.value = ordinal + 10

    def cuDeviceGetName(self, text: Any, size: int, device: Any) -> None:
        text.value = f"GPU {device.value - 10}".encode()

    def cuDeviceTotalMem_v2(self, out: Any, device: Any) -> None:
        out._obj.value = (device.value - 9) << 30

    def cuDeviceGetAttribute(self, out: Any, attribute: int, device: Any) -> None:
        out._obj.value = {75: 9, 76: device.value - 10}[attribute]


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
    machine = gpu.look(load)
    assert machine.gpus == () and reason in machine.reason


def test_the_driver_lists_every_gpu() -> None:
    machine = gpu.look(lambda name: Driver(2))
    assert machine.gpus == (gpu.Gpu("GPU 0", "sm_90", 1 << 30), gpu.Gpu("GPU 1", "sm_91", 2 << 30))
    assert (machine.cuda, machine.reason) == ("13.2", "")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ((), "onnxruntime"),
        (("onnxruntime-cuda",), "onnxruntime-cuda"),
        (("torch", "onnxruntime-cuda"), "torch"),
        (("tensorrt", "torch", "onnxruntime-cuda"), "tensorrt"),
        (("tensorrt-rtx", "torch"), "tensorrt-rtx"),
        (("openvino",), "onnxruntime"),
    ],
)
def test_auto_chooses_the_best_backend_that_works(
    names: tuple[str, ...], chosen: str, works: Callable[..., None]
) -> None:
    works(*names)
    assert backends.choose() == chosen and backends.choose("openvino") == "openvino"
    assert backends.unusable("torch") == ("" if "torch" in names else "it is Monday")


def test_tensorrt_is_asked_about_the_bundle(works: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    works("onnxruntime-cuda")
    asked: list[Any] = []
    module = backends._module
    tensorrt = SimpleNamespace(unusable=lambda bundle: asked.append(bundle) or "there is no plan of it")
    monkeypatch.setattr(backends, "_module", lambda name: tensorrt if name == "tensorrt" else module(name))
    bundle: Any = object()
    assert backends.choose("auto", bundle) == "onnxruntime-cuda" and asked == [bundle]


def test_without_a_gpu_auto_imports_nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "gpus", lambda: NO_GPU)
    monkeypatch.setattr(backends, "_module", lambda name: pytest.fail(f"{name} is imported"))
    assert backends.choose() == "onnxruntime"


@pytest.mark.parametrize(
    ("name", "module", "command"),
    [
        ("openvino", "fye_rt.backends.openvino", r"pip install 'fye-rt\[openvino\]'"),
        ("torch", "fye_torch.engine", r"pip install 'fye-rt\[torch\]'"),
        ("onnxruntime-cuda", "fye_rt.backends.onnxruntime_gpu", "pip install onnxruntime"),
        ("onnxruntime", "fye_rt.backends.onnxruntime", "pip install onnxruntime"),
    ],
)
def test_a_missing_package_is_reported_with_its_install_command(
    name: str, module: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match=f"backend {name} needs .*; run: {command}$"):
        backends.load(name)
    if name in ("torch", "onnxruntime-cuda"):
        monkeypatch.setattr(gpu, "gpus", lambda: ONE_GPU)
        assert backends.unusable(name).startswith(f"backend {name} needs")


def told(machine: gpu.Found, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    monkeypatch.setattr(gpu, "gpus", lambda: machine)
    monkeypatch.setattr(doctor, "_run_graph", lambda backend: "")  # an imitated backend has nothing to run
    return [(line.part, line.how) for line in doctor.examine()]


def test_doctor_explains_the_choice_of_auto(works: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    two = gpu.Found((*ONE_GPU.gpus, gpu.Gpu("another", "sm_120", 32 << 30)), "13.0", "")
    works("onnxruntime-cuda")
    lines = told(two, monkeypatch)
    assert [text for what, text in lines if what == "gpu"] == [
        "a GPU, sm_90, 80 GiB, driver for CUDA 13.0",
        "another, sm_120, 32 GiB, driver for CUDA 13.0",
    ]
    assert {what.removeprefix("backend "): text for what, text in lines if what.startswith("backend ")} == {
        "tensorrt": "not usable: it is Monday",
        "tensorrt-rtx": "not usable: it is Monday",
        "torch": "ready; not what auto chooses: it is Monday",
        "onnxruntime-cuda": "ready; what auto chooses",
        "onnxruntime": "ready",
        "openvino": "ready; not what auto chooses: it computes in bfloat16 where the CPU can",
    }


def test_doctor_tells_how_plans_change_the_choice(works: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    works("tensorrt", "tensorrt-rtx", "torch")
    lines = dict(told(ONE_GPU, monkeypatch))
    assert lines["backend tensorrt"] == "ready; what auto chooses for a bundle with plans"
    assert lines["backend tensorrt-rtx"] == "ready; what auto chooses for a bundle with plans"
    assert lines["backend torch"] == "ready; what auto chooses for a bundle without plans"
    assert lines["backend onnxruntime"] == "ready"


def test_doctor_knows_the_wheel_that_replaces_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda package: {"onnxruntime-gpu": "1.31.1"}[package])
    facts = doctor.environment()
    both = dict(told(NO_GPU, monkeypatch))["onnxruntime"]
    assert "which overwrite each other's files; run: pip uninstall -y onnxruntime onnxruntime-gpu &&" in both
    alone = facts | {"packages": facts["packages"] | {"onnxruntime": None}}
    monkeypatch.setattr(doctor, "environment", lambda: alone)
    assert dict(told(NO_GPU, monkeypatch))["onnxruntime"] == "1.31.1, onnxruntime-gpu"
