"""An imitated GPU with TensorRT or TensorRT-RTX: ONNX Runtime computes plans, when their stream comes to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fye_rt import arrays
from fye_rt.backends.cubins import Kernels
from fye_rt.backends.jump_row import GUIDANCE, ROW, A, B, C, D, W
from fye_rt.backends.onnxruntime import open_engine
from fye_rt.backends.tensorrt_library import RTX, Library
from fye_rt.bundle import Bundle, symbols
from fye_rt.engine import Settings
from tests.fye_engines import fake_cuda_core
from tests.fye_engines.imitated_tensorrt import Execution, Imitation

TYPES = {"FLOAT": np.float32, "HALF": np.float16, "BF16": np.uint16, "INT64": np.int64}


@dataclass(eq=False)
class FakeGpu:
    """A GPU.

    Attributes:
        trt: the imitated TensorRT or TensorRT-RTX.
        cuda: the imitated cuda-core.
        bundle: whose graphs plans are made of.
        error: what a plan adds to its outputs, in parts of the largest number.
        launches: of our own kernel that moves latents.
        conversions: of frames to bytes by our own.
    """

    trt: Any
    cuda: Any
    bundle: Bundle
    error: float = 0.0
    launches: int = 0
    conversions: int = 0

    @property
    def backend(self) -> str:
        """Backend that runs its plans."""
        backend: str = self.trt.library.backend
        return backend

    def compute(self, execution: Execution) -> None:
        """Queue a run."""
        self.cuda.enqueue(execution.stream, lambda: self._run(execution))

    def _run(self, execution: Execution) -> None:
        tensors = {tensor["name"]: tensor for tensor in execution.plan["tensors"]}
        inputs, outputs = {}, {}
        for name, tensor in tensors.items():
            array = self.cuda.array(execution.addresses[name], execution.shapes[name], TYPES[tensor["dtype"]])
            (inputs if tensor["mode"] == "INPUT" else outputs)[name] = array
        graph = next(
            name for name, each in self.bundle.graphs.items() if {t.name for t in each.outputs} == set(outputs)
        )
        given = {name: _read(array, tensors[name]["dtype"]) for name, array in inputs.items()}
        for name, array in _engine(self.bundle, graph).run(given).items():
            outputs[name][...] = array + self.error * np.abs(array).max()

    def launch(self, stream: Any, arguments: Mapping[str, Any], guided: bool, masked: bool) -> None:
        """Queue the kernel `forecast_step`."""
        self.cuda.enqueue(int(stream.handle), lambda: self._forecast_step(arguments, guided, masked))
        self.launches += 1

    @np.errstate(invalid="ignore")
    def _forecast_step(self, given: Mapping[str, Any], guided: bool, masked: bool) -> None:
        count = given["count"]

        def at(name: str, shape: tuple[int, ...] = (count,), dtype: Any = np.float32, skip: int = 0) -> Any:
            return self.cuda.array(given[name] + skip, shape, dtype)

        rows, slot = at("numbers", (2, ROW)), int(at("slot", (1,), np.int32)[0])
        x, v = at("latents"), at("conditional")
        if guided:
            v = at("unconditional") + rows[0, GUIDANCE] * (v - at("unconditional"))
        at("ring", skip=4 * count * slot)[...] = rows[0, C] * v + rows[0, D] * x
        moved = []
        for row in rows:
            used = [(number, weight) for number, weight in enumerate(row[W:]) if weight]
            held = sum(weight * at("ring", skip=4 * count * number) for number, weight in used)
            moved.append(row[A] * x + row[B] * v + held)
        inside = np.resize(at("face", (given["plane"],), np.uint8), count) if masked else np.ones(count)
        x[...] = np.where(inside, *moved)

    def to_uint8(self, given: Mapping[str, Any]) -> None:
        """The kernel of that name."""
        x = self.cuda.array(given["x"], (given["count"],), np.float32)
        finite = np.isfinite(x)
        self.cuda.array(given["out"], x.shape, np.uint8)[...] = arrays.to_uint8(np.where(finite, x, np.float32(0)))
        if not finite.all():
            self.cuda.array(given["wrong"], (1,), np.int32)[...] = 1
        self.conversions += 1


def install(monkeypatch: pytest.MonkeyPatch, bundle: Bundle, plans: Path, library: Library) -> FakeGpu:
    """Both libraries, for a bundle, with plans in a folder; the GPU is one that the library serves."""
    gpu = FakeGpu(Imitation(library), fake_cuda_core.Fake(), bundle)
    gpu.trt.install(monkeypatch)
    gpu.cuda.install(monkeypatch)
    gpu.trt.compute = gpu.compute
    gpu.trt.sizes = _sizes
    if library is RTX:
        gpu.cuda.capability = (8, 9)
    monkeypatch.setenv("FYE_PLANS", str(plans))
    return gpu


def with_kernels(monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu, folder: Path) -> None:
    """The kernels that `fye build` compiles, as if for the GPU: NumPy does their work."""
    pytest.importorskip("triton")
    from fye_engines.command import KERNELS
    from fye_kernels.aot import variants

    class Compiled:
        def __init__(self, variant: Any) -> None:
            self.name, self._variant = variant.name, variant

        def launch(self, stream: Any, arguments: Mapping[str, Any]) -> None:
            assert set(arguments) == set(self._variant.signature)
            assert not any(arguments[name] % 16 for name in self._variant.aligned), arguments
            if self.name == "to_uint8":
                gpu.cuda.enqueue(int(stream.handle), lambda: gpu.to_uint8(arguments))
            else:
                assert self._variant.signature["conditional"] == "*fp32"
                gpu.launch(stream, arguments, "guided" in self.name, "masked" in self.name)

    chosen = [variant for variant in variants("sm_80") if any(text in variant.name for text in KERNELS.split(","))]
    kernels = {variant.name: Compiled(variant) for variant in chosen}
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(Kernels, "load", lambda where, device: kernels)


_opened: dict[tuple[str, str], Any] = {}


def _engine(bundle: Bundle, graph: str) -> Any:
    key = bundle.digest, graph
    if key not in _opened:
        _opened[key] = open_engine(bundle, graph, Settings(threads=1))
    return _opened[key]


def _read(array: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32) if dtype == "HALF" else array.copy()


def _sizes(known: Mapping[str, int]) -> Mapping[str, int]:
    height = known.get("height", 8 * known.get("latent_height", 0))
    width = known.get("width", 8 * known.get("latent_width", 0))
    return {name: n for name, n in symbols(known.get("frames", 0), height, width).items() if n}
