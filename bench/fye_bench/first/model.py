"""The full-size model: is it right, and how long does it take."""

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fye_bench.first.record import Record
from fye_bench.speed import gpu
from fye_bench.speed.kernels import captured
from fye_export import random_checkpoint
from fye_rt.options import Options
from fye_torch import switches
from fye_torch.modules import PLAIN

Run = Callable[[], object]


@torch.no_grad()
@switches.FLOAT32
def run(record: Record, out: Path, small: bool) -> None:
    """See `fye_bench.first`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = random_checkpoint.PRESETS["tiny" if small else "full"]
    compute, size, frames, steps = ("fp32", (64, 64), 2, 6) if small else ("fp16", (512, 512), 16, 30)
    inputs = gpu.random_inputs(config, size, frames)
    shared: dict[str, Any] = {}
    with record.part("weights") as result:
        shared["parts"] = gpu.random_networks(config, device)
        result["bytes"] = sum(tensor.nbytes for part in shared["parts"].values() for tensor in part.parameters())
    with record.part("float32") as result:
        shared["exact"] = gpu.exact(config, shared["parts"], inputs)
    with record.part("rivals") as result:
        rivals = gpu.Rivals.meet(config, shared.pop("parts"), compute, inputs)
        plain = rivals.renewed(operations=PLAIN) if device.type == "cuda" else rivals
        gc.collect()
    with record.part("against float32") as result:
        checks = rivals.checks(shared["exact"])
        for half, array in zip(("v_unconditional", "v_conditional"), plain.evaluate(), strict=True):
            checks[f"plain, {half}"] = gpu.difference(array, shared["exact"][half])
        wrong = gpu.beyond_rounding(checks)
        result |= {"checks": checks, "beyond_rounding": wrong, "right": not wrong}
    rounds = 1 if small else 10
    for name, ways in (("evaluation", _evaluations(rivals, plain)), *_decodes(rivals, (1, 2) if small else (1, 4, 8))):
        for way, prepare in ways.items():
            with record.part(f"{name}, {way}") as result:
                result["milliseconds"] = milliseconds(prepare(), rounds, device)
    for way, evaluations, each in rivals.ways(Options(steps=steps, guidance=3.5)):
        with record.part(f"clip, {way}, {evaluations} evaluations") as result:
            taken = [gpu.timed(each) for _ in range(1 if small or way == "baseline" else 3)]
            result |= {"clip_seconds": taken, "frames_per_second": frames / statistics.median(taken)}
    with record.part("stages") as result:
        result |= {name: stage["median"] for name, stage in rivals.stages(None, 1 if small else 3).items()}
    with record.part("memory") as result:
        result |= rivals.memory(Options(steps=2, guidance=3.5))


def _evaluations(rivals: gpu.Rivals, plain: gpu.Rivals) -> Mapping[str, Callable[[], Run]]:
    """Ways to evaluate the denoiser on tensors that lie on the device; each is prepared when it is its turn."""

    def runtime(rivals: gpu.Rivals) -> Run:
        return rivals.evaluation(rivals.runtime.engines["denoiser"].module)

    def baseline() -> Run:
        return partial(rivals.baseline.evaluate, rivals.latents, 500, rivals.features, rivals.portrait)

    return {
        "kernels, captured": lambda: _captured(runtime(rivals)),
        "kernels, eager": lambda: runtime(rivals),
        "baseline": baseline,
        "plain, captured": lambda: _captured(runtime(plain)),
        "plain, eager": lambda: runtime(plain),
        "kernels, captured, cudnn.benchmark": lambda: _captured(runtime(rivals), benchmark=True),
    }


def _decodes(rivals: gpu.Rivals, lengths: tuple[int, ...]) -> Iterator[tuple[str, Mapping[str, Callable[[], Run]]]]:
    module = rivals.runtime.engines["vae_decoder"].module
    for frames in lengths:
        decode = partial(gpu.inferred, module, rivals.latents[:, :, :frames].contiguous())
        baseline = partial(rivals.baseline.decode, rivals.inputs.noise[:, :, :frames])
        ways: dict[str, Callable[[], Run]] = {
            "eager": partial(_captured, decode, capture=False),
            "captured": partial(_captured, decode),
            "captured, cudnn.benchmark": partial(_captured, decode, benchmark=True),
            "baseline": partial(_captured, baseline, capture=False),
        }
        yield f"decode of {frames}", ways


def _captured(each: Run, *, capture: bool = True, benchmark: bool = False) -> Run:
    """Replayed from a CUDA graph, with or without a search for the fastest convolutions; as it is without a GPU."""
    if not capture or not torch.cuda.is_available():
        return each
    torch.backends.cudnn.benchmark = benchmark
    try:
        return captured(each)
    finally:
        torch.backends.cudnn.benchmark = False


def milliseconds(each: Run, rounds: int, device: torch.device) -> dict[str, float]:
    """Median, least and most of some runs, on a GPU after two that are not counted."""
    for _ in range(2 if device.type == "cuda" else 0):
        each()
    if device.type != "cuda":
        taken = [1e3 * gpu.timed(each) for _ in range(rounds)]
    else:
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
        for start, end in events:
            start.record()
            each()
            end.record()
        torch.cuda.synchronize()
        taken = [start.elapsed_time(end) for start, end in events]
    return {"median": statistics.median(taken), "least": min(taken), "most": max(taken)}
