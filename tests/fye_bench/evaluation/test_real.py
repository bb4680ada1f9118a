"""Photographs and a filmed talking head: what is measured where MediaPipe is all that knows the truth."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fye_bench.suites.suite import Suite
from fye_rt import media
from fye_rt.cli.main import main
from tests.fye_rt.command_line import TINY


@pytest.fixture(scope="module")
def suite(talking_head: Path, opencv: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An astronaut, an admiral, a cat and the talking head's own first frame. Not to be written to."""
    pytest.importorskip("mediapipe", reason="needs MediaPipe: pip install 'fye-rt[landmarks]'")
    data = pytest.importorskip("skimage.data")
    samples = pytest.importorskip("matplotlib.cbook")
    folder = tmp_path_factory.mktemp("real")
    for family in ("people", "animals"):
        (folder / "portraits" / family).mkdir(parents=True)
    (folder / "motions" / "talking").mkdir(parents=True)
    film = folder / "motions" / "talking" / "film.mp4"
    shutil.copy(talking_head, film)
    media.write_image(folder / "portraits" / "people" / "astronaut.png", data.astronaut())
    media.write_image(folder / "portraits" / "animals" / "chelsea.png", data.chelsea())
    media.write_image(folder / "portraits" / "people" / "film.png", next(media.read_video(film))[1])
    admiral = samples.get_sample_data("grace_hopper.jpg", asfileobj=False)
    shutil.copy(admiral, folder / "portraits" / "people" / "grace_hopper.jpg")
    return folder


@pytest.fixture(scope="module")
def said(suite: Path, landmarker: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("fye_rt.cli.terminal.note", lines.append)
        patch.setattr("fye_rt.cli.terminal.say", lines.append)
        assert main(["suite", "init", str(suite), "--landmarker", str(landmarker), "--quiet"]) == 0
    return "\n".join(lines)


@pytest.fixture(scope="module")
def found(said: str, suite: Path, landmarker: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = tmp_path_factory.mktemp("runs") / "real"
    options = ["--bundle", str(TINY), "--steps", "1", "--forecast", "off", "--threads", "1", "--size", "64x64"]
    arguments = ["--frames", "2", "--landmarker", str(landmarker), "--quiet"]
    assert main(["eval", str(suite), "-o", str(run), *options, *arguments]) == 0
    return {one["pair"]: one for one in json.loads((run / "results.json").read_text())["pairs"]}


def test_a_cat_without_a_face_is_reported_and_left_out(said: str, suite: Path) -> None:
    assert "chelsea.png is in no pair: no face is found in it; put its landmarks beside it" in said
    made = Suite.load(suite)
    assert "chelsea" in made.portraits
    assert {pair.portrait.name for pair in made.pairs} == {"astronaut", "film", "grace_hopper"}


def test_a_video_of_the_portrait_itself_is_its_truth(found: dict[str, Any]) -> None:
    own = found["film--film"]
    assert (own["mode"], own["truth"], own["error"]) == ("self", "driving", None)
    known = {name for name, value in own["metrics"].items() if value is not None}
    assert {"psnr", "ssim", "face_psnr", "identity_error", "flicker", "true_warp_error", "warp_error"} <= known


def test_an_evaluation_without_truth_detects_faces(found: dict[str, Any]) -> None:
    for name in ("astronaut--film", "grace_hopper--film"):
        one = found[name]
        assert (one["mode"], one["truth"], one["error"]) == ("cross", "none", None)
        # random weights make no face, and that is found out
        assert one["metrics"]["faces_found"] == 0.0 and one["metrics"]["landmark_error"] is None
        assert one["metrics"]["warp_error"] > 0 and one["metrics"]["psnr"] is None
