"""What this machine is, and how fast it copies and multiplies."""

import subprocess
from pathlib import Path
from typing import Any

from fye_bench.environment import environment
from fye_bench.first.record import Record
from fye_rt.backends import gpu
from fye_rt.machine import installed_version

PACKAGES = (
    "torch", "triton", "numpy", "transformers", "diffusers", "safetensors", "onnxruntime", "cuda-core", "cuda-bindings",
    "tensorrt", "tensorrt-cu13", "nvidia-cudnn-cu13", "nvidia-cublas", "pytest", "pytest-xdist", "hypothesis",
)  # fmt: skip
_ASKED = (
    "name", "driver_version", "memory.total", "memory.used", "compute_mode", "mig.mode.current", "clocks.sm",
    "clocks.max.sm", "clocks.mem", "power.draw", "power.limit", "temperature.gpu", "clocks_event_reasons.active",
)  # fmt: skip

_PROPERTIES = (
    "name", "major", "minor", "multi_processor_count", "total_memory", "L2_cache_size", "shared_memory_per_block_optin",
    "shared_memory_per_multiprocessor", "regs_per_multiprocessor",
)  # fmt: skip


def run(record: Record, out: Path, small: bool) -> None:
    """See `fye_bench.first`."""
    with record.part("versions") as result:
        result |= environment() | {"installed": {name: installed_version(name) for name in PACKAGES}}
    with record.part("devices") as result:
        result["nodes"] = {name: Path(name).exists() for name in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")}
        found = gpu.gpus()
        result |= {"driver": [str(each) for each in found.gpus], "cuda": found.cuda, "reason": found.reason}
        result["nvidia_smi"] = _nvidia_smi()
    with record.part("pytorch") as result:
        result |= _pytorch()
    import torch

    from fye_bench.speed.kernels import Bench

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for dtype in (torch.float16, torch.bfloat16):
        with record.part(f"ceilings, {dtype}".replace("torch.", "")) as result:
            bench = Bench("cpu", dtype, 1) if small else Bench(device, dtype, 20)
            copied, multiplied = bench.ceilings(2**12, 16) if small else (bench.copy_rate, bench.matrix_rate)
            result |= {"copy_bytes_per_second": copied, "matrix_flop_per_second": multiplied}


def _pytorch() -> dict[str, Any]:
    import torch

    cudnn: Any = torch.backends.cudnn
    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "available": torch.cuda.is_available(),
        "cudnn": cudnn.version(),
        "cudnn_precision": cudnn.conv.fp32_precision,
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        facts["device"] = {name: getattr(properties, name, None) for name in _PROPERTIES}
    return facts


def _nvidia_smi() -> dict[str, str] | str:
    command = ["nvidia-smi", f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    values = said.stdout.strip().split(", ")
    return dict(zip(_ASKED, values, strict=True)) if len(values) == len(_ASKED) else said.stdout + said.stderr
