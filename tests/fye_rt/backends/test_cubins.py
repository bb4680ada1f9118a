"""Compiled kernels are found, checked and launched as their manifest says; a GPU is not needed to see that."""

import hashlib
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fye_kernels import (
    forecast_step,
    forecast_tables,
    geglu,
    norm_silu,
    reference_attention,
    temporal_attention,
    to_uint8,
)
from fye_kernels.aot import variants
from fye_rt import windows
from fye_rt.backends import cubins
from fye_rt.backends.cubins import Kernel, Kernels, _choose
from fye_rt.errors import BackendError
from fye_rt.forecast import Jump

H100 = SimpleNamespace(compute_capability=SimpleNamespace(major=9, minor=0), device_id=0)
ENTRY = {
    "symbol": "_kernel",
    "arguments": [["x", "*fp16"], ["out", "*fp16"], ["count", "i32"], ["scale", "fp32"]],
    "aligned": ["x", "count"],
    "grid": ["ceil(count / 1024)", "batch * heads"],
    "warps": 4,
    "shared_memory": 2048,
}
KINDS = {int: "i32", float: "fp32"}  # as Triton has Python's numbers
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
    entries = {}
    for name in ("sm_80", "sm_90a"):
        (tmp_path / f"k.{name}.cubin").write_bytes(name.encode())
        entries[name] = ENTRY | {"file": f"k.{name}.cubin", "sha256": hashlib.sha256(name.encode()).hexdigest()}
    (tmp_path / "manifest.json").write_text(json.dumps({"triton": "1", "kernels": {"k": entries}}))
    return tmp_path


def test_a_kernel_is_launched_as_its_manifest_says(folder: Path, launched: list[tuple[Any, ...]]) -> None:
    kernels = Kernels.load(folder, H100)
    assert list(kernels) == ["k"] and len(kernels) == 1
    kernels["k"].launch("stream", ARGUMENTS, batch=2, heads=8)
    assert kernels["k"] is kernels["k"]
    ((stream, config, kernel, *arguments),) = launched
    assert stream == "stream" and kernel == (b"sm_90a", "_kernel")
    assert config == {"grid": (3, 16, 1), "block": 128, "shmem_size": 2048}
    assert arguments == [4096, 8200, 2064, 0.5, 0, 0]
    assert [type(argument) for argument in arguments] == [int, int, np.int32, np.float32, int, int]


def test_arguments_that_do_not_fit_the_manifest_are_refused(folder: Path, launched: list[tuple[Any, ...]]) -> None:
    kernel = Kernels.load(folder, H100)["k"]
    with pytest.raises(ValueError, match="x=4097 must be a multiple of 16"):
        kernel.launch("stream", ARGUMENTS | {"x": 4097}, batch=1, heads=1)
    with pytest.raises(ValueError, match="takes x, out, count, scale: more, scale is missing or none of them"):
        kernel.launch("stream", {"x": 16, "out": 16, "count": 16, "more": 1}, batch=1, heads=1)
    with pytest.raises(ValueError, match="the grid depends on batch"):
        kernel.launch("stream", ARGUMENTS, heads=1)
    assert not launched


@pytest.mark.usefixtures("launched")
def test_shared_memory_over_48_kib_is_requested(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, Any]] = []
    monkeypatch.setattr(cubins, "_grant", lambda kernel, size, device: asked.append((size, device)))
    for size in (48 * 1024, 48 * 1024 + 1):
        Kernel("k", ENTRY | {"shared_memory": size}, folder / "k.sm_90a.cubin", H100)
    assert asked == [(48 * 1024 + 1, H100)]


def test_shared_memory_that_is_not_granted_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    driver = SimpleNamespace(
        CUfunction_attribute=SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="most"),
        CUresult=SimpleNamespace(CUDA_SUCCESS=0),
        cuKernelSetAttribute=lambda *given: (calls.append(given), (len(calls) - 1,))[1],
    )
    bindings = ModuleType("cuda.bindings")
    bindings.driver = driver  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    kernel = SimpleNamespace(handle="handle")
    cubins._grant(kernel, 50_000, H100)
    assert calls == [("most", 50_000, "handle", 0)]
    with pytest.raises(BackendError, match="needs 50000 bytes of shared memory"):
        cubins._grant(kernel, 50_000, H100)


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


def test_a_gpu_runs_kernels_of_its_own_or_an_older_architecture() -> None:
    architectures = dict.fromkeys(("sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a"))
    expected = {(8, 9): "sm_89", (8, 7): "sm_86", (9, 0): "sm_90a", (12, 0): "sm_120a", (12, 1): None, (7, 5): None}
    assert {capability: _choose(architectures, *capability) for capability in expected} == expected


def test_every_kernel_s_grid_can_be_computed() -> None:
    sizes = {"batch": 32, "clips": 2, "groups": 32, "rows": 5}
    compiled = list(variants("sm_90a"))
    assert len(compiled) > 10
    for variant in compiled:
        kernel = object.__new__(Kernel)
        kernel._entry = {"grid": variant.grid}
        arguments = {name: 320 for name in variant.signature}
        assert min(kernel.grid(arguments | sizes)) >= 1, variant.name


def half(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.float16)


def attend() -> None:
    q, r = half(4, 70, 320), half(1, 9, 320)
    reference_attention.reference_attention(q, q, q, r, r, 8, 2)


def attend_among_frames() -> None:
    q = half(2 * 13, 5, 320)
    temporal_attention.temporal_attention(q, q, q, 8, 13, half(3, 13, 320))


def step() -> None:
    x, row = torch.zeros(1, 4, 3, 20, 20), forecast_tables.numbers(Jump(0, 1, 1.0, (1.0,)), 3.5, 0, 2)
    slot = torch.zeros(1, dtype=torch.int32)
    forecast_step.forecast_step(x, x.half(), x.half(), torch.zeros(2, *x.shape), slot, row, x[0, 0] > 0)


def step_of_windows() -> None:
    x, row = torch.zeros(1, 4, 3, 20, 20), forecast_tables.numbers(Jump(0, 1, 1.0, (1.0,)), 3.5, 0, 2)
    slot, parts = torch.zeros(1, dtype=torch.int32), torch.zeros(2, 4, 2, 20, 20, dtype=torch.bfloat16)
    blend = forecast_tables.blend(windows.blended_windows(3, "context", 2, 1), 3)
    forecast_step.forecast_step(x, None, parts, torch.zeros(2, *x.shape), slot, row, None, blend)


def normalise() -> None:
    x = half(2, 320, 24, 24).to(memory_format=torch.channels_last)
    norm_silu.norm_silu(x, 32, half(320), half(320), 1e-5, half(2, 320))


@pytest.mark.parametrize(
    ("module", "function", "call", "name"),
    [
        (reference_attention, "_kernel", attend, "reference_attention_40_fp16"),
        (temporal_attention, "_kernel", attend_among_frames, "temporal_attention_40_16_fp16"),
        (forecast_step, "_kernel", step, "forecast_step_guided_masked_fp16"),
        (forecast_step, "_blended_kernel", step_of_windows, "forecast_step_plain_blended_bf16"),
        (norm_silu, "_measure_kernel", normalise, "norm_silu_measure_64_fp16"),
        (norm_silu, "_fold_kernel", normalise, "norm_silu_fold_16_time_fp16"),
        (norm_silu, "_apply_kernel", normalise, "norm_silu_apply_64_time_fp16"),
        (geglu, "_kernel", lambda: geglu.geglu(half(7, 640)), "geglu_fp16"),
        (to_uint8, "_kernel", lambda: to_uint8.to_uint8(torch.zeros(3008)), "to_uint8"),
    ],
)
def test_compiled_kernels_match_the_launches_of_pytorch(
    module: ModuleType, function: str, call: Callable[[], None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches: list[tuple[str, Any, Any, Any]] = []

    class Recorder:
        def __init__(self, kernel: str) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda *given, **constants: launches.append((self.kernel, grid, given, constants))

    parameters = list(inspect.signature(getattr(module, function).fn).parameters)
    (variant,) = (variant for variant in variants("sm_80") if variant.name == name)
    for each in [each for each in vars(module) if each.endswith("_kernel")]:
        monkeypatch.setattr(module, each, Recorder(each))
    call()
    ((grid, given, constants),) = (launch[1:] for launch in launches if launch[0] == function)
    options = {"num_warps": constants.pop("num_warps", 4), "num_stages": constants.pop("num_stages", 2)}
    assert constants == variant.constants
    assert options == {"num_warps": variant.warps, "num_stages": variant.stages}
    arguments = dict(zip(parameters, given, strict=False))
    assert set(arguments) == set(variant.signature)
    for argument, value in arguments.items():
        kind = variant.signature[argument]
        assert kind[0] == "*" if isinstance(value, torch.Tensor) else kind == KINDS[type(value)], argument
        if argument in variant.aligned and not isinstance(value, torch.Tensor):
            assert value % 16 == 0, argument
    kernel = object.__new__(Kernel)
    kernel._entry = {"grid": variant.grid}
    sizes = {argument: value for argument, value in arguments.items() if isinstance(value, int)}
    sizes |= {"batch": 4 if module is reference_attention else 2, "clips": 2, "groups": 32, "rows": 7}
    assert kernel.grid(sizes) == (
        *grid,
        *[1] * (3 - len(grid)),
    )


def test_cuda_core_takes_a_cubin_and_has_the_functions_we_call(folder: Path) -> None:
    core = pytest.importorskip("cuda.core")
    core.ObjectCode.from_cubin(str(folder / "k.sm_80.cubin"))
    assert core.LaunchConfig(grid=(3, 16, 1), block=128, shmem_size=2048).grid == (3, 16, 1)
    assert callable(core.launch)
