"""Run a command and measure its time and memory."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fye_bench.speed.memory import anonymous
from fye_rt.errors import BackendError

_INTERVAL = 0.02  # seconds between two readings of its memory


@dataclass(frozen=True, slots=True)
class Run:
    """Measurements of a command that succeeded.

    Attributes:
        seconds: wall-clock time.
        peak_memory_bytes: largest resident memory, mapped files included.
        peak_anonymous_bytes: largest anonymous memory among the readings.
    """

    seconds: float
    peak_memory_bytes: int
    peak_anonymous_bytes: int


def run(arguments: Sequence[str], log: Path) -> Run:
    """Run `python ARGUMENTS` with its output in `log`. Its child processes are not counted.

    Raises:
        BackendError: the command failed; the message has its last line.
    """
    start, peak = time.perf_counter(), 0
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, *arguments], stdout=output, stderr=subprocess.STDOUT)
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        with suppress(BackendError):  # it has just ended
            peak = max(peak, anonymous(process.pid))
        time.sleep(_INTERVAL)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
        raise BackendError(f"{' '.join(arguments)} failed with {process.returncode}: {last}; see {log}")
    return Run(seconds, usage.ru_maxrss * 1024, peak)
