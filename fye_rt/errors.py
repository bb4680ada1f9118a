"""The family of errors. Every message names the thing at fault and says what to do about it.

Every error that a user can cause derives from `FyeError`; the command line prints its message on one line and exits
with code 2. Any other exception is a bug in fye-rt and keeps its traceback.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager


def one_line(text: str) -> str:
    """Replace line breaks, escape sequences and whatever else cannot be printed by spaces."""
    return "".join(character if character.isprintable() else " " for character in text)


class FyeError(Exception):
    """Base of every error that fye-rt raises on purpose.

    It prints as one line, although file names and messages of libraries may have several.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


class OptionError(FyeError, ValueError):
    """An option outside its valid range, or two options that contradict each other."""


class InputError(FyeError, ValueError):
    """An image, video, motion file or template that is missing, damaged, empty or over a stated limit."""


class FaceNotFoundError(InputError):
    """A missing face where one is needed; the message lists the frames."""


class BundleError(FyeError):
    """A bundle that is incomplete, altered, of an unknown format version, or unsafe to open."""


class CheckpointError(FyeError):
    """A checkpoint with missing, surplus, misshapen or non-finite tensors, or in an unknown layout."""


class ExportError(FyeError):
    """An exported graph that disagrees with PyTorch by more than its tolerance; nothing was published."""


class BackendError(FyeError):
    """A backend that is not installed here or cannot run this bundle; the message names the remedy."""


class BusyError(FyeError, RuntimeError):
    """A second call on an `Animator` that is already serving one, or a call on a closed one."""


class NumericalError(FyeError, ArithmeticError):
    """NaN or infinity in the output of a network."""


class OutputError(FyeError, OSError):
    """A result that could not be written (full disk, no permission); no partial file is left under its name."""


class OutOfMemoryError(FyeError, MemoryError):
    """Too little memory, of the machine or a GPU, or a thread that the system refused; the message names the work."""


def not_finite(network: str, where: str = "", remedy: str = "run again with compute='fp32'") -> NumericalError:
    """Return the error for network output with NaN or infinity; `where`, such as " at step 3", follows in the text."""
    return NumericalError(f"{network} returned NaN or infinity{where}; {remedy}")


# Libraries raise types of their own, or RuntimeError, and name the cause only in words: C++, ONNX Runtime, OpenVINO,
# PyTorch, TensorRT, the CUDA driver, cuBLAS and cuDNN, OpenCV, the dynamic linker
_NO_MEMORY = re.compile(
    r"bad_?alloc\b|bad allocation|out[ _]?of[ _]?memory|(can not|cannot|can't|unable to) allocate|not enough memory|"
    r"failed to allocate|insufficient memory|ALLOC(ATION)?_FAILED|failed to map segment from shared object",
    re.IGNORECASE,
)
_NO_THREAD = re.compile(
    r"(can't|cannot|could not|unable to) (start|create) (a )?(new )?thread|pthread_create|"
    r"resource temporarily unavailable",
    re.IGNORECASE,
)
_GPU = re.compile(r"cuda|cudnn|cublas|tensorrt|\bgpu\b", re.IGNORECASE)


@contextmanager
def memory_for(work: str, remedy: str) -> Iterator[None]:
    """Turn any exception inside that means too little memory or too few threads into an `OutOfMemoryError`.

    Its message reads "(the lack) for `work`; use `remedy`". An `OutOfMemoryError` raised inside passes unchanged.
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        lack = lacking(error)
        if not lack:
            raise
        raise OutOfMemoryError(f"{lack} for {work}; use {remedy}") from error


def lacking(error: BaseException) -> str:
    """Describe what the system had too little of to cause `error`, as the start of a sentence; "" for other causes."""
    causes = [error]
    while (cause := causes[-1].__cause__) is not None and cause not in causes:
        causes.append(cause)
    if any(_is_memory(cause) for cause in causes):
        return "not enough memory" + (" on the GPU" if any(_GPU.search(_words(cause)) for cause in causes) else "")
    if any(_is_thread(cause) for cause in causes):
        return "no thread or process could be started, which needs memory and is limited (ulimit -v, -u),"
    return ""


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return getattr(error, "errno", None) == errno.ENOMEM or bool(_NO_MEMORY.search(_words(error)))


def _is_thread(error: BaseException) -> bool:
    if getattr(error, "errno", None) == errno.EAGAIN:
        return "without blocking" not in str(error)  # a full pipe, not a refused thread
    return bool(_NO_THREAD.search(_words(error)))


def _words(error: BaseException) -> str:
    """Text of an error if a library wrote it; our own texts and the system's, which have a number, quote file names."""
    ours = isinstance(error, FyeError) and not isinstance(error, BackendError)
    return "" if ours or getattr(error, "errno", None) is not None else str(error)
