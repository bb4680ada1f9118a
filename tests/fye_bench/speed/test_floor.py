import json
from itertools import pairwise
from pathlib import Path

import pytest

from fye_bench.speed import floor
from fye_export.random_checkpoint import PRESETS

TINY = PRESETS["tiny"]


@pytest.mark.slow
def test_counted_operations_of_the_guider_are_those_of_its_convolutions() -> None:
    channels = TINY.lmk_guider.block_out_channels
    side, frames = 64, 3
    expected = 3 * channels[0] * side**2
    for narrow, wide in pairwise(channels):
        expected += narrow * narrow * side**2
        side //= 2
        expected += narrow * wide * side**2
    expected += channels[-1] * TINY.lmk_guider.out_channels * side**2
    assert floor.operations(TINY, (64, 64), frames)["guider"] == 2 * 9 * frames * expected


@pytest.mark.slow
def test_floors_are_operations_over_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "floor.json"
    assert floor.main(["--config", "tiny", "--size", "64x64", "--frames", "4", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    clip = 6 * found["operations"]["denoiser"] + found["operations"]["guider"] + found["operations"]["vae_decoder"]
    h100 = found["floors"]["H100 SXM"]
    assert h100["clip_seconds"] == pytest.approx(clip / 989e12)
    assert h100["frames_per_second"] == pytest.approx(4 / h100["clip_seconds"])
    assert len(capsys.readouterr().out.splitlines()) == len(found["operations"]) + len(floor.GPUS)


@pytest.mark.slow
def test_operations_grow_with_the_frames() -> None:
    two, four = (floor.operations(TINY, (64, 64), frames) for frames in (2, 4))
    for graph in ("guider", "vae_decoder"):
        assert four[graph] == 2 * two[graph]
    assert two["denoiser"] < four["denoiser"] < 2.2 * two["denoiser"]  # attention among frames grows faster
    assert two["reference"] == four["reference"]
    assert 1.5 < two["denoiser"] / two["denoiser_cond"] < 2  # what is the portrait's is there in one half alone
