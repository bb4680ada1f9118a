import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fye_export import export, onnx_graph
from fye_export.checkpoint import Checkpoint
from fye_export.config import NETWORKS, PE, ModelConfig
from fye_export.onnx_graph import Graph
from fye_rt.bundle import Bundle
from fye_rt.errors import CheckpointError
from tests.fye_export import checkpoint_files, repacks, sparse_checkpoint
from tests.fye_export.checkpoint_files import FILES, refusal
from tests.fye_export.repacks import (
    FLAT,
    Packer,
    base_model,
    ldm,
    motion_apart,
    prefixed,
    shifted,
    without_vision_model,
)


def test_files_of_any_name_are_recognised_by_their_tensors(pack: Packer, log: Callable[[], str]) -> None:
    pack.write_all()
    checkpoint = pack.open()
    pack.assert_original(checkpoint)
    assert checkpoint.files == {name: (file,) for name, file in FLAT.items()}
    assert log().splitlines() == [
        "denoising UNet: fye_unet-fp16.safetensors, settings: unet.json",
        "reference network: reference_unet.safetensors",
        "landmark guider: landmark_guider.safetensors",
        "VAE: any-vae.safetensors, settings: vae.json",
        "CLIP image encoder: clip_vision.safetensors, settings: image_encoder.json",
    ]


@pytest.mark.parametrize("prefix", ["", "module.", "motion_module."])
def test_motion_modules_in_a_file_of_their_own_join_the_unet(prefix: str, pack: Packer, log: Callable[[], str]) -> None:
    spatial, motion = motion_apart(pack.states["unet"])
    pack.write_all("unet")
    pack.write("a/spatial.safetensors", spatial)
    pack.write("b/motion.safetensors", prefixed(prefix)(motion))
    checkpoint = pack.open()
    pack.assert_original(checkpoint)
    assert checkpoint.files["unet"] == ("a/spatial.safetensors", "b/motion.safetensors")
    assert "denoising UNet: a/spatial.safetensors with b/motion.safetensors" in log()


def test_a_unet_with_motion_modules_takes_nothing_but_encodings_from_another_file(pack: Packer) -> None:
    unet = pack.states["unet"]
    other = {key: value if key.endswith(PE) else value + 1 for key, value in motion_apart(unet)[1].items()}
    pack.write("animatediff.ckpt", other)
    pack.write_all(unet=lambda state: {key: value for key, value in state.items() if not key.endswith(PE)})
    pack.assert_original(pack.open())
    pack.write_all()
    checkpoint = pack.open()
    pack.assert_original(checkpoint)
    assert checkpoint.files["unet"] == (FLAT["unet"],)


def test_a_motion_module_missing_from_a_trained_unet_is_not_replaced(pack: Packer) -> None:
    key = "mid_block.motion_modules.0.temporal_transformer.proj_in.weight"
    pack.write("motion.safetensors", motion_apart(pack.states["unet"])[1])
    pack.write_all(unet=lambda state: {name: value for name, value in state.items() if name != key})
    refusal(pack.folder, FLAT["unet"], "1 missing key", key)


def test_a_unet_without_motion_modules_is_refused(pack: Packer) -> None:
    pack.write_all(unet=lambda state: motion_apart(state)[0])
    refusal(pack.folder, f"{FLAT['unet']} has no motion modules", "add the file")


@pytest.mark.parametrize("network", NETWORKS)
def test_two_files_for_one_network_are_refused_until_one_is_named(network: str, pack: Packer) -> None:
    pack.write_all()
    other = pack.write("other.safetensors", shifted(pack.states[network]))
    message = refusal(pack.folder, FLAT[network], "other.safetensors", "differ", f"fye export {pack.folder} FILE")
    assert message.startswith(min(FLAT[network], "other.safetensors"))
    own = pack.folder / FLAT[network]
    pack.assert_original(pack.open(pack.folder, own))
    named = Checkpoint.open(pack.folder, other)
    assert named.files[network] == ("other.safetensors",)
    with pytest.raises(CheckpointError, match="give only one of them"):
        Checkpoint.open(pack.folder, own, other)


def test_two_files_of_motion_modules_are_refused(pack: Packer) -> None:
    spatial, motion = motion_apart(pack.states["unet"])
    pack.write_all(unet=lambda _: spatial)
    pack.write("mm_1.ckpt", motion)
    second = pack.write("mm_2.ckpt", shifted(motion))
    refusal(pack.folder, "mm_1.ckpt", "mm_2.ckpt", "set of motion modules")
    second.unlink()
    pack.assert_original(pack.open())


def test_of_files_with_the_same_weights_the_most_exact_is_taken(pack: Packer, log: Callable[[], str]) -> None:
    exact = {key: value.float() + 1e-5 for key, value in pack.states["vae"].items()}
    pack.states["vae"] = exact
    pack.write_all()
    pack.write("a.fp16.safetensors", {key: value.half() for key, value in exact.items()})
    pack.write("any-vae.bin", exact)
    checkpoint = pack.open()
    pack.assert_original(checkpoint)
    assert checkpoint.files["vae"] == (FLAT["vae"],)
    assert f"a.fp16.safetensors (the same weights as {FLAT['vae']})" in log()


@pytest.mark.parametrize("network", NETWORKS)
def test_a_missing_network_is_refused_with_what_was_found(network: str, pack: Packer) -> None:
    title = {"unet": "denoising UNet", "referencenet": "reference network", "lmk_guider": "landmark guider",
             "vae": "VAE", "image_encoder": "CLIP image encoder"}[network]  # fmt: skip
    pack.write_all(network)
    pack.write("broken.ckpt", pack.states[network]).write_bytes(b"PK\x03\x04")
    pack.write("style.safetensors", {"lora_unet_down_blocks_0.lora_up.weight": torch.zeros(8, 8)})
    others = [file for name, file in FLAT.items() if name != network]
    refusal(pack.folder, f"lacks the {title};", *others, "cannot read broken.ckpt", "style.safetensors (a LoRA)")


def test_a_folder_without_weights_is_refused_as_before(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing here")
    refusal(tmp_path, "is not a complete checkpoint: it lacks follow-your-emoji/unet.safetensors or")
    refusal(tmp_path / "absent", "is not a folder")
    refusal(tmp_path / "README.md", "is no weight file", ".safetensors")
    with pytest.raises(CheckpointError, match=r"absent does not exist"):
        Checkpoint.open(tmp_path, tmp_path / "absent")


def test_the_digest_changes_with_names_weights_and_config(pack: Packer) -> None:
    pack.write_all()
    digests = {Checkpoint.open(pack.folder).digest, pack.original.digest}
    pack.write("unrelated.safetensors", {"x": torch.zeros(1)})
    digests.add(Checkpoint.open(pack.folder).digest)
    assert len(digests) == 2
    repacks.configure(pack.folder / "unet.json", sample_size=64)
    digests.add(Checkpoint.open(pack.folder).digest)
    pack.write(FLAT["vae"], shifted(pack.states["vae"]))
    digests.add(Checkpoint.open(pack.folder).digest)
    assert len(digests) == 4


def test_the_released_layout_goes_before_anything_else_in_the_folder(folder: Path, log: Callable[[], str]) -> None:
    digest = Checkpoint.open(folder).digest
    shutil.copy(folder / FILES["unet"], folder / "another_unet.pth")
    checkpoint_files.change(folder / "another_unet.pth", shifted)
    (folder / "broken.safetensors").write_bytes(b"not read")
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.digest == digest and checkpoint.files["unet"] == (FILES["unet"],)
    assert log() == ""


def test_a_released_folder_may_have_one_network_repacked(folder: Path, tiny_checkpoint: Path) -> None:
    file = folder / checkpoint_files.VAE
    checkpoint_files.write(folder / "vae-ft-mse.ckpt", {"state_dict": ldm(checkpoint_files.read(file))})
    file.unlink()
    checkpoint_files.assert_same_weights(Checkpoint.open(folder), Checkpoint.open(tiny_checkpoint))
    shutil.copy(folder / "vae-ft-mse.ckpt", folder / "second.ckpt")
    checkpoint_files.change(folder / "second.ckpt", lambda state: shifted(state["state_dict"]))
    refusal(folder, f"is not a complete checkpoint: it lacks {checkpoint_files.VAE}")


def test_without_config_only_the_released_sizes_are_known(pack: Packer, tmp_path: Path, log: Callable[[], str]) -> None:
    pack.write_all()
    (pack.folder / "vae.json").unlink()
    refusal(pack.folder, FLAT["vae"], "not of the released size", "add its config.json")
    sparse_checkpoint.write(tmp_path / "full", ModelConfig())
    assert Checkpoint.open(tmp_path / "full").config == ModelConfig()
    assert log().count("settings: the released settings") == 3
    other = pack.write("../full/other/README.pt", {}).with_name("config.json")  # perhaps another model's
    other.write_text('{"_class_name": "AutoencoderKL", "scaling_factor": 0.13025}')
    refusal(tmp_path / "full", "other/config.json and the released settings are different settings of the VAE")
    other.write_text('{"_class_name": "AutoencoderKL", "scaling_factor": 0.18215}')
    assert Checkpoint.open(tmp_path / "full").configs == ("other/config.json",)


@pytest.mark.slow
def test_a_repacked_checkpoint_exports_to_the_same_weights(
    golden_checkpoint: Path,
    golden_bundle: Path,
    golden_traces: dict[str, Graph],
    tmp_path: Path,
    log: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pack = Packer(golden_checkpoint, tmp_path / "repacked")
    spatial, motion = motion_apart(pack.states["unet"])
    pack.write("sd15.ckpt", {"state_dict": base_model(pack.states["vae"])})
    pack.write("nets/pair.safetensors", prefixed("a.")(spatial) | prefixed("b.")(pack.states["referencenet"]))
    pack.write("nets/motion_module.pth", prefixed("module.")(motion))
    pack.write("clip.bin", without_vision_model(pack.states["image_encoder"]))
    guider = pack.write("../guider.pt", pack.states["lmk_guider"])
    # the graphs depend on the sizes alone; cutting them again takes minutes
    monkeypatch.setattr(onnx_graph, "trace", lambda spec, config: golden_traces[spec.name])
    bundle = export.export([pack.folder, guider], tmp_path / "bundle", size=(128, 128))
    said = log()
    assert "denoising UNet: repacked/nets/pair.safetensors (a.*) with repacked/nets/motion_module.pth" in said
    assert "VAE: repacked/sd15.ckpt (state_dict.first_stage_model.*, LDM's names)" in said
    original = Bundle.load(golden_bundle)
    assert bundle.manifest["model"] == original.manifest["model"]
    assert bundle.manifest["weights"]["shared"] == original.manifest["weights"]["shared"]
    weights, expected = (load_file(each.path / each.weights) for each in (bundle, original))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
