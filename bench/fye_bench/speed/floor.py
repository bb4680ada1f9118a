"""Count the operations of the model, and derive from data sheets how fast a GPU could be at best.

    python -m fye_bench.speed.floor [--config full] [--size 512x512] [--frames 16] [--evaluations 6] [--json FILE]

Useful work counts two operations for each multiply-add of convolutions, linear layers and attention, on tensors without
storage. Divided by the GPU's dense float16 rate with float32 sums, it is the floor of measured times: nothing beats it.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fye_export import networks
from fye_export.config import ModelConfig
from fye_export.graphs import GraphSpec, graph_specs
from fye_export.random_checkpoint import PRESETS
from fye_rt import files, options
from fye_rt.bundle import symbols


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU's data sheet.

    Attributes:
        architecture: architecture to compile kernels for.
        flops: dense float16 operations per second with float32 sums.
        bandwidth: bytes per second.
    """

    architecture: str
    flops: float
    bandwidth: float


GPUS = {
    "A100 SXM 80 GB": Gpu("sm_80", 312e12, 2.04e12),
    "RTX 4090": Gpu("sm_89", 165e12, 1.01e12),
    "L40S": Gpu("sm_89", 362e12, 0.86e12),
    "H100 SXM": Gpu("sm_90a", 989e12, 3.35e12),
    "H200": Gpu("sm_90a", 989e12, 4.8e12),
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
    """Print operations and floors; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fye_bench.speed.floor", description=__doc__.split("\n")[0])
    parser.add_argument("--config", choices=PRESETS, default="full")
    parser.add_argument("--size", default="512x512", metavar="HxW")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--evaluations", type=int, default=6, help="network evaluations for the clip")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    given = parser.parse_args(argv)
    counted = operations(PRESETS[given.config], options.parse_size(given.size), given.frames)
    for name, number in counted.items():
        print(f"{name:<16}{number / 1e12:>9.3f} T operations")
    clip = given.evaluations * counted["denoiser"] + counted["guider"] + counted["vae_decoder"]
    floors = {}
    for name, gpu in GPUS.items():
        floors[name] = {
            "architecture": gpu.architecture,
            "evaluation_seconds": counted["denoiser"] / gpu.flops,
            "clip_seconds": clip / gpu.flops,
            "frames_per_second": given.frames * gpu.flops / clip,
        }
        print(
            f"{name:<16}{1e3 * counted['denoiser'] / gpu.flops:>9.1f} ms an evaluation{clip / gpu.flops:>9.2f} s a clip"
            f"{given.frames * gpu.flops / clip:>9.1f} frames/s at most"
        )
    if given.json is not None:
        workload = {key: getattr(given, key) for key in ("config", "size", "frames", "evaluations")}
        command = ["python", "-m", "fye_bench.speed.floor", *(sys.argv[1:] if argv is None else argv)]
        files.write_json(
            given.json, {"command": command, "workload": workload, "operations": counted, "floors": floors}
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
