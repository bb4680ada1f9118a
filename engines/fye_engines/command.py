"""Implements the command `fye build`."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.util import find_spec
from itertools import chain

from fye_engines.building import Settings
from fye_engines.plans import BUILD, NEW_WEIGHTS, THERE, Request, Task, default_graphs, do, tasks
from fye_engines.prepare import Range, Shapes
from fye_rt import options
from fye_rt.backends.cuda_memory import Gpu
from fye_rt.backends.tensorrt import machine
from fye_rt.backends.tensorrt_kernels import compiled
from fye_rt.bundle import Bundle
from fye_rt.cli.terminal import Bars
from fye_rt.errors import OptionError
from fye_rt.options import Options
from fye_rt.plans import PlanCache, PlanKey
from fye_rt.plans.matching import RECIPE, Machine

KERNELS = "_fp32,to_uint8"  # our kernels that the runtime launches beside plans, whose outputs are float32


def request(
    bundle: Bundle,
    *,
    size: str | None,
    frames: str | None,
    windows: str,
    window_size: int,
    graphs: Sequence[str] | None,
    precision: str,
    attention: str,
    level: int,
    workspace: int | None,
    refit: bool,
    stripped: bool,
    rebuild: bool,
) -> Request:
    """Make a request from the options of the command line.

    Raises:
        OptionError: an option is not valid.
    """
    Options(windows=windows, window_size=window_size, window_overlap=0)  # refuses options that no clip can have
    sizes = [options.parse_size(text) for text in size.split(":")] if size else [bundle.size]
    if frames is None:
        frames = f"1:{window_size}:{window_size}" if windows == "progressive" else str(window_size)
    heights, widths = zip(*sizes, strict=True)
    return Request(
        tuple(graphs or default_graphs(bundle)),
        Shapes(_range("frames", frames.split(":")), _range("size", heights), _range("size", widths)),
        precision,
        attention,
        Settings(level, None if workspace is None else workspace << 20, refit or stripped, stripped),
        rebuild,
    )


def _range(name: str, values: Sequence[str | int]) -> Range:
    try:
        numbers = [int(value) for value in values]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise OptionError(f"{name}={':'.join(map(str, values))} is not valid; give one, or smallest:usual:largest")
    smallest, usual, largest = numbers
    return smallest, usual, largest


def build_plans(bundle: Bundle, request: Request, cache: PlanCache, bars: Bars) -> Iterator[str]:
    """Make the missing plans, graph by graph; yields a line for each.

    Raises:
        FyeError: see `fye_engines.plans.do`.
    """
    gpu, local = _local_machine()
    for task in tasks(bundle, request, cache, local):
        if task.action == THERE:
            yield f"{task.graph}: {THERE}, {cache.root / task.key.digest}"
            continue

        def progress(stage: str, done: float, total: float) -> None:
            bars(stage, round(100 * done / total), 100)

        facts = do(task, bundle, request, cache, gpu, progress)
        outputs = chain.from_iterable(by_output.values() for by_output in facts["differences"].values())
        worst = max((output["relative_rms"] or 0.0 for output in outputs), default=0.0)
        done = {BUILD: "built", NEW_WEIGHTS: "given new weights"}[facts["action"]]
        yield f"{task.graph}: {done} in {facts['seconds']:.0f} s, relative RMS of the outputs {worst:.1e} at most"
    if line := compile_kernels(cache, local):
        yield line


def planned(bundle: Bundle, request: Request, cache: PlanCache) -> Iterator[str]:
    """Yield what `build_plans` would do and why, a line for each graph."""
    _, local = _local_machine()
    todo = tasks(bundle, request, cache, local)
    yield f"{local.sm}, TensorRT {local.tensorrt}, driver {local.driver}; plans are in {cache.root}"
    for task in todo:
        yield f"{task.graph}: {task.action}{f' ({task.reason})' if task.reason else ''}; {_shapes(task)}"


def listed(cache: PlanCache) -> Iterator[str]:
    """Yield a line for each plan of the cache, then their total."""
    entries = cache.entries()
    for entry in entries:
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d")
        description = f"not usable: {entry.reason}" if entry.key is None else _describe(entry.key)
        yield f"{entry.path.name[:12]}  {entry.size / 1e6:8.1f} MB  {used}  {description}"
    yield f"{cache.root}: {len(entries)} plans, {sum(entry.size for entry in entries) / 1e6:,.1f} MB"


def pruned(cache: PlanCache) -> Iterator[str]:
    """Remove plans that this machine can no longer use; yields a line for each, then their total."""
    _, local = _local_machine()

    def keep(key: PlanKey) -> bool:
        return (key.sm, key.tensorrt, key.driver) == (local.sm, local.tensorrt, local.driver) and RECIPE in key.flags

    removed = cache.prune(keep, cache.limit)
    for entry in removed:
        yield f"removed {entry.path}"
    yield f"{cache.root}: {len(removed)} plans removed, {sum(entry.size for entry in removed) / 1e6:,.1f} MB"


def compile_kernels(cache: PlanCache, here: Machine) -> str:
    """Compile the kernels that keep latents on the GPU, unless they exist; returns a notice for the user, or ""."""
    if compiled(cache, Gpu().device, here.sm):
        return ""
    failure = "our own kernels are not compiled, so latents go through the host"
    if find_spec("triton") is None or find_spec("torch") is None:
        return f"{failure}; run: pip install 'fye-rt[kernels]'"
    folder = cache.place_for_kernels(here.sm)
    command = [sys.executable, "-m", "fye_kernels.aot", "--arch", here.sm, "--only", KERNELS, "--out", str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # a separate process, because Triton imports PyTorch, which must stay out of this one
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    return f"{failure}: {run.stderr.strip()}" if run.returncode else ""


def _local_machine() -> tuple[Gpu, Machine]:
    gpu = Gpu()
    return gpu, machine(gpu)


def _shapes(task: Task) -> str:
    shapes = task.shapes
    sides = [f"{height}x{width}" for height, width in zip(shapes.height, shapes.width, strict=True)]
    return f"{':'.join(map(str, dict.fromkeys(shapes.frames)))} frames of {':'.join(dict.fromkeys(sides))}"


def _describe(key: PlanKey) -> str:
    shape = "; ".join(
        f"{name} {' to '.join(dict.fromkeys('x'.join(map(str, sizes)) for sizes in (low, high)))}"
        for name, (low, _, high) in key.profile[-1:]
    )
    weights = key.weights[:8] or "none"
    return (
        f"{key.graph} {key.precision}, {shape or 'one shape'}, weights {weights}, {key.sm}, TensorRT {key.tensorrt}, "
        f"driver {key.driver}, {' '.join(key.flags)}"
    )
