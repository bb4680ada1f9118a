import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fye_export.config import NETWORKS
from tests.fye_export.checkpoint_files import NORM, State, refusal
from tests.fye_export.repacks import (
    FLAT,
    Packer,
    aged,
    base_model,
    ldm,
    prefixed,
    shifted,
    whole_clip,
    without_vision_model,
)

ONE_FILE = {"unet": "denoising_unet.", "referencenet": "reference_unet.", "lmk_guider": "guider.", "vae": "vae.",
            "image_encoder": "clip."}  # fmt: skip


def test_names_that_belong_to_other_networks_mislead_nobody(pack: Packer) -> None:
    for network, file in zip(NETWORKS, ["vae", "unet", "clip", "motion_module", "referencenet"], strict=True):
        pack.write(f"{file}.safetensors", pack.states[network])
    pack.assert_original(pack.open())


CHANGES: dict[str, dict[str, Callable[[State], Any]]] = {
    "module": {name: prefixed("module.") for name in NETWORKS},
    "model": {name: prefixed("model.") for name in NETWORKS},
    "long prefix": {"unet": prefixed("model.denoising_unet."), "vae": prefixed("pipe.vae.")},
    "VAE of LDM": {"vae": ldm},
    "VAE with old names": {"vae": aged},
    "VAE with old names and a prefix": {"vae": lambda state: prefixed("vae.")(aged(state))},
    "VAE in a base model": {"vae": base_model},
    "CLIP without vision_model": {"image_encoder": without_vision_model},
    "CLIP with text": {"image_encoder": whole_clip},
    "CLIP with text and a prefix": {"image_encoder": lambda state: prefixed("clip.")(whole_clip(state))},
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_names_of_tensors_are_understood(name: str, pack: Packer) -> None:
    pack.write_all(**CHANGES[name])
    pack.assert_original(pack.open())


WRAPS: dict[str, Callable[[State], Any]] = {
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "optimizer_states": [{"step": 1}]},
    "model and ema": lambda state: {
        "model": state,
        "ema": {key: value + 1 for key, value in state.items()},
        "global_step": 7,
    },
    "module in state_dict": lambda state: {"state_dict": prefixed("module.")(state)},
    "model_ema beside it": lambda state: {**state, "model_ema.decay": torch.tensor(0.999), "model_ema.x": state},
}


@pytest.mark.parametrize("name", WRAPS)
def test_wrappings_and_averages_of_trainings_are_removed(name: str, pack: Packer) -> None:
    for network, state in pack.states.items():
        pack.write(f"{network}.ckpt", WRAPS[name](state))
    pack.assert_original(pack.open())


def test_averages_are_read_where_nothing_else_is_there(pack: Packer) -> None:
    pack.write_all(unet=prefixed("ema_unet."))
    pack.assert_original(pack.open())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_each_storage_precision_is_read(dtype: torch.dtype, pack: Packer) -> None:
    def cast(state: State) -> State:
        return {key: value.to(dtype) for key, value in state.items()}

    pack.write_all(**dict.fromkeys(NETWORKS, cast))
    pack.assert_original(pack.open(), dtype)


def test_a_vae_of_ldm_with_the_rest_of_its_training_is_read(pack: Packer) -> None:
    pack.write_all("vae")
    training = {"loss.logvar": torch.zeros(()), "model_ema.decay": torch.tensor(0.9), "model_ema.num_updates": 7}
    pack.write("vae-ft-mse.ckpt", {"state_dict": {**ldm(pack.states["vae"]), **training}})
    pack.assert_original(pack.open())


def all_networks(pack: Packer) -> State:
    return {prefix + key: value for name, prefix in ONE_FILE.items() for key, value in pack.states[name].items()}


def test_all_networks_in_one_file_are_told_apart(pack: Packer, log: Callable[[], str]) -> None:
    file = pack.write("all.safetensors", all_networks(pack))
    for paths in ((), (file,)):
        checkpoint = pack.open(*paths)
        pack.assert_original(checkpoint)
        assert checkpoint.files == dict.fromkeys(NETWORKS, ("all.safetensors",))
        assert "reference network: all.safetensors (reference_unet.*)" in log()


def test_one_file_may_hold_dictionaries_and_its_first_network_no_prefix(pack: Packer) -> None:
    first, *others = NETWORKS
    file = pack.write("all.ckpt", pack.states[first] | {name: pack.states[name] for name in others} | {"step": {}})
    pack.assert_original(pack.open(file))
    file.unlink()
    file = pack.write("all.pth", {"state_dict": pack.states, "epoch": 1, "args": {"lr": "1e-5"}})
    pack.assert_original(pack.open(file))


def test_two_networks_of_a_kind_in_one_file_are_refused(pack: Packer) -> None:
    vaes = {**prefixed("vae.")(pack.states["vae"]), **prefixed("first_stage_model.")(ldm(shifted(pack.states["vae"])))}
    pack.write_all(vae=lambda _: vaes)
    file = FLAT["vae"]
    refusal(pack.folder, f"{file} (first_stage_model.*, LDM's names)", f"{file} (vae.*)", "each hold a VAE")


def test_networks_of_other_sizes_are_left_aside_if_one_fits(pack: Packer, log: Callable[[], str]) -> None:
    pack.write_all()
    wide = {key: torch.cat([value] * 2) for key, value in pack.states["image_encoder"].items()}
    pack.write("ViT-H.safetensors", wide)
    pack.assert_original(pack.open())
    assert "not used: ViT-H.safetensors (a CLIP image encoder of another size)" in log()
    (pack.folder / FLAT["image_encoder"]).unlink()
    refusal(pack.folder, "ViT-H.safetensors", "image_encoder.json")


OTHERS: dict[str, tuple[Any, str]] = {
    "lora.safetensors": ({"lora_te_text_model_encoder.lora_up.weight": torch.zeros(4, 4)}, "a LoRA"),
    "text_encoder.bin": ({"text_model.embeddings.position_ids": torch.arange(77)[None]}, "a text encoder"),
    "optimizer.pt": ({"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]}, "states of an optimizer"),
    "scheduler.bin": ({"last_epoch": 4, "_step_count": 5}, "no network of this model"),
    "controlnet.pth": (
        {
            "conv_in.weight": torch.zeros(8, 4, 3, 3),
            "controlnet_cond_embedding.conv_in.weight": torch.zeros(8, 3, 3, 3),
            "controlnet_cond_embedding.blocks.0.weight": torch.zeros(8, 8, 3, 3),
            "down_blocks.0.resnets.0.conv1.weight": torch.zeros(8, 8, 3, 3),
        },
        "a ControlNet",
    ),
    "sd_unet.safetensors": (
        {"conv_in.weight": torch.zeros(8, 4, 3, 3), "down_blocks.0.resnets.0.conv1.weight": torch.zeros(8, 8, 3, 3)},
        "has no clip_fc",
    ),
    "vqgan.ckpt": (
        {
            "encoder.down.0.block.0.conv1.weight": torch.zeros(8, 8, 3, 3),
            "quantize.embedding.weight": torch.zeros(8, 4),
        },
        "no network of this model",
    ),
    "openai_clip.pt": ({"visual.transformer.resblocks.0.ln_1.bias": torch.zeros(8)}, "OpenAI's layout"),
    "fye_clip_fc.safetensors": ({"clip_fc.weight": torch.zeros(8, 8)}, "without its UNet"),
    "list.pth": ([1, 2], "dictionary"),
    "tensor.pt": (torch.zeros(3), "dictionary"),
}


def test_files_of_other_models_are_left_aside_and_named(pack: Packer, log: Callable[[], str]) -> None:
    pack.write_all()
    for file, (state, _) in OTHERS.items():
        pack.write(file, state)
    (pack.folder / "tokenizer").mkdir()
    (pack.folder / "tokenizer/vocab.json").write_text("[" * 100_000)
    (pack.folder / "tokenizer/tokenizer_config.json").write_text('{"model_max_length": 77}')
    pack.assert_original(pack.open())
    unused = log().splitlines()[-1]
    assert unused.startswith("not used: ")
    for file, (_, reason) in OTHERS.items():
        assert re.search(rf"{re.escape(file)} \([^)]*{reason}", unused), file
    assert "tokenizer" not in unused


@pytest.mark.parametrize("network", NETWORKS)
def test_missing_surplus_and_misshapen_tensors_are_refused_as_in_the_released_layout(
    network: str, pack: Packer
) -> None:
    key = NORM[network]
    edits: dict[str, Callable[[State], State]] = {
        f"1 missing key: {key}": lambda state: {name: value for name, value in state.items() if name != key},
        "1 surplus key: conv_extra.weight": lambda state: {**state, "conv_extra.weight": torch.zeros(1)},
        f"1 misshapen key: {key} (3,)": lambda state: {**state, key: torch.zeros(3)},
        "NaN or infinity": lambda state: {**state, key: state[key] * float("nan")},
    }
    for said, edit in edits.items():
        pack.write_all(**{network: lambda state, edit=edit: prefixed("model.")(edit(state))})  # type: ignore[misc]
        refusal(pack.folder, f"{network} ({FLAT[network]})", said)


def test_a_key_of_ldm_that_the_vae_lacks_is_named_as_diffusers_does(pack: Packer) -> None:
    pack.write_all(
        vae=lambda state: {key: value for key, value in ldm(state).items() if key != "decoder.up.0.block.0.norm1.bias"}
    )
    refusal(pack.folder, FLAT["vae"], "1 missing key: decoder.up_blocks.3.resnets.0.norm1.bias")
    pack.write_all(vae=lambda state: {**ldm(state), "encoder.down.0.attn.0.q.bias": torch.zeros(8)})
    refusal(pack.folder, FLAT["vae"], "1 surplus key: encoder.down.0.attn.0.q.bias")


@pytest.mark.parametrize(("value", "said"), [(3, "int"), (torch.zeros(8, dtype=torch.int64), "int64")])
def test_an_entry_that_is_no_plain_float_tensor_is_named(value: Any, said: str, pack: Packer) -> None:
    pack.write_all("lmk_guider")
    pack.write("guider.pth", {**pack.states["lmk_guider"], "conv_in.bias": value})
    refusal(pack.folder, "lacks the landmark guider", "guider.pth", "conv_in.bias", said)


def test_a_file_of_very_many_networks_is_refused(pack: Packer) -> None:
    guider = {key: torch.zeros(1, 1, 1, 1) for key in ("conv_in.weight", "blocks.0.weight")}
    pack.write_all("lmk_guider")
    pack.write("guiders.pth", {f"guider_{number}": guider for number in range(51)})
    refusal(pack.folder, "guiders.pth holds more than 50 networks")
