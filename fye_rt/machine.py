"""Facts about the machine and this process, for reports."""

import math
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fye_rt.version import __version__

PACKAGES = (
    "numpy",
    "onnxruntime",
    "av",
    "pillow",
    "opencv-contrib-python",
    "mediapipe",
    "openvino",
    "torch",
    "diffusers",
    "transformers",
    "onnx",
)
_PROC, _SYS = Path("/proc"), Path("/sys")
CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "asimd", "bf16")


def environment() -> dict[str, Any]:
    """Describe the machine and the installed versions; imports no package, and absent ones are None."""
    return {
        "fye_rt": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu(),
        "memory_bytes": _memory(),
        "packages": {name: installed_version(name) for name in PACKAGES},
    }


def cpu() -> dict[str, Any]:
    """Describe the CPU; `threads` is `cores()`, and `features` are those that decide speed."""
    fields: dict[str, str] = {}
    physical = set()
    try:
        blocks = (_PROC / "cpuinfo").read_text().strip().split("\n\n")
    except OSError:  # not Linux
        blocks = []
    for block in blocks:
        fields = dict(line.replace("\t", "").partition(":")[::2] for line in block.splitlines())
        if "core id" in fields:
            physical.add((fields.get("physical id"), fields["core id"]))
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        "model": fields.get("model name", "").strip() or platform.processor() or platform.machine(),
        "cores": len(physical) or None,
        "processors": os.cpu_count(),
        "usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": cores(),
        "features": [name for name in CPU_FEATURES if name in flags],
    }


def cores() -> int | None:
    """Count the physical cores that this process can keep busy, which is the number of threads worth having.

    Counts the cores of the processors in its affinity (taskset, cpusets), but at most the whole processors' time that
    its cgroup grants (version 2: `docker --cpus`, Kubernetes' limits, systemd's CPUQuota), and at least one. None: the
    system does not report them.
    """
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        return None
    affinity = set()
    for processor in os.sched_getaffinity(0):
        try:
            siblings = (_SYS / f"devices/system/cpu/cpu{processor}/topology/thread_siblings_list").read_text()
        except OSError:
            siblings = str(processor)
        affinity.add(siblings)
    # when one thread is throttled, the others spin and wait for it: a part of a processor is not worth a thread
    return max(1, math.floor(min(len(affinity), _quota())))


def _quota() -> float:
    """Processor time granted by this process's control group and its ancestors; infinity without a limit."""
    granted = math.inf
    try:
        groups = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        groups = []
    innermost = Path(next((group.removeprefix("0::") for group in groups if group.startswith("0::")), "/"))
    for group in (innermost, *innermost.parents):
        try:
            quota, period = (_SYS / "fs/cgroup" / group.relative_to("/") / "cpu.max").read_text().split()
        except (OSError, ValueError):  # the root group has no file, and a container may not see its outer groups
            continue
        if quota != "max":
            granted = min(granted, int(quota) / int(period))
    return granted


def peak_memory() -> int | None:
    """Largest resident size of this process so far, in bytes; None where the system does not report it."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def installed_version(package: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
