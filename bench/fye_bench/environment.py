"""Environment of a measurement: machine, versions, commit, and other processes' load."""

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
    """Describe the machine, versions and commit.

    Args:
        threads: threads of the measured code; 0: as many as engines take by default (`fye_rt.machine.cores`).
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **machine.environment(),
        "threads": threads or machine.cores() or 0,
        "commit": commit(),
    }


def commit(checkout: Path = _CHECKOUT) -> str | None:
    """Return the git commit of a checkout, with "-dirty" if files differ from it; None outside a checkout."""
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


class OtherLoad:
    """Counts what other processes compute since its creation. A busy machine slows some engines more than others."""

    def __init__(self) -> None:
        self._start = _usage()

    def cores(self) -> float | None:
        """Return the mean number of cores that other processes used; None: unknown. Running children count as others.

        A note on stderr reports a load that spoils measurements.
        """
        now = _usage()
        if self._start is None or now is None:
            return None
        wall, total, ours = (after - before for before, after in zip(self._start, now, strict=True))
        cores = max(0.0, total - ours) / wall
        if cores > _BUSY:
            from fye_rt.cli import terminal  # needs packages that a machine with a GPU may lack

            terminal.note(f"other processes used {cores:.1f} cores meanwhile; measure again on a quiet machine")
        return cores


def _usage() -> tuple[float, float, float] | None:
    """Return seconds of the clock, and CPU seconds of all processes and of this one with its ended children."""
    try:
        _, user, nice, system, _, _, *interrupts = Path("/proc/stat").read_text().splitlines()[0].split()[:9]
    except OSError:  # not Linux
        return None
    total = sum(map(int, (user, nice, system, *interrupts))) / os.sysconf("SC_CLK_TCK")
    return time.monotonic(), total, sum(os.times()[:4])
