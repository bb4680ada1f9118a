"""The sheet of crop boxes shows every kind of picture, and each crop shows the face that was asked for."""

import json
from pathlib import Path

import pytest

from fye_bench.studies.crop_boxes import COLUMNS, TILE, main
from fye_rt import media


@pytest.mark.slow
def test_a_face_is_found_in_every_kind_of_picture(
    landmarker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage")
    monkeypatch.setenv("FYE_LANDMARKER", str(landmarker))
    assert main(["--output", str(tmp_path / "sheet.png"), "--json", str(tmp_path / "search.json")]) == 0
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if "cropped to its face" not in line] == [
        next(line for line in said.splitlines() if line.startswith("portrait: left alone"))
    ]
    searched = json.loads((tmp_path / "search.json").read_text())["searched"]
    assert len(searched) == 6 and said.count("turned by -") == 2
    assert media.read_image(tmp_path / "sheet.png").shape == (2 * (TILE + 34), COLUMNS * (2 * TILE + 16), 3)
