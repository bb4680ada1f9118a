"""ONNX Runtime on an NVIDIA GPU: the CUDA provider, and the TensorRT and TensorRT-RTX providers where installed.

The CUDA provider runs the graphs lowered for ONNX Runtime, with their norms in an operator that it supports. It would
run the standard graphs too, but expands their group norm as E[x^2] - E[x]^2, in 1.6 times as many nodes. The other two
providers run the standard graphs. For float16, `fye_engines` converts a graph's types when it is opened.
"""

import ctypes
import importlib
import io
import logging
import os
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnxruntime

from fye_rt.backends import ONNXRUNTIME_GPU, gpu, resolve_compute
from fye_rt.backends.onnxruntime import session_options
from fye_rt.backends.onnxruntime_bound import OnnxRuntimeGpuEngine
from fye_rt.bundle import Bundle
from fye_rt.engine import Settings
from fye_rt.errors import BackendError
from fye_rt.files import cache_folder

_DENOISERS = ("denoiser", "denoiser_cond")
_CPU = "CPUExecutionProvider"
_RTX_LIBRARY = "onnxruntime_ep_nv_tensorrt_rtx"  # module of the wheel that contains the TensorRT-RTX provider

logger = logging.getLogger("fye_rt")


@dataclass(frozen=True, slots=True)
class Provider:
    """One of ONNX Runtime's providers, as a backend.

    Attributes:
        backend: name of the backend.
        name: ONNX Runtime's name of the provider.
        install: command that installs the provider.
        libraries: shared libraries that it needs besides CUDA's, on Linux.
        behind: providers that take the nodes it does not support, ahead of the CPU.
        device: device whose memory inputs and outputs are bound in.
        variant: variant of the graphs; see `Bundle.file`.
        replays: whether it keeps a CUDA graph for every shape. The TensorRT provider keeps only one, and would replay
            it for other shapes too (onnxruntime-gpu 1.31.1).
    """

    backend: str
    name: str
    install: str
    libraries: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    device: str = "cuda"
    variant: str = ""
    replays: bool = False

    def unusable(self, bundle: Bundle | None = None) -> str:
        """Explain why this provider cannot be used here; "" if it can."""
        driver = gpu.gpus()
        if driver.reason:
            return driver.reason
        if self.name == RTX.name:  # its wheel includes its libraries
            return "" if find_spec(_RTX_LIBRARY) else f"{self.name} is not installed; run: {self.install}"
        if self.name not in onnxruntime.get_available_providers():
            return f"this onnxruntime has no {self.name}; run: {self.install}"
        built = onnxruntime.cuda_version
        if _major(driver.cuda) < _major(built):
            return f"this onnxruntime is for CUDA {built}, the driver for CUDA {driver.cuda}; install a newer driver"
        missing = _missing((*_cuda_libraries(built), *self.libraries))
        return f"{missing} is missing; run: {self.install}" if missing else ""

    def computes(self) -> tuple[str, ...]:
        """Return the compute precisions on this machine."""
        return ("fp32", "fp16") if _rewrites() else ("fp32",)

    def open_engine(self, bundle: Bundle, graph: str, settings: Settings) -> OnnxRuntimeGpuEngine:
        """Open a graph; raises BackendError if the GPU, the provider or the compute precision is not available."""
        if reason := self.unusable():
            raise BackendError(f"{self.backend} cannot be used: {reason}")
        compute = resolve_compute(self.backend, settings.compute)
        if graph in _DENOISERS and not _rewrites():
            logger.warning("without onnx-ir, graphs stay in float32 and are slow on a GPU; run: pip install onnx-ir")
        return self.open_here(bundle, graph, compute, settings.threads)

    def open_here(self, bundle: Bundle, graph: str, compute: str, threads: int = 0) -> OnnxRuntimeGpuEngine:
        """Open a graph without checking first whether the provider works here.

        Raises:
            BackendError: ONNX Runtime refuses the graph, or skips the provider.
        """
        replayed = self.replays and graph in _DENOISERS and _rewrites()
        open_session = partial(self._session, bundle, graph, compute, threads)
        try:
            return OnnxRuntimeGpuEngine(
                open_session, bundle.graphs[graph], compute, self.backend, self.device, replayed
            )
        except BackendError:
            raise
        except Exception as error:  # the provider raises half a dozen unrelated types
            reason = " ".join(str(error).split())
            raise BackendError(f"{self.backend} cannot open {graph}: {reason}; {bundle.remedy}") from error

    def _session(
        self, bundle: Bundle, graph: str, compute: str, threads: int, replayed: bool
    ) -> onnxruntime.InferenceSession:
        options = session_options(threads)
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(bundle.path))
        model = self._model(bundle, graph, compute)
        folder = cache_folder() / "onnxruntime" / _cache_name(bundle, graph, compute)
        providers = {name: _options(name, folder, replayed) for name in (self.name, *self.behind, _CPU)}
        # with its fallback, ONNX Runtime would print to stdout and go on with other providers and other options
        if self.name == RTX.name:  # a plug-in provider
            options.add_provider_for_devices(_rtx_devices(), providers[self.name])
            session = onnxruntime.InferenceSession(model, options, enable_fallback=0)
        else:
            session = onnxruntime.InferenceSession(model, options, providers=list(providers.items()), enable_fallback=0)
        if self.name not in session.get_providers():  # ONNX Runtime skips a provider that fails to load, without error
            raise BackendError(
                f"{self.backend} cannot be used: ONNX Runtime leaves {self.name} out, for the reason printed above; "
                f"run: {self.install}"
            )
        return session

    def _model(self, bundle: Bundle, graph: str, compute: str) -> bytes:
        if not _rewrites():
            return bundle.file(graph, self.variant).read_bytes()
        typed = importlib.import_module("fye_engines.prepare").typed
        from fye_rt.backends.onnxruntime_norms import as_layer_norms

        model = typed(bundle, graph, compute, self.variant)
        return as_layer_norms(model) if self.variant else model


CUDA = Provider("onnxruntime-cuda", "CUDAExecutionProvider", ONNXRUNTIME_GPU, variant="onnxruntime", replays=True)
TENSORRT = Provider(
    "onnxruntime-tensorrt",
    "TensorrtExecutionProvider",
    f"{ONNXRUNTIME_GPU} 'tensorrt-cu13<11'",
    libraries=("libnvinfer.so.10", "libnvonnxparser.so.10"),
    behind=(CUDA.name,),
)
RTX = Provider(
    "onnxruntime-rtx",
    "NvTensorRTRTXExecutionProvider",
    "pip install onnxruntime-ep-nv-tensorrt-rtx-cu13",
    device="cpu",  # the only device of an ONNX Runtime built without CUDA; the provider copies
)


def _options(provider: str, folder: Path, replayed: bool) -> dict[str, str]:
    """Return the options of a provider.

    They set no precision flag, since the graph has its types: without a flag the TensorRT provider is strongly typed.
    Weights are passed in memory, since a model in one protobuf message must stay below 2 GB.
    """
    if provider == CUDA.name:
        return {"use_tf32": "0", "enable_cuda_graph": str(int(replayed))}  # full float32, not TF32
    if provider not in (TENSORRT.name, RTX.name):
        return {}
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        logger.warning(
            "%s is not writable: TensorRT engines are not cached; set XDG_CACHE_HOME to another folder", folder
        )
    if provider == RTX.name:
        cached = {"nv_runtime_cache_path": str(folder)}
        return {"nv_use_external_data_initializer": "1"} | (cached if writable else {})
    cached = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
    cached |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(folder)}
    return {"trt_load_user_initializer": "1"} | (cached if writable else {})


def _cache_name(bundle: Bundle, graph: str, compute: str) -> str:
    # each has its own folder, because the provider's names of engines do not depend on the weights
    return f"{bundle.digest[:16]}-{graph}-{compute}-{onnxruntime.__version__}"


def _rewrites() -> bool:
    """Whether the packages that convert a graph's types and operators are installed."""
    return all(map(find_spec, ("fye_engines", "onnx", "onnx_ir")))


def _rtx_devices() -> list[Any]:
    library = importlib.import_module(_RTX_LIBRARY)
    name = library.get_ep_name()
    if all(device.ep_name != name for device in onnxruntime.get_ep_devices()):
        onnxruntime.register_execution_provider_library(name, library.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    if not devices:
        raise BackendError("onnxruntime-rtx serves none of these GPUs; use backend='auto'")
    return devices[:1]  # ONNX Runtime refuses more than one


def _cuda_libraries(version: str) -> tuple[str, ...]:
    """Return the libraries that the CUDA provider is linked to, and cuDNN, which it opens at the first convolution."""
    cuda = [f"lib{name}.so.{_major(version)}" for name in ("cudart", "cublasLt", "cublas")]
    return (*cuda, "libcurand.so.10", "libcudnn.so.9") if version else ()


@cache
def _missing(libraries: tuple[str, ...]) -> str:
    """Return the first library that cannot be loaded, or ""; libraries in pip packages are preloaded, to be found."""
    if sys.platform != "linux":
        return ""
    with redirect_stdout(io.StringIO()):  # preload_dlls prints, and raises nothing
        onnxruntime.preload_dlls()
    if TENSORRT.libraries[0] in libraries:
        with suppress(Exception):  # importing TensorRT without its libraries raises various types
            importlib.import_module("tensorrt")
    for name in libraries:
        try:
            ctypes.CDLL(name)
        except OSError:
            return name
    return ""


def _major(version: str) -> int:
    return int(version.partition(".")[0] or 0)
