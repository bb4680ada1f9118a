"""The registry of backends: which there are, which work here, and what opens a graph with them."""

import importlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

from fye_rt.backends import gpu
from fye_rt.bundle import Bundle
from fye_rt.engine import Engine, Settings
from fye_rt.errors import BackendError
from fye_rt.files import ensure_home

# module (or what it has under a name) and package of each backend, in the order in which "auto" looks at them
BACKENDS = {
    "tensorrt": ("fye_rt.backends.tensorrt", "tensorrt"),
    "torch": ("fye_torch.engine", "torch"),
    "onnxruntime-cuda": ("fye_rt.backends.onnxruntime_gpu:CUDA", "onnxruntime"),
    "onnxruntime": ("fye_rt.backends.onnxruntime", "onnxruntime"),
    "openvino": ("fye_rt.backends.openvino", "openvino"),
    "onnxruntime-tensorrt": ("fye_rt.backends.onnxruntime_gpu:TENSORRT", "onnxruntime"),
    "onnxruntime-rtx": ("fye_rt.backends.onnxruntime_gpu:RTX", "onnxruntime"),
}
# only one of the two wheels may be there: they overwrite each other's files
ONNXRUNTIME_GPU = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'onnxruntime-gpu[cuda,cudnn]'"
FALLBACK = "onnxruntime"  # is always installed, and works everywhere
ON_A_CPU = ("onnxruntime", "openvino", "torch")
_ON_A_GPU = ("tensorrt", "torch", "onnxruntime-cuda")  # of what "auto" may choose
_RETYPED = ("onnxruntime-cuda", "onnxruntime-tensorrt", "onnxruntime-rtx")  # whose graphs onnx-ir makes float16

Open = Callable[[Bundle, str, Settings], Engine]


def load(name: str) -> Open:
    """The function that opens a graph with backend `name`: (bundle, graph name, settings) -> Engine.

    Raises:
        BackendError: unknown, or its package is not installed; the message has the command that installs it.
    """
    open_engine: Open = _module(name).open_engine
    return open_engine


def installed() -> list[str]:
    """Names of the backends that can be used here."""
    return [name for name in BACKENDS if not _absent(name)]


def choose(name: str = "auto", bundle: Bundle | None = None) -> str:
    """Resolve "auto": the first backend on a GPU that works here, else ONNX Runtime on the CPU.

    Args:
        name: of a backend, or "auto".
        bundle: for which TensorRT must have plans.
    """
    return next(candidates(bundle)) if name == "auto" else name


def candidates(bundle: Bundle | None = None) -> Iterator[str]:
    """The backends that "auto" may choose here, the best first; each is looked at when it is its turn.

    Args:
        bundle: for which TensorRT must have plans; without one they don't matter.
    """
    yield from (name for name in _ON_A_GPU if not unusable(name, bundle))
    yield FALLBACK


def unusable(name: str, bundle: Bundle | None = None) -> str:
    """Why a backend does not work here, or is not for "auto" to choose; "" if it is.

    Args:
        name: of a backend.
        bundle: for which TensorRT must have plans; without one they don't matter.
    """
    if name == FALLBACK:
        return ""
    if name == "openvino":
        return _absent(name) or "it computes in bfloat16 where the CPU can"
    if reason := gpu.gpus().reason:  # before anything heavy is imported
        return reason
    try:
        reason = str(_module(name).unusable(bundle))
    except BackendError as error:
        return str(error)
    return reason


def _absent(name: str) -> str:
    """Why a backend is not installed, or has no GPU that it needs; else ""."""
    try:
        found = find_spec(BACKENDS[name][1])
    except ValueError:  # a module without a spec
        found = None
    if found is None:
        return f"it is not installed; run: {_install(name)}"
    if name not in ON_A_CPU:
        return str(_module(name).unusable())
    return ""


def distributions(name: str) -> tuple[str, ...]:
    """What a backend's package is installed as: one of these."""
    package = BACKENDS[name][1]
    return {"tensorrt": ("tensorrt-cu13",), FALLBACK: (FALLBACK, "onnxruntime-gpu")}.get(package, (package,))


def computes(name: str) -> tuple[str, ...]:
    """The precisions that backend `name` computes in on this machine; "auto" stands for the last.

    Raises:
        BackendError: as `load`.
    """
    able: tuple[str, ...] = _module(name).computes()
    return able


def resolve_compute(name: str, compute: str) -> str:
    """The precision that `compute`, which may be "auto", means for backend `name`.

    Raises:
        BackendError: as `load`, or the backend does not compute in it on this machine.
    """
    able = computes(name)
    if compute == "auto":
        return able[-1]
    if compute not in able:
        other = ", or use backend='openvino' for bf16" if compute == "bf16" and name != "openvino" else ""
        if compute == "fp16" and name in _RETYPED:
            other = ", or run: pip install onnx-ir"  # an extra would bring the CPU's onnxruntime back
        raise BackendError(
            f"{name} computes in {' or '.join(able)} here, not in {compute}; drop compute={compute!r}{other}"
        )
    return compute


def _module(name: str) -> Any:
    if name not in BACKENDS:
        raise BackendError(f"no backend is called {name!r}; there are: auto, {', '.join(BACKENDS)}")
    place, package = BACKENDS[name]
    module, _, attribute = place.partition(":")
    ensure_home()  # OpenVINO asks for it
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise BackendError(f"backend {name} needs {package} ({error}); run: {_install(name)}") from error
    return getattr(found, attribute) if attribute else found


def _install(name: str) -> str:
    package = BACKENDS[name][1]
    return f"pip install {package}" if package == FALLBACK else f"pip install 'fye-rt[{name}]'"
