"""Write a seeded random checkpoint in the released layout, for tests and measurements without the real weights.

    python -m fye_export.random_checkpoint DIR [--config full|mid|tiny] [--seed 0] [--dtype fp16|fp32]

The same seed gives the same numbers in both dtypes: fp32 holds the fp16 values widened.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from fye_export import blocks, networks
from fye_export.checkpoint import CONFIGS, PE, WEIGHTS
from fye_export.config import NETWORKS, CLIPConfig, GuiderConfig, ModelConfig, UNetConfig, VAEConfig
from fye_rt.errors import FyeError, OutputError
from fye_rt.files import atomic_folder

PRESETS = {
    "full": ModelConfig(),
    # large enough that its time goes where the full model's goes, small enough for two cores
    "mid": ModelConfig(
        unet=UNetConfig(block_out_channels=(64, 128, 256, 256), clip_dim=64),
        lmk_guider=GuiderConfig(out_channels=64),
        vae=VAEConfig(block_out_channels=(32, 64, 128, 128)),
        image_encoder=CLIPConfig(
            hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, projection_dim=32
        ),
    ),
    # the smallest whose heads still divide the channels
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
        path: a folder that does not exist yet, or is empty.
        config: sizes, for instance one of `PRESETS`.
        seed: of all weights.
        dtype: float16 or float32. Positional encodings are always float32.

    Raises:
        OutputError: the folder has something in it, or cannot be written.
    """
    path = Path(path)
    if path.is_dir() and any(path.iterdir()):
        raise OutputError(f"{path} is not empty; choose a new folder")
    with atomic_folder(path) as folder:
        for name in NETWORKS:
            file = folder / _file(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            save = torch.save if file.suffix == ".pth" else save_file
            save(_random_weights(config, name, seed, dtype), file)  # held by no name: freed before the next
        for name, settings in _settings(config).items():
            file = folder / CONFIGS[name]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings, indent=2) + "\n")


def _file(name: str) -> str:
    """The released file: .pth for Follow-Your-Emoji's own networks, .safetensors for the others."""
    return next((file for file in WEIGHTS[name] if file.endswith(".pth")), WEIGHTS[name][0])


def _random_weights(config: ModelConfig, name: str, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in networks.build(config, name).state_dict().items()}
    # each SiLU shrinks what passes to 0.6 of its size, and the guider has no norms to make up for it
    gain = 1.7 if name == "lmk_guider" else 1.0
    return {
        key: _random(f"{seed} {name} {key}", key, shape, gain).to(torch.float32 if key.endswith(PE) else dtype)
        for key, shape in shapes.items()
    }


def _random(stream: str, key: str, shape: torch.Size, gain: float) -> Tensor:
    if key.endswith(PE):
        return blocks.PositionalEncoding(shape[2]).get_buffer("pe")
    # a generator per tensor: a value depends on nothing but seed and name
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(stream.encode()).digest()[:7]))
    half_width = gain * (3 / shape[1:].numel()) ** 0.5 if len(shape) > 1 else 0.1
    values = torch.empty(shape).uniform_(-half_width, half_width, generator=generator)
    if len(shape) == 1 and key.endswith(".weight"):
        values += 1  # a norm
    return values.half()


def _settings(config: ModelConfig) -> dict[str, dict[str, object]]:
    """What the three config.json say, under the names that diffusers and transformers use."""
    unet, vae, clip = config.unet, config.vae, config.image_encoder
    levels = len(vae.block_out_channels)
    return {
        "unet": {
            "_class_name": "UNet2DConditionModel",
            "act_fn": "silu",
            "attention_head_dim": unet.heads,
            "block_out_channels": unet.block_out_channels,
            "center_input_sample": False,
            "cross_attention_dim": unet.cross_attention_dim,
            "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
            "downsample_padding": 1,
            "flip_sin_to_cos": unet.flip_sin_to_cos,
            "freq_shift": unet.freq_shift,
            "in_channels": unet.in_channels,
            "layers_per_block": 2,
            "mid_block_scale_factor": 1,
            "norm_eps": unet.norm_eps,
            "norm_num_groups": unet.norm_num_groups,
            "out_channels": unet.in_channels,
            "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        },
        "vae": {
            "_class_name": "AutoencoderKL",
            "act_fn": "silu",
            "block_out_channels": vae.block_out_channels,
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "in_channels": 3,
            "latent_channels": vae.latent_channels,
            "layers_per_block": vae.layers_per_block,
            "norm_num_groups": vae.norm_num_groups,
            "out_channels": 3,
            "scaling_factor": vae.scaling_factor,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
        },
        "image_encoder": {
            "architectures": ["CLIPVisionModelWithProjection"],
            "hidden_act": clip.hidden_act,
            "hidden_size": clip.hidden_size,
            "image_size": clip.image_size,
            "intermediate_size": clip.intermediate_size,
            "layer_norm_eps": clip.layer_norm_eps,
            "model_type": "clip_vision_model",
            "num_attention_heads": clip.num_attention_heads,
            "num_channels": 3,
            "num_hidden_layers": clip.num_hidden_layers,
            "patch_size": clip.patch_size,
            "projection_dim": clip.projection_dim,
        },
    }


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
