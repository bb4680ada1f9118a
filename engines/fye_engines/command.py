"""Implements the command `fye build`."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from itertools import chain
from typing import Any

from fye_engines.building import Settings
from fye_engines.plans import BUILD, NEW_WEIGHTS, THERE, Maker, Request, Task, default_graphs, tasks
from fye_engines.prepare import Range, Shapes, prepare
from fye_rt import settings
from fye_rt.backends.cuda_memory import Gpu
from fye_rt.backends.tensorrt import RTX_BACKEND, TENSORRT_BACKEND
from fye_rt.backends.tensorrt_kernels import compiled
from fye_rt.backends.tensorrt_library import LIBRARIES, RTX, TENSORRT
from fye_rt.bundle import Bundle
from fye_rt.cli.terminal import Bars
from fye_rt.errors import BackendError, OptionError
from fye_rt.options import Options
from fye_rt.plans import PlanCache, PlanKey
from fye_rt.plans.matching import RECIPE, Machine

KERNELS = "_fp32,to_uint8"  # our kernels that the runtime launches beside plans, whose outputs are float32


def request(
    bundle: Bundle,
    *,
    backend: str,
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
    if backend not in LIBRARIES:
        raise OptionError(f"backend={backend!r} is not valid; allowed: {', '.join(LIBRARIES)}")
    Options(windows=windows, window_size=window_size, window_overlap=0)  # refuses options that no clip can have
    sizes = [settings.parse_size(text) for text in size.split(":")] if size else [bundle.size]
    if frames is None:
        frames = f"1:{window_size}:{window_size}" if windows == "progressive" else str(window_size)
    heights, widths = zip(*sizes, strict=True)
    return Request(
        tuple(graphs or default_graphs(bundle)),
        Shapes(_range("frames", frames.split(":")), _range("size", heights), _range("size", widths)),
        precision,
        attention,
        Settings(level, None if workspace is None else workspace << 20, refit or stripped, stripped),
        LIBRARIES[backend],
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


def build_plans(
    bundle: Bundle, request: Request, architectures: Sequence[str], cache: PlanCache, bars: Bars
) -> Iterator[str]:
    """Make the missing plans, graph by graph; yields a line for each.

    `architectures` are those that TensorRT-RTX builds for; none means its usual ones. See `Library.targets`.

    Raises:
        FyeError: see `fye_engines.plans.Maker.carry_out`.
    """
    gpu, target = _target(request, architectures)
    maker = Maker(bundle, request, cache, gpu, bars)
    for task in tasks(bundle, request, cache, target):
        if task.action == THERE:
            compared = f"; {_accuracy(maker.compare(task)['differences'])}" if request.library is RTX else ""
            yield f"{task.graph}: {THERE}, {cache.root / task.key.digest}{compared}"
            continue
        facts = maker.carry_out(task)
        done = {BUILD: "built", NEW_WEIGHTS: "given new weights"}[facts["action"]]
        said = (f"{done} in {facts['seconds']:.0f} s", facts.get("decomposition"), _accuracy(facts["differences"]))
        yield f"{task.graph}: {'; '.join(filter(None, said))}"
    if gpu is not None and (line := compile_kernels(cache, gpu)):
        yield line


def planned(bundle: Bundle, request: Request, architectures: Sequence[str], cache: PlanCache) -> Iterator[str]:
    """Yield what `build_plans` would do and why, a line for each graph."""
    _, target = _target(request, architectures)
    driver = f", driver {target.driver}" if request.library is TENSORRT else ""
    version, todo = request.library.version(), tasks(bundle, request, cache, target)
    yield f"{target.sm.replace('+', ', ')}, {request.library.title} {version}{driver}; plans are in {cache.root}"
    for task in todo:
        line = f"{task.graph}: {task.action}{f' ({task.reason})' if task.reason else ''}; {_shapes(task)}"
        if task.action == BUILD:
            prepared = prepare(bundle, task.graph, task.shapes, request.precision, request.attention)
            line += f"; {prepared.decomposition}" if prepared.decomposition else ""
        yield line


def listed(cache: PlanCache) -> Iterator[str]:
    """Yield a line for each plan of the cache, then their total."""
    entries = cache.entries()
    for entry in entries:
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d")
        description = f"not usable: {entry.reason}" if entry.key is None else _describe(entry.key)
        yield f"{entry.path.name[:12]}  {entry.size / 1e6:8.1f} MB  {used}  {description}"
    yield f"{cache.root}: {len(entries)} plans, {sum(entry.size for entry in entries) / 1e6:,.1f} MB"


def pruned(cache: PlanCache) -> Iterator[str]:
    """Remove plans that no library and GPU of this machine can use any more; yields a line for each, then their total.

    Plans of TensorRT-RTX are kept for other machines' cards, too.

    Raises:
        BackendError: neither library can be used.
    """
    kept: list[tuple[str, ...]] = []
    reasons = []
    try:
        here = TENSORRT_BACKEND.machine(Gpu())
        kept.append((here.sm, here.tensorrt, here.driver))
    except BackendError as error:
        reasons.append(str(error))
    try:
        kept.append(RTX_BACKEND.versions())
    except BackendError as error:
        reasons.append(str(error))
    if not kept:
        raise BackendError(f"no plan can be tried here: {'; '.join(reasons)}")

    def keep(key: PlanKey) -> bool:
        facts = (key.sm, key.tensorrt, key.driver)
        return RECIPE in key.flags and (facts in kept or facts[1:] in kept)

    removed = cache.prune(keep, cache.limit)
    for entry in removed:
        yield f"removed {entry.path}"
    yield f"{cache.root}: {len(removed)} plans removed, {sum(entry.size for entry in removed) / 1e6:,.1f} MB"


def compile_kernels(cache: PlanCache, gpu: Gpu) -> str:
    """Compile the kernels that keep latents on the GPU, unless they exist; returns a notice for the user, or ""."""
    sm = f"sm_{gpu.device.arch}"
    if compiled(cache, gpu.device, sm):
        return ""
    failure = "our own kernels are not compiled, so latents go through the host"
    if find_spec("triton") is None or find_spec("torch") is None:
        return f"{failure}; run: pip install 'fye-rt[kernels]'"
    folder = cache.place_for_kernels(sm)
    command = [sys.executable, "-m", "fye_kernels.aot", "--arch", sm, "--only", KERNELS, "--out", str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # a separate process, because Triton imports PyTorch, which must stay out of this one
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    return f"{failure}: {run.stderr.strip()}" if run.returncode else ""


def _target(request: Request, names: Sequence[str]) -> tuple[Gpu | None, Machine]:
    """Return what plans are built for, and the GPU that can run them; None if there is none, which TensorRT needs."""
    architectures = request.library.targets(tuple(names), request.precision)
    if not architectures:
        gpu = Gpu()
        return gpu, TENSORRT_BACKEND.machine(gpu)
    versions = RTX_BACKEND.versions()
    try:
        card: Gpu | None = Gpu()
    except BackendError:
        card = None
    if card is not None and f"sm_{card.device.arch}" not in architectures:
        card = None
    return card, Machine("+".join(architectures), *versions)


def _accuracy(differences: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    if not differences:
        return "not run: this machine has no GPU that the plan serves"
    outputs = chain.from_iterable(by_output.values() for by_output in differences.values())
    worst = max((output["relative_rms"] or 0.0 for output in outputs), default=0.0)
    return f"relative RMS of the outputs {worst:.1e} at most"


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
