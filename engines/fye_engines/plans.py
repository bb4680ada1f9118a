"""From a bundle to checked plans in the user's cache: what is missing is built, or an older plan gets new weights."""

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fye_engines.building import Progress, Settings, build, refit
from fye_engines.checking import compare, exact_engine, random_inputs, refusal
from fye_engines.prepare import Prepared, Shapes, check_names, prepare
from fye_engines.quantize import kept
from fye_rt.backends.cuda_memory import Gpu
from fye_rt.backends.tensorrt import TensorRTEngine
from fye_rt.bundle import GRAPHS, Bundle
from fye_rt.engine import GPU_PIXELS
from fye_rt.errors import BackendError, FyeError, OptionError
from fye_rt.plans import PlanCache, PlanKey, profile
from fye_rt.plans.matching import EIGHT_BITS, STRIPPED, Machine, plan_key, precision_of, rebuild_command
from fye_rt.stages import DECODER_CHUNK, GUIDER_CHUNK

REFIT = "refit"
logger = logging.getLogger("fye_rt")
THERE, NEW_WEIGHTS, BUILD = "is there", "gets new weights", "is built"


@dataclass(frozen=True, slots=True)
class Request:
    """What plans are wanted.

    Attributes:
        graphs: their names.
        shapes: of the clips.
        precision: see `fye_engines.prepare.prepare`.
        attention: likewise.
        settings: of the builder.
        rebuild: whether plans are built that are there already, or could get new weights.

    Raises:
        OptionError: a precision or an attention that does not exist.
    """

    graphs: tuple[str, ...]
    shapes: Shapes
    precision: str = "fp16"
    attention: str = "fused"
    settings: Settings = field(default_factory=Settings)
    rebuild: bool = False

    def __post_init__(self) -> None:
        check_names(self.precision, self.attention)


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done for one graph.

    Attributes:
        graph: its name.
        shapes: that its plan takes.
        key: of the plan that comes of it, or is there.
        action: `THERE`, `NEW_WEIGHTS` or `BUILD`.
        reason: why.
        source: key of the plan that gets new weights.
    """

    graph: str
    shapes: Shapes
    key: PlanKey
    action: str
    reason: str
    source: PlanKey | None = None


def default_graphs(bundle: Bundle) -> tuple[str, ...]:
    """All but the denoiser that the bundle's own guidance does not need."""
    spared = "denoiser_cond" if bundle.guidance > 1 else "denoiser"
    return tuple(graph for graph in GRAPHS if graph != spared)


def graph_shapes(graph: str, shapes: Shapes) -> Shapes:
    """What a graph is run on, for clips of these shapes.

    Guider and decoder are given frames in chunks, the last of which may be short; the portrait's graphs know none.
    """
    if graph == "guider":
        return replace(shapes, frames=(1, GUIDER_CHUNK, GUIDER_CHUNK))
    if graph == "vae_decoder":
        most, usual = (
            min(DECODER_CHUNK, max(1, GPU_PIXELS // (height * width)))
            for height, width in zip(shapes.height[:2], shapes.width[:2], strict=True)
        )
        return replace(shapes, frames=(1, usual, most))
    return shapes


def tasks(bundle: Bundle, request: Request, cache: PlanCache, machine: Machine) -> list[Task]:
    """What there is to do; nothing is done.

    Raises:
        OptionError: a graph that does not exist, more frames than the bundle allows, or 8 bits with refit or without
            ranges.
        BackendError: the cache cannot be read.
        BundleError: ranges that are damaged.
    """
    if unknown := [graph for graph in request.graphs if graph not in bundle.graphs]:
        raise OptionError(f"graph={unknown[0]} is not valid; allowed: {', '.join(GRAPHS)}")
    if request.precision in EIGHT_BITS and request.settings.refit:
        raise OptionError(f"precision={request.precision!r}: scales follow from weights, so no refit; build it anew")
    if request.shapes.frames[2] > bundle.max_frames:
        raise OptionError(f"frames={request.shapes.frames[2]} is not valid; this bundle allows {bundle.max_frames}")
    for graph in request.graphs:
        if precision_of(graph, request.precision) in EIGHT_BITS:
            kept(bundle, graph)  # now, not after the graphs before it were built
    there = [entry.key for entry in cache.entries() if entry.key is not None]
    return [_task(bundle, graph, request, cache, machine, there) for graph in request.graphs]


def do(task: Task, bundle: Bundle, request: Request, cache: PlanCache, gpu: Gpu, progress: Progress) -> dict[str, Any]:
    """Carry a task out: the plan is made, compared with ONNX Runtime in float32, and published.

    Of two processes that want the same plan one builds it, and the other takes it.

    Args:
        task: from `tasks`.
        bundle: likewise.
        request: likewise.
        cache: likewise.
        gpu: that the plan is for.
        progress: called with (stage, done, total).

    Returns:
        Facts about the plan; see `fye_rt.plans.Plan`.

    Raises:
        BackendError: TensorRT refuses the graph, or the plan says something else than ONNX Runtime.
        OutputError: the cache cannot be written.
        KeyboardInterrupt: Ctrl-C; nothing is published.
    """
    with cache.lock(task.key, lambda line: progress(line, 0, 1)):
        if not request.rebuild:
            try:
                return dict(cache.open(task.key, "").facts)
            except BackendError:
                pass  # that is why we are here
        began = time.monotonic()
        prepared = prepare(bundle, task.graph, task.shapes, request.precision, request.attention)
        plan = _made(task, bundle, request, cache, prepared, progress)
        bare = plan if STRIPPED in task.key.flags else None
        if bare is not None:
            plan = refit(prepared, bundle.path / bundle.weights, bare)
        key = _with_weights(task.key, bundle)
        found = _compared(bundle, task, key, plan, gpu, cache, progress)
        facts = {"action": task.action, "seconds": round(time.monotonic() - began, 1), "differences": found}
        if bare is not None:
            cache.publish(task.key, bare, facts)
        cache.publish(key, plan, facts)
        return facts


def _task(
    bundle: Bundle, graph: str, request: Request, cache: PlanCache, machine: Machine, there: Sequence[PlanKey]
) -> Task:
    shapes = graph_shapes(graph, request.shapes)
    flags = (f"attention={request.attention}", *request.settings.flags())
    key = plan_key(bundle, graph, machine, request.precision, profile(shapes.profile(bundle.graphs[graph])), flags)
    if request.rebuild:
        return Task(graph, shapes, key, BUILD, "it is asked for")
    plain = _with_weights(key, bundle)
    refittable = replace(plain, flags=(*plain.flags, REFIT))
    if key in there or STRIPPED not in key.flags:
        for other in (plain, refittable):
            if other in there:
                return Task(graph, shapes, other, THERE, "")
        if (source := _source(refittable, there)) is not None:
            return Task(graph, shapes, refittable, NEW_WEIGHTS, "a plan of the same shapes can be refitted", source)
    return Task(graph, shapes, key, BUILD, cache.missing_message(key, "").partition("; build it")[0])


def _source(key: PlanKey, there: Iterable[PlanKey]) -> PlanKey | None:
    """A plan that has all of a refittable one but its weights."""
    for other in there:
        flags = tuple(flag for flag in other.flags if flag != STRIPPED)
        if replace(other, weights=key.weights, flags=flags) == key:
            return other
    return None


def _with_weights(key: PlanKey, bundle: Bundle) -> PlanKey:
    weights = bundle.manifest["files"][bundle.weights]["sha256"]
    return replace(key, weights=weights, flags=tuple(flag for flag in key.flags if flag != STRIPPED))


def _made(
    task: Task, bundle: Bundle, request: Request, cache: PlanCache, prepared: Prepared, progress: Progress
) -> bytes:
    weights = bundle.path / bundle.weights
    if task.source is not None:
        progress(f"refit {task.graph}", 0, 1)
        source = cache.open(task.source, rebuild_command(bundle, task.graph, {}, request.precision)).content
        plan = refit(prepared, weights, source)
        progress(f"refit {task.graph}", 1, 1)
        return plan
    sm, tensorrt = task.key.sm, task.key.tensorrt
    built = build(prepared, weights, request.settings, cache.read_timing(sm, tensorrt), progress)
    try:
        cache.write_timing(sm, tensorrt, built.timing)
    except FyeError as error:  # it spares the next build some time; this one is done
        logger.warning("TensorRT's timings are not kept: %s", error)
    return built.plan


def _compared(
    bundle: Bundle, task: Task, key: PlanKey, plan: bytes, gpu: Gpu, cache: PlanCache, progress: Progress
) -> dict[str, Any]:
    """How far a plan's outputs are from ONNX Runtime's, by shape and output; at the usual shapes and the smallest."""
    exact, engine = exact_engine(bundle, task.graph), TensorRTEngine(bundle, task.graph, key, [key], gpu, cache)
    engine.open(key, plan, "")
    smallest, usual, _ = task.shapes.sizes()
    different = [sizes for sizes in (usual, smallest) if sizes is usual or sizes != usual]
    found = {}
    for number, sizes in enumerate(different):
        progress(f"check {task.graph}", number, len(different))
        inputs = random_inputs(bundle, task.graph, sizes)
        name = f"{sizes['frames']} of {sizes['height']}x{sizes['width']}"
        found[name] = compare(engine.run(inputs), exact.run(inputs))
        if wrong := refusal(found[name], key.precision):
            raise BackendError(
                f"the plan of {task.graph} is not published: at {name} {wrong}; build it with "
                "precision='fp32' or 'bf16', or with attention='written-out'"
            )
    progress(f"check {task.graph}", len(different), len(different))
    return found
