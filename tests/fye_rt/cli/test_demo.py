import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fye_rt import media
from fye_rt.bundle import Bundle, shipped_bundle
from fye_rt.cli import demo
from fye_rt.clips.clip import Clip
from fye_rt.errors import BundleError
from fye_rt.forecasts.choose import PRESETS
from fye_rt.settings import DEFAULT_FORECAST
from tests.fye_rt.command_line import BUNDLES, ROOT, Fye, python

INPUTS = BUNDLES / "demo"


@pytest.mark.slow
def test_the_demo_runs_anywhere_without_mediapipe_opencv_and_torch(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "sys.modules.update(dict.fromkeys('mediapipe cv2 torch openvino matplotlib fye_export fye_bench'.split()))\n"
        "from fye_rt.cli.main import main; sys.exit(main(['demo', '-o', 'here/demo']))"
    )
    result = python("-c", code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # no terminal: no bars
    folder = tmp_path / "here" / "demo"
    assert sorted(file.name for file in folder.iterdir()) == ["contact_sheet.png", "demo.mp4", "timings.json"]

    side = media.read_image(INPUTS / "people" / "portrait.png").shape[0]
    frames = np.stack([frame for _, frame in media.read_video(folder / "demo.mp4")])
    assert len(frames) == len(list((INPUTS / "people" / "landmarks").iterdir()))
    assert frames.shape[1] > 3 * side and frames.shape[2] > len(demo.FAMILIES) * side
    assert media.read_image(folder / "contact_sheet.png").shape[0] > 2 * len(demo.FAMILIES) * side
    facts = json.loads((folder / "timings.json").read_text())
    assert (facts["options"]["steps"], facts["options"]["forecast"]) == (30, {"method": DEFAULT_FORECAST})
    assert tuple(facts["clips"]) == demo.FAMILIES
    for family, clip in facts["clips"].items():
        assert clip["network_evaluations"] == PRESETS[DEFAULT_FORECAST].calibrated
        assert clip["timings"]["denoise"] > 0
        assert clip["frames"] == len(frames)
        assert f"{family}: {len(frames)} frames" in result.stdout

    note = Bundle.load(shipped_bundle()).manifest.get("note", "")
    assert note in result.stdout


def test_the_stand_in_bundle_says_that_its_picture_is_noise() -> None:
    tiny = INPUTS.parent / "tiny"
    note = Bundle.load(tiny).manifest["note"]
    assert "random" in note and "noise" in note
    assert sum(file.stat().st_size for file in tiny.iterdir()) <= 5_000_000


def test_the_shipped_model_has_a_card_and_no_file_over_20_mb() -> None:
    mini = INPUTS.parent / "mini"
    assert shipped_bundle() == mini
    card = (mini / "README.md").read_text()
    assert "Drawn faces only" in card and "Apache-2.0" in card
    bundle = Bundle.load(mini)
    assert "drawn faces" in bundle.note
    assert "guidance | 1.5, and all noise shared" in card and (bundle.guidance, bundle.shared_noise) == (1.5, 1.0)
    assert max(file.stat().st_size for file in mini.iterdir()) < 20_000_000


def test_the_demo_s_pictures_are_small_and_of_one_size() -> None:
    assert sorted(file.name for file in INPUTS.iterdir()) == sorted(demo.FAMILIES)
    files = list(INPUTS.rglob("*.png"))
    assert len({media.read_image(file).shape for file in files}) == 1
    assert sum(file.stat().st_size for file in files) < 200_000
    assert len({len(list((INPUTS / family / "landmarks").iterdir())) for family in demo.FAMILIES}) == 1


def test_the_demo_s_sheet_shows_portraits_landmarks_and_frames() -> None:
    shape = (9, 8, 8, 3)
    rest: Any = {"fps": 7.0, "times": None, "seconds": None, "audio_from": None, "timings": {}, "notices": ()}
    clips = {}
    for name, level in (("a", 100), ("b", 200)):
        frames, portraits, landmarks = (np.full(shape, value, np.uint8) for value in range(level, level + 3))
        clips[name] = Clip(frames=frames, portrait=portraits[0], landmarks=landmarks, **rest)
    sheet = demo.contact_sheet(clips)
    for level in (100, 200):
        seen = [(sheet == value).all(2).sum() // 64 for value in (level, level + 1, level + 2)]
        assert seen == [demo.COLUMNS, 1, demo.COLUMNS]


def test_the_trained_bundle_is_preferred_once_it_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fye_rt.bundle.shipped_bundles", lambda: tmp_path)
    with pytest.raises(BundleError, match="pass bundle=DIR"):
        shipped_bundle()
    for name in ("tiny", "mini"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bundle.json").touch()
        assert shipped_bundle() == tmp_path / name


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, fye: Fye) -> None:
    (tmp_path / "file").touch()
    assert "file" in fye.refuses("demo", "-o", tmp_path / "file")
