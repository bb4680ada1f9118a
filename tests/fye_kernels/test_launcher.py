"""Compiled kernels are found, checked and launched as their manifest says; a GPU is not needed to see that."""

import hashlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fye_kernels.aot import variants
from fye_kernels.launcher import Kernels, _choose
from fye_rt.errors import BackendError

H100 = SimpleNamespace(compute_capability=SimpleNamespace(major=9, minor=0), device_id=0)
ENTRY = {
    "symbol": "_kernel",
    "arguments": [["x", "*fp16"], ["out", "*fp16"], ["count", "i32"], ["scale", "fp32"]],
    "aligned": ["x", "count"],
    "grid": ["ceil(count / 1024)", "batch * heads"],
    "warps": 4,
    "shared_memory": 2048,
}
ARGUMENTS = {"x": 4096, "out": 8200, "count": 2064, "scale": 0.5}


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """In cuda-core's place: what it would have launched."""
    calls: list[tuple[Any, ...]] = []
    core = ModuleType("cuda.core")
    core.ObjectCode = SimpleNamespace(  # type: ignore[attr-defined]
        from_cubin=lambda file: SimpleNamespace(get_kernel=lambda symbol: (Path(file).read_bytes(), symbol))
    )
    core.LaunchConfig = lambda **config: config  # type: ignore[attr-defined]
    core.launch = lambda *given: calls.append(given)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.core", core)
    return calls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cubins = {name: name.encode() for name in ("sm_80", "sm_90a")}
    entries = {
        name: ENTRY | {"file": f"k.{name}.cubin", "sha256": hashlib.sha256(cubin).hexdigest()}
        for name, cubin in cubins.items()
    }
    for name, cubin in cubins.items():
        (tmp_path / f"k.{name}.cubin").write_bytes(cubin)
    (tmp_path / "manifest.json").write_text(json.dumps({"triton": "1", "kernels": {"k": entries}}))
    return tmp_path


def test_a_launch_is_what_the_manifest_says(folder: Path, launched: list[tuple[Any, ...]]) -> None:
    kernels = Kernels.load(folder, H100)
    assert list(kernels) == ["k"] and len(kernels) == 1
    kernels["k"].launch("stream", ARGUMENTS, batch=2, heads=8)
    assert kernels["k"] is kernels["k"]
    ((stream, config, kernel, *arguments),) = launched
    assert stream == "stream" and kernel == (b"sm_90a", "_kernel")
    assert config == {"grid": (3, 16, 1), "block": 128, "shmem_size": 2048}
    assert arguments == [4096, 8200, 2064, 0.5, 0, 0]
    assert [type(argument) for argument in arguments] == [int, int, np.int32, np.float32, int, int]


def test_what_does_not_fit_is_refused(folder: Path, launched: list[tuple[Any, ...]]) -> None:
    kernel = Kernels.load(folder, H100)["k"]
    with pytest.raises(ValueError, match="x=4097 must be a multiple of 16"):
        kernel.launch("stream", ARGUMENTS | {"x": 4097}, batch=1, heads=1)
    with pytest.raises(ValueError, match="takes x, out, count, scale: more, scale is missing or none of them"):
        kernel.launch("stream", {"x": 16, "out": 16, "count": 16, "more": 1}, batch=1, heads=1)
    with pytest.raises(ValueError, match="the grid depends on batch"):
        kernel.launch("stream", ARGUMENTS, heads=1)
    assert not launched


@pytest.mark.usefixtures("launched")
def test_altered_and_foreign_kernels_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "k.sm_90a.cubin").write_bytes(b"other")
    with pytest.raises(BackendError, match="differs from its hash"):
        Kernels.load(folder, H100)["k"]
    blackwell = SimpleNamespace(compute_capability=SimpleNamespace(major=10, minor=0))
    with pytest.raises(BackendError, match=r"k for sm_80, sm_90a, not for sm_100; .*python -m fye_kernels\.aot"):
        Kernels.load(folder, blackwell)
    with pytest.raises(BackendError, match="has no compiled kernels"):
        Kernels.load(tmp_path / "nowhere", H100)


def test_a_gpu_runs_what_was_compiled_for_it_or_for_an_older_one_of_its_kind() -> None:
    architectures = dict.fromkeys(("sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a"))
    assert _choose(architectures, 8, 9) == "sm_89"
    assert _choose(architectures, 8, 7) == "sm_86"
    assert _choose(architectures, 9, 0) == "sm_90a"
    assert _choose(architectures, 12, 0) == "sm_120a"
    assert _choose(architectures, 12, 1) is None
    assert _choose(architectures, 7, 5) is None


def test_every_kernel_s_grid_can_be_computed(folder: Path) -> None:
    from fye_kernels.launcher import Kernel

    sizes = {"batch": 32, "clips": 2, "groups": 32}
    for variant in variants():
        kernel = object.__new__(Kernel)
        kernel._entry = {"grid": variant.grid}
        arguments = {name: 320 for name in variant.signature}
        assert min(kernel.grid(arguments | sizes)) >= 1, variant.name


def test_cuda_core_takes_a_cubin_and_has_what_is_called(folder: Path) -> None:
    core = pytest.importorskip("cuda.core")
    core.ObjectCode.from_cubin(str(folder / "k.sm_80.cubin"))
    assert core.LaunchConfig(grid=(3, 16, 1), block=128, shmem_size=2048).grid == (3, 16, 1)
    assert callable(core.launch)
