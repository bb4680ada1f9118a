from pathlib import Path

import numpy as np
import pytest

from fye_rt import media
from fye_rt.cli import demo as runtime
from fye_training import demo
from fye_training.identity import held_out, is_held_out

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "engines" / "bundles" / "demo"


def test_the_shipped_pictures_equal_those_of_the_command(tmp_path: Path) -> None:
    assert demo.main([str(tmp_path)]) == 0
    drawn = sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*.png"))
    assert drawn == sorted(file.relative_to(SHIPPED) for file in SHIPPED.rglob("*.png"))
    for file in drawn:
        new, shipped = (media.read_image(folder / file).astype(int) for folder in (tmp_path, SHIPPED))
        assert np.abs(new - shipped).mean() < 0.1, file  # another machine may round a pixel otherwise


def test_the_demo_shows_one_held_out_character_of_each_family() -> None:
    assert tuple(demo.CHARACTERS) == runtime.FAMILIES
    assert all(is_held_out(held_out(number)) for number in demo.CHARACTERS.values())


def test_wrong_arguments_of_the_demo_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for arguments in ([], [str(tmp_path / "file")]):
        assert demo.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
