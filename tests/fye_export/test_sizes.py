import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fye_export import random_checkpoint
from fye_export.checkpoint import Checkpoint
from fye_export.config import CLIPConfig, GuiderConfig, ModelConfig, UNetConfig, VAEConfig
from tests.fye_export import checkpoint_files
from tests.fye_export.checkpoint_files import CLIP_CONFIG, TINY, UNET, UNET_CONFIG, VAE_CONFIG, change, refusal

# settings, each of which contradicts the weights or the model
WRONG = (
    (UNET_CONFIG, {"block_out_channels": [32, 32, 64, 64], "cross_attention_dim": 768, "layers_per_block": 3}),
    (UNET_CONFIG, {"attention_head_dim": 5, "norm_num_groups": 0, "norm_eps": float("nan"), "act_fn": "relu"}),
    (UNET_CONFIG, {"attention_head_dim": [5, 10, 20, 20]}),
    (VAE_CONFIG, {"latent_channels": 16, "layers_per_block": 2, "norm_num_groups": 32, "scaling_factor": "large"}),
    (CLIP_CONFIG, {"hidden_size": 1024, "num_hidden_layers": 24, "image_size": 224, "num_attention_heads": 7}),
    (CLIP_CONFIG, {"hidden_act": "relu"}),
)


def test_the_recorded_checkpoint_opens_with_the_sizes_it_was_made_with(golden: Path) -> None:
    checkpoint = Checkpoint.open(golden / "ckpt")
    checkpoint.check()
    made = json.loads((golden / "tiny_config.json").read_text())

    def sizes(network: str, *names: str) -> dict[str, Any]:
        channels = {"block_out_channels": tuple(made[network]["block_out_channels"])}
        return channels | {name: made[network][name] for name in names}

    unet = sizes("unet", "norm_num_groups", "norm_eps", "cross_attention_dim")
    unet |= {"heads": made["unet"]["attention_head_dim"], "clip_dim": made["clip"]["hidden_size"]}
    guider = sizes("lmk_guider") | {"out_channels": made["lmk_guider"]["conditioning_embedding_channels"]}
    assert checkpoint.config == ModelConfig(
        unet=UNetConfig(**unet),
        lmk_guider=GuiderConfig(**guider),
        vae=VAEConfig(**sizes("vae", "layers_per_block", "norm_num_groups")),
        image_encoder=CLIPConfig(**made["clip"]),
    )


def test_sizes_are_inferred_from_the_weights_of_a_written_checkpoint(tiny_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(tiny_checkpoint)
    assert checkpoint.config == TINY
    checkpoint.check()


def test_sizes_shown_by_weights_need_no_config_entry(folder: Path) -> None:
    only_config = {
        UNET_CONFIG: {"attention_head_dim", "norm_num_groups"},
        VAE_CONFIG: {"norm_num_groups"},
        CLIP_CONFIG: {"num_attention_heads"},
    }
    for file, keys in only_config.items():
        settings = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({key: settings[key] for key in keys}))
    assert Checkpoint.open(folder).config == TINY


@pytest.mark.parametrize("key", ["conv_in.weight", "clip_fc.weight", "down_blocks.0.resnets.0.conv1.weight"])
def test_a_missing_or_misshapen_tensor_that_gives_a_size_is_named(key: str, folder: Path) -> None:
    shape = checkpoint_files.read(folder / UNET)[key].shape
    change(folder / UNET, lambda state: state.update({key: torch.zeros(1)}))
    refusal(folder, UNET, key)
    change(folder / UNET, lambda state: state.update({key: torch.zeros(*(2 * length for length in shape))}))
    refusal(folder, "unet", key)
    change(folder / UNET, lambda state: {k: v for k, v in state.items() if k != key})
    refusal(folder, UNET, key)


@pytest.mark.parametrize(
    ("file", "setting", "value"), [(file, *wrong) for file, settings in WRONG for wrong in settings.items()]
)
def test_a_config_that_contradicts_weights_or_model_is_named(file: str, setting: str, value: Any, folder: Path) -> None:
    checkpoint_files.configure(folder / file, **{setting: value})
    refusal(folder, file, setting)


@pytest.mark.parametrize(
    ("changed", "name", "here", "there"),
    [
        ({"image_encoder": replace(TINY.image_encoder, hidden_size=48)}, "image_encoder", "clip_fc", "hidden_size"),
        ({"lmk_guider": replace(TINY.lmk_guider, out_channels=64)}, "lmk_guider", "conv_in", "conv_out"),
        ({"vae": replace(TINY.vae, latent_channels=8)}, "vae", "conv_in", "latent_channels"),
    ],
)
def test_networks_of_different_models_are_told_apart(
    changed: dict[str, Any], name: str, here: str, there: str, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    random_checkpoint.write(other, replace(TINY, **changed))
    part = Path(checkpoint_files.FILES[name]).parent if name != "lmk_guider" else checkpoint_files.FILES[name]
    if name == "lmk_guider":
        shutil.copy(other / part, folder / part)
    else:
        shutil.copytree(other / part, folder / part, dirs_exist_ok=True)
    refusal(folder, "unet", name, here, there)
