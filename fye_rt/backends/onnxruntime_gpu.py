"""ONNX Runtime's CUDA provider, on an NVIDIA GPU.

It runs the graphs lowered for ONNX Runtime, with their norms in an operator that it supports. It would run the standard
graphs too, but expands their group norm as E[x^2] - E[x]^2, in 1.6 times as many nodes. For float16, `fye_engines`
converts a graph's types when it is opened.
"""

import ctypes
import importlib
import io
import logging
import sys
from contextlib import redirect_stdout
from functools import cache, partial
from importlib.util import find_spec

import onnxruntime

from fye_rt.backends import gpu
from fye_rt.backends.onnxruntime import session_options
from fye_rt.backends.onnxruntime_bound import OnnxRuntimeGpuEngine
from fye_rt.backends.precision import resolve_precision
from fye_rt.bundle import Bundle
from fye_rt.engine import Settings
from fye_rt.errors import BackendError

BACKEND, PROVIDER = "onnxruntime-cuda", "CUDAExecutionProvider"
VARIANT = "onnxruntime"  # of the graphs; see `Bundle.file`
_DENOISERS = ("denoiser", "denoiser_cond")

logger = logging.getLogger("fye_rt")


def unusable(bundle: Bundle | None = None) -> str:
    """Explain why this backend cannot be used here; "" if it can."""
    driver = gpu.gpus()
    if driver.reason:
        return driver.reason
    if PROVIDER not in onnxruntime.get_available_providers():
        return f"this onnxruntime has no {PROVIDER}; run: {gpu.ONNXRUNTIME_GPU}"
    built = onnxruntime.cuda_version
    if _major(driver.cuda) < _major(built):
        return f"this onnxruntime is for CUDA {built}, the driver for CUDA {driver.cuda}; install a newer driver"
    missing = _missing(_cuda_libraries(built))
    return f"{missing} is missing; run: {gpu.ONNXRUNTIME_GPU}" if missing else ""


def computes() -> tuple[str, ...]:
    """Return the compute precisions on this machine."""
    return ("fp32", "fp16") if _rewrites() else ("fp32",)


def open_engine(bundle: Bundle, graph: str, settings: Settings) -> OnnxRuntimeGpuEngine:
    """Open a graph; raises BackendError if the GPU, the provider or the compute precision is not available."""
    if reason := unusable():
        raise BackendError(f"{BACKEND} cannot be used: {reason}")
    compute = resolve_precision(BACKEND, computes(), settings.compute)
    if graph in _DENOISERS and not _rewrites():
        logger.warning("without onnx-ir, graphs stay in float32 and are slow on a GPU; run: pip install onnx-ir")
    return open_here(bundle, graph, compute, settings.threads)


def open_here(
    bundle: Bundle, graph: str, compute: str, threads: int = 0, provider: str = PROVIDER, device: str = "cuda"
) -> OnnxRuntimeGpuEngine:
    """Open a graph without checking first whether the provider works here; another provider has another device.

    A CUDA graph of the denoiser is kept for every shape.

    Raises:
        BackendError: ONNX Runtime refuses the graph, or skips the provider.
    """
    replayed = graph in _DENOISERS and _rewrites()
    open_session = partial(_session, bundle, graph, compute, threads, provider)
    try:
        return OnnxRuntimeGpuEngine(open_session, bundle.graphs[graph], compute, BACKEND, device, replayed)
    except BackendError:
        raise
    except Exception as error:  # the provider raises half a dozen unrelated types
        reason = " ".join(str(error).split())
        raise BackendError(f"{BACKEND} cannot open {graph}: {reason}; {bundle.remedy}") from error


def provider_options(replayed: bool) -> dict[str, str]:
    """Return the options of the CUDA provider.

    Float32 is not rounded to TF32. The algorithms of convolutions are chosen by rules; the default tries all of them at
    the first run of each shape. Memory grows by what is asked for, not by powers of two.
    """
    return {
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": str(int(replayed)),
    }


def _session(
    bundle: Bundle, graph: str, compute: str, threads: int, provider: str, replayed: bool
) -> onnxruntime.InferenceSession:
    options = session_options(threads)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(bundle.path))
    providers = {provider: provider_options(replayed) if provider == PROVIDER else {}, "CPUExecutionProvider": {}}
    # with its fallback, ONNX Runtime would print to stdout and go on with other providers and other options
    session = onnxruntime.InferenceSession(
        _model(bundle, graph, compute), options, providers=list(providers.items()), enable_fallback=0
    )
    if provider not in session.get_providers():  # ONNX Runtime skips a provider that fails to load, without error
        raise BackendError(
            f"{BACKEND} cannot be used: ONNX Runtime leaves {provider} out, for the reason printed above; run: "
            f"{gpu.ONNXRUNTIME_GPU}"
        )
    return session


def _model(bundle: Bundle, graph: str, compute: str) -> bytes:
    if not _rewrites():
        return bundle.file(graph, VARIANT).read_bytes()
    typed = importlib.import_module("fye_engines.prepare").typed
    from fye_rt.backends.onnxruntime_norms import as_layer_norms

    return as_layer_norms(typed(bundle, graph, compute, VARIANT))


def _rewrites() -> bool:
    """Whether the packages that convert a graph's types and operators are installed."""
    return all(map(find_spec, ("fye_engines", "onnx", "onnx_ir")))


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
    for name in libraries:
        try:
            ctypes.CDLL(name)
        except OSError:
            return name
    return ""


def _major(version: str) -> int:
    return int(version.partition(".")[0] or 0)
