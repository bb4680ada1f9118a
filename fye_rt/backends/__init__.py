"""Backends behind one small interface: open a graph of a bundle, run it on named arrays."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from fye_rt.bundle import Bundle
from fye_rt.errors import BackendError

Arrays = dict[str, NDArray[Any]]


class Engine(Protocol):
    """One graph, ready to run. Serves one call at a time.

    Attributes:
        compute: the precision it computes in, "fp32", "bf16" or "fp16".
    """

    compute: str

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Outputs by name; they belong to the caller. `inputs` are C-contiguous, by name."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """What an engine is opened with.

    Attributes:
        compute: "auto", "fp32", "bf16" or "fp16".
        threads: of the CPU; 0 means one per physical core.
    """

    compute: str = "auto"
    threads: int = 0


# module and package of each backend, in the order in which "auto" prefers them
BACKENDS = {
    "onnxruntime": ("fye_rt.backends.onnxruntime", "onnxruntime"),
    "openvino": ("fye_rt.backends.openvino", "openvino"),
}

Open = Callable[[Bundle, str, Settings], Engine]


def load(name: str) -> Open:
    """The function that opens a graph with backend `name`: (bundle, graph name, settings) -> Engine.

    Raises:
        BackendError: unknown, or its package is not installed; the message has the command that installs it.
    """
    if name not in BACKENDS:
        raise BackendError(f"no backend is called {name!r}; there are: auto, {', '.join(BACKENDS)}")
    module, package = BACKENDS[name]
    try:
        opened: Open = importlib.import_module(module).open_engine
    except ImportError as error:
        raise BackendError(f"backend {name} needs {package} ({error}); run: pip install 'fye-rt[{name}]'") from error
    return opened


def choose(name: str = "auto") -> str:
    """Resolve "auto" to the first backend that is installed."""
    return "onnxruntime" if name == "auto" else name
