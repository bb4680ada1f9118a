import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fye_export import state_dict, weight_files
from fye_export.checkpoint import Checkpoint
from fye_export.config import NETWORKS
from fye_rt.errors import CheckpointError
from tests.fye_export import repacks
from tests.fye_export.checkpoint_files import refusal
from tests.fye_export.repacks import FLAT, Packer, ldm, shifted
from tests.fye_export.test_state_dict import Malicious


@pytest.mark.parametrize("suffix", [".bin", ".pth", ".pt", ".ckpt", ".safetensors"])
def test_files_lie_in_any_subfolders_and_in_any_format(suffix: str, pack: Packer) -> None:
    for depth, network in enumerate(NETWORKS):
        pack.write("/".join(["sub"] * depth + [network + suffix]), pack.states[network])
    pack.assert_original(pack.open())


def test_several_files_and_folders_make_one_checkpoint(pack: Packer, tmp_path: Path) -> None:
    pack.write_all("vae", "lmk_guider")
    (tmp_path / "elsewhere").mkdir()
    vae = pack.write("../elsewhere/vae.ckpt", ldm(pack.states["vae"]))
    guider = pack.write("../elsewhere/g.pth", pack.states["lmk_guider"])
    checkpoint = pack.open(pack.folder, vae, guider)
    pack.assert_original(checkpoint)
    assert checkpoint.files["vae"] == ("elsewhere/vae.ckpt",)
    assert checkpoint.digest == pack.open(vae, pack.folder, guider).digest
    pack.assert_original(pack.open(*sorted(pack.folder.glob("*.safetensors")), vae.parent))


def test_a_malicious_pickle_beside_the_checkpoint_does_not_run(pack: Packer, tmp_path: Path) -> None:
    pack.write_all()
    file = pack.write("last.ckpt", {"state_dict": pack.states["unet"], "x": Malicious(tmp_path / "ran")})
    pack.assert_original(pack.open())
    with pytest.raises(CheckpointError, match=r"cannot read last\.ckpt: it holds a \S*mkdir"):
        Checkpoint.open(pack.folder, file)
    (pack.folder / FLAT["unet"]).unlink()
    refusal(pack.folder, "cannot read last.ckpt", "only tensors are ever unpickled")
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_given_itself_must_be_of_use(pack: Packer) -> None:
    pack.write_all()
    pack.write("style.safetensors", {"x.lora_up.weight": torch.zeros(1)})
    (pack.folder / "vae.ckpt").write_bytes(b"<html>Not Found</html>")
    (pack.folder / "package.json").write_text("{}")
    (pack.folder / "broken.json").write_text("{")
    pack.assert_original(pack.open())
    for file, reason in (
        ("vae.ckpt", "cannot read vae.ckpt: it is damaged"),
        ("style.safetensors", "style.safetensors is a LoRA; leave it out"),
        ("package.json", "package.json is no config.json"),
        ("broken.json", "cannot read broken.json"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            Checkpoint.open(pack.folder, pack.folder / file)


def test_a_dictionary_that_holds_itself_ends(pack: Packer, monkeypatch: pytest.MonkeyPatch) -> None:
    loop: dict[str, Any] = dict(pack.states["lmk_guider"])
    loop["again"] = loop
    loop["and again"] = loop
    pack.write_all("lmk_guider")
    pack.write("guider.pth", loop)
    monkeypatch.setattr(state_dict, "MAX_ENTRIES", 20)
    refusal(pack.folder, "guider.pth holds more than 20 entries")


def test_a_folder_of_too_many_files_is_refused(pack: Packer, monkeypatch: pytest.MonkeyPatch) -> None:
    pack.write_all()
    monkeypatch.setattr(weight_files, "MAX_WEIGHT_FILES", 5)
    pack.open()
    pack.write("sub/more.safetensors", {"x": torch.zeros(1)})
    refusal(pack.folder, "more than 5 weight files", "give the folder or the files of this model alone")
    monkeypatch.setattr(weight_files, "MAX_WEIGHT_FILES", 6)
    monkeypatch.setattr(weight_files, "MAX_FILES", 9)  # six weight files, three config.json, one folder
    refusal(pack.folder, "or 9 files")


def test_links_to_files_are_followed_and_links_to_folders_are_not(pack: Packer, tmp_path: Path) -> None:
    pack.write_all("vae")
    vae = pack.write("../outside/vae.safetensors", pack.states["vae"])
    link = pack.folder / "linked"
    link.symlink_to(vae.parent)
    (pack.folder / "loop").symlink_to(pack.folder)
    refusal(pack.folder, "lacks the VAE", "linked/ (a link to a folder; give it as well")
    pack.assert_original(pack.open(pack.folder, link))
    (pack.folder / "vae.safetensors").symlink_to(vae)
    pack.assert_original(pack.open())
    vae.unlink()
    refusal(pack.folder, f"vae.safetensors (a link to {vae}, which is not there)")


def test_hidden_files_and_folders_are_not_read(pack: Packer, log: Callable[[], str]) -> None:
    pack.write_all()
    pack.write(".cache/other.safetensors", shifted(pack.states["vae"]))
    (pack.folder / "._any-vae.safetensors").write_bytes(b"of another file system")
    pack.assert_original(pack.open())
    assert "not used" not in log()


def test_a_git_lfs_pointer_is_named(pack: Packer) -> None:
    pack.write_all()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1234\n"
    (pack.folder / FLAT["vae"]).write_text(pointer)
    refusal(pack.folder, "lacks the VAE", FLAT["vae"], "git lfs pull")


def test_a_config_beside_the_weights_goes_before_others(pack: Packer) -> None:
    pack.write_all("vae")
    pack.write("vae/model.safetensors", pack.states["vae"])
    own = pack.folder / "vae/config.json"
    shutil.copy(pack.folder / "vae.json", own)
    repacks.configure(own, scaling_factor=0.5)
    assert pack.open().config.vae.scaling_factor == 0.5
    assert pack.open().configs == ("image_encoder.json", "unet.json", "vae/config.json")


def test_configs_that_contradict_each_other_are_refused_and_those_of_other_models_are_not_read(pack: Packer) -> None:
    pack.write_all()
    other = pack.folder / "vae_2.json"
    shutil.copy(pack.folder / "vae.json", other)
    pack.assert_original(pack.open())
    repacks.configure(other, scaling_factor=0.13025)
    refusal(pack.folder, "vae.json and vae_2.json are different settings of the VAE; name", FLAT["vae"])
    assert pack.open(pack.folder, other).config.vae.scaling_factor == 0.13025
    pack.assert_original(pack.open(pack.folder, pack.folder / "vae.json"))
    repacks.configure(other, block_out_channels=[128, 256])
    pack.assert_original(pack.open())
    (pack.folder / "vae.json").unlink()
    refusal(pack.folder, "vae_2.json states block_out_channels")


def test_the_config_of_a_whole_clip_states_the_image_encoders_sizes(pack: Packer) -> None:
    file = pack.folder / "image_encoder.json"
    vision = file.read_text().replace('"projection_dim"', '"projection_size"')
    file.write_text(f'{{"model_type": "clip", "projection_dim": 32, "text_config": {{}}, "vision_config": {vision}}}')
    pack.write_all()
    pack.assert_original(pack.open())


def test_a_damaged_json_file_is_left_aside(pack: Packer) -> None:
    pack.write_all()
    (pack.folder / "package.json").write_text("{")
    pack.assert_original(pack.open())
    (pack.folder / "vae.json").write_text("{")
    refusal(pack.folder, "no config.json", FLAT["vae"])
