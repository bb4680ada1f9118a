"""Kept clips are what was made, bit by bit, or are refused."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_bench.evaluation import clips
from fye_bench.evaluation.clips import read_clip, write_clip
from fye_rt import media
from fye_rt.errors import InputError, OptionError, OutputError
from fye_rt.media import Limits


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


@pytest.mark.parametrize(
    "frames",
    [noise(1, 16, 16), noise(5, 37, 53), noise(2, 64, 48), noise(3, 32, 40)[:, ::-1, ::2]],
    ids=["one frame", "odd sides", "tall", "not contiguous"],
)
def test_a_written_clip_is_read_back_unchanged(frames: NDArray[np.uint8], tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mkv", frames, 25)
    np.testing.assert_array_equal(read_clip(tmp_path / "clip.mkv"), frames)


@pytest.mark.parametrize("fps", [25, 8.333, Fraction(30000, 1001)])
def test_a_clip_plays_at_its_rate(fps: float, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mkv", noise(9, 16, 16), fps)
    assert float(media.probe_video(tmp_path / "clip.mkv").fps) == pytest.approx(float(fps), rel=1e-3)


def test_equal_frames_make_equal_files(tmp_path: Path) -> None:
    for name in ("a.mkv", "b.mkv"):
        write_clip(tmp_path / name, noise(3, 32, 32), 25)
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


@pytest.mark.parametrize("part", ["changed", "cut"])
def test_a_damaged_clip_is_refused(part: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    write_clip(path, noise(6, 32, 32), 25)
    content = bytearray(path.read_bytes())
    if part == "changed":
        content[len(content) // 2] ^= 255
    else:
        del content[len(content) // 2 :]
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"clip\.mkv is (damaged|cut short)"):
        read_clip(path)


def test_a_clip_of_another_kind_is_refused(tmp_path: Path) -> None:
    media.write_video(tmp_path / "clip.mp4", noise(3, 32, 32), 25)
    with pytest.raises(InputError, match="h264 in yuv420p, not a lossless clip"):
        read_clip(tmp_path / "clip.mp4")
    with pytest.raises(InputError, match="does not exist"):
        read_clip(tmp_path / "none.mkv")


def test_limits_hold_before_a_clip_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "clip.mkv", noise(6, 32, 32), 25)
    with pytest.raises(InputError, match="6 frames; the limit is 5"):
        read_clip(tmp_path / "clip.mkv", Limits(max_frames=5))
    monkeypatch.setattr(clips, "MAX_BYTES", 6 * 32 * 32 * 3 - 1)
    with pytest.raises(InputError, match="would take 18,432 bytes of memory; the limit is 18,431"):
        read_clip(tmp_path / "clip.mkv")


def test_a_clip_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    for frames in (noise(2, 32, 32).astype(np.float32), noise(0, 32, 32), noise(32, 32)):
        with pytest.raises(InputError, match="must be uint8"):
            write_clip(tmp_path / "clip.mkv", frames, 25)
    for name, fps in (("clip.mp4", 25), ("clip.mkv", 0)):
        with pytest.raises(OptionError):
            write_clip(tmp_path / name, noise(2, 32, 32), fps)
    with pytest.raises(OutputError, match="choose a folder that exists"):
        write_clip(tmp_path / "none" / "clip.mkv", noise(2, 32, 32), 25)
    assert not list(tmp_path.iterdir())
