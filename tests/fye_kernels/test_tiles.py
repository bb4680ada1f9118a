from pathlib import Path

import pytest

from fye_kernels import aot, tiles
from fye_kernels.reference_attention import best
from fye_kernels.tiles import Tiles
from fye_rt.errors import OptionError

MEASURED = {"reference_attention": {80: Tiles(128, 64, 8, 3)}}


def test_measured_tiles_are_used_for_their_head_dimension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tiles.FILE, raising=False)
    before = {dim: best(dim, 80) for dim in (40, 80, 160)}
    tiles.write(tmp_path / "tiles.json", MEASURED)
    monkeypatch.setenv(tiles.FILE, str(tmp_path / "tiles.json"))
    assert {dim: best(dim, 80) for dim in before} == before | MEASURED["reference_attention"]
    assert tiles.measured("temporal_attention", 80) is None
    (variant,) = (each for each in aot.variants("sm_90a") if each.name == "reference_attention_80_fp16")
    assert (variant.constants["ROWS"], variant.constants["COLUMNS"], variant.warps, variant.stages) == (128, 64, 8, 3)


@pytest.mark.parametrize(
    "content",
    [
        None,
        "no JSON",
        "[]",
        '{"reference_attention": {"d": [64, 64, 4, 2]}}',
        *(f'{{"reference_attention": {{"80": {wrong}}}}}' for wrong in ("64", '["64", 64, 4, 2]', "[64, 48, 4, 2]")),
        *(f'{{"reference_attention": {{"80": [64, {wrong}]}}}}' for wrong in ("8, 4, 2", "64, 0, 2", "64, 4, 0")),
    ],
)
def test_a_file_without_tiles_is_refused(content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if content is not None:
        (tmp_path / "tiles.json").write_text(content)
    monkeypatch.setenv(tiles.FILE, str(tmp_path / "tiles.json"))
    with pytest.raises(OptionError, match=r"FYE_TILES=.*tiles\.json has"):
        best(80, 90)
