"""Writes a seeded random checkpoint in the released layout, for tests and measurements without the real weights.

    python -m fye_export.random_checkpoint DIR [--config full|mid|tiny] [--seed 0] [--dtype fp16|fp32]

The same seed gives the same numbers in both dtypes: fp32 stores the fp16 values.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import torch
from torch import Tensor

from fye_export import blocks, layout, networks
from fye_export.config import PE, CLIPConfig, GuiderConfig, ModelConfig, UNetConfig, VAEConfig
from fye_rt.errors import FyeError

PRESETS = {
    "full": ModelConfig(),
    # large enough to spend its time like the full model, small enough for two cores
    "mid": ModelConfig(
        unet=UNetConfig(block_out_channels=(64, 128, 256, 256), clip_dim=64),
        lmk_guider=GuiderConfig(out_channels=64),
        vae=VAEConfig(block_out_channels=(32, 64, 128, 128)),
        image_encoder=CLIPConfig(
            hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, projection_dim=32
        ),
    ),
    # the smallest sizes whose heads still divide the channels
    "tiny": ModelConfig(
        unet=UNetConfig(
            block_out_channels=(8, 8, 8, 16), heads=4, norm_num_groups=4, cross_attention_dim=24, clip_dim=40
        ),
        lmk_guider=GuiderConfig(block_out_channels=(8, 8, 16, 16), out_channels=8),
        vae=VAEConfig(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4),
        image_encoder=CLIPConfig(
            hidden_size=40,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=56,
            projection_dim=32,
        ),
    ),
}
DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


def write(path: str | Path, config: ModelConfig, *, seed: int = 0, dtype: torch.dtype = torch.float16) -> None:
    """Write a random checkpoint; one network is in memory at a time (2.6 GB for the full model's UNet in float16).

    Weights are uniform with variance 1 / fan-in, so that activations keep their size; norms are near 1 and 0.

    Args:
        path: a folder that does not exist yet or is empty.
        config: sizes of the networks, such as one of `PRESETS`.
        seed: random seed of all weights.
        dtype: float16 or float32. Positional encodings are always float32.

    Raises:
        OutputError: the folder is not empty or cannot be written.
    """
    layout.write(path, config, lambda name: _random_weights(config, name, seed), dtype)


def _random_weights(config: ModelConfig, name: str, seed: int) -> dict[str, Tensor]:
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in networks.build(config, name).state_dict().items()}
    return {key: _random(f"{seed} {name} {key}", key, shape, gain(name)) for key, shape in shapes.items()}


def gain(name: str) -> float:
    """Return the factor on a network's weights with which activations keep their size."""
    # each SiLU shrinks activations to 0.6 of their size, and the guider has no norms to compensate
    return 1.7 if name == "lmk_guider" else 1.0


def _random(stream: str, key: str, shape: torch.Size, gain: float) -> Tensor:
    values = torch.empty(shape)
    fill(values, key, stream, gain)
    return values if key.endswith(PE) else values.half()


def fill(tensor: Tensor, key: str, stream: str, gain: float) -> None:
    """Fill a network's tensor with random float16 values; a positional encoding gets its true values.

    Args:
        tensor: the tensor to overwrite.
        key: its name in the state dict.
        stream: text of seed, network and key that seeds the numbers; each kind of device gives its own.
        gain: the network's `gain`.
    """
    shape = tensor.shape
    if key.endswith(PE):
        tensor.copy_(blocks.PositionalEncoding(shape[2]).get_buffer("pe"))
        return
    # one generator per tensor: values depend only on seed and name
    seed = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:7])
    generator = torch.Generator(tensor.device).manual_seed(seed)
    half_width = gain * (3 / shape[1:].numel()) ** 0.5 if len(shape) > 1 else 0.1
    values = torch.empty(shape, device=tensor.device).uniform_(-half_width, half_width, generator=generator)
    if len(shape) == 1 and key.endswith(".weight"):
        values += 1  # a norm
    tensor.copy_(values.half())


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fye_export.random_checkpoint",
        description="Write a seeded random checkpoint in the released layout.",
    )
    parser.add_argument("path", metavar="DIR", type=Path)
    parser.add_argument("--config", choices=PRESETS, default="full")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=DTYPES, default="fp16")
    arguments = parser.parse_args()
    try:
        write(arguments.path, PRESETS[arguments.config], seed=arguments.seed, dtype=DTYPES[arguments.dtype])
    except FyeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main())
