"""ONNX Runtime on an NVIDIA GPU: its CUDA provider; its TensorRT and TensorRT-RTX providers where they are installed.

The CUDA provider is given the graphs that were lowered for ONNX Runtime on a CPU: it has kernels of all they hold, and
would write the standard group norm out as E[x^2] - E[x]^2. The other two know the standard graphs. In float16 a graph
is typed by `fye_engines` when it is opened. Inputs and outputs of every shape have a fixed place on the GPU, so that
the CUDA provider can replay the denoiser as one CUDA graph.
"""

import importlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fye_rt.backends import GPU_PIXELS, Arrays, Settings, gpu
from fye_rt.bundle import Bundle, Graph
from fye_rt.errors import BackendError

_DENOISERS = ("denoiser", "denoiser_cond")
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
_RTX_LIBRARY = "onnxruntime_ep_nv_tensorrt_rtx"  # the wheel that holds the provider of that name

logger = logging.getLogger("fye_rt")


class Held:
    """An input of many runs; it goes to the GPU when it is first read, in the type in which the graph reads it."""

    def __init__(self, array: NDArray[np.float32]) -> None:
        self.shape = array.shape
        self._array: NDArray[np.float32] | None = array
        self._there: Any = None

    def value(self, dtype: Any, device: str) -> Any:
        """Where it lies."""
        if self._array is not None:
            array = np.ascontiguousarray(self._array, dtype)
            self._there, self._array = onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0), None
        return self._there


class OnnxRuntimeGpuEngine:
    """One session; every shape of its inputs has places of its own."""

    pixels = GPU_PIXELS

    def __init__(self, session: onnxruntime.InferenceSession, graph: Graph, compute: str, provider: "Provider") -> None:
        """Takes an open session of a provider."""
        self.compute = compute
        self._session, self._graph, self._provider = session, graph, provider
        self._bound: dict[tuple[tuple[str, tuple[int, ...]], ...], _Bound] = {}

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """See `fye_rt.backends.Engine`."""
        names = [each.name for each in self._session.get_inputs()]
        key = tuple((name, tuple(inputs[name].shape)) for name in names)
        if key not in self._bound:
            options = onnxruntime.RunOptions()
            options.add_run_config_entry(self._provider.graph_id, str(len(self._bound) + 1))
            outputs = self._graph.output_shapes(dict(key))
            self._bound[key] = _Bound(self._session, dict(key), outputs, self._provider.device, options)
        return self._bound[key].run(inputs)

    def hold(self, array: NDArray[np.float32]) -> Held:
        """See `fye_rt.backends.Engine`."""
        return Held(array)


class _Bound:
    """Places on the device for inputs and outputs of certain shapes."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: Mapping[str, tuple[int, ...]],
        outputs: Mapping[str, tuple[int, ...]],
        device: str,
        options: onnxruntime.RunOptions,
    ) -> None:
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        self._types = {each.name: _TYPES[each.type] for each in (*session.get_inputs(), *session.get_outputs())}
        self._session, self._options, self._device = session, options, device
        self._inputs = {name: make(list(shape), self._types[name], device, 0) for name, shape in inputs.items()}
        self._outputs = {name: make(list(shape), self._types[name], device, 0) for name, shape in outputs.items()}
        self._holds: dict[str, Held] = {}
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """Copy what has changed, run, and copy the outputs."""
        for name, place in self._inputs.items():
            given = inputs[name]
            if not isinstance(given, Held):
                place.update_inplace(np.ascontiguousarray(given, self._types[name]))
            elif self._holds.get(name) is not given:
                place.update_inplace(given.value(self._types[name], self._device))
                self._holds[name] = given
        self._binding.synchronize_inputs()
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()
        return {name: np.array(value.numpy(), np.float32) for name, value in self._outputs.items()}


@dataclass(frozen=True, slots=True)
class Provider:
    """One of ONNX Runtime's providers, as a backend.

    Attributes:
        backend: its name among the backends.
        name: ONNX Runtime's name of it.
        install: what brings it.
        device: whose memory inputs and outputs are bound in.
        graph_id: the run option that tells CUDA graphs apart.
        variant: of the graphs; see `Bundle.file`.
    """

    backend: str
    name: str
    install: str
    device: str = "cuda"
    graph_id: str = "gpu_graph_id"
    variant: str = ""

    def unusable(self, bundle: Bundle | None = None) -> str:
        """Why it is not to be chosen here, or ""; see `fye_rt.backends.choose`."""
        if reason := gpu.gpus().reason:
            return reason
        return "" if self._available() else f"this onnxruntime has no {self.name}; {self.install}"

    def computes(self) -> tuple[str, ...]:
        """See `fye_rt.backends.computes`."""
        return ("fp32", "fp16") if find_spec("fye_engines") and find_spec("onnx_ir") else ("fp32",)

    def open_engine(self, bundle: Bundle, graph: str, settings: Settings) -> OnnxRuntimeGpuEngine:
        """Open a graph of a bundle.

        Raises:
            BackendError: no GPU, no such provider, or a precision that it does not compute in.
        """
        from fye_rt.backends import resolve_compute

        if reason := self.unusable():
            raise BackendError(f"{self.backend} cannot be used: {reason}")
        compute = resolve_compute(self.backend, settings.compute)
        return self.open_here(bundle, graph, compute)

    def open_here(self, bundle: Bundle, graph: str, compute: str) -> OnnxRuntimeGpuEngine:
        """Open a graph, whether the provider ought to work here or not.

        Raises:
            BackendError: ONNX Runtime refuses it.
        """
        replayed = graph in _DENOISERS and self.device == "cuda"
        choices = [self._options(each) for each in ((True, False) if replayed else (False,))]
        for number, options in enumerate(choices):
            try:
                session = self._session(bundle, graph, compute, options)
                return OnnxRuntimeGpuEngine(session, bundle.graphs[graph], compute, self)
            except Exception as error:  # the provider raises half a dozen unrelated types
                if number + 1 == len(choices):
                    raise BackendError(
                        f"{self.backend} cannot open {graph}: {error}; check with: fye verify {bundle.path}"
                    ) from error
                logger.warning("%s runs without a CUDA graph, and a little slower (%s)", graph, error)
        raise AssertionError("there is always a choice")

    def _session(
        self, bundle: Bundle, graph: str, compute: str, options: Mapping[str, str]
    ) -> onnxruntime.InferenceSession:
        made = onnxruntime.SessionOptions()
        made.log_severity_level = 3
        made.add_session_config_entry("session.model_external_initializers_file_folder_path", str(bundle.path))
        model = _model(bundle, graph, compute, self.variant)
        if self.name == RTX.name:  # a provider that is plugged in
            made.add_provider_for_devices(_rtx_devices(), dict(options))
            return onnxruntime.InferenceSession(model, made)
        return onnxruntime.InferenceSession(model, made, providers=[(self.name, dict(options)), "CPUExecutionProvider"])

    def _options(self, replayed: bool) -> dict[str, str]:
        """Of the provider."""
        if self.name == CUDA.name:
            return {"use_tf32": "0", "enable_cuda_graph": str(int(replayed))}  # float32 is float32
        if self.name == TENSORRT.name:
            cache = str(_cache())
            return {
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": cache,
                "trt_timing_cache_enable": "1",
                "trt_timing_cache_path": cache,
                "trt_cuda_graph_enable": str(int(replayed)),
            }
        if self.name == RTX.name:
            return {"nv_runtime_cache_path": str(_cache())}
        return {}

    def _available(self) -> bool:
        if self.name == RTX.name:
            return find_spec(_RTX_LIBRARY) is not None
        return self.name in onnxruntime.get_available_providers()


_GPU_WHEEL = "run: pip uninstall onnxruntime; pip install onnxruntime-gpu"
CUDA = Provider("onnxruntime-cuda", "CUDAExecutionProvider", _GPU_WHEEL, variant="onnxruntime")
TENSORRT = Provider("onnxruntime-tensorrt", "TensorrtExecutionProvider", f"{_GPU_WHEEL}, with TensorRT 10")
RTX = Provider(
    "onnxruntime-rtx",
    "NvTensorRTRTXExecutionProvider",
    "run: pip install onnxruntime-ep-nv-tensorrt-rtx-cu13",
    device="cpu",  # a build of ONNX Runtime without CUDA has no other; the provider copies
    graph_id="cuda_graph_annotation_id",
)


def _model(bundle: Bundle, graph: str, compute: str, variant: str) -> bytes:
    if compute == "fp32":
        return bundle.file(graph, variant).read_bytes()
    from fye_engines.prepare import typed

    return typed(bundle, graph, compute, variant)


def _rtx_devices() -> list[Any]:
    library = importlib.import_module(_RTX_LIBRARY)
    name = library.get_ep_name()
    if all(device.ep_name != name for device in onnxruntime.get_ep_devices()):
        onnxruntime.register_execution_provider_library(name, library.get_library_path())
    return [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]


def _cache() -> Path:
    """Where ONNX Runtime keeps what TensorRT has built."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "fye-rt" / "onnxruntime"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
