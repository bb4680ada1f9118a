"""NVIDIA's two libraries with the API of TensorRT: TensorRT and TensorRT-RTX.

TensorRT builds a plan on a GPU, for GPUs of that architecture. TensorRT-RTX builds a plan without a GPU, for several
architectures of GeForce and RTX cards; it compiles the plan's kernels for the card at hand when a plan is opened.
"""

import importlib
import logging
from dataclasses import dataclass
from typing import Any

from fye_rt.errors import BackendError, OptionError

_QUOTED = 5  # largest number of a library's messages that an error quotes

logger = logging.getLogger("fye_rt")


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two libraries.

    Attributes:
        backend: backend that runs its plans.
        title: name in messages.
        module: Python module.
        architectures: GPU architectures that a plan can be built for without a GPU, one or several at once; () if a
            plan is built on a GPU of its only architecture.
        usual: the architectures that a plan is built for by default.
    """

    backend: str
    title: str
    module: str
    architectures: tuple[str, ...] = ()
    usual: tuple[str, ...] = ()

    @property
    def install(self) -> str:
        """Command that installs the library."""
        return f"run: pip install 'fye-rt[{self.backend}]'"

    def load(self) -> Any:
        """Import the library; raises BackendError if it is not installed, or does not load."""
        try:
            return importlib.import_module(self.module)
        except (ImportError, OSError) as error:
            raise BackendError(f"{self.title} is missing ({error}); {self.install}") from error

    def version(self) -> str:
        """Return the installed version; raises BackendError as `load`."""
        return str(self.load().__version__)

    def targets(self, names: tuple[str, ...], precision: str = "fp16") -> tuple[str, ...]:
        """Return the architectures to build a plan for, sorted; by default those of `usual` that have the precision.

        Raises:
            OptionError: a plan in this precision cannot be built for one of them.
        """
        if names and not self.architectures:
            raise OptionError(f"arch={names[0]} is not valid; {self.title} builds for this machine's GPU alone")
        for name in names:
            if name not in self.architectures:
                raise OptionError(
                    f"arch={name} is not valid: {self.title} serves {', '.join(self.architectures)}; build with "
                    f"{TENSORRT.title} on a GPU of another architecture"
                )
            if lacks(name, precision):
                raise OptionError(f"arch={name} is not valid: it has no {precision}; leave it out")
        chosen = names or tuple(name for name in self.usual if not lacks(name, precision))
        return tuple(sorted(set(chosen), key=self.architectures.index))


def lacks(sm: str, precision: str) -> bool:
    """Return whether a GPU architecture such as "sm_86" cannot compute in a precision."""
    return int(sm.removeprefix("sm_")) < {"bf16": 80, "fp8": 89}.get(precision, 0)


TENSORRT = Library("tensorrt", "TensorRT", "tensorrt")
# plans for Turing (sm_75) are slower on newer cards, so they are built on request only
RTX = Library(
    "tensorrt-rtx",
    "TensorRT-RTX",
    "tensorrt_rtx",
    architectures=("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121"),
    usual=("sm_80", "sm_86", "sm_89", "sm_120"),
)
LIBRARIES = {library.backend: library for library in (TENSORRT, RTX)}


def messages(module: Any) -> Any:
    """Create a logger for a library, which keeps errors in its list `said`."""
    severity = module.ILogger.Severity
    errors = (severity.INTERNAL_ERROR, severity.ERROR)

    class Messages(module.ILogger):
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.said: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in errors:
                self.said.append(msg)
            logger.debug("%s: %s", module.__name__, msg)

    return Messages()


def quoted(said: list[str]) -> str:
    """Join a library's messages to one line, each once, and at most five of them."""
    lines = [" ".join(message.split()) for message in dict.fromkeys(said)]
    more = f"; and {len(lines) - _QUOTED} more" if len(lines) > _QUOTED else ""
    return "; ".join(lines[:_QUOTED]) + more if lines else "no reason given"
