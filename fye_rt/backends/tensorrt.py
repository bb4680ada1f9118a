"""Opens and runs the TensorRT plans that `fye build` makes, without PyTorch.

A graph may have several plans. The shapes of its inputs decide which of them is opened.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.backends import resolve_compute, tensorrt_kernels
from fye_rt.backends.cuda_memory import INSTALL, TYPES, Gpu, Place, as_tensorrt_dtype
from fye_rt.backends.tensorrt_messages import messages, quoted
from fye_rt.bundle import Bundle
from fye_rt.engine import GPU_PIXELS, Arrays, Denoising, DeviceInput, Engine, Settings, Workspace
from fye_rt.errors import BackendError, lacking
from fye_rt.plans import PlanCache, PlanKey, matching
from fye_rt.plans.key import Shape
from fye_rt.plans.matching import Machine

_OPENED_SHAPES = 16  # per graph, each with its own context; progressive windows have about a dozen lengths

logger = logging.getLogger("fye_rt")


class TensorRTEngine(Engine):
    """One graph and its open plans."""

    pixels = GPU_PIXELS

    def __init__(self, bundle: Bundle, graph: str, wanted: PlanKey, keys: list[PlanKey], gpu: Gpu, cache: PlanCache):
        """Take the keys of the graph's usable plans; `wanted` holds the fields that they have in common."""
        self.compute = wanted.precision
        self._bundle, self._graph, self._wanted, self._keys = bundle, graph, wanted, keys
        self.gpu, self._cache = gpu, cache
        self._plans: dict[PlanKey, _Plan] = {}
        self._bound_plans: dict[tuple[tuple[str, Shape], ...], BoundPlan] = {}
        self._kernels: Mapping[str, Any] | None = None
        self.places: dict[str, Place] = {}

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """Run the graph and return its outputs by name."""
        self.gpu.enter()
        bound = self._bind({name: tuple(array.shape) for name, array in inputs.items()}, inputs)
        bound.run()
        for name in bound.outputs:
            self.places[name].download()
        self.gpu.wait()
        return {name: self.places[name].array(shape) for name, shape in bound.outputs.items()}

    def to_device(self, array: NDArray[np.float32]) -> DeviceInput:
        """Wrap an input of many runs, so that it is copied to the GPU once."""
        return DeviceInput(array)

    def workspace(self, denoising: Denoising) -> Workspace | None:
        """Return a workspace on the GPU if the clip is one window and the kernels are compiled, else None."""
        kernels = self._compiled()
        if not kernels or not tensorrt_kernels.takes(denoising):
            return None
        return tensorrt_kernels.TensorRTWorkspace(self.gpu, self.places, kernels, denoising, self._bind)

    def begin_decoding(self, latents: NDArray[np.float32]) -> Callable[[], NDArray[np.uint8]]:
        """Begin to decode latents; see `fye_rt.engine.Engine.begin_decoding`."""
        kernels = self._compiled()
        if not kernels:
            return super().begin_decoding(latents)
        return partial(tensorrt_kernels.decode_pixels, self.gpu, self.places, kernels, self._bind, latents)

    def _compiled(self) -> Mapping[str, Any]:
        """Return the kernels compiled for this GPU; empty if there are none."""
        if self._kernels is None:
            self._kernels = tensorrt_kernels.compiled(self._cache, self.gpu.device, self._wanted.sm)
        return self._kernels

    def _bind(self, shapes: dict[str, Shape], inputs: Mapping[str, Any]) -> "BoundPlan":
        """Prepare a plan for inputs of these shapes, and queue the copies of `inputs`, which may be some of them.

        Raises:
            BackendError: no plan takes these shapes, or memory ran out.
        """
        key = tuple(sorted(shapes.items()))
        if key not in self._bound_plans:
            while len(self._bound_plans) >= _OPENED_SHAPES:
                del self._bound_plans[next(iter(self._bound_plans))]
            self._bound_plans[key] = BoundPlan(self.gpu, self.places, self._plan(shapes), shapes)
        bound = self._bound_plans[key]
        bound.reserve()
        for name in inputs.keys() & set(bound.plan.inputs):
            array, place, dtype = inputs[name], self.places[name], bound.plan.types[name]
            if not isinstance(array, DeviceInput):
                place.upload(as_tensorrt_dtype(array, dtype))
            elif place.holds is not array:
                place.copy(array.value(self.gpu.put, dtype))
                place.holds = array
        return bound

    def _plan(self, shapes: Mapping[str, Shape]) -> "_Plan":
        rebuild = matching.rebuild_command(self._bundle, self._graph, shapes, self.compute)
        key = matching.choose(self._keys, shapes)
        if key is None:
            missing = replace(self._wanted, profile=matching.exactly(self._bundle, self._graph, shapes))
            raise BackendError(self._cache.missing_message(missing, rebuild))
        if key not in self._plans:
            self.open(key, self._cache.open(key, rebuild).content, rebuild)
        return self._plans[key]

    def open(self, key: PlanKey, content: bytes, rebuild: str) -> None:
        """Open a plan, from the cache or not yet published; raises BackendError if TensorRT does not open it."""
        self._plans[key] = _Plan(self._graph, content, rebuild)


class _Plan:
    """An open plan; `types` holds TensorRT's names of the types of inputs and outputs."""

    def __init__(self, graph: str, content: bytes, rebuild: str) -> None:
        import tensorrt

        self.graph, self.messages = graph, messages(tensorrt)
        self._runtime = tensorrt.Runtime(self.messages)
        self.engine = self._runtime.deserialize_cuda_engine(content)
        if self.engine is None:
            raise BackendError(
                f"TensorRT {tensorrt.__version__} does not open the plan of {graph}: {quoted(self.messages.said)}; "
                f"build it again with: {rebuild} --rebuild"
            )
        self._strategy = tensorrt.ExecutionContextAllocationStrategy.USER_MANAGED
        names = [self.engine.get_tensor_name(number) for number in range(self.engine.num_io_tensors)]
        self.types = {name: self.engine.get_tensor_dtype(name).name for name in names}
        modes = {name: self.engine.get_tensor_mode(name) for name in names}
        self.inputs = [name for name in names if modes[name] == tensorrt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if modes[name] == tensorrt.TensorIOMode.OUTPUT]

    def context(self) -> Any:
        """Create an execution context, which has no scratch memory of its own."""
        return self.done(self.engine.create_execution_context(self._strategy), "make a context")

    def done(self, answer: Any, what: str) -> Any:
        """Return TensorRT's answer; raises BackendError if it means failure."""
        if answer is None or answer is False:
            said = quoted(self.messages.said)
            cause = MemoryError(said) if lacking(RuntimeError(said)) else None
            raise BackendError(f"TensorRT cannot {what} for {self.graph}: {said}") from cause
        return answer


class BoundPlan:
    """A plan for inputs of certain shapes, which a CUDA graph replays from the second run on; `outputs` has shapes."""

    def __init__(self, gpu: Gpu, places: dict[str, Place], plan: _Plan, shapes: Mapping[str, Shape]) -> None:
        """Set the shapes; `reserve` adds to `places` the inputs and outputs that are missing there."""
        self.plan, self._places, self._gpu = plan, places, gpu
        self._context = plan.context()
        for name in plan.inputs:
            plan.done(self._context.set_input_shape(name, shapes[name]), f"take {name} of shape {shapes[name]}")
        missing = self._context.infer_shapes()
        plan.done(not missing, f"run without {', '.join(missing)}")
        self.outputs = {name: tuple(map(int, self._context.get_tensor_shape(name))) for name in plan.outputs}
        self._shapes = {name: shapes[name] for name in plan.inputs} | self.outputs
        self._scratch = int(self._context.update_device_memory_size_for_shapes())
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
            self._context.set_device_memory(scratch, self._gpu.scratch.size)
            self._bound = addresses | {"": scratch}
            self._execute()  # a capture must not include what TensorRT sets up in its first run
        elif self._graph is not None or (self._capture and self._captured()):
            self._graph.launch(self._gpu.stream)
        else:
            self._execute()

    def _execute(self) -> None:
        self.plan.done(self._context.execute_async_v3(int(self._gpu.stream.handle)), "run")

    def _captured(self) -> bool:
        """Capture a run as a CUDA graph; False if that fails."""
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


def computes() -> tuple[str, ...]:
    """Return the compute precisions on this machine; raises BackendError without a GPU or TensorRT."""
    sm = int(machine(Gpu()).sm.removeprefix("sm_"))
    oldest = (("int8", 0), ("fp8", 89), ("fp32", 0), ("bf16", 80), ("fp16", 0))  # architecture for each precision
    return tuple(precision for precision, first in oldest if sm >= first)


def machine(gpu: Gpu) -> Machine:
    """Return what a plan for this GPU is bound to; raises BackendError if TensorRT is not installed."""
    from cuda.core import system

    try:
        import tensorrt
    except ImportError as error:
        raise BackendError(f"TensorRT is missing ({error}); {INSTALL}") from error

    driver = ".".join(map(str, system.get_kernel_mode_driver_version()))
    return Machine(f"sm_{gpu.device.arch}", str(tensorrt.__version__), driver)


def unusable(bundle: Bundle | None = None) -> str:
    """Explain why "auto" cannot choose TensorRT for a bundle here; "" if it can."""
    try:
        here = machine(Gpu())
    except BackendError as error:
        return str(error)
    if bundle is None:
        return ""
    cache = PlanCache()
    wanted, keys = _plans(cache, bundle, "denoiser", here, "auto")
    return "" if keys else _missing(cache, wanted, bundle)


def open_engine(bundle: Bundle, graph: str, settings: Settings) -> TensorRTEngine:
    """Open a graph of a bundle: list its plans now, and open each when its shapes are first run.

    The compute precision "auto" means the lowest that the graph has plans in, 8 bits excluded.

    Raises:
        BackendError: no GPU can be used, the graph has no plan, or the GPU lacks the compute precision.
    """
    resolve_compute("tensorrt", settings.compute)
    if "gpu" not in settings.shared:
        settings.shared["gpu"] = Gpu()
    gpu: Gpu = settings.shared["gpu"]
    cache = PlanCache()
    wanted, keys = _plans(cache, bundle, graph, machine(gpu), settings.compute)
    if not keys:
        raise BackendError(_missing(cache, wanted, bundle))
    return TensorRTEngine(bundle, graph, matching.alike(keys, wanted), keys, gpu, cache)


def _plans(cache: PlanCache, bundle: Bundle, graph: str, here: Machine, compute: str) -> tuple[PlanKey, list[PlanKey]]:
    """Return the fields that usable plans of a graph have in common, and the keys of these plans."""
    cached = _keys(cache)
    choices = []
    precisions = [name for name in computes() if name not in matching.EIGHT_BITS]  # these change clips: on request only
    for precision in reversed(precisions) if compute == "auto" else (compute,):
        wanted = matching.plan_key(bundle, graph, here, precision, ())
        keys = [key for key in matching.usable(cached, wanted) if matching.STRIPPED not in key.flags]
        choices.append((wanted, keys))
    return next((choice for choice in choices if choice[1]), choices[0])


def _missing(cache: PlanCache, wanted: PlanKey, bundle: Bundle) -> str:
    rebuild = matching.rebuild_command(bundle, wanted.graph, {}, wanted.precision)
    return cache.missing_message(matching.alike(_keys(cache), wanted), rebuild)


def _keys(cache: PlanCache) -> list[PlanKey]:
    return [entry.key for entry in cache.entries() if entry.key is not None]
