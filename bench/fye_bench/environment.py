"""What a measurement was taken on, and what disturbed it."""

import os
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fye_rt import machine

_CHECKOUT = Path(__file__).parents[2]
_BUSY = 0.1  # cores


def environment(threads: int = 0) -> dict[str, Any]:
    """Machine, versions and commit.

    Args:
        threads: that the measured code uses; 0: as many as engines take by themselves (`fye_rt.machine.cores`).
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **machine.environment(),
        "threads": threads or machine.cores() or 0,
        "commit": commit(),
    }


def commit() -> str | None:
    """The git commit of this checkout, with "-dirty" if files differ from it; None outside a checkout."""
    if not (_CHECKOUT / ".git").exists():
        return None
    command = ["git", "-C", str(_CHECKOUT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


class OtherLoad:
    """Counts what other processes compute, from its making on. Two engines do not suffer alike from a busy machine."""

    def __init__(self) -> None:
        self._start = _usage()

    def cores(self) -> float | None:
        """Cores that other processes used on average; children count as other until they have ended. None: unknown.

        Says so on stderr if that is enough to spoil a measurement.
        """
        now = _usage()
        if self._start is None or now is None:
            return None
        wall, everyone, own = (after - before for before, after in zip(self._start, now, strict=True))
        cores = max(0.0, everyone - own) / wall
        if cores > _BUSY:
            from fye_rt.cli import terminal  # needs packages that a machine with a GPU may lack

            terminal.note(f"other processes used {cores:.1f} cores meanwhile; measure again on a quiet machine")
        return cores


def _usage() -> tuple[float, float, float] | None:
    """Seconds: of the clock, computed by all processes, computed by this one and its children that have ended."""
    try:
        _, user, nice, system, _, _, *interrupts = Path("/proc/stat").read_text().splitlines()[0].split()[:9]
    except OSError:  # not Linux
        return None
    everyone = sum(map(int, (user, nice, system, *interrupts))) / os.sysconf("SC_CLK_TCK")
    own = os.times()
    return time.monotonic(), everyone, sum(own[:4])
