import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fye_export.checkpoint import Checkpoint
from fye_export.weights import read as read_weights
from fye_rt.bundle import Bundle, shipped_bundles
from fye_training import animation, loop, train
from fye_training.presets import PRESETS

pytestmark = [pytest.mark.usefixtures("opencv"), pytest.mark.slow]
TINY = ["--preset", "tiny", "--device", "cpu", "--quiet"]


def continued(run: Path, folder: Path, *stages: str) -> list[str]:
    """Arguments of a training in a new folder, which has these stages of another run."""
    folder.mkdir()
    for stage in stages:
        shutil.copy(run / f"{stage}.pt", folder)
    return [*TINY, "--run", str(folder)]


@pytest.fixture(scope="module", autouse=True)
def _small_sheets() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "SHEET_IDENTITIES", 2)
        patch.setattr(animation, "SHEET_STEPS", 3)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train") / "run"
    assert train.main([*TINY, "--run", str(folder)]) == 0
    return folder


def test_one_command_trains_from_nothing_to_a_checkpoint_that_export_reads(run: Path) -> None:
    checkpoint = Checkpoint.open(run / "checkpoint")
    checkpoint.check()
    assert checkpoint.config.unet == PRESETS["tiny"].model.unet
    assert all(list(run.glob(f"{stage}-*.png")) for stage in PRESETS["tiny"].stages)


def test_the_released_latents_have_unit_scale(run: Path) -> None:
    factor = Checkpoint.open(run / "checkpoint").config.vae.scaling_factor
    from fye_training.autoencoder import encode
    from fye_training.pool import Order, draw_chunk

    network = Checkpoint.open(run / "checkpoint").load("vae")
    preset = PRESETS["tiny"]
    side = preset.stages["vae"].size
    order = Order(7, 8, 3, side, preset.model.image_encoder.image_size)
    frames = draw_chunk(order, 0).frames.reshape(-1, side, side, 3)
    assert 0.7 < encode(network, frames).std() * factor < 1.4  # other frames than those it was measured on
    assert loop.read(run / "vae.pt")["averaged"].keys() == network.state_dict().keys()


def test_the_motion_stage_keeps_image_weights_and_releases_averaged_ones(run: Path) -> None:
    released = Checkpoint.open(run / "checkpoint").tensors("unet")
    image, motion = (loop.read(run / f"{stage}.pt")["averaged"] for stage in ("image_96", "motion_96"))
    key = "down_blocks.0.resnets.0.conv1.weight"
    assert torch.equal(image[f"unet.{key}"], motion[f"unet.{key}"])
    assert torch.equal(released[key], image[f"unet.{key}"].half())
    moved = "down_blocks.0.motion_modules.0.temporal_transformer.proj_out.weight"
    assert released[moved].any()


def test_training_on_larger_frames_starts_from_the_weights_of_smaller_ones(run: Path, tmp_path: Path) -> None:
    small, large = (loop.read(run / f"{stage}.pt")["averaged"] for stage in ("motion", "motion_96"))
    # at the first step, before anything is learnt, a stage is what it starts from
    folder = tmp_path / "run"
    arguments = continued(run, folder, "vae", "image", "motion", "image_96")
    assert train.main([*arguments, "--stage", "motion_96", "--stop-at", "0"]) == 0
    begun, image = (loop.read(folder / f"{stage}.pt")["averaged"] for stage in ("motion_96", "image_96"))
    for key, value in begun.items():
        assert torch.equal(value, (small if "motion_modules" in key else image)[key])
    changed = {key for key, value in large.items() if not torch.equal(value, begun[key])}
    assert changed and all("motion_modules" in key for key in changed)


def test_the_decoder_stage_trains_the_decoder_alone(run: Path) -> None:
    vae, later = (loop.read(run / f"{stage}.pt")["averaged"] for stage in ("vae", "decoder_96"))
    changed = {key.split(".")[0] for key, value in later.items() if not torch.equal(value, vae[key])}
    assert changed == {"decoder", "post_quant_conv"}
    released = Checkpoint.open(run / "checkpoint").tensors("vae")
    assert torch.equal(released["decoder.conv_out.weight"], later["decoder.conv_out.weight"].half())


def test_training_starts_from_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, bundle = tmp_path / "run", Bundle.load(shipped_bundles() / "tiny")
    command = [*TINY, "--run", str(folder), "--start", str(bundle.path)]
    assert train.main(command) == 0
    stages = PRESETS["tiny"].stages
    assert [stage for stage in stages if loop.finished(stage, stages[stage], loop.Run(folder))] == list(stages)[:3]
    vae, image, motion = (loop.read(folder / f"{stage}.pt")["averaged"] for stage in list(stages)[:3])
    for name, known in (("vae", {f"vae.{key}": value for key, value in vae.items()}), ("unet", motion)):
        weights = read_weights(bundle, name)
        assert len(weights) > 100
        for key, value in weights.items():
            assert torch.equal(known[f"{name}.{key}"], torch.from_numpy(value).float())
    assert image.keys() == {key for key in motion if "motion_modules" not in key}
    # a run that has begun is not written over
    assert train.main(command) == 2 and "--run" in capsys.readouterr().err
    assert train.main([*command, "--preset", "mini"]) == 2 and "--preset" in capsys.readouterr().err


@pytest.mark.parametrize(("stage", "before", "stops"), [("vae", (), (7, 23, 40)), ("image", ("vae",), (11, 40))])
def test_stopped_training_resumes_to_the_same_weights(
    stage: str, before: tuple[str, ...], stops: tuple[int, ...], run: Path, tmp_path: Path
) -> None:
    arguments = [*continued(run, tmp_path / "run", *before), "--stage", stage]
    for steps in stops:
        assert train.main([*arguments, "--stop-at", str(steps)]) == 0
    whole, parts = (loop.read(folder / f"{stage}.pt") for folder in (run, tmp_path / "run"))
    for kind in ("averaged", "module"):
        assert all(torch.equal(whole[kind][key], parts[kind][key]) for key in whole[kind])


def test_the_facial_loss_can_be_turned_off(run: Path, tmp_path: Path) -> None:
    means = {}
    for weights in (("0", "0"), ("3", "1")):
        folder = tmp_path / weights[0]
        arguments = continued(run, folder, "vae")
        assert train.main([*arguments, "--stage", "image", "--steps", "image=3", "--facial", *weights]) == 0
        entry = json.loads((folder / "image.jsonl").read_text().splitlines()[0])
        means[weights[0]] = entry["loss"] / entry["mse"]
    assert means["0"] == pytest.approx(1) and means["3"] > 1.1


def test_motion_modules_can_learn_from_neighbouring_frames_alone(run: Path, tmp_path: Path) -> None:
    losses = set()
    for strides in (("1",), ("24",), ("1", "4")):
        folder = tmp_path / "".join(strides)
        arguments = continued(run, folder, "vae", "image")
        assert train.main([*arguments, "--stage", "motion", "--steps", "motion=1", "--strides", *strides]) == 0
        losses.add(json.loads((folder / "motion.jsonl").read_text().splitlines()[0])["loss"])
    assert len(losses) == 3


def test_training_from_nothing_lowers_the_loss(tmp_path: Path) -> None:
    arguments = [*TINY, "--run", str(tmp_path / "run"), "--stage", "vae", "--steps", "vae=150"]
    assert train.main(arguments) == 0
    entries = map(json.loads, (tmp_path / "run" / "vae.jsonl").read_text().splitlines())
    falling = [entry["loss"] for entry in entries if "loss" in entry]  # means of 50 steps
    assert falling[0] > falling[1] > falling[2] and falling[2] < 0.85 * falling[0]


def test_a_stage_of_other_networks_is_refused_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "vae.pt").write_bytes((run / "image.pt").read_bytes())
    assert train.main([*TINY, "--run", str(tmp_path), "--stage", "image"]) == 2
    error = capsys.readouterr().err
    assert "vae.pt" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--facial", "nan", "1"), "--facial"),
        (("--strides", "1", "0"), "--strides"),
        (("--stage", "image"), ""),  # its predecessor is missing
        (("--stage", "image_192"), "image_96"),
        *((("--steps", steps), "--steps") for steps in ("image", "image=", "image=-3", "other=4")),
    ],
)
def test_a_wrong_option_of_training_is_refused_in_one_line(
    wrong: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*TINY, "--run", str(tmp_path / "run"), *wrong]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
