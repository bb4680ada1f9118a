import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fye_rt import cli, demo, media
from fye_rt.bundle import Bundle
from fye_rt.errors import BundleError

ROOT = Path(__file__).resolve().parents[2]
INPUTS = ROOT / "engines" / "bundles" / "demo"


@pytest.mark.slow
def test_the_demo_runs_anywhere_without_mediapipe_opencv_and_torch(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "sys.modules.update(dict.fromkeys('mediapipe cv2 torch openvino matplotlib fye_export fye_bench'.split()))\n"
        "from fye_rt.cli import main; sys.exit(main(['demo', '-o', 'here/demo']))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # no terminal: no bars
    folder = tmp_path / "here" / "demo"
    assert sorted(file.name for file in folder.iterdir()) == ["contact_sheet.png", "demo.mp4", "timings.json"]

    frames = [frame for _, frame in media.read_video(folder / "demo.mp4")]
    drawn = sorted((INPUTS / "landmarks").iterdir())
    size = media.read_image(INPUTS / "portrait.png").shape
    assert len(frames) == len(drawn) and {frame.shape for frame in frames} == {size}
    assert np.std(frames) > 1  # not one flat colour
    assert media.read_image(folder / "contact_sheet.png").shape[0] > 3 * size[0]
    facts = json.loads((folder / "timings.json").read_text())
    assert facts["network_evaluations"] == facts["options"]["steps"] == 30
    assert facts["timings"]["denoise"] > 0

    note = Bundle.load(demo.shipped_bundle()).manifest.get("note", "")
    assert note in result.stdout


def test_the_stand_in_bundle_says_that_its_picture_is_noise() -> None:
    tiny = INPUTS.parent / "tiny"
    note = Bundle.load(tiny).manifest["note"]
    assert "random" in note and "noise" in note
    assert sum(file.stat().st_size for file in tiny.iterdir()) <= 5_000_000


def test_the_demo_s_pictures_are_small_and_of_one_size() -> None:
    files = [INPUTS / "portrait.png", *(INPUTS / "landmarks").iterdir()]
    assert len({media.read_image(file).shape for file in files}) == 1
    assert all(file.stat().st_size < 5_000 for file in files)


def test_the_trained_bundle_is_preferred_once_it_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "shipped_bundles", lambda: tmp_path)
    with pytest.raises(BundleError, match="--bundle"):
        demo.shipped_bundle()
    for name in ("tiny", "mini"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bundle.json").touch()
        assert demo.shipped_bundle() == tmp_path / name


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert cli.main(["demo", "-o", str(tmp_path / "file")]) == 2
    error = capsys.readouterr().err
    assert "file" in error and error.startswith("fye: ") and error.count("\n") == 1
