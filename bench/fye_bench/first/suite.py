"""The tests that compute something else on a GPU than elsewhere."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from fye_bench.first.record import Record

KERNELS = ("tests/fye_kernels", "tests/fye_torch/test_modules.py")
LEFT_OUT = ("test_aot",)  # needs no GPU
BACKEND = ("tests/fye_torch", "-m", "gpu")
_SMALL = ("tests/fye_kernels/test_geglu.py",)


def run(record: Record, out: Path, small: bool) -> None:
    """See `fye_bench.first`."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE", "--tb=short", "-m", "not full"]
    workers = ["-n", "8"] if find_spec("xdist") is not None and not small and (os.cpu_count() or 1) >= 8 else []
    ignored = [f"--ignore=tests/fye_kernels/{name}.py" for name in LEFT_OUT]
    parts = {"kernels": [*ignored, *(_SMALL if small else KERNELS)], "backend": [*BACKEND]}
    for name, chosen in parts.items():
        if small and name == "backend":
            record.skip(name, "takes a minute, and is no shorter on a small model")
            continue
        with record.part(name) as result:
            tests = subprocess.run([*pytest, *workers, *chosen], capture_output=True, text=True, check=False)
            print(tests.stdout + tests.stderr, flush=True)
            lines = tests.stdout.splitlines()
            result["summary"] = lines[-1] if lines else tests.stderr[-500:]
            result["failures"] = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
            result["right"] = tests.returncode == 0
