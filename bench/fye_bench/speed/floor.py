"""Count the model's operations, and derive the best possible speed of a GPU from its data sheet.

    python -m fye_bench.speed.floor [--config full] [--size 512x512] [--frames 16] [--evaluations 6] [--json FILE]

It counts two operations for each multiply-add of convolutions, linear layers and attention, on tensors without storage.
Divided by the GPU's dense float16 rate with float32 sums, they are the floor of measured times.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fye_export import networks
from fye_export.config import ModelConfig
from fye_export.graphs import GraphSpec, graph_specs
from fye_export.random_checkpoint import PRESETS
from fye_rt import files, settings
from fye_rt.bundle import symbols

# architecture to compile kernels for, and dense float16 operations per second with float32 sums, by data sheet
GPUS = {
    "A100 SXM 80 GB": ("sm_80", 312e12),
    "RTX 4090": ("sm_89", 165e12),
    "L40S": ("sm_89", 362e12),
    "H100 SXM": ("sm_90a", 989e12),
    "H200": ("sm_90a", 989e12),
}


def operations(config: ModelConfig, size: tuple[int, int], frames: int) -> dict[str, int]:
    """Count the operations of one run of each graph, over all frames.

    Args:
        config: sizes of the networks.
        size: (height, width) in pixels.
        frames: frames of the clip.
    """
    counted, meta = {}, torch.device("meta")
    with meta, torch.inference_mode():
        for name, spec in graph_specs(config).items():
            module = spec.module(*(networks.build(config, part) for part in spec.networks))
            inputs = random_inputs(spec, frames, size, meta, torch.float32)
            with FlopCounterMode(display=False) as counter:
                module(*inputs)
            counted[name] = int(counter.get_total_flops())
    return counted


def random_inputs(
    spec: GraphSpec, frames: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> list[Tensor]:
    """Return random inputs of a graph, for frames of a size (height, width); timesteps are 500."""
    sizes = symbols(frames, *size)
    inputs = []
    for tensor in spec.inputs:
        shape = [sizes[dim] if isinstance(dim, str) else dim for dim in tensor.shape]
        if tensor.dtype == "int64":
            inputs.append(torch.full(shape, 500, device=device))
        else:
            inputs.append(torch.randn(shape, device=device, dtype=dtype))
    return inputs


def main(argv: Sequence[str] | None = None) -> int:
    """Print operations and floors, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fye_bench.speed.floor", description=__doc__.split("\n")[0])
    parser.add_argument("--config", choices=PRESETS, default="full")
    parser.add_argument("--size", default="512x512", metavar="HxW")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--evaluations", type=int, default=6, help="network evaluations for the clip")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    arguments = parser.parse_args(argv)
    counted = operations(PRESETS[arguments.config], settings.parse_size(arguments.size), arguments.frames)
    for name, number in counted.items():
        print(f"{name:<16}{number / 1e12:>9.3f} T operations")
    clip = arguments.evaluations * counted["denoiser"] + counted["guider"] + counted["vae_decoder"]
    floors = {}
    for name, (architecture, flops) in GPUS.items():
        evaluation, seconds, rate = counted["denoiser"] / flops, clip / flops, arguments.frames * flops / clip
        floors[name] = {
            "architecture": architecture,
            "evaluation_seconds": evaluation,
            "clip_seconds": seconds,
            "frames_per_second": rate,
        }
        print(
            f"{name:<16}{1e3 * evaluation:>9.1f} ms an evaluation{seconds:>9.2f} s a clip{rate:>9.1f} frames/s at most"
        )
    if arguments.json is not None:
        workload = {key: getattr(arguments, key) for key in ("config", "size", "frames", "evaluations")}
        command = ["python", "-m", "fye_bench.speed.floor", *(sys.argv[1:] if argv is None else argv)]
        result = {"command": command, "workload": workload, "operations": counted, "floors": floors}
        files.write_json(arguments.json, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
