"""Opens and runs the plans that `fye build` makes with TensorRT or TensorRT-RTX, without PyTorch.

A graph may have several plans. The shapes of its inputs decide which of them is opened.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.backends import tensorrt_kernels
from fye_rt.backends.cuda_memory import Gpu, Place, as_tensorrt_dtype
from fye_rt.backends.precision import resolve_precision
from fye_rt.backends.tensorrt_library import RTX, TENSORRT, Library, lacks
from fye_rt.backends.tensorrt_plan import BoundPlan, OpenPlan
from fye_rt.bundle import Bundle
from fye_rt.engine import GPU_PIXELS, Arrays, Denoising, DeviceInput, Engine, Settings, Workspace
from fye_rt.errors import BackendError, FyeError
from fye_rt.plans import PlanCache, PlanKey, matching
from fye_rt.plans.folder import Content
from fye_rt.plans.key import Shape
from fye_rt.plans.matching import Machine

_OPENED_SHAPES = 16  # per graph, each with its own context; progressive windows have about a dozen lengths

logger = logging.getLogger("fye_rt")


class TensorRTEngine(Engine):
    """One graph and its open plans."""

    pixels = GPU_PIXELS

    def __init__(
        self,
        bundle: Bundle,
        graph: str,
        wanted: PlanKey,
        keys: list[PlanKey],
        gpu: Gpu,
        cache: PlanCache,
        library: Library,
    ):
        """Take the keys of usable plans; `wanted` holds this GPU and the fields that they have in common."""
        self.compute, self._library = wanted.precision, library
        self._bundle, self._graph, self._wanted, self._keys = bundle, graph, wanted, keys
        self.gpu, self._cache = gpu, cache
        self._plans: dict[PlanKey, OpenPlan] = {}
        self._keeps_compiled = True
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

    def _bind(self, shapes: dict[str, Shape], inputs: Mapping[str, Any]) -> BoundPlan:
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

    def _plan(self, shapes: Mapping[str, Shape]) -> OpenPlan:
        rebuild = _rebuild(self._library, self._bundle, self._wanted, shapes)
        key = matching.choose(self._keys, shapes)
        if key is None:
            missing = replace(self._wanted, profile=matching.exactly(self._bundle, self._graph, shapes))
            raise BackendError(self._cache.missing_message(missing, rebuild))
        if key not in self._plans:
            self.open(key, self._cache.open(key, rebuild).content, rebuild)
        return self._plans[key]

    def open(self, key: PlanKey, content: Content, rebuild: str, published: bool = True) -> None:
        """Open a plan, from the cache or not yet published; raises BackendError if its library does not open it."""
        compiled = keep = None
        if self._library is RTX and published:
            compiled, keep = self._cache.read_runtime(key, self._wanted.sm), partial(self._keep_compiled, key)
        self._plans[key] = OpenPlan(self._library, self._graph, content, rebuild, compiled, keep)

    def _keep_compiled(self, key: PlanKey, content: bytes) -> None:
        if not self._keeps_compiled:
            return
        try:
            self._cache.write_runtime(key, self._wanted.sm, content)
        except FyeError as error:  # only the next start will be slower
            self._keeps_compiled = False
            logger.warning("what TensorRT-RTX compiled is not kept: %s", error)


@dataclass(frozen=True, slots=True)
class Backend:
    """The backend of one of the two libraries."""

    library: Library

    def computes(self) -> tuple[str, ...]:
        """Return the compute precisions on this machine; raises BackendError without a GPU or the library."""
        sm = self.machine(Gpu()).sm
        return tuple(precision for precision in ("int8", "fp8", "fp32", "bf16", "fp16") if not lacks(sm, precision))

    def machine(self, gpu: Gpu) -> Machine:
        """Return what a plan for this GPU is bound to.

        Raises:
            BackendError: the library is not installed, or does not serve this GPU.
        """
        sm, served = f"sm_{gpu.device.arch}", self.library.architectures
        if served and sm not in served:
            raise BackendError(
                f"{self.library.title} serves {', '.join(served)}, not this GPU ({sm}); use "
                f"backend={TENSORRT.backend!r}"
            )
        return Machine(sm, *self.versions())

    def versions(self) -> tuple[str, str]:
        """Return the versions of the library and of the driver, as in `fye_rt.plans.PlanKey`.

        Raises:
            BackendError: the library is not installed, or TensorRT cannot learn the driver's version.
        """
        version = self.library.version()
        if self.library is RTX:
            return f"rtx-{version}", "any"
        from cuda.core import system

        try:
            return version, ".".join(map(str, system.get_kernel_mode_driver_version()))
        except Exception as error:  # cuda-core's own types
            raise BackendError(
                f"the driver's version is unknown, and TensorRT's plans are bound to it ({error}); install NVIDIA's "
                "management library (NVML), which comes with the driver"
            ) from error

    def unusable(self, bundle: Bundle | None = None) -> str:
        """Explain why "auto" cannot choose this backend for a bundle here; "" if it can."""
        try:
            here = self.machine(Gpu())
        except BackendError as error:
            return str(error)
        if bundle is None:
            return ""
        cache = PlanCache()
        wanted, keys = self._plans(cache, bundle, "denoiser", here, "auto")
        return "" if keys else self._missing(cache, wanted, bundle)

    def open_engine(self, bundle: Bundle, graph: str, settings: Settings) -> TensorRTEngine:
        """Open a graph of a bundle: list its plans now, and open each when its shapes are first run.

        The compute precision "auto" means the lowest that the graph has plans in, 8 bits excluded.

        Raises:
            BackendError: no GPU can be used, the graph has no plan, or the GPU lacks the compute precision.
        """
        resolve_precision(self.library.backend, self.computes(), settings.compute)
        if "gpu" not in settings.shared:
            settings.shared["gpu"] = Gpu()
        gpu: Gpu = settings.shared["gpu"]
        cache = PlanCache()
        wanted, keys = self._plans(cache, bundle, graph, self.machine(gpu), settings.compute)
        if not keys:
            raise BackendError(self._missing(cache, wanted, bundle))
        wanted = replace(matching.alike(keys, wanted), sm=wanted.sm)
        return TensorRTEngine(bundle, graph, wanted, keys, gpu, cache, self.library)

    def _plans(
        self, cache: PlanCache, bundle: Bundle, graph: str, here: Machine, compute: str
    ) -> tuple[PlanKey, list[PlanKey]]:
        """Return the fields that usable plans of a graph have in common, and the keys of these plans."""
        cached = _keys(cache)
        choices = []
        # eight bits change clips: on request only
        precisions = [name for name in self.computes() if name not in matching.EIGHT_BITS]
        for precision in reversed(precisions) if compute == "auto" else (compute,):
            wanted = matching.plan_key(bundle, graph, here, precision, ())
            keys = [key for key in matching.usable(cached, wanted) if matching.STRIPPED not in key.flags]
            choices.append((wanted, keys))
        return next((choice for choice in choices if choice[1]), choices[0])

    def _missing(self, cache: PlanCache, wanted: PlanKey, bundle: Bundle) -> str:
        rebuild = _rebuild(self.library, bundle, wanted, {})
        return cache.missing_message(matching.alike(_keys(cache), wanted), rebuild)


def _rebuild(library: Library, bundle: Bundle, wanted: PlanKey, shapes: Mapping[str, Shape]) -> str:
    """Return the command that builds a plan for this GPU."""
    architectures = (wanted.sm,) if library.architectures else ()
    return matching.rebuild_command(bundle, wanted.graph, shapes, wanted.precision, library.backend, architectures)


def _keys(cache: PlanCache) -> list[PlanKey]:
    return [entry.key for entry in cache.entries() if entry.key is not None]


TENSORRT_BACKEND, RTX_BACKEND = Backend(TENSORRT), Backend(RTX)
