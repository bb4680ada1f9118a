"""Fills the user's cache with plans of a bundle: builds missing plans, or puts new weights into older ones.

Every plan is compared with ONNX Runtime before it is published, except one of TensorRT-RTX that is built where no card
that it serves can be used.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fye_engines.building import Settings, build, refit
from fye_engines.checking import compare, exact_engine, random_inputs, refusal
from fye_engines.prepare import WRITTEN_OUT, Prepared, Shapes, check_names, prepare
from fye_engines.quantize import kept
from fye_rt.backends.cuda_memory import Gpu
from fye_rt.backends.tensorrt import TensorRTEngine
from fye_rt.backends.tensorrt_library import TENSORRT, Library
from fye_rt.bundle import GRAPHS, Bundle
from fye_rt.engine import GPU_PIXELS
from fye_rt.errors import BackendError, FyeError, OptionError
from fye_rt.plans import PlanCache, PlanKey, profile
from fye_rt.plans.folder import Content
from fye_rt.plans.matching import EIGHT_BITS, STRIPPED, Machine, plan_key, precision_of, rebuild_command
from fye_rt.stages import DECODER_CHUNK, GUIDER_CHUNK
from fye_rt.timings import Progress

REFIT = "refit"
logger = logging.getLogger("fye_rt")
THERE, NEW_WEIGHTS, BUILD = "is there", "gets new weights", "is built"


@dataclass(frozen=True, slots=True)
class Request:
    """A request for plans.

    Attributes:
        graphs: names of the graphs.
        shapes: shapes of the clips.
        precision: see `fye_engines.prepare.prepare`.
        attention: see `fye_engines.prepare.prepare`.
        settings: settings of the builder.
        library: library that builds and runs them.
        rebuild: whether to build plans even if they exist or could get new weights.

    Raises:
        OptionError: the precision or the attention does not exist.
    """

    graphs: tuple[str, ...]
    shapes: Shapes
    precision: str = "fp16"
    attention: str = "fused"
    settings: Settings = field(default_factory=Settings)
    library: Library = TENSORRT
    rebuild: bool = False

    def __post_init__(self) -> None:
        check_names(self.precision, self.attention)


@dataclass(frozen=True, slots=True)
class Task:
    """The work to do for one graph.

    Attributes:
        graph: name of the graph.
        shapes: shapes that its plan takes.
        key: key of the resulting or existing plan.
        action: `THERE`, `NEW_WEIGHTS` or `BUILD`.
        reason: reason for the action.
        source: key of the plan that gets new weights.
    """

    graph: str
    shapes: Shapes
    key: PlanKey
    action: str
    reason: str
    source: PlanKey | None = None


def default_graphs(bundle: Bundle) -> tuple[str, ...]:
    """List all graphs except the denoiser that the bundle's default guidance does not use."""
    unused = "denoiser_cond" if bundle.guidance > 1 else "denoiser"
    return tuple(graph for graph in GRAPHS if graph != unused)


def graph_shapes(graph: str, shapes: Shapes) -> Shapes:
    """Return the shapes on which a graph runs, for clips of these shapes.

    Guider and decoder receive frames in chunks, the last of which may be short; the portrait's graphs take no frames.
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
    """List the work for a request, without doing it.

    Raises:
        OptionError: a graph does not exist, the bundle allows fewer frames, or 8 bits with refit or without ranges.
        BackendError: the cache cannot be read.
        BundleError: the ranges are damaged.
    """
    if unknown := [graph for graph in request.graphs if graph not in bundle.graphs]:
        raise OptionError(f"graph={unknown[0]} is not valid; allowed: {', '.join(GRAPHS)}")
    if request.precision in EIGHT_BITS and request.settings.refit:
        raise OptionError(
            f"precision={request.precision!r} allows no refit, as its scales depend on the weights; do not set refit"
        )
    if request.shapes.frames[2] > bundle.max_frames:
        raise OptionError(f"frames={request.shapes.frames[2]} is not valid; this bundle allows {bundle.max_frames}")
    for graph in request.graphs:
        if precision_of(graph, request.precision) in EIGHT_BITS:
            kept(bundle, graph)  # fail before other graphs are built
    existing = [entry.key for entry in cache.entries() if entry.key is not None]
    return [_task(bundle, graph, request, cache, machine, existing) for graph in request.graphs]


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes the plans of a request.

    Attributes:
        bundle: as given to `tasks`.
        request: as given to `tasks`.
        cache: as given to `tasks`.
        gpu: the GPU that runs each plan to compare it; None publishes plans without having run them.
        progress: called with (stage, done, total).
    """

    bundle: Bundle
    request: Request
    cache: PlanCache
    gpu: Gpu | None
    progress: Progress

    def carry_out(self, task: Task) -> dict[str, Any]:
        """Make a plan, compare it with ONNX Runtime in float32, and publish it.

        If two processes need the same plan, one builds it and the other waits and uses it.

        Returns:
            Facts about the plan; see `fye_rt.plans.Plan`. `differences` is empty if the plan was not run; `attention`
            is how attention was built in the end, and `decomposition` says which is not computed by a kernel of its
            own.

        Raises:
            BackendError: the library refuses the graph, the plan's outputs differ from ONNX Runtime's, or a plan whose
                weights can be replaced is to be made without a GPU.
            OutputError: the cache cannot be written.
            KeyboardInterrupt: Ctrl-C; nothing is published.
        """
        cache = self.cache
        with cache.lock(task.key, lambda line: self.progress(line, 0, 1)):
            if not self.request.rebuild:
                with suppress(BackendError):  # usually the plan is missing
                    return dict(cache.open(task.key, "").facts)
            if self.gpu is None and (self.request.settings.refit or task.source is not None):
                raise BackendError(
                    f"{self.request.library.title} replaces weights on a GPU alone; build without refit, with rebuild"
                )
            began = time.monotonic()
            plan, prepared, attention = self._make(task)
            bare = plan if STRIPPED in task.key.flags else None
            if bare is not None:
                plan = refit(prepared, self._weights, bare, self.request.library)
            key = _with_weights(task.key, self.bundle)
            facts: dict[str, Any] = {"action": task.action, "attention": attention}
            facts["decomposition"] = prepared.decomposition
            facts["differences"] = {} if self.gpu is None else self._check(task, key, plan, self.gpu)
            facts["seconds"] = round(time.monotonic() - began, 1)
            if bare is not None:
                cache.publish(task.key, bare, facts)
            cache.publish(key, plan, facts)
            return facts

    def compare(self, task: Task) -> dict[str, Any]:
        """Compare an existing plan that was built where no GPU could run it; returns its facts, as `carry_out` does.

        Without a GPU, and after an earlier comparison, nothing is run.

        Raises:
            BackendError: the plan's outputs differ from ONNX Runtime's; it is removed.
        """
        plan = self.cache.open(task.key, self._rebuild(task.key))
        if self.gpu is None or plan.facts.get("differences"):
            return dict(plan.facts)
        try:
            differences = self._check(task, task.key, plan.content, self.gpu)
        except BackendError:
            self.cache.prune(lambda key: key != task.key)
            raise
        facts = {**plan.facts, "differences": differences}
        self.cache.publish(task.key, plan.content, facts)
        return facts

    @property
    def _weights(self) -> Path:
        return self.bundle.path / self.bundle.weights

    def _rebuild(self, key: PlanKey) -> str:
        library = self.request.library
        architectures = key.architectures if library.architectures else ()
        return rebuild_command(self.bundle, key.graph, {}, self.request.precision, library.backend, architectures)

    def _prepare(self, task: Task, attention: str) -> Prepared:
        prepared = prepare(self.bundle, task.graph, task.shapes, self.request.precision, attention)
        if prepared.decomposition:
            logger.info("%s: %s", task.graph, prepared.decomposition)
        return prepared

    def _make(self, task: Task) -> tuple[Content, Prepared, str]:
        """Make a plan; returns it with its graph, and how attention is built in it."""
        attention = self.request.attention
        if task.source is not None:
            return self._refit(task, task.source)
        prepared = self._prepare(task, attention)
        try:
            return self._build(task, prepared), prepared, attention
        except BackendError as error:
            if not prepared.decomposed:
                raise
            # in some shapes a library fails to decompose attention; simpler operators always build
            logger.warning("%s; trying again with attention written out", error)
        prepared = self._prepare(task, WRITTEN_OUT)
        return self._build(task, prepared), prepared, WRITTEN_OUT

    def _build(self, task: Task, prepared: Prepared) -> Content:
        sm, tensorrt, request = task.key.sm, task.key.tensorrt, self.request
        timing = self.cache.read_timing(sm, tensorrt)
        architectures = task.key.architectures
        built = build(prepared, self._weights, request.settings, request.library, architectures, timing, self.progress)
        if built.timing:
            try:
                self.cache.write_timing(sm, tensorrt, built.timing)
            except FyeError as error:  # only the next build will be slower
                logger.warning("TensorRT's timings are not kept: %s", error)
        return built.plan

    def _refit(self, task: Task, source: PlanKey) -> tuple[Content, Prepared, str]:
        self.progress(f"refit {task.graph}", 0, 1)
        plan = self.cache.open(source, self._rebuild(source))
        attention = str(plan.facts.get("attention", self.request.attention))
        prepared = self._prepare(task, attention)
        content = refit(prepared, self._weights, plan.content, self.request.library)
        self.progress(f"refit {task.graph}", 1, 1)
        return content, prepared, attention

    def _check(self, task: Task, key: PlanKey, plan: Content, gpu: Gpu) -> dict[str, Any]:
        """Compare a plan with ONNX Runtime at the usual and the smallest shapes; differences by shape and output."""
        exact = exact_engine(self.bundle, task.graph)
        here = replace(key, sm=f"sm_{gpu.device.arch}")
        engine = TensorRTEngine(self.bundle, task.graph, here, [key], gpu, self.cache, self.request.library)
        engine.open(key, plan, "", published=False)
        smallest, usual, _ = task.shapes.sizes()
        cases = [usual] if smallest == usual else [usual, smallest]
        differences = {}
        for number, sizes in enumerate(cases):
            self.progress(f"check {task.graph}", number, len(cases))
            inputs = random_inputs(self.bundle, task.graph, sizes)
            name = f"{sizes['frames']} of {sizes['height']}x{sizes['width']}"
            differences[name] = compare(engine.run(inputs), exact.run(inputs))
            if reason := refusal(differences[name], key.precision):
                raise BackendError(
                    f"the plan of {task.graph} is not kept: at {name} {reason}; build it with "
                    "precision='fp32' or 'bf16', or with attention='written-out'"
                )
        self.progress(f"check {task.graph}", len(cases), len(cases))
        return differences


def _task(
    bundle: Bundle, graph: str, request: Request, cache: PlanCache, machine: Machine, existing: Sequence[PlanKey]
) -> Task:
    shapes = graph_shapes(graph, request.shapes)
    flags = (f"attention={request.attention}", *request.settings.flags())
    key = plan_key(bundle, graph, machine, request.precision, profile(shapes.profile(bundle.graphs[graph])), flags)
    if request.rebuild:
        return Task(graph, shapes, key, BUILD, "rebuild is set")
    plain = _with_weights(key, bundle)
    refittable = replace(plain, flags=(*plain.flags, REFIT))
    if key in existing or STRIPPED not in key.flags:
        for other in (plain, refittable):
            if other in existing:
                return Task(graph, shapes, other, THERE, "")
        if (source := _refit_source(refittable, existing)) is not None:
            return Task(graph, shapes, refittable, NEW_WEIGHTS, "a plan of the same shapes can be refitted", source)
    return Task(graph, shapes, key, BUILD, cache.missing_message(key, "").partition("; build it")[0])


def _refit_source(key: PlanKey, existing: Iterable[PlanKey]) -> PlanKey | None:
    """Find an existing plan that differs from a refittable one only in its weights."""
    for other in existing:
        flags = tuple(flag for flag in other.flags if flag != STRIPPED)
        if replace(other, weights=key.weights, flags=flags) == key:
            return other
    return None


def _with_weights(key: PlanKey, bundle: Bundle) -> PlanKey:
    weights = bundle.manifest["files"][bundle.weights]["sha256"]
    return replace(key, weights=weights, flags=tuple(flag for flag in key.flags if flag != STRIPPED))
