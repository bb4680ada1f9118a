import re
import shutil
from pathlib import Path

import pytest
import torch

from fye_export import random_checkpoint
from fye_export.checkpoint import Checkpoint
from fye_export.config import MAX_FRAMES, NETWORKS
from fye_rt.errors import CheckpointError
from tests.fye_export import checkpoint_files
from tests.fye_export.checkpoint_files import FILES, GUIDER, NORM, UNET, UNET_CONFIG, VAE, change, read, refusal, write


@pytest.mark.parametrize("name", NETWORKS)
def test_loaded_networks_are_float32_in_eval_mode_and_hold_the_files_values(name: str, tiny_checkpoint: Path) -> None:
    network = Checkpoint.open(tiny_checkpoint).load(name)
    stored = read(tiny_checkpoint / FILES[name])
    state = network.state_dict()
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert state.keys() == stored.keys()
    assert all(state[key].dtype == torch.float32 and torch.equal(state[key], stored[key].float()) for key in state)
    assert not any(buffer.is_meta for buffer in network.buffers())  # also those that no state dict holds


def test_changing_a_loaded_network_changes_neither_file_nor_checkpoint(tmp_path: Path) -> None:
    random_checkpoint.write(tmp_path / "fp32", checkpoint_files.TINY, dtype=torch.float32)
    checkpoint = Checkpoint.open(tmp_path / "fp32")
    for name in NETWORKS:
        before = checkpoint.tensors(name)[NORM[name]].clone()
        checkpoint.load(name).get_parameter(NORM[name]).fill_(7.0)
        assert torch.equal(checkpoint.tensors(name)[NORM[name]], before)


def test_the_image_encoder_of_a_loaded_checkpoint_runs(tiny_checkpoint: Path) -> None:
    # its position_ids are in no file: garbage there would index outside the position embedding
    encoder = Checkpoint.open(tiny_checkpoint).load("image_encoder")
    tokens = encoder(torch.zeros(1, 3, 56, 56)).last_hidden_state
    assert tokens.shape == (1, checkpoint_files.TINY.image_encoder.tokens, 40) and bool(tokens.isfinite().all())


def test_the_digest_changes_with_any_byte_of_weights_or_config(folder: Path, tiny_checkpoint: Path) -> None:
    digest = Checkpoint.open(folder).digest
    assert re.fullmatch("[0-9a-f]{64}", digest) and digest == Checkpoint.open(tiny_checkpoint).digest
    (folder / "README.md").write_text("not part of the model")
    assert digest == Checkpoint.open(folder).digest
    change(folder / GUIDER, lambda state: state.update({"conv_in.bias": state["conv_in.bias"] + 1}))
    changed = Checkpoint.open(folder).digest
    assert changed != digest
    checkpoint_files.configure(folder / UNET_CONFIG, sample_size=64)
    assert Checkpoint.open(folder).digest not in (digest, changed)


def without_motion(folder: Path, lacking: str = "motion_modules.") -> checkpoint_files.State:
    """Remove keys that contain `lacking` from unet.pth; returns all motion modules."""
    state = read(folder / UNET)
    write(folder / UNET, {key: value for key, value in state.items() if lacking not in key})
    return {key: value for key, value in state.items() if "motion_modules." in key}


@pytest.mark.slow
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
    checkpoint_files.assert_same_weights(checkpoint, Checkpoint.open(tiny_checkpoint))


def test_animatediff_is_not_opened_when_the_unet_is_complete(folder: Path) -> None:
    (folder / "mm_sd_v15_v2.ckpt").write_bytes(b"not a checkpoint at all")
    Checkpoint.open(folder).check()


def test_a_checkpoint_without_motion_modules_is_refused_with_the_file_to_add(folder: Path) -> None:
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
    refusal(folder, "mm_sd_v15_v2.ckpt", "42 misshapen", ".pos_encoder.pe", "(1, 24, 8)", f"(1, {MAX_FRAMES}, 8)")


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
    def spoil(state: checkpoint_files.State) -> None:
        state[NORM[name]][-1] = value

    change(folder / FILES[name], spoil)
    refusal(folder, name, FILES[name], "NaN or infinity", NORM[name])


def test_many_faults_are_counted_and_the_first_ones_named(folder: Path) -> None:
    change(folder / UNET, lambda state: state.update({f"extra.{i}": torch.zeros(1) for i in range(9)}))
    refusal(folder, "9 surplus keys: extra.0, extra.1, extra.2 and 6 more")


@pytest.mark.parametrize(
    "file", [*FILES.values(), UNET_CONFIG, checkpoint_files.CLIP_CONFIG, checkpoint_files.VAE_CONFIG]
)
def test_an_absent_file_is_named(file: str, folder: Path) -> None:
    (folder / file).unlink()
    refusal(folder, file)


def test_an_absent_folder_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "sd-vae-ft-mse")
    refusal(folder, VAE, checkpoint_files.VAE_CONFIG)
    refusal(tmp_path / "nowhere", str(tmp_path / "nowhere"))


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff", "[" * 100_000])
def test_a_damaged_config_is_named(text: str, folder: Path) -> None:
    (folder / UNET_CONFIG).write_bytes(text.encode("latin-1"))
    refusal(folder, UNET_CONFIG)


def as_links(folder: Path) -> Path:
    """The checkpoint as download caches keep it: links, and the files that they lead to in another folder."""
    blobs, links = folder.with_name("blobs"), folder.with_name("links")
    blobs.mkdir()
    for number, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        link = links / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.rename(blobs / str(number)))
    return links


def test_a_checkpoint_of_symbolic_links_is_the_same_checkpoint(folder: Path) -> None:
    digest = Checkpoint.open(folder).digest
    checkpoint = Checkpoint.open(as_links(folder))
    checkpoint.check()
    assert checkpoint.digest == digest


@pytest.mark.parametrize("name", [UNET, VAE, checkpoint_files.VAE_CONFIG, UNET_CONFIG])
def test_a_broken_link_is_named_with_its_target(name: str, folder: Path) -> None:
    links = as_links(folder)
    target = (links / name).resolve()
    target.unlink()
    message = refusal(links, f"{links / name} is a link to {target}, which is not there", "cp -rL")
    assert "lacks" not in message


def test_a_folder_that_is_a_broken_link_is_named(folder: Path) -> None:
    (folder / "sd-vae-ft-mse").rename(folder.parent / "vae")
    (folder / "sd-vae-ft-mse").symlink_to(folder.parent / "vae")
    Checkpoint.open(folder)
    shutil.rmtree(folder.parent / "vae")
    refusal(folder, f"{folder / 'sd-vae-ft-mse'} is a link to")


@pytest.mark.parametrize("name", [UNET, VAE, checkpoint_files.CLIP_CONFIG])
def test_a_git_lfs_pointer_is_named_with_the_command_that_gets_the_file(name: str, folder: Path) -> None:
    (folder / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1234\n")
    refusal(folder, f"{name} is a Git LFS pointer", "git lfs pull")
