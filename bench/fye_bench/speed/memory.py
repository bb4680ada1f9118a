"""Memory of a process as Linux counts it, now and at its peak.

Anonymous memory is memory that a process cannot give back without swapping: heap and private mappings, but not files
mapped for reading.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fye_rt.errors import BackendError

_INTERVAL = 0.005  # seconds between two readings, each of which takes 30 us


@dataclass(slots=True)
class Growth:
    """Anonymous memory of a process around a block of code, bytes.

    Attributes:
        before: memory when the block began.
        added: memory beyond `before` when the block ended.
        peak: largest memory beyond `before`.
    """

    before: int
    added: int = 0
    peak: int = 0


def anonymous(pid: int) -> int:
    """Return the anonymous resident memory of a process, bytes (RssAnon).

    Raises:
        BackendError: the system does not report it, or the process does not exist.
    """
    return _read(pid, "RssAnon")


def peak_resident(pid: int) -> int:
    """Return the largest resident memory so far, mapped files included, bytes (VmHWM).

    Raises:
        BackendError: the system does not report it, or the process does not exist.
    """
    return _read(pid, "VmHWM")


@contextmanager
def growth(pid: int) -> Iterator[Growth]:
    """Measure another process while a block runs; the result is complete when the block has ended.

    A thread cannot measure its own process, because ONNX Runtime may hold the interpreter's lock.
    """
    result, ended = Growth(anonymous(pid)), threading.Event()

    def watch() -> None:
        with suppress(BackendError):  # the process has ended, and its caller reports why
            while not ended.wait(_INTERVAL):
                result.peak = max(result.peak, anonymous(pid) - result.before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield result
    finally:
        ended.set()
        watcher.join()
    result.added = anonymous(pid) - result.before
    result.peak = max(result.peak, result.added)


def _read(pid: int, field: str) -> int:
    status = Path(f"/proc/{pid}/status")
    try:
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
    except (OSError, StopIteration) as error:
        raise BackendError(f"cannot measure memory: {status} has no {field}; this works on Linux only") from error
