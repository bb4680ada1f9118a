"""Registry of backends: which exist, which work on this machine, and how each opens a graph."""

import importlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

from fye_rt.backends import gpu
from fye_rt.backends.precision import resolve_precision
from fye_rt.bundle import Bundle
from fye_rt.engine import Engine, Settings
from fye_rt.errors import BackendError
from fye_rt.files import ensure_home

# module (or module:attribute) and package of each backend, in the order in which "auto" tries them
BACKENDS = {
    "tensorrt": ("fye_rt.backends.tensorrt:TENSORRT_BACKEND", "tensorrt"),
    "tensorrt-rtx": ("fye_rt.backends.tensorrt:RTX_BACKEND", "tensorrt_rtx"),
    "torch": ("fye_torch.engine", "torch"),
    "onnxruntime-cuda": ("fye_rt.backends.onnxruntime_gpu", "onnxruntime"),
    "onnxruntime": ("fye_rt.backends.onnxruntime", "onnxruntime"),
    "openvino": ("fye_rt.backends.openvino", "openvino"),
}
FALLBACK = "onnxruntime"  # always installed, works everywhere
ON_A_CPU = ("onnxruntime", "openvino", "torch")
ON_PLANS = ("tensorrt", "tensorrt-rtx")  # these run what `fye build` has built
_ON_A_GPU = (*ON_PLANS, "torch", "onnxruntime-cuda")  # the GPU backends that "auto" may choose

Open = Callable[[Bundle, str, Settings], Engine]


def load(name: str) -> Open:
    """Return the function that opens a graph with backend `name`: (bundle, graph name, settings) -> Engine.

    Raises:
        BackendError: the backend is unknown, or its package is not installed; the message has the install command.
    """
    return _module(name).open_engine


def installed() -> list[str]:
    """Return the names of the backends that are installed and usable on this machine."""
    return [name for name in BACKENDS if not _absent(name)]


def choose(name: str = "auto", bundle: Bundle | None = None) -> str:
    """Resolve "auto" to the first GPU backend that works here, else to ONNX Runtime on the CPU.

    Args:
        name: a backend, or "auto".
        bundle: TensorRT and TensorRT-RTX are chosen only if they have plans for this bundle; None skips that check.
    """
    return next(candidates(bundle)) if name == "auto" else name


def candidates(bundle: Bundle | None = None) -> Iterator[str]:
    """Yield the backends that "auto" may choose here, best first, each checked in turn; `bundle` as in `choose`."""
    yield from (name for name in _ON_A_GPU if not unusable(name, bundle))
    yield FALLBACK


def unusable(name: str, bundle: Bundle | None = None) -> str:
    """Explain why "auto" cannot choose a backend here, or return ""; `bundle` as in `choose`."""
    if name == FALLBACK:
        return ""
    if name == "openvino":
        return _absent(name) or "it computes in bfloat16 where the CPU can"
    if reason := gpu.gpus().reason:  # before anything heavy is imported
        return reason
    try:
        return str(_module(name).unusable(bundle))
    except BackendError as error:
        return str(error)


def _absent(name: str) -> str:
    """Explain why a backend is not installed, or lacks the GPU it needs; "" if neither."""
    try:
        spec = find_spec(BACKENDS[name][1])
    except ValueError:  # a module without a spec
        spec = None
    if spec is None:
        return f"it is not installed; run: {_install(name)}"
    return "" if name in ON_A_CPU else str(_module(name).unusable())


def distributions(name: str) -> tuple[str, ...]:
    """Return the names under which pip may have installed a backend's package."""
    package = BACKENDS[name][1]
    names = {
        "tensorrt": ("tensorrt-cu13",),
        "tensorrt_rtx": ("tensorrt-rtx-cu13",),
        FALLBACK: (FALLBACK, "onnxruntime-gpu"),
    }
    return names.get(package, (package,))


def computes(name: str) -> tuple[str, ...]:
    """Return the compute precisions of backend `name` here ("auto" means the last); raises BackendError as `load`."""
    return _module(name).computes()


def resolve_compute(name: str, compute: str) -> str:
    """Resolve a compute precision, which may be "auto", for backend `name`.

    Raises:
        BackendError: as `load`, or the backend does not compute in this precision on this machine.
    """
    return resolve_precision(name, computes(name), compute)


def _module(name: str) -> Any:
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}; choose from auto, {', '.join(BACKENDS)}")
    path, package = BACKENDS[name]
    module_name, _, attribute = path.partition(":")
    ensure_home()  # OpenVINO needs a home folder
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise BackendError(f"backend {name} needs {package} ({error}); run: {_install(name)}") from error
    return getattr(module, attribute) if attribute else module


def _install(name: str) -> str:
    package = BACKENDS[name][1]
    return f"pip install {package}" if package == FALLBACK else f"pip install 'fye-rt[{name}]'"
