"""ONNX Runtime on an NVIDIA GPU: its CUDA provider; its TensorRT and TensorRT-RTX providers where they are installed.

The CUDA provider is given the graphs that were lowered for ONNX Runtime, with their norms in an operator that it has.
The standard ones would run there too, but it writes their group norm out as E[x^2] - E[x]^2, in 1.6 times as many
nodes. The other two providers know the standard graphs. In float16 a graph is typed by `fye_engines` when it is opened.
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
_RTX_LIBRARY = "onnxruntime_ep_nv_tensorrt_rtx"  # the wheel that holds the provider of that name

logger = logging.getLogger("fye_rt")


@dataclass(frozen=True, slots=True)
class Provider:
    """One of ONNX Runtime's providers, as a backend.

    Attributes:
        backend: its name among the backends.
        name: ONNX Runtime's name of it.
        install: the command that brings it.
        libraries: that must be there besides CUDA's, on Linux.
        behind: providers that take nodes which it does not, before the CPU does.
        device: whose memory inputs and outputs are bound in.
        variant: of the graphs; see `Bundle.file`.
        replays: whether it keeps a CUDA graph for every shape. The TensorRT provider keeps one in all, and would replay
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
        """Why it is not to be chosen here, or ""; see `fye_rt.backends.choose`."""
        found = gpu.gpus()
        if found.reason:
            return found.reason
        if self.name == RTX.name:  # brings its libraries along
            return "" if find_spec(_RTX_LIBRARY) else f"{self.name} is not installed; run: {self.install}"
        if self.name not in onnxruntime.get_available_providers():
            return f"this onnxruntime has no {self.name}; run: {self.install}"
        built = onnxruntime.cuda_version
        if _major(found.cuda) < _major(built):
            return f"this onnxruntime is for CUDA {built}, the driver for CUDA {found.cuda}; install a newer driver"
        missing = _missing((*_cuda_libraries(built), *self.libraries))
        return f"{missing} is missing; run: {self.install}" if missing else ""

    def computes(self) -> tuple[str, ...]:
        """See `fye_rt.backends.computes`."""
        return ("fp32", "fp16") if _rewrites() else ("fp32",)

    def open_engine(self, bundle: Bundle, graph: str, settings: Settings) -> OnnxRuntimeGpuEngine:
        """Open a graph of a bundle.

        Raises:
            BackendError: no GPU, no such provider, or a precision that it does not compute in.
        """
        if reason := self.unusable():
            raise BackendError(f"{self.backend} cannot be used: {reason}")
        compute = resolve_compute(self.backend, settings.compute)
        if graph in _DENOISERS and not _rewrites():
            logger.warning("without onnx-ir graphs stay in float32, and slow on a GPU; run: pip install onnx-ir")
        return self.open_here(bundle, graph, compute, settings.threads)

    def open_here(self, bundle: Bundle, graph: str, compute: str, threads: int = 0) -> OnnxRuntimeGpuEngine:
        """Open a graph, whether the provider ought to work here or not.

        Raises:
            BackendError: ONNX Runtime refuses the graph, or leaves the provider out.
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
        made = session_options(threads)
        made.add_session_config_entry("session.model_external_initializers_file_folder_path", str(bundle.path))
        model, folder = self._model(bundle, graph, compute), _cache() / _cache_name(bundle, graph, compute)
        names = dict.fromkeys((self.name, *self.behind, _CPU))
        options = {name: _options(name, folder, replayed) for name in names}
        # with ONNX Runtime's fallback it would print to stdout and go on with other providers and other options
        if self.name == RTX.name:  # a provider that is plugged in
            made.add_provider_for_devices(_rtx_devices(), options[self.name])
            session = onnxruntime.InferenceSession(model, made, enable_fallback=0)
        else:
            session = onnxruntime.InferenceSession(model, made, providers=list(options.items()), enable_fallback=0)
        if self.name not in session.get_providers():  # a provider that doesn't load is left out without an error
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
    device="cpu",  # a build of ONNX Runtime without CUDA has no other; the provider copies
)


def _options(provider: str, folder: Path, replayed: bool) -> dict[str, str]:
    """Of a provider.

    The graph has its types, so no precision is asked for: without such a flag the TensorRT provider types strongly.
    Weights are handed over in memory, since as one protobuf message a model must stay below 2 GB.
    """
    if provider == CUDA.name:
        return {"use_tf32": "0", "enable_cuda_graph": str(int(replayed))}  # float32 is float32
    if provider not in (TENSORRT.name, RTX.name):
        return {}
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = os.access(folder, os.W_OK)
    except OSError:
        kept = False
    if not kept:
        logger.warning("%s cannot be written; what TensorRT builds is not kept (XDG_CACHE_HOME names another)", folder)
    if provider == RTX.name:
        stored = {"nv_runtime_cache_path": str(folder)}
        return {"nv_use_external_data_initializer": "1"} | (stored if kept else {})
    stored = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }
    return {"trt_load_user_initializer": "1"} | (stored if kept else {})


def _cache() -> Path:
    """Where ONNX Runtime keeps what TensorRT has built."""
    return cache_folder() / "onnxruntime"


def _cache_name(bundle: Bundle, graph: str, compute: str) -> str:
    """A folder for each, because the names that the provider gives to engines do not tell weights apart."""
    return f"{bundle.digest[:16]}-{graph}-{compute}-{onnxruntime.__version__}"


def _rewrites() -> bool:
    """Whether graphs can be given other types and operators here."""
    return all(map(find_spec, ("fye_engines", "onnx", "onnx_ir")))


def _rtx_devices() -> list[Any]:
    library = importlib.import_module(_RTX_LIBRARY)
    name = library.get_ep_name()
    if all(device.ep_name != name for device in onnxruntime.get_ep_devices()):
        onnxruntime.register_execution_provider_library(name, library.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    if not devices:
        raise BackendError("onnxruntime-rtx serves none of these GPUs; use backend='auto'")
    return devices[:1]  # it refuses more than one


def _cuda_libraries(version: str) -> tuple[str, ...]:
    """What the CUDA provider is linked to, and cuDNN, which it opens for the first convolution."""
    cuda = [f"lib{name}.so.{_major(version)}" for name in ("cudart", "cublasLt", "cublas")]
    return (*cuda, "libcurand.so.10", "libcudnn.so.9") if version else ()


@cache
def _missing(libraries: tuple[str, ...]) -> str:
    """The first that cannot be loaded, or "". Those that lie in pip's packages are loaded from there, to be found."""
    if sys.platform != "linux":
        return ""
    with redirect_stdout(io.StringIO()):  # it prints, and raises nothing
        onnxruntime.preload_dlls()
    if TENSORRT.libraries[0] in libraries:
        with suppress(Exception):  # it fails in its own ways where its libraries are missing
            importlib.import_module("tensorrt")
    for name in libraries:
        try:
            ctypes.CDLL(name)
        except OSError:
            return name
    return ""


def _major(version: str) -> int:
    return int(version.partition(".")[0] or 0)
