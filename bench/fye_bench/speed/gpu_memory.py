"""Compute the GPU memory that a clip takes with the torch backend, without a GPU.

The backend's modules run on tensors without storage, and every allocation and release is counted as PyTorch's eager
mode would make it. Kernels of `fye_kernels` and fused attention allocate their results alone. `CONTEXT`, `SLACK` and
`USABLE` stand for what the count leaves out.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fye_bench.arguments import benchmark, one_of, option, run
from fye_bench.environment import environment
from fye_bench.speed.floor import random_inputs
from fye_export import networks
from fye_export.config import NETWORKS, ModelConfig
from fye_export.graphs import graph_specs
from fye_export.random_checkpoint import PRESETS
from fye_rt.cli import terminal
from fye_rt.engine import GPU_PIXELS
from fye_rt.settings import parse_size
from fye_torch import engine
from fye_torch.modules import PLAIN, Operations

SIZES, LENGTHS = ("512x512", "384x384"), (8, 16, 24)
CARDS = (8, 12, 16, 24)  # GB on the box, which are GiB
CONTEXT = 0.5 * 2**30  # bytes: CUDA's context, loaded kernels, and the work space of cuDNN and cuBLAS
USABLE = 0.95  # of a card; the driver and the screen take the rest
SLACK = 0.10  # of everything else: blocks that PyTorch's allocator rounds up or cannot reuse
DTYPE = torch.float16
META = torch.device("meta")
LATENTS = 4  # copies in float32: noise, latents and two earlier predictions


@dataclass(frozen=True, slots=True)
class Needs:
    """Memory of one clip of one piece, in bytes.

    Attributes:
        weights: bytes of each network.
        held: bytes that stay for the whole clip: the portrait's keys and values and the landmark features, each once
            as computed and once where CUDA graphs read them, and the latents.
        peaks: peak bytes of each graph's activations, its results included.
    """

    weights: dict[str, int]
    held: int
    peaks: dict[str, int]

    def all_open(self) -> int:
        """Return bytes with every graph open: CUDA graphs keep the denoiser's activations while frames are decoded."""
        encoding = max(self.peaks[name] for name in ("image_encoder", "vae_encoder", "reference", "guider"))
        running = max(encoding, self.peaks["denoiser"] + self.peaks["vae_decoder"])
        return self._with_allowance(sum(self.weights.values()) + self.held + running)

    def low_memory(self) -> int:
        """Return bytes with `--low-memory`: graphs that run once are released after last use, the denoiser stays."""
        unet, vae = self.weights["unet"], self.weights["vae"]
        portrait = max(
            self.weights["image_encoder"] + self.peaks["image_encoder"],
            vae + self.peaks["vae_encoder"],
            self.weights["referencenet"] + unet + self.peaks["reference"],
            self.weights["lmk_guider"] + self.peaks["guider"],
        )
        denoising = unet + self.peaks["denoiser"]
        return self._with_allowance(self.held + max(portrait, denoising + vae + self.peaks["vae_decoder"]))

    @staticmethod
    def _with_allowance(counted: int) -> int:
        return round(CONTEXT + (1 + SLACK) * counted)


class Allocations(TorchDispatchMode):
    """Count the bytes of storages that operations allocate while the mode is on, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def know(self, tensors: Sequence[Tensor]) -> None:
        """Leave existing storages out of the count."""
        self._known.update(tensor.untyped_storage()._cdata for tensor in tensors)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what it allocated."""
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def needs(config: ModelConfig, size: tuple[int, int], frames: int) -> Needs:
    """Count the memory of a clip.

    Args:
        config: sizes of the networks.
        size: (height, width) in pixels.
        frames: frames of the clip, which is one window: at most 32.
    """
    parts = {name: _network(config, name) for name in NETWORKS}
    peaks, held = {}, 0
    for name, spec in graph_specs(config).items():
        if name == "denoiser_cond":
            continue
        assembled = engine.assemble(spec, [parts[part] for part in spec.networks], META, "fp16", COUNTED)
        at_once = min(frames, max(1, GPU_PIXELS // (size[0] * size[1]))) if name == "vae_decoder" else frames
        inputs = random_inputs(spec, at_once, size, META, DTYPE)
        peaks[name] = _peak(assembled.module, inputs)
        if name == "denoiser":
            latents, _, *constant = inputs
            held = 2 * sum(tensor.nbytes for tensor in constant) + LATENTS * 4 * latents.numel()
    return Needs({name: _bytes(part) for name, part in parts.items()}, held, peaks)


def _network(config: ModelConfig, name: str) -> nn.Module:
    with META:
        network = networks.build(config, name).to(DTYPE).requires_grad_(False)
    return engine.with_kernels(network, name, COUNTED)


def _bytes(module: nn.Module) -> int:
    tensors = (*module.parameters(), *module.buffers())
    return sum({(storage := tensor.untyped_storage())._cdata: storage.nbytes() for tensor in tensors}.values())


def _peak(module: nn.Module, inputs: list[Tensor]) -> int:
    with torch.inference_mode(), mock.patch.object(F, "scaled_dot_product_attention", _alike):
        module(*inputs)  # what a first run prepares, such as biases of the positional encoding, stays
        with Allocations() as allocations:
            allocations.know([*inputs, *module.parameters(), *module.buffers()])
            results = module(*inputs)  # noqa: F841  the results are held while they are counted
    return allocations.peak


def _alike(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(x)


def _gated(x: Tensor) -> Tensor:
    return torch.empty((*x.shape[:-1], x.shape[-1] // 2), dtype=x.dtype, device=x.device)


COUNTED: Operations = replace(
    PLAIN,
    reference_attention=_alike,
    temporal_attention=_alike,
    norm_silu=_alike,
    geglu=_gated,
)


@benchmark("python -m fye_bench.speed.gpu_memory")
def main(
    config: Annotated[str, option("|".join(PRESETS), "Model.", parser=one_of(PRESETS))] = "full",
    size: Annotated[list[str] | None, option("HxW", f"Sizes of clips; by default {' '.join(SIZES)}.")] = None,
    frames: Annotated[list[int] | None, option("N", "Frames of clips, at most 32 each; by default 8 16 24.")] = None,
) -> dict[str, Any]:
    """Compute the GPU memory that a clip takes with the torch backend, without a GPU."""
    clips = []
    for text in size or SIZES:
        for count in frames or LENGTHS:
            counted = needs(PRESETS[config], parse_size(text), count)
            totals = {"all_open": counted.all_open(), "low_memory": counted.low_memory()}
            cards = {}
            for card in CARDS:
                fitting = [how for how, total in totals.items() if total <= USABLE * card * 2**30]
                cards[str(card)] = fitting[0] if fitting else "no"
            clips.append(
                {
                    "size": text,
                    "frames": count,
                    "weights_bytes": counted.weights,
                    "held_bytes": counted.held,
                    "peak_bytes": counted.peaks,
                    **{f"{name}_bytes": total for name, total in totals.items()},
                    "cards": cards,
                }
            )
            needed = ", ".join(f"{name} {total / 2**30:.1f} GiB" for name, total in totals.items())
            shown = ", ".join(f"{card} GB: {how}" for card, how in cards.items())
            terminal.say(f"{text}, {count:>2} frames: {needed}; {shown}")
    return {
        "environment": environment(),
        "workload": {"config": config, "precision": "fp16", "guidance": True},
        "assumed": {"context_bytes": CONTEXT, "slack": SLACK, "usable": USABLE},
        "clips": clips,
    }


if __name__ == "__main__":
    run(main)
