"""Kernels compiled ahead of time, launched as beside TensorRT's engines: by cuda-core, without Triton's launcher."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fye_bench.first.record import Record
from fye_kernels import forecast_step, forecast_tables
from fye_rt import arrays
from fye_rt.backends.cubins import Kernels
from fye_rt.backends.cuda_memory import Gpu, Place
from fye_rt.errors import BackendError
from fye_rt.forecast import Jump

KINDS = ("guided", "guided_masked", "plain", "plain_masked")
NAMES = ("to_uint8", *(f"forecast_step_{kind}_fp32" for kind in KINDS))
BOUND = 1e-5  # of the largest result: float32 sums of up to seven products, in another order or fused
_READY = Path("build/kernels")
_SPOT = Path("build/gpu/kernels")


def run(record: Record, out: Path, small: bool) -> None:
    """See `fye_bench.first`."""
    try:
        gpu = Gpu()
    except BackendError as error:
        gpu, reason = None, str(error)
    folder = None
    with record.part("kernels") as result:
        folder, result["compiled"] = compiled("sm_90a" if gpu is None else f"sm_{gpu.device.arch}", result)
        result["folder"] = str(folder)
    if gpu is None:
        record.skip("launches", reason)
    elif folder is not None:
        launches(record, gpu, Kernels.load(folder, gpu.device), small)


def compiled(architecture: str, result: dict[str, Any]) -> tuple[Path, bool]:
    """Return a folder of the kernels for an architecture such as "sm_90a", and whether they were compiled for this run.

    `result` receives the compiler's output.
    """
    try:
        entries = json.loads((_READY / "manifest.json").read_text())["kernels"]
        if all(any(name.rstrip("a") == architecture.rstrip("a") for name in entries[each]) for each in NAMES):
            return _READY, False
    except (OSError, ValueError, KeyError) as error:
        result["absent"] = f"{type(error).__name__}: {error}"
    only = ",".join(NAMES)
    command = [sys.executable, "-m", "fye_kernels.aot", "--arch", architecture, "--only", only, "--out", str(_SPOT)]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    result["said"] = said.stdout + said.stderr
    if said.returncode:
        raise BackendError(f"the kernels don't compile: {said.stderr.strip()}")
    return _SPOT, True


def launches(record: Record, gpu: Gpu, kernels: Mapping[str, Any], small: bool) -> None:
    """Launch the kernels in `NAMES`, each in a part of its own, on `small` or large arrays, and compare the results."""
    with record.part("pinned memory") as result:
        buffer, array = gpu.pinned(64)
        array[:] = 7
        result |= {"writeable": bool(array.flags.writeable), "size": int(buffer.size)}
        result["right"] = result["writeable"] and bool((array == 7).all())
    with record.part("to_uint8") as result:
        result |= _frames(gpu, kernels["to_uint8"], small)
    for kind in KINDS:
        with record.part(f"forecast_step, {kind}") as result:
            result |= _steps(gpu, kernels[f"forecast_step_{kind}_fp32"], kind, small, captured=False)
    with record.part("forecast_step in a captured graph") as result:
        result |= _steps(gpu, kernels["forecast_step_guided_fp32"], "guided", small, captured=True)


def _places(gpu: Gpu, *arrays: NDArray[Any]) -> list[Place]:
    """Queue copies of arrays to memory of their own."""
    places = [Place(gpu, array.dtype) for array in arrays]
    for place, array in zip(places, arrays, strict=True):
        place.reserve(array.shape)
        place.upload(array)
    return places


def _frames(gpu: Gpu, kernel: Any, small: bool) -> dict[str, Any]:
    shape = (1, 16, 16, 3) if small else (8, 512, 512, 3)
    frames = np.random.default_rng(0).uniform(-0.1, 1.1, shape).astype(np.float32)
    right, flags = True, []
    for value in (0.5, np.nan, np.inf):
        frames[0, 3, 5, 1] = value
        x, pixels, wrong = _places(gpu, frames, np.full(shape, 77, np.uint8), np.zeros(1, np.int32))
        addresses = {"x": x.address, "out": pixels.address, "wrong": wrong.address, "count": frames.size}
        kernel.launch(gpu.stream, addresses)
        pixels.download()
        wrong.download()
        gpu.wait()
        flags.append(int(wrong.array((1,))[0]))
        finite = np.isfinite(frames)
        expected = arrays.to_uint8(np.where(finite, frames, np.float32(0)))
        right = right and bool((pixels.array(shape) == expected)[finite].all())
    return {"flags": flags, "right": right and flags == [0, 1, 1]}


def _steps(gpu: Gpu, kernel: Any, kind: str, small: bool, captured: bool) -> dict[str, Any]:
    """Two jumps of the same numbers: by two launches, or by two launches of a graph of one."""
    random, shape = np.random.default_rng(1), (1, 4, 2, 8, 8) if small else (1, 4, 16, 64, 64)
    latents, u, c = (random.standard_normal(shape, np.float32) for _ in range(3))
    ring = random.standard_normal((2, *shape), np.float32)
    face = random.random(shape[2:]) < 0.5
    masked = kind.endswith("masked")
    outside = {"outside": (1.5, 0.25)} if masked else {}
    numbers = forecast_tables.numbers(Jump(0, 2, 0.9, (0.4, -0.2), 0.6, 0.8, -0.6, **outside), 3.5, 1, 2)
    inputs = {
        "latents": latents, "unconditional": u, "conditional": c, "ring": ring, "slot": np.array([1], np.int32),
        "numbers": numbers.numpy(), "face": face.view(np.uint8),
    }  # fmt: skip
    places = dict(zip(inputs, _places(gpu, *inputs.values()), strict=True))
    gpu.wait()
    sizes = {"count": latents.size, "plane": face.size}
    arguments = {name: place.address for name, place in places.items()} | sizes

    def launch() -> None:
        kernel.launch(gpu.stream, arguments)

    if captured:
        builder = gpu.stream.create_graph_builder()
        builder.begin_building()
        launch()
        builder.end_building()
        graph = builder.complete()
        builder.close()

        def launch() -> None:
            graph.launch(gpu.stream)

    expected, expected_ring = torch.from_numpy(latents.copy()), torch.from_numpy(ring.copy())
    halves = (torch.from_numpy(u) if kind.startswith("guided") else None, torch.from_numpy(c))
    for _ in range(2):
        launch()
        slot = torch.tensor([1], dtype=torch.int32)
        mask = torch.from_numpy(face) if masked else None
        forecast_step.reference(expected, *halves, expected_ring, slot, numbers, mask)
    for name in ("latents", "ring"):
        places[name].download()
    gpu.wait()
    errors = {
        name: float(np.abs(places[name].array(exact.shape) - exact.numpy()).max() / exact.abs().max())
        for name, exact in (("latents", expected), ("ring", expected_ring))
    }
    return {"errors": errors, "right": max(errors.values()) <= BOUND}
