"""An open plan of TensorRT or TensorRT-RTX, and its runs on inputs of certain shapes."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from fye_rt.backends.cuda_memory import TYPES, Gpu, Place
from fye_rt.backends.tensorrt_library import RTX, Library, messages, quoted
from fye_rt.errors import BackendError, lacking
from fye_rt.plans.folder import Content
from fye_rt.plans.key import Shape

logger = logging.getLogger("fye_rt")


class OpenPlan:
    """An open plan; `types` holds TensorRT's names of the types of inputs and outputs.

    Args:
        library: library that built the plan.
        graph: name of its graph.
        content: the plan.
        rebuild: command that builds it, for messages.
        compiled: what TensorRT-RTX compiled for it on this GPU before; None if nothing.
        keep: receives what TensorRT-RTX has compiled, to be passed as `compiled` next time.

    Raises:
        BackendError: the library does not open the plan.
    """

    def __init__(
        self,
        library: Library,
        graph: str,
        content: Content,
        rebuild: str,
        compiled: bytes | None = None,
        keep: Callable[[bytes], None] | None = None,
    ) -> None:
        module = library.load()
        self.graph, self._library, self.messages = graph, library, messages(module)
        self._runtime = module.Runtime(self.messages)
        self.engine = self._runtime.deserialize_cuda_engine(content)
        if self.engine is None:
            raise BackendError(
                f"{library.title} {module.__version__} does not open the plan of {graph}: "
                f"{quoted(self.messages.said)}; build it again with: {rebuild} --rebuild"
            )
        self._strategy = module.ExecutionContextAllocationStrategy.USER_MANAGED
        self._config: Any = None
        if library is RTX:
            self._keep, self._kept = keep, compiled
            self._configure(module, compiled)
        names = [self.engine.get_tensor_name(number) for number in range(self.engine.num_io_tensors)]
        self.types = {name: self.engine.get_tensor_dtype(name).name for name in names}
        modes = {name: self.engine.get_tensor_mode(name) for name in names}
        self.inputs = [name for name in names if modes[name] == module.TensorIOMode.INPUT]
        self.outputs = [name for name in names if modes[name] == module.TensorIOMode.OUTPUT]

    def context(self) -> Any:
        """Create an execution context, which has no scratch memory of its own."""
        return self.done(self.engine.create_execution_context(self._config or self._strategy), "make a context")

    def keep_compiled(self) -> None:
        """Pass on what TensorRT-RTX has compiled since the last call, if anything."""
        if self._config is None or self._keep is None:
            return
        content = bytes(self._compiled.serialize())
        if content != self._kept:
            self._kept = content
            self._keep(content)

    def capturable(self, context: Any, stream: Any) -> bool:
        """Return whether a run can be captured; TensorRT-RTX sometimes cannot."""
        return self._config is None or bool(context.is_stream_capturable(int(stream.handle)))

    def done(self, answer: Any, action: str) -> Any:
        """Return the library's answer; raises BackendError if it means failure."""
        if answer is None or answer is False:
            raise self._failure(self.messages.said, action)
        return answer

    @contextmanager
    def reporting(self, action: str) -> Iterator[None]:
        """Raise BackendError if the library reports an error inside: some of its calls return nothing."""
        before = len(self.messages.said)
        yield
        if said := self.messages.said[before:]:
            raise self._failure(said, action)

    def _failure(self, errors: list[str], action: str) -> BackendError:
        said = quoted(errors)
        error = BackendError(f"{self._library.title} cannot {action} for {self.graph}: {said}")
        error.__cause__ = MemoryError(said) if lacking(RuntimeError(said)) else None
        return error

    def _configure(self, module: Any, compiled: bytes | None) -> None:
        """Set what all contexts share: kernels are compiled for a context's shapes before it first runs, and kept."""
        self._config = self.engine.create_runtime_config()
        self._config.set_execution_context_allocation_strategy(self._strategy)
        self._config.dynamic_shapes_kernel_specialization_strategy = (
            module.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        self._compiled = self._config.create_runtime_cache()
        # another driver or version may have compiled it; then the library compiles again
        if compiled is not None and not self._compiled.deserialize(compiled):
            logger.warning("what TensorRT-RTX compiled for %s before does not fit here; it compiles again", self.graph)
        self._config.set_runtime_cache(self._compiled)


class BoundPlan:
    """A plan for inputs of certain shapes, which a CUDA graph replays from the second run on; `outputs` has shapes."""

    def __init__(self, gpu: Gpu, places: dict[str, Place], plan: OpenPlan, shapes: Mapping[str, Shape]) -> None:
        """Set the shapes; `reserve` adds to `places` the inputs and outputs that are missing there."""
        self.plan, self._places, self._gpu = plan, places, gpu
        self._context = plan.context()
        for name in plan.inputs:
            plan.done(self._context.set_input_shape(name, shapes[name]), f"take {name} of shape {shapes[name]}")
        missing = self._context.infer_shapes()
        plan.done(not missing, f"run without {', '.join(missing)}")
        self.outputs = {name: tuple(map(int, self._context.get_tensor_shape(name))) for name in plan.outputs}
        self._shapes = {name: shapes[name] for name in plan.inputs} | self.outputs
        with plan.reporting("size its memory"):
            needed = int(self._context.update_device_memory_size_for_shapes())
            self._scratch = needed or int(plan.engine.device_memory_size_v2)
        self._bound: dict[str, int] = {}
        self._graph: Any = None
        self._capture = True

    def reserve(self) -> None:
        """Reserve memory for inputs and outputs; call this before copying inputs."""
        for name, shape in self._shapes.items():
            if name not in self._places:
                self._places[name] = Place(self._gpu, TYPES[self.plan.types[name]])
            self._places[name].reserve(shape)
        self._gpu.work_in(self._scratch)

    def run(self) -> None:
        """Queue a run."""
        addresses = {name: self._places[name].address for name in self._shapes}
        scratch = int(self._gpu.scratch.handle)
        if addresses | {"": scratch} != self._bound:
            self._graph = None
            for name, address in addresses.items():
                self.plan.done(self._context.set_tensor_address(name, address), f"bind {name}")
            with self.plan.reporting("use its memory"):
                self._context.set_device_memory(scratch, self._gpu.scratch.size)
            self._bound = addresses | {"": scratch}
            self._execute()  # a capture must not include what the library sets up in its first run
            self.plan.keep_compiled()
        elif self._graph is not None or (self._capture and self._captured()):
            self._graph.launch(self._gpu.stream)
        else:
            self._execute()

    def _execute(self) -> None:
        self.plan.done(self._context.execute_async_v3(int(self._gpu.stream.handle)), "run")

    def _captured(self) -> bool:
        """Capture a run as a CUDA graph; False if that fails."""
        self._capture = self.plan.capturable(self._context, self._gpu.stream)
        if not self._capture:
            return False
        builder = self._gpu.stream.create_graph_builder()
        try:
            builder.begin_building()
            try:
                self._execute()
            finally:
                builder.end_building()
            self._graph = builder.complete()
        except Exception as error:  # the driver's error, or TensorRT's refusal to run in a capture
            logger.warning("%s runs without a CUDA graph, and a little slower (%s)", self.plan.graph, error)
            self._capture = False
        with suppress(Exception):  # close() repeats the error of a failed capture
            builder.close()
        return self._graph is not None
