import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fye_export import random_checkpoint
from fye_export.checkpoint import Checkpoint
from fye_export.config import MAX_FRAMES, NETWORKS, CLIPConfig, GuiderConfig, ModelConfig, UNetConfig, VAEConfig
from fye_export.random_checkpoint import PRESETS
from fye_rt.errors import CheckpointError, OutputError

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


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may change."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


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
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


# --- what is read


def test_the_recorded_checkpoint_opens_with_the_sizes_it_was_made_with(golden: Path) -> None:
    checkpoint = Checkpoint.open(golden / "ckpt")
    checkpoint.check()
    made = json.loads((golden / "tiny_config.json").read_text())
    unet, vae = made["unet"], made["vae"]
    assert checkpoint.config == ModelConfig(
        unet=UNetConfig(
            block_out_channels=tuple(unet["block_out_channels"]),
            heads=unet["attention_head_dim"],
            norm_num_groups=unet["norm_num_groups"],
            norm_eps=unet["norm_eps"],
            cross_attention_dim=unet["cross_attention_dim"],
            clip_dim=made["clip"]["hidden_size"],
        ),
        lmk_guider=GuiderConfig(
            block_out_channels=tuple(made["lmk_guider"]["block_out_channels"]),
            out_channels=made["lmk_guider"]["conditioning_embedding_channels"],
        ),
        vae=VAEConfig(
            block_out_channels=tuple(vae["block_out_channels"]),
            layers_per_block=vae["layers_per_block"],
            norm_num_groups=vae["norm_num_groups"],
        ),
        image_encoder=CLIPConfig(**made["clip"]),
    )


def test_sizes_are_inferred_from_what_was_written(tiny_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(tiny_checkpoint)
    assert checkpoint.config == TINY
    checkpoint.check()


def test_sizes_that_weights_show_need_no_config_entry(folder: Path) -> None:
    only_config = {
        UNET_CONFIG: {"attention_head_dim", "norm_num_groups"},
        VAE_CONFIG: {"norm_num_groups"},
        CLIP_CONFIG: {"num_attention_heads"},
    }
    for file, keys in only_config.items():
        settings = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({key: settings[key] for key in keys}))
    assert Checkpoint.open(folder).config == TINY


@pytest.mark.parametrize("name", NETWORKS)
def test_loaded_networks_are_float32_in_eval_mode_and_hold_the_files_values(name: str, tiny_checkpoint: Path) -> None:
    network = Checkpoint.open(tiny_checkpoint).load(name)
    stored = read(tiny_checkpoint / FILES[name])
    state = network.state_dict()
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert state.keys() == stored.keys()
    assert all(state[key].dtype == torch.float32 and torch.equal(state[key], stored[key].float()) for key in state)
    assert not any(buffer.is_meta for buffer in network.buffers())  # also those that no state dict holds


def test_changing_a_loaded_network_changes_neither_file_nor_checkpoint(tmp_path: Path) -> None:
    random_checkpoint.write(tmp_path / "fp32", TINY, dtype=torch.float32)
    checkpoint = Checkpoint.open(tmp_path / "fp32")
    for name in NETWORKS:
        before = checkpoint.tensors(name)[NORM[name]].clone()
        checkpoint.load(name).get_parameter(NORM[name]).fill_(7.0)
        assert torch.equal(checkpoint.tensors(name)[NORM[name]], before)


def test_the_image_encoder_of_a_loaded_checkpoint_runs(tiny_checkpoint: Path) -> None:
    # its position_ids are in no file: garbage there would index outside the position embedding
    encoder = Checkpoint.open(tiny_checkpoint).load("image_encoder")
    tokens = encoder(torch.zeros(1, 3, 56, 56)).last_hidden_state
    assert tokens.shape == (1, TINY.image_encoder.tokens, 40)
    assert bool(tokens.isfinite().all())


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_all_file_formats_give_the_same_weights(suffix: str, folder: Path, tiny_checkpoint: Path) -> None:
    for file in FILES.values():
        old = folder / file
        new = old.with_name("pytorch_model.bin") if file == CLIP and suffix == ".bin" else old.with_suffix(suffix)
        state = read(old)
        old.unlink()
        write(new, state)
    assert_same_weights(Checkpoint.open(folder), Checkpoint.open(tiny_checkpoint))


def test_the_pickle_format_before_zip_files_is_read(folder: Path, tiny_checkpoint: Path) -> None:
    torch.save(read(folder / UNET), folder / UNET, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(folder / UNET)
    assert_same_weights(Checkpoint.open(folder), Checkpoint.open(tiny_checkpoint))


def test_float32_and_float16_files_of_the_same_values_load_equal(tmp_path: Path, tiny_checkpoint: Path) -> None:
    random_checkpoint.write(tmp_path / "fp32", TINY, dtype=torch.float32)
    wide = Checkpoint.open(tmp_path / "fp32")
    assert {tensor.dtype for name in NETWORKS for tensor in wide.tensors(name).values()} == {torch.float32}
    assert_same_weights(wide, Checkpoint.open(tiny_checkpoint))


def test_bfloat16_is_accepted(folder: Path) -> None:
    for file in (UNET, CLIP):
        change(folder / file, lambda state: {key: value.bfloat16() for key, value in state.items()})
    checkpoint = Checkpoint.open(folder)
    checkpoint.check()
    assert checkpoint.load("unet").get_parameter("conv_in.weight").dtype == torch.float32


@pytest.mark.parametrize("convolutions", [False, True])
def test_the_vaes_old_attention_names_are_understood(convolutions: bool, folder: Path, tiny_checkpoint: Path) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def age(state: State) -> State:
        aged = {}
        for key, value in state.items():
            if match := re.search(r"attentions\.0\.(to_q|to_k|to_v|to_out\.0)\.", key):
                key = key.replace(match[1], old[match[1]])
                if convolutions and value.ndim == 2:
                    value = value[:, :, None, None].contiguous()
            aged[key] = value
        assert len(aged.keys() - state.keys()) == 16
        return aged

    change(folder / VAE, age)
    assert_same_weights(Checkpoint.open(folder), Checkpoint.open(tiny_checkpoint))


def test_position_ids_are_ignored(folder: Path, tiny_checkpoint: Path) -> None:
    ids = torch.arange(TINY.image_encoder.tokens)[None]
    change(folder / CLIP, lambda state: state.update({"vision_model.embeddings.position_ids": ids}))
    assert_same_weights(Checkpoint.open(folder), Checkpoint.open(tiny_checkpoint))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    ],
)
def test_wrappings_of_training_frameworks_are_removed(
    wrap: Callable[[State], Any], folder: Path, tiny_checkpoint: Path
) -> None:
    change(folder / UNET, wrap)
    assert_same_weights(Checkpoint.open(folder), Checkpoint.open(tiny_checkpoint))


def test_the_digest_changes_with_any_byte_of_weights_or_config(folder: Path, tiny_checkpoint: Path) -> None:
    digest = Checkpoint.open(folder).digest
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert digest == Checkpoint.open(tiny_checkpoint).digest
    (folder / "README.md").write_text("not part of the model")
    assert digest == Checkpoint.open(folder).digest
    change(folder / GUIDER, lambda state: state.update({"conv_in.bias": state["conv_in.bias"] + 1}))
    changed = Checkpoint.open(folder).digest
    assert changed != digest
    configure(folder / UNET_CONFIG, sample_size=64)
    assert Checkpoint.open(folder).digest not in (digest, changed)


# --- AnimateDiff


def without_motion(folder: Path, lacking: str = "motion_modules.") -> State:
    """Remove keys that contain `lacking` from unet.pth; returns all motion modules."""
    state = read(folder / UNET)
    write(folder / UNET, {key: value for key, value in state.items() if lacking not in key})
    return {key: value for key, value in state.items() if "motion_modules." in key}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("lacking", ["motion_modules.", ".pos_encoder.pe"])
def test_animatediff_supplies_what_the_unet_lacks(
    lacking: str, prefix: str, folder: Path, tiny_checkpoint: Path
) -> None:
    motion = without_motion(folder, lacking)
    (folder / "AnimateDiff").mkdir()
    write(folder / "AnimateDiff/mm_sd_v15_v2.ckpt", {prefix + key: value for key, value in motion.items()})
    checkpoint = Checkpoint.open(folder)
    checkpoint.check()
    assert checkpoint.files["unet"] == (UNET, "AnimateDiff/mm_sd_v15_v2.ckpt")
    assert checkpoint.digest != Checkpoint.open(tiny_checkpoint).digest
    assert_same_weights(checkpoint, Checkpoint.open(tiny_checkpoint))


def test_animatediff_is_not_opened_when_the_unet_is_complete(folder: Path) -> None:
    (folder / "mm_sd_v15_v2.ckpt").write_bytes(b"not a checkpoint at all")
    Checkpoint.open(folder).check()


def test_no_motion_modules_anywhere_names_the_file_to_add(folder: Path) -> None:
    without_motion(folder)
    refusal(folder, UNET, "AnimateDiff/mm_sd_v15_v2.ckpt")


def test_missing_positional_encodings_are_missing_keys(folder: Path) -> None:
    without_motion(folder, ".pos_encoder.pe")
    refusal(folder, UNET, "42 missing keys", ".pos_encoder.pe", "AnimateDiff/mm_sd_v15_v2.ckpt")


def test_a_motion_module_missing_from_a_trained_unet_is_not_replaced(folder: Path) -> None:
    key = "mid_block.motion_modules.0.temporal_transformer.proj_in.weight"
    motion = without_motion(folder, key)
    write(folder / "mm_sd_v15_v2.ckpt", motion)
    refusal(folder, UNET, "1 missing key:", key)


def test_positional_encodings_of_too_few_frames_are_misshapen(folder: Path) -> None:
    motion = without_motion(folder)
    short = {key: value[:, :24].clone() if key.endswith(".pe") else value for key, value in motion.items()}
    write(folder / "mm_sd_v15_v2.ckpt", short)
    refusal(folder, "mm_sd_v15_v2.ckpt", "42 misshapen", ".pos_encoder.pe", "(1, 24, 32)", f"(1, {MAX_FRAMES}, 32)")


# --- what is refused


@pytest.mark.parametrize("name", NETWORKS)
def test_a_missing_tensor_is_named(name: str, folder: Path) -> None:
    change(folder / FILES[name], lambda state: {key: value for key, value in state.items() if key != NORM[name]})
    refusal(folder, name, FILES[name], f"1 missing key: {NORM[name]}")
    with pytest.raises(CheckpointError, match=re.escape(NORM[name])):
        Checkpoint.open(folder).load(name)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_surplus_tensor_is_named(name: str, folder: Path) -> None:
    change(folder / FILES[name], lambda state: state.update({"conv_extra.weight": torch.zeros(1)}))
    refusal(folder, name, FILES[name], "1 surplus key: conv_extra.weight")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_misshapen_tensor_is_named_with_both_shapes(name: str, folder: Path) -> None:
    shape = tuple(read(folder / FILES[name])[NORM[name]].shape)
    change(folder / FILES[name], lambda state: state.update({NORM[name]: torch.zeros(3)}))
    refusal(folder, name, FILES[name], f"1 misshapen key: {NORM[name]} (3,) instead of {shape}")


@pytest.mark.parametrize(
    ("name", "value"), [*((name, float("nan")) for name in NETWORKS), ("vae", float("inf")), ("vae", float("-inf"))]
)
def test_a_tensor_that_is_not_finite_is_named(name: str, value: float, folder: Path) -> None:
    def spoil(state: State) -> None:
        state[NORM[name]][-1] = value

    change(folder / FILES[name], spoil)
    refusal(folder, name, FILES[name], "NaN or infinity", NORM[name])


def test_many_faults_are_counted_and_the_first_ones_named(folder: Path) -> None:
    change(folder / UNET, lambda state: state.update({f"extra.{i}": torch.zeros(1) for i in range(9)}))
    refusal(folder, "9 surplus keys: extra.0, extra.1, extra.2 and 6 more")


@pytest.mark.parametrize("key", ["conv_in.weight", "clip_fc.weight", "down_blocks.0.resnets.0.conv1.weight"])
def test_a_tensor_that_sizes_are_inferred_from_is_named_when_missing_or_misshapen(key: str, folder: Path) -> None:
    shape = read(folder / UNET)[key].shape
    change(folder / UNET, lambda state: state.update({key: torch.zeros(1)}))
    refusal(folder, UNET, key)
    change(folder / UNET, lambda state: state.update({key: torch.zeros(*(2 * length for length in shape))}))
    refusal(folder, "unet", key)
    change(folder / UNET, lambda state: {k: v for k, v in state.items() if k != key})
    refusal(folder, UNET, key)


@pytest.mark.parametrize(
    ("file", "setting", "value"),
    [
        (UNET_CONFIG, "block_out_channels", [32, 32, 64, 64]),
        (UNET_CONFIG, "cross_attention_dim", 768),
        (UNET_CONFIG, "layers_per_block", 3),
        (UNET_CONFIG, "attention_head_dim", [5, 10, 20, 20]),
        (UNET_CONFIG, "attention_head_dim", 5),
        (UNET_CONFIG, "norm_num_groups", 0),
        (UNET_CONFIG, "norm_eps", float("nan")),
        (UNET_CONFIG, "act_fn", "relu"),
        (VAE_CONFIG, "latent_channels", 16),
        (VAE_CONFIG, "layers_per_block", 2),
        (VAE_CONFIG, "norm_num_groups", 32),
        (VAE_CONFIG, "scaling_factor", "large"),
        (CLIP_CONFIG, "hidden_size", 1024),
        (CLIP_CONFIG, "num_hidden_layers", 24),
        (CLIP_CONFIG, "image_size", 224),
        (CLIP_CONFIG, "num_attention_heads", 7),
        (CLIP_CONFIG, "hidden_act", "relu"),
    ],
)
def test_a_config_that_contradicts_weights_or_model_is_named(file: str, setting: str, value: Any, folder: Path) -> None:
    configure(folder / file, **{setting: value})
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
    part = Path(FILES[name]).parent if name != "lmk_guider" else FILES[name]
    if name == "lmk_guider":
        shutil.copy(other / part, folder / part)
    else:
        shutil.copytree(other / part, folder / part, dirs_exist_ok=True)
    refusal(folder, "unet", name, here, there)


@pytest.mark.parametrize("file", [*FILES.values(), UNET_CONFIG, CLIP_CONFIG, VAE_CONFIG])
def test_an_absent_file_is_named(file: str, folder: Path) -> None:
    (folder / file).unlink()
    refusal(folder, file)


def test_an_absent_folder_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "sd-vae-ft-mse")
    refusal(folder, VAE, VAE_CONFIG)
    refusal(tmp_path / "nowhere", str(tmp_path / "nowhere"))


@pytest.mark.parametrize("file", FILES.values())
@pytest.mark.parametrize("content", ["half", "empty", "text"])
def test_a_damaged_weight_file_is_named(content: str, file: str, folder: Path) -> None:
    whole = (folder / file).read_bytes()
    contents = {"half": whole[: len(whole) // 2], "empty": b"", "text": b"<html>Not Found</html>"}
    (folder / file).write_bytes(contents[content])
    refusal(folder, file)


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff", "[" * 100_000])
def test_a_damaged_config_is_named(text: str, folder: Path) -> None:
    (folder / UNET_CONFIG).write_bytes(text.encode("latin-1"))
    refusal(folder, UNET_CONFIG)


class Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_does_not_run(zipped: bool, folder: Path, tmp_path: Path) -> None:
    state: dict[str, Any] = {**read(folder / GUIDER), "x": Malicious(tmp_path / "ran")}
    torch.save(state, folder / GUIDER, _use_new_zipfile_serialization=zipped)
    message = refusal(folder, GUIDER, "mkdir", "only tensors")
    assert "weights_only" not in message  # torch's own message advises to unpickle everything
    assert not (tmp_path / "ran").exists()
    torch.load(folder / GUIDER, weights_only=False)  # it does run where nothing stops it
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [[1, 2], {}, {1: torch.zeros(1)}, {"state_dict": {}}, torch.zeros(3)],
    ids=["list", "empty", "number as key", "empty state_dict", "tensor"],
)
def test_a_file_that_is_no_dictionary_of_tensors_is_named(content: Any, folder: Path) -> None:
    write(folder / GUIDER, content)
    refusal(folder, GUIDER, "dictionary")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (3, "int"),
        (torch.zeros(8, dtype=torch.int64), "int64"),
        (torch.zeros(8, dtype=torch.float64), "float64"),
        (torch.eye(8).to_sparse(), "sparse"),
        (torch.zeros(8, device="meta"), "meta"),
        (torch.zeros(1).expand(1 << 40), "more than the file holds"),
    ],
    ids=["number", "int64", "float64", "sparse", "meta", "expanded"],
)
def test_an_entry_that_is_no_plain_float_tensor_is_named(value: Any, said: str, folder: Path) -> None:
    change(folder / GUIDER, lambda state: state.update({"conv_in.bias": value}))
    refusal(folder, GUIDER, "conv_in.bias", said)


# --- random checkpoints


def test_the_seed_alone_decides_the_numbers(tmp_path: Path, tiny_checkpoint: Path) -> None:
    first = Checkpoint.open(tiny_checkpoint)
    for seed in (0, 1):
        random_checkpoint.write(tmp_path / str(seed), TINY, seed=seed)
    assert_same_weights(Checkpoint.open(tmp_path / "0"), first)
    other = Checkpoint.open(tmp_path / "1")
    assert not torch.equal(other.tensors("unet")["conv_in.weight"], first.tensors("unet")["conv_in.weight"])


def test_a_folder_with_something_in_it_is_not_overwritten(folder: Path) -> None:
    with pytest.raises(OutputError, match="not empty"):
        random_checkpoint.write(folder, TINY)
    Checkpoint.open(folder).check()
