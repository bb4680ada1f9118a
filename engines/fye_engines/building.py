"""Builds or refits a plan from a prepared graph, with TensorRT or TensorRT-RTX.

Functions import the library only when they need it. TensorRT 10.16 and 11 and TensorRT-RTX 1.7 share one API; values
that differ are read from the module (`NetworkDefinitionCreationFlag.STRONGLY_TYPED` is another bit in each).
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fye_engines.prepare import Prepared
from fye_rt.backends.tensorrt_library import Library, messages, quoted
from fye_rt.errors import BackendError, OptionError
from fye_rt.plans.folder import Content
from fye_rt.timings import Progress, no_progress

LEVELS = range(6)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a build.

    Attributes:
        level: optimization level, 0 to 5: how long TensorRT searches for the fastest kernels; its default is 3.
        workspace: most bytes of device memory that a kernel may use; by default all memory.
        refit: whether the weights can be replaced later, by those of another fine-tune of the same shapes.
        stripped: whether the plan leaves its weights out; it cannot run until `refit` adds them. Requires `refit`.
    """

    level: int = 3
    workspace: int | None = None
    refit: bool = False
    stripped: bool = False

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise OptionError(f"level={self.level} is not valid; allowed: {LEVELS.start} to {LEVELS.stop - 1}")
        if self.workspace is not None and self.workspace <= 0:
            raise OptionError(f"workspace={self.workspace} is not valid; give bytes above 0")
        if self.stripped and not self.refit:
            raise OptionError("a stripped plan has no weights until it is refitted; set refit as well")

    def flags(self) -> tuple[str, ...]:
        """Return these settings as the flags of a plan's key."""
        named = (("refit", self.refit), ("stripped", self.stripped))
        workspace = () if self.workspace is None else (f"workspace={self.workspace}",)
        return (f"level={self.level}", *workspace, *(name for name, on in named if on))


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """A built plan, and the timing cache for the next build on this GPU; TensorRT-RTX has none."""

    plan: Content
    timing: bytes = b""


def build(
    prepared: Prepared,
    weights: Path,
    settings: Settings,
    library: Library,
    architectures: Sequence[str] = (),
    timing: bytes | None = None,
    progress: Progress = no_progress,
) -> Built:
    """Build a plan.

    Args:
        prepared: the graph.
        weights: the bundle's weights file.
        settings: settings of the build.
        library: library that builds.
        architectures: GPU architectures to build for; see `Library.targets`. TensorRT builds for the current GPU.
        timing: timing cache of an earlier build with the same TensorRT on the same kind of GPU.
        progress: called with (stage, done, total), in percent.

    Raises:
        BackendError: the library is missing, refuses the graph or finds no way to run it; quotes its messages.
        KeyboardInterrupt: Ctrl-C, after the library has stopped.
    """
    module = library.load()
    log = messages(module)
    builder = module.Builder(log)
    content = np.memmap(weights, np.uint8, mode="r")  # parser and builder read it in place
    network, _parser = parse(prepared, content, library, builder, log)  # the parser must live until the build ends
    config = builder.create_builder_config()
    if prepared.profile:
        profile = builder.create_optimization_profile()
        for name, (smallest, usual, largest) in prepared.profile.items():
            profile.set_shape(name, smallest, usual, largest)
        config.add_optimization_profile(profile)
    config.builder_optimization_level = settings.level
    config.clear_flag(module.BuilderFlag.TF32)  # TF32 would round float32
    if settings.workspace is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, settings.workspace)
    if settings.refit:
        config.set_flag(module.BuilderFlag.REFIT)
    if settings.stripped:
        config.set_flag(module.BuilderFlag.STRIP_PLAN)
    if library.architectures:
        config.num_compute_capabilities = len(architectures)
        for number, name in enumerate(architectures):
            config.set_compute_capability(getattr(module.ComputeCapability, name.upper().replace("_", "")), number)
    else:
        _set_timing_cache(config, timing)
    phases = _Phases(prepared.name, progress)
    config.progress_monitor = _monitor(module, phases)
    plan = _interruptible(lambda: builder.build_serialized_network(network, config), phases)
    if phases.error is not None:
        raise phases.error
    if plan is None:
        raise BackendError(
            f"{library.title} {module.__version__} cannot build {prepared.name}: {quoted(log.said)}; if memory is "
            "short, set workspace or close other programs"
        )
    return Built(memoryview(plan), b"" if library.architectures else bytes(config.get_timing_cache().serialize()))


def parse(
    prepared: Prepared, weights: "np.memmap[Any, np.dtype[np.uint8]]", library: Library, builder: Any, log: Any
) -> tuple[Any, Any]:
    """Parse a graph into a strongly typed network of a builder; the parser and `weights` must outlive the build.

    Raises:
        BackendError: the parser refuses the graph; quotes its words.
    """
    module = library.load()
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, log)
    if not (_load(parser, prepared, weights) and parser.parse_model_proto()):
        raise BackendError(f"{library.title} {module.__version__} refuses {prepared.name}: {_why(parser, log)}")
    return network, parser


def refit(prepared: Prepared, weights: Path, plan: Content, library: Library) -> Content:
    """Put other weights of the same shapes into a plan, which takes seconds and needs a GPU.

    Args:
        prepared: the graph that the plan was built from.
        weights: weights file of the bundle with the new weights.
        plan: a plan built with `refit`, with weights or stripped of them.
        library: library that built it.

    Returns:
        A plan with these weights, which can be refitted again.

    Raises:
        BackendError: TensorRT refuses the plan or the weights; quotes TensorRT's messages.
    """
    module = library.load()
    log = messages(module)
    runtime = module.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None or not engine.refittable:
        raise BackendError(f"{library.title} {module.__version__} cannot refit {prepared.name}: {quoted(log.said)}")
    refitter = module.Refitter(engine, log)
    parser = module.OnnxParserRefitter(refitter, log)
    content = np.memmap(weights, np.uint8, mode="r")
    if not (_load(parser, prepared, content) and parser.refit_model_proto() and refitter.refit_cuda_engine()):
        raise BackendError(
            f"{library.title} {module.__version__} cannot put other weights into {prepared.name}: {_why(parser, log)}; "
            "build it with --rebuild"
        )
    config = engine.create_serialization_config()
    config.clear_flag(module.SerializationFlag.EXCLUDE_WEIGHTS)
    config.set_flag(module.SerializationFlag.INCLUDE_REFIT)
    return memoryview(engine.serialize_with_config(config))


def _load(parser: Any, prepared: Prepared, content: "np.memmap[Any, np.dtype[np.uint8]]") -> bool:
    return bool(parser.load_model_proto(prepared.onnx)) and all(
        parser.load_initializer(name, content.ctypes.data + offset, length)
        for name, (offset, length) in prepared.weights.items()
    )


def _why(parser: Any, log: Any) -> str:
    return quoted([parser.get_error(number).desc() for number in range(parser.num_errors)] or log.said)


def _set_timing_cache(config: Any, timing: bytes | None) -> None:
    """Use an earlier timing cache; or a new one, if this TensorRT cannot read it or it belongs to another GPU."""
    for content in (timing or b"", b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return


def _interruptible(work: Callable[[], Any], phases: "_Phases") -> Any:
    """Run `work` in a thread and return its result; Python handles Ctrl-C only between its own instructions."""
    result: list[Any] = []
    finished = threading.Event()

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # the waiting thread raises it
            phases.error = phases.error or error
        finally:
            finished.set()

    threading.Thread(target=run, name="fye-build").start()
    while not finished.is_set():
        try:
            finished.wait()  # not Thread.join: after an interrupt, Python 3.11 considers the thread finished
        except KeyboardInterrupt as error:
            phases.error = error
    return result[0] if result else None


@dataclass(slots=True, eq=False)
class _Phases:
    """Progress of a build. TensorRT's phases are nested; only the outermost is reported, in percent.

    Attributes:
        graph: name of the graph.
        progress: called as phases advance.
        error: reason to stop; the library swallows exceptions raised in its monitor.
        open: running phases by name: parent phase, number of steps, finished steps.
        furthest: largest share reported of each outermost phase, since phases inside may end before their last step.
    """

    graph: str
    progress: Progress
    error: BaseException | None = None
    open: dict[str, tuple[str | None, int, int]] = field(default_factory=dict)
    furthest: dict[str, float] = field(default_factory=dict)

    def start(self, name: str, parent: str | None, steps: int) -> None:
        self.open[name] = (parent, max(1, steps), 0)
        self._report(name)

    def step(self, name: str, step: int) -> bool:
        """Record a finished step; returns whether to continue."""
        if name in self.open:
            parent, steps, _ = self.open[name]
            self.open[name] = (parent, steps, step + 1)
            self._report(name)
        return self.error is None

    def finish(self, name: str) -> None:
        if name in self.open:
            parent, steps, _ = self.open[name]
            self.open[name] = (parent, steps, steps)
            self._report(name)
            del self.open[name]

    def _report(self, name: str) -> None:
        parent, steps, done = self.open[name]
        part = done / steps
        while parent in self.open:
            name = parent
            parent, steps, done = self.open[name]
            part = min(1.0, (done + part) / steps)
        part = self.furthest[name] = max(part, self.furthest.get(name, 0.0))
        try:
            self.progress(f"build {self.graph}: {name}", round(100 * part), 100)
        except BaseException as error:
            self.error = error


def _monitor(module: Any, phases: _Phases) -> Any:
    class Monitor(module.IProgressMonitor):
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()
