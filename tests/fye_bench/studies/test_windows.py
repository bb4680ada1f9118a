"""`fye bench windows` on a random bundle: what it reports, not how good that is."""

import json
from pathlib import Path

import numpy as np
import pytest

from fye_bench.metrics.truth import cases
from fye_bench.studies import long_clips, windows
from fye_rt import Options, media
from fye_rt.cli.main import main
from fye_rt.landmarks import face_region

SIZE = (64, 64)


def test_a_long_clip_is_in_motion_from_its_first_frame_to_its_last() -> None:
    clip = long_clips.draw(cases(1, long_clips.FIRST_IDENTITY)[0], SIZE, 60)
    assert clip.frames.shape == clip.landmarks.shape == (60, *SIZE, 3)
    assert np.abs(clip.frames[0].astype(int) - clip.portrait).mean() > 0.5
    still = np.abs(np.diff(clip.frames.astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert still[:20].mean() > 0.1 and still[-20:].mean() > 0.1
    assert face_region(clip.landmarks).any(axis=(1, 2)).all()


@pytest.mark.parametrize(("kind", "most"), [("reference", 1.2), ("context", 1.23), ("progressive", 1.15)])
def test_the_evaluations_of_a_frame_are_counted_over_all_windows(kind: str, most: float) -> None:
    landmarks = np.zeros((300, *SIZE, 3), np.uint8)
    borders, evaluations = windows.layout(landmarks, Options(), kind)
    assert borders.shape == (299,) and 10 < borders.sum() < 100
    assert 1 <= evaluations / 300 <= most


@pytest.mark.slow
def test_the_window_study_measures_every_kind_with_and_without_forecast(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--json", str(tmp_path / "windows.json"), "--picture", str(tmp_path / "windows.png")]
    small = ["--clips", "1", "--frames", "50", "--size", "64x72", "--threads", "1", "--window-size", "12", "--quiet"]
    forecast = ["--steps", "4", "--forecast", "reuse", "--evaluations", "2", "--full"]
    assert main(["bench", "windows", "--bundle", str(tiny_bundle), *small, *forecast, *files]) == 0
    result = json.loads((tmp_path / "windows.json").read_text())
    assert result["workload"]["size"] == [64, 72] and tuple(result["windows"]) == windows.KINDS
    for row in result["windows"].values():
        assert row["first_frame_seconds"] <= row["seconds"]
        assert row["error"]["mean"] > 0 and row["evaluations_per_frame"] >= 1
        assert all(number > 0 for number in row["at_borders"].values())
        full = row["against_full"]
        assert 5 < full["distance"]["mean"] < 90
        assert row["error"]["mean"] == pytest.approx(full["error"]["of"] + full["error"]["mean"])
    reference = result["windows"]["reference"]["drift"]["error_against_independent_windows"]
    assert reference["low"] == reference["high"] == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["windows", *windows.KINDS]
    assert media.read_image(tmp_path / "windows.png").shape[1] > 3 * 50


@pytest.mark.parametrize("wrong", [("--frames", "20"), ("--full",), ("--size", "64")])
def test_a_wrong_argument_of_the_window_study_is_one_line(
    wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "windows", *wrong]) == 2
    error = capsys.readouterr().err
    assert wrong[0] in error and error.count("\n") == 1 and len(error) < 200
