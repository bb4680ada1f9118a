"""TensorRT plans, without PyTorch: `fye build` makes them, this opens and runs them.

A graph may have several plans. Which of them is opened depends on the shapes of what it is run on.
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
from fye_rt.backends.cuda_memory import INSTALL, Gpu, Place, as_tensorrt_dtype
from fye_rt.backends.tensorrt_messages import messages, quoted
from fye_rt.bundle import Bundle
from fye_rt.engine import GPU_PIXELS, Arrays, Denoising, Engine, Settings, Workspace
from fye_rt.errors import BackendError, lacking
from fye_rt.plans import PlanCache, PlanKey
from fye_rt.plans.key import Shape
from fye_rt.plans.matching import (
    EIGHT_BITS,
    STRIPPED,
    Machine,
    alike,
    choose,
    exactly,
    plan_key,
    rebuild_command,
    usable,
)

_OPENED_SHAPES = 16  # of a graph: each has a context of its own; progressive windows have some dozen lengths

logger = logging.getLogger("fye_rt")


class DeviceInput:
    """An input of many runs. It goes to the GPU when it is first read, since only then its type is known."""

    def __init__(self, array: NDArray[np.float32]) -> None:
        self.shape = array.shape
        self._array: NDArray[np.float32] | None = array
        self._buffer: Any = None

    def buffer(self, gpu: Gpu, dtype: str) -> Any:
        """Where it lies on the GPU."""
        if self._array is not None:
            self._buffer, self._array = gpu.put(as_tensorrt_dtype(self._array, dtype)), None
        return self._buffer


class TensorRTEngine(Engine):
    """One graph."""

    pixels = GPU_PIXELS

    def __init__(self, bundle: Bundle, graph: str, wanted: PlanKey, keys: list[PlanKey], gpu: Gpu, cache: PlanCache):
        """Takes the keys of its usable plans, and what they have in common."""
        self.compute = wanted.precision
        self._bundle, self._graph, self._wanted, self._keys = bundle, graph, wanted, keys
        self.gpu, self._cache = gpu, cache
        self._plans: dict[PlanKey, _Plan] = {}
        self._bound_plans: dict[tuple[tuple[str, Shape], ...], BoundPlan] = {}
        self._kernels: Mapping[str, Any] | None = None
        self.places: dict[str, Place] = {}

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """See `fye_rt.engine.Engine`."""
        self.gpu.enter()
        bound = self.bound({name: tuple(given.shape) for name, given in inputs.items()})
        for name in bound.plan.inputs:
            self.put(bound, name, inputs[name])
        bound.run()
        for name in bound.outputs:
            self.places[name].download()
        self.gpu.wait()
        return {name: self.places[name].array(shape) for name, shape in bound.outputs.items()}

    def to_device(self, array: NDArray[np.float32]) -> DeviceInput:
        """See `fye_rt.engine.Engine`."""
        return DeviceInput(array)

    def workspace(self, denoising: Denoising) -> Workspace | None:
        """See `fye_rt.engine.Engine`: of clips that are one window, where the kernel was compiled for them."""
        kernels = self._compiled()
        if not kernels or not tensorrt_kernels.takes(denoising):
            return None
        return tensorrt_kernels.TensorRTWorkspace(self.gpu, self.places, kernels, denoising, self._bind)

    def begin_decoding(self, latents: NDArray[np.float32]) -> Callable[[], NDArray[np.uint8]]:
        """See `fye_rt.engine.Engine`."""
        kernels = self._compiled()
        if not kernels:
            return super().begin_decoding(latents)
        return partial(tensorrt_kernels.decode_pixels, self.gpu, self.places, kernels, self._bind, latents)

    def _compiled(self) -> Mapping[str, Any]:
        """Kernels of ours that were compiled for this GPU; none if there are none."""
        if self._kernels is None:
            self._kernels = tensorrt_kernels.compiled(self._cache, self.gpu.device, self._wanted.sm)
        return self._kernels

    def _bind(self, shapes: dict[str, Shape], inputs: Mapping[str, Any]) -> "BoundPlan":
        """Ready to run on inputs of these shapes, some of which are put there."""
        bound = self.bound(shapes)
        for name in inputs.keys() & set(bound.plan.inputs):
            self.put(bound, name, inputs[name])
        return bound

    def bound(self, shapes: dict[str, Shape]) -> "BoundPlan":
        """Ready to run on inputs of these shapes.

        Raises:
            BackendError: there is no plan for them, or no memory.
        """
        key = tuple(sorted(shapes.items()))
        if key not in self._bound_plans:
            while len(self._bound_plans) >= _OPENED_SHAPES:
                del self._bound_plans[next(iter(self._bound_plans))]
            self._bound_plans[key] = BoundPlan(self.gpu, self.places, self._plan(shapes), shapes)
        self._bound_plans[key].reserve()
        return self._bound_plans[key]

    def put(self, bound: "BoundPlan", name: str, given: Any) -> None:
        """Queue the copy of an input to where it is read."""
        place, dtype = self.places[name], bound.plan.types[name]
        if not isinstance(given, DeviceInput):
            place.upload(as_tensorrt_dtype(given, dtype))
        elif place.holds is not given:
            place.copy(given.buffer(self.gpu, dtype))
            place.holds = given

    def _plan(self, shapes: Mapping[str, Shape]) -> "_Plan":
        rebuild = rebuild_command(self._bundle, self._graph, shapes, self.compute)
        chosen = choose(self._keys, shapes)
        if chosen is None:
            missing = replace(self._wanted, profile=exactly(self._bundle, self._graph, shapes))
            raise BackendError(self._cache.missing_message(missing, rebuild))
        if chosen not in self._plans:
            self.open(chosen, self._cache.open(chosen, rebuild).content, rebuild)
        return self._plans[chosen]

    def open(self, key: PlanKey, content: bytes, rebuild: str) -> None:
        """Have a plan ready: one of the cache, or one that is to be tried before it gets there.

        Raises:
            BackendError: TensorRT does not open it.
        """
        self._plans[key] = _Plan(self._graph, content, rebuild)


class _Plan:
    """An open plan.

    Attributes:
        engine: of TensorRT.
        messages: what TensorRT says about it.
        types: of inputs and outputs, by name, in TensorRT's words.
        inputs: names.
        outputs: names.
    """

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
        self._by_hand = tensorrt.ExecutionContextAllocationStrategy.USER_MANAGED
        names = [self.engine.get_tensor_name(number) for number in range(self.engine.num_io_tensors)]
        self.types = {name: self.engine.get_tensor_dtype(name).name for name in names}
        modes = {name: self.engine.get_tensor_mode(name) for name in names}
        self.inputs = [name for name in names if modes[name] == tensorrt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if modes[name] == tensorrt.TensorIOMode.OUTPUT]

    def context(self) -> Any:
        """A new one, which has no memory of its own to work in."""
        return self.done(self.engine.create_execution_context(self._by_hand), "make a context")

    def done(self, answer: Any, what: str) -> Any:
        """What TensorRT answered, unless it failed."""
        if answer is None or answer is False:
            said = quoted(self.messages.said)
            cause = MemoryError(said) if lacking(RuntimeError(said)) else None
            raise BackendError(f"TensorRT cannot {what} for {self.graph}: {said}") from cause
        return answer


class BoundPlan:
    """A plan for inputs of certain shapes. From the second run on it is replayed from a CUDA graph.

    Attributes:
        plan: that runs.
        outputs: their shapes, by name.
    """

    def __init__(self, gpu: Gpu, places: dict[str, Place], plan: _Plan, shapes: Mapping[str, Shape]) -> None:
        """Takes the places of inputs and outputs, by name, and adds those that it needs."""
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
        """Have room for its inputs and outputs, before inputs are put where it reads them."""
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
            self._execute()  # whatever is set up in a first run is not to be captured
        elif self._graph is not None or (self._capture and self._captured()):
            self._graph.launch(self._gpu.stream)
        else:
            self._execute()

    def _execute(self) -> None:
        answer = self._context.execute_async_v3(int(self._gpu.stream.handle))
        self.plan.done(answer, "run")

    def _captured(self) -> bool:
        """Whether a CUDA graph has been made of a run."""
        builder = self._gpu.stream.create_graph_builder()
        try:
            builder.begin_building()
            try:
                self._execute()
            finally:
                builder.end_building()
            self._graph = builder.complete()
        except Exception as error:  # the driver's, or TensorRT's refusal to run while it is captured
            logger.warning("%s runs without a CUDA graph, and a little slower (%s)", self.plan.graph, error)
            self._capture = False
        with suppress(Exception):  # of a capture that failed, it says so again
            builder.close()
        return self._graph is not None


TYPES = {"FLOAT": np.float32, "HALF": np.float16, "BF16": np.uint16, "INT64": np.int64}


def computes() -> tuple[str, ...]:
    """See `fye_rt.backends.computes`.

    Raises:
        BackendError: no GPU.
    """
    sm = int(machine(Gpu()).sm.removeprefix("sm_"))
    since = (("int8", 0), ("fp8", 89), ("fp32", 0), ("bf16", 80), ("fp16", 0))
    return tuple(precision for precision, first in since if sm >= first)


def machine(gpu: Gpu) -> Machine:
    """What a plan for this GPU is bound to.

    Raises:
        BackendError: TensorRT is not installed.
    """
    from cuda.core import system

    try:
        import tensorrt
    except ImportError as error:
        raise BackendError(f"TensorRT is missing ({error}); {INSTALL}") from error

    driver = ".".join(map(str, system.get_kernel_mode_driver_version()))
    return Machine(f"sm_{gpu.device.arch}", str(tensorrt.__version__), driver)


def unusable(bundle: Bundle | None = None) -> str:
    """Why TensorRT is not to be chosen for a bundle here, or ""."""
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
    """Open a graph of a bundle. Its plans are looked for now, and opened when their shapes are first run.

    "auto" is the lowest precision that there are plans in.

    Raises:
        BackendError: no GPU, no plan of this graph, or a precision that it doesn't compute in.
    """
    resolve_compute("tensorrt", settings.compute)
    if "gpu" not in settings.shared:
        settings.shared["gpu"] = Gpu()
    gpu: Gpu = settings.shared["gpu"]
    cache = PlanCache()
    wanted, keys = _plans(cache, bundle, graph, machine(gpu), settings.compute)
    if not keys:
        raise BackendError(_missing(cache, wanted, bundle))
    return TensorRTEngine(bundle, graph, alike(keys, wanted), keys, gpu, cache)


def _plans(cache: PlanCache, bundle: Bundle, graph: str, here: Machine, compute: str) -> tuple[PlanKey, list[PlanKey]]:
    """What plans of a graph have in common, and the keys of those that there are."""
    there = _keys(cache)
    found = []
    able = [precision for precision in computes() if precision not in EIGHT_BITS]  # those change clips: by name alone
    for precision in reversed(able) if compute == "auto" else (compute,):
        wanted = plan_key(bundle, graph, here, precision, ())
        keys = [key for key in usable(there, wanted) if STRIPPED not in key.flags]
        found.append((wanted, keys))
    return next((each for each in found if each[1]), found[0])


def _missing(cache: PlanCache, wanted: PlanKey, bundle: Bundle) -> str:
    rebuild = rebuild_command(bundle, wanted.graph, {}, wanted.precision)
    return cache.missing_message(alike(_keys(cache), wanted), rebuild)


def _keys(cache: PlanCache) -> list[PlanKey]:
    return [entry.key for entry in cache.entries() if entry.key is not None]
