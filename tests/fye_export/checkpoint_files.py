"""Reading, changing and refusing checkpoint files in tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fye_export.checkpoint import Checkpoint
from fye_export.config import NETWORKS
from fye_export.random_checkpoint import PRESETS
from fye_rt.errors import CheckpointError

UNET = "follow-your-emoji/unet.pth"
GUIDER = "follow-your-emoji/lmk_guider.pth"
VAE = "sd-vae-ft-mse/diffusion_pytorch_model.safetensors"
CLIP = "sd-image-variations-diffusers/image_encoder/model.safetensors"
VAE_CONFIG = "sd-vae-ft-mse/config.json"
UNET_CONFIG = "sd-image-variations-diffusers/unet/config.json"
CLIP_CONFIG = "sd-image-variations-diffusers/image_encoder/config.json"
FILES = {"unet": UNET, "referencenet": "follow-your-emoji/referencenet.pth", "lmk_guider": GUIDER, "vae": VAE,
         "image_encoder": CLIP}  # fmt: skip
NORM = {"unet": "conv_norm_out.bias", "referencenet": "mid_block.resnets.0.norm1.bias", "lmk_guider": "conv_out.bias",
        "vae": "decoder.conv_norm_out.bias", "image_encoder": "vision_model.post_layernorm.bias"}  # fmt: skip
TINY = PRESETS["tiny"]
State = dict[str, torch.Tensor]


def read(file: Path) -> State:
    return load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)


def write(file: Path, state: Any) -> None:
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(state, file)


def change(file: Path, edit: Callable[[State], Any]) -> None:
    """Apply `edit`, which changes the state dict or returns another object, to a weight file."""
    state = read(file)
    changed = edit(state)
    write(file, state if changed is None else changed)


def configure(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def refusal(folder: Path, *names: str) -> str:
    """The message of the CheckpointError that opening and checking raises; it must contain `names`."""
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(folder).check()
    message = str(caught.value)
    assert "\n" not in message
    for name in names:
        assert name in message
    return message


def assert_same_weights(left: Checkpoint, right: Checkpoint) -> None:
    assert left.config == right.config
    for name in NETWORKS:
        a, b = left.load(name).state_dict(), right.load(name).state_dict()
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
