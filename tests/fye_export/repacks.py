"""Packs the tiny checkpoint as others do: other names, other layouts, several networks in a file."""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from fye_export.checkpoint import Checkpoint
from fye_export.config import NETWORKS
from tests.fye_export.checkpoint_files import CLIP_CONFIG, UNET_CONFIG, VAE_CONFIG, State

FLAT = {"unet": "fye_unet-fp16.safetensors", "referencenet": "reference_unet.safetensors",
        "lmk_guider": "landmark_guider.safetensors", "vae": "any-vae.safetensors",
        "image_encoder": "clip_vision.safetensors"}  # fmt: skip
CONFIGS = {"unet.json": UNET_CONFIG, "vae.json": VAE_CONFIG, "image_encoder.json": CLIP_CONFIG}
_LDM_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


class Packer:
    """Writes repacked checkpoints below `folder` from the tensors of a released one.

    Attributes:
        states: the tensors of each network, under their released names.
        folder: where files are written.
    """

    def __init__(self, released: Path, folder: Path) -> None:
        self.original = _opened(released)
        self.states: dict[str, State] = {name: dict(self.original.tensors(name)) for name in NETWORKS}
        self.folder = folder
        folder.mkdir()
        for name, file in CONFIGS.items():  # the tiny model's sizes are not the released ones
            (folder / name).write_bytes((released / file).read_bytes())

    def write(self, name: str, state: Any) -> Path:
        """Write a file by its suffix; the suffix .safetensors stores a flat dictionary of tensors."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".safetensors":
            save_file({key: value.contiguous().clone() for key, value in state.items()}, file)
        else:
            torch.save(state, file)
        return file

    def write_all(self, *absent: str, **changed: Callable[[State], Any]) -> None:
        """Write each network but `absent` to its file in `FLAT`, changed by a function of its state."""
        for network in (name for name in NETWORKS if name not in absent):
            self.write(FLAT[network], changed.get(network, dict)(self.states[network]))

    def open(self, *paths: Path) -> Checkpoint:
        """Open and check the files; by default the folder."""
        checkpoint = Checkpoint.open(*(paths or (self.folder,)))
        checkpoint.check()
        return checkpoint

    def assert_original(self, checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> None:
        """Compare sizes, names and values with the original's; with the values rounded to `dtype` if it is given."""
        assert checkpoint.config == self.original.config
        for network, state in self.states.items():
            tensors = checkpoint.tensors(network)
            assert tensors.keys() == state.keys()
            for key, value in state.items():
                expected = value if dtype is None else value.to(dtype)
                assert torch.equal(tensors[key].float(), expected.float()), key


@cache
def _opened(released: Path) -> Checkpoint:
    return Checkpoint.open(released)


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + key: value for key, value in state.items()}


def ldm(state: State) -> State:
    """The VAE's tensors under the names of Stable Diffusion's single files, its attentions as 1x1 convolutions."""
    last = max(int(match[1]) for key in state if (match := re.match(r"decoder\.up_blocks\.(\d+)", key)))

    def name(key: str) -> str:
        key = re.sub(r"encoder\.down_blocks\.(\d)\.resnets\.", r"encoder.down.\1.block.", key)
        key = re.sub(r"encoder\.down_blocks\.(\d)\.downsamplers\.0\.", r"encoder.down.\1.downsample.", key)
        key = re.sub(r"decoder\.up_blocks\.(\d)\.resnets\.", lambda m: f"decoder.up.{last - int(m[1])}.block.", key)
        key = re.sub(
            r"decoder\.up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"decoder.up.{last - int(m[1])}.upsample.", key
        )
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        if match := re.fullmatch(r"(.*)mid_block\.attentions\.0\.(.+)\.(weight|bias)", key):
            return f"{match[1]}mid.attn_1.{_LDM_ATTENTION[match[2]]}.{match[3]}"
        return key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")

    return {
        name(key): value[:, :, None, None] if "attentions" in key and value.ndim == 2 else value
        for key, value in state.items()
    }


def base_model(vae: State) -> State:
    """A Stable Diffusion single file: an UNet in LDM's layout and a text encoder beside the VAE."""
    text = "cond_stage_model.transformer.text_model."
    return {
        "alphas_cumprod": torch.rand(1000),
        "model.diffusion_model.input_blocks.0.0.weight": torch.rand(8, 4, 3, 3),
        "model.diffusion_model.out.2.bias": torch.rand(4),
        "model_ema.diffusion_modelinput_blocks00weight": torch.rand(8, 4, 3, 3),
        f"{text}embeddings.token_embedding.weight": torch.rand(9, 8),
        f"{text}embeddings.position_ids": torch.arange(77)[None],
        f"{text}encoder.layers.0.mlp.fc1.weight": torch.rand(8, 8),
        **prefixed("first_stage_model.")(ldm(vae)),
    }


def configure(file: Path, **settings: Any) -> None:
    """Write a config.json with other settings than `file` has."""
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def motion_apart(state: State) -> tuple[State, State]:
    """The UNet's spatial weights, and its motion modules."""
    motion = {key: value for key, value in state.items() if "motion_modules." in key}
    return {key: value for key, value in state.items() if key not in motion}, motion


def whole_clip(state: State) -> State:
    """A CLIP with its text half."""
    names = ("text_model.encoder.layers.0.mlp.fc1.bias", "text_projection.weight", "logit_scale")
    return {**{name: torch.rand(8) for name in names}, **state}


def without_vision_model(state: State) -> State:
    return {key.removeprefix("vision_model."): value for key, value in state.items()}


def aged(state: State) -> State:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    return {
        re.sub(r"(attentions\.0\.)(to_q|to_k|to_v|to_out\.0)\.", lambda m: f"{m[1]}{old[m[2]]}.", key): value
        for key, value in state.items()
    }


def shifted(state: State) -> State:
    return {key: value + 1 for key, value in state.items()}
