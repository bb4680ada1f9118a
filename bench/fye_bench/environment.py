"""What a measurement was taken on."""

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fye_rt import report

_CHECKOUT = Path(__file__).parents[2]


def environment(threads: int) -> dict[str, Any]:
    """The machine, the versions, and how busy the machine was; to be called before the measurement.

    Args:
        threads: that the measured code uses.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **report.environment(),
        "threads": threads,
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
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
