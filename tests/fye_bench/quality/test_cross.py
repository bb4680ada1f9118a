"""`fye bench cross` drives drawn characters with a real motion, whose truth is drawn."""

import json
from pathlib import Path

import numpy as np
import pytest

from fye_bench.quality import cross
from fye_rt import media
from fye_rt.cli.main import main
from fye_rt.landmarks import draw, landmark_images
from fye_training import face
from fye_training.identity import FAMILIES

SIZE = (64, 64)


@pytest.fixture(scope="module")
def driven() -> cross.Driven:
    return cross.draw("people", 0, SIZE, frames=6)


def test_the_truth_moves_as_the_landmarks_that_the_runtime_draws(driven: cross.Driven) -> None:
    assert driven.frames.shape == (6, *SIZE, 3)
    assert driven.frames.std(axis=0).max() > 5
    place = face.placement(driven.who.shape, SIZE, 0)
    moved = face.transfer(driven.who.shape, driven.driving, SIZE, place)
    drawn = landmark_images(driven.landmarks, driven.driving, SIZE)
    assert np.abs(drawn.astype(int) - draw(moved.points[..., :2] * SIZE, SIZE)).mean() < 0.5
    assert 0.05 < driven.mask.mean() < 0.6


def test_the_command_reports_every_family_and_shows_them(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--json", str(tmp_path / "cross.json"), "--sheet", str(tmp_path / "cross.png")]
    short = ["--frames", "2", "--steps", "1", "--threads", "1", "--quiet"]
    assert main.main(["bench", "cross", "--bundle", str(tiny_bundle), *short, *files]) == 0
    result = json.loads((tmp_path / "cross.json").read_text())
    assert tuple(result["families"]) == FAMILIES
    for variants in result["families"].values():
        assert variants["made"]["psnr"] < variants["copied"]["psnr"]  # random weights
        assert variants["copied"]["flicker"] == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(FAMILIES)
    assert media.read_image(tmp_path / "cross.png").shape[0] > 12 * SIZE[0]


def test_more_frames_than_the_motion_has_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["bench", "cross", "--frames", "25"]) == 2
    error = capsys.readouterr().err
    assert "--frames" in error and error.count("\n") == 1
