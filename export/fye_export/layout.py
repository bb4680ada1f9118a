"""Writes a checkpoint in the released layout (docs/reference/checkpoints.md), inverse of `fye_export.checkpoint`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from fye_export.checkpoint import CONFIGS, WEIGHTS
from fye_export.config import NETWORKS, PE, ModelConfig
from fye_rt.errors import OutputError
from fye_rt.files import atomic_folder


def write(
    path: str | Path, config: ModelConfig, weights: Callable[[str], Mapping[str, Tensor]], dtype: torch.dtype
) -> None:
    """Write all networks with their config.json files; one network is in memory at a time.

    Args:
        path: a folder that does not exist yet or is empty.
        config: sizes of the networks.
        weights: returns the state dict of a network by its name (`fye_export.config.NETWORKS`).
        dtype: float16 or float32. Positional encodings are always float32.

    Raises:
        OutputError: the folder is not empty or cannot be written.
    """
    path = Path(path)
    if path.is_dir() and any(path.iterdir()):
        raise OutputError(f"{path} is not empty; choose a new folder")
    with atomic_folder(path) as folder:
        for name in NETWORKS:
            file = folder / _file(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            save = torch.save if file.suffix == ".pth" else save_file
            save(_convert(weights(name), dtype), file)  # bound to no variable, so freed before the next network
        for name, settings in _settings(config).items():
            file = folder / CONFIGS[name]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings, indent=2) + "\n")


def _convert(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {key: value.to(torch.float32 if key.endswith(PE) else dtype).contiguous() for key, value in weights.items()}


def _file(name: str) -> str:
    """Return the released file: .pth for Follow-Your-Emoji's own networks, .safetensors for the others."""
    return next((file for file in WEIGHTS[name] if file.endswith(".pth")), WEIGHTS[name][0])


def _settings(config: ModelConfig) -> dict[str, dict[str, object]]:
    """Return the contents of the three config.json files, under the names that diffusers and transformers use."""
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
