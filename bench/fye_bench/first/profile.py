"""Which kernels take the time: one evaluation and one decoding, launched one by one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from fye_bench.first.record import Record
from fye_bench.speed import gpu
from fye_bench.speed.floor import random_inputs
from fye_export import random_checkpoint
from fye_export.graphs import graph_specs
from fye_torch.engine import assemble, with_kernels
from fye_torch.modules import KERNELS, PLAIN

TOP = 40


def run(record: Record, out: Path, small: bool) -> None:
    """See `fye_bench.first`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = random_checkpoint.PRESETS["tiny" if small else "full"]
    compute, side, frames = ("fp32", 64, 3) if small else ("fp16", 512, 16)
    operations = KERNELS if device.type == "cuda" else PLAIN
    specs = graph_specs(config)
    for graph, name, length in (("denoiser", "unet", frames), ("vae_decoder", "vae", min(8, frames))):
        with record.part(graph) as result, torch.inference_mode():
            network = gpu.random_networks(config, device, (name,), gpu.DTYPES[compute])[name]
            engine = assemble(specs[graph], [with_kernels(network, name, operations)], device, compute, operations)
            inputs = random_inputs(specs[graph], length, (side, side), device, gpu.DTYPES[compute])
            for _ in range(3):
                engine.module(*inputs)
            result |= table(partial(engine.module, *inputs), device)


def table(call: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """Profile one call.

    Returns:
        "launches" of kernels and their "busy_ms" together, the "span_ms" from the first one's start to the last one's
        end and the share of it in which no kernel ran ("idle"), and the `TOP` kernels that take the most: "name",
        "calls", "ms". Without a GPU operators of the CPU stand in for kernels.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]
    with profile(activities=activities) as profiler:
        call()
        if on_gpu:
            torch.cuda.synchronize()
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    events = [each for each in profiler.events() if each.device_type == kind]
    sums: dict[str, list[float]] = {}
    for event in events:
        taken = event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
        sums.setdefault(event.name, []).append(taken / 1e3)
    busy = sum(map(sum, sums.values()))
    span = (max(each.time_range.end for each in events) - min(each.time_range.start for each in events)) / 1e3
    ranked = sorted(sums.items(), key=lambda item: -sum(item[1]))[:TOP]
    return {
        "launches": len(events),
        "busy_ms": busy,
        "span_ms": span,
        "idle": 1 - busy / span,
        "top": [{"name": name[:160], "calls": len(times), "ms": sum(times)} for name, times in ranked],
    }
