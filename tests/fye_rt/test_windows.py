import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fye_rt.errors import OptionError
from fye_rt.options import BLENDED
from fye_rt.windows import blended_windows, uniform


@st.composite
def clips(draw: st.DrawFn) -> tuple[int, int, int]:
    size = draw(st.integers(1, 32))
    return draw(st.integers(1, 2000)), size, draw(st.integers(0, size - 1))


@pytest.mark.parametrize("kind", BLENDED)
@given(clip=clips())
def test_every_frame_is_covered_with_weights_that_sum_to_one(kind: str, clip: tuple[int, int, int]) -> None:
    frames, size, overlap = clip
    total = np.zeros(frames)
    for window in blended_windows(frames, kind, size, overlap):
        assert len(window.frames) == len(window.weights) == min(size, frames)
        assert len(set(window.frames.tolist())) == len(window.frames)
        assert (window.weights > 0).all()
        total[window.frames] += window.weights
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-14)  # float64 sums of at most 32 shares


@pytest.mark.parametrize("kind", ["context", "tiles"])
@given(clip=clips())
def test_windows_run_forward_without_wrapping_and_share_what_was_asked(kind: str, clip: tuple[int, int, int]) -> None:
    frames, size, overlap = clip
    windows = blended_windows(frames, kind, size, overlap)
    for window in windows:
        assert (np.diff(window.frames) == 1).all()
    starts = [int(window.frames[0]) for window in windows]
    assert starts[0] == 0
    assert windows[-1].frames[-1] == frames - 1
    steps = np.diff(starts)
    assert (steps[:-1] == size - overlap).all()
    assert (steps > 0).all()
    assert (steps <= size - overlap).all()


@given(clip=clips())
def test_only_the_last_reference_window_wraps(clip: tuple[int, int, int]) -> None:
    frames, size, overlap = clip
    windows = blended_windows(frames, "reference", size, overlap)
    for number, window in enumerate(windows):
        expected = np.arange(number * size, number * size + min(size, frames))
        np.testing.assert_array_equal(window.frames, expected % frames)
        assert number == len(windows) - 1 or expected[-1] < frames


@pytest.mark.parametrize("kind", BLENDED)
@pytest.mark.parametrize("frames", [1, 7, 24])
def test_a_clip_that_fits_is_one_window_with_weights_of_exactly_one(kind: str, frames: int) -> None:
    (window,) = blended_windows(frames, kind, 24, 4)
    assert window.frames.tolist() == list(range(frames))
    assert window.weights.tolist() == [1.0] * frames


def test_uniform_gives_every_recorded_list(data: Path) -> None:
    recorded = json.loads((data / "schedule" / "context_windows.json").read_text())["uniform"]
    assert len(recorded) > 100
    names = ("num_frames", "context_size", "context_stride", "context_overlap", "step", "closed_loop")
    for case in recorded:
        assert uniform(*(case[name] for name in names)) == case["windows"], case


def test_reference_windows_match_the_public_pipeline(data: Path) -> None:
    recorded = json.loads((data / "schedule" / "context_windows.json").read_text())["as_called_by___call__"]
    assert len(recorded) == 20
    for case in recorded:
        windows = blended_windows(case["num_frames"], "reference", case["context_frames"], 4)
        assert [window.frames.tolist() for window in windows] == case["windows"]


def test_frames_that_the_reference_predicts_twice_are_averaged() -> None:
    first, last = blended_windows(40, "reference", 24, 4)
    assert first.weights.tolist() == [0.5] * 8 + [1.0] * 16
    assert last.weights.tolist() == [1.0] * 16 + [0.5] * 8


def test_tiles_match_forward_long(data: Path) -> None:
    recorded = json.loads((data / "schedule" / "context_windows.json").read_text())["forward_long_tiles"]
    assert len(recorded) == 7
    for case in recorded:
        tiles = blended_windows(case["num_frames"], "tiles", case["t_tile_length"], case["t_tile_overlap"])
        ends = [[int(tile.frames[0]), int(tile.frames[-1]) + 1] for tile in tiles]
        assert ends == case["tiles_start_end"]


def test_tile_weights_are_the_gaussian_of_forward_long() -> None:
    length, variance = 8, 0.01
    t = np.arange(length)
    gaussian = np.exp(-((t - (length - 1) / 2) ** 2) / length**2 / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    left, right = blended_windows(13, "tiles", 8, 3)
    np.testing.assert_allclose(left.weights[5:], gaussian[5:] / (gaussian[5:] + gaussian[:3]), rtol=1e-13)
    np.testing.assert_allclose(right.weights[:3], gaussian[:3] / (gaussian[5:] + gaussian[:3]), rtol=1e-13)


def test_context_windows_cross_fade_linearly() -> None:
    left, right = blended_windows(44, "context", 24, 4)
    assert right.frames[0] == 20
    np.testing.assert_allclose(left.weights, [1.0] * 20 + [0.8, 0.6, 0.4, 0.2], rtol=1e-15)
    np.testing.assert_allclose(right.weights, [0.2, 0.4, 0.6, 0.8] + [1.0] * 20, rtol=1e-15)


def test_the_last_context_window_is_moved_back_and_shares_more() -> None:
    left, right = blended_windows(40, "context", 24, 4)
    assert right.frames.tolist() == list(range(16, 40))
    np.testing.assert_allclose(right.weights[:8], np.arange(1, 9) / 9, rtol=1e-15)
    np.testing.assert_allclose(left.weights[16:], np.arange(8, 0, -1) / 9, rtol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0, "context", 24, 4), "frames=0"),
        ((8, "context", 33, 4), "window_size=33"),
        ((8, "context", 0, 0), "window_size=0"),
        ((8, "tiles", 8, 8), "window_overlap=8"),
        ((8, "context", 8, -1), "window_overlap=-1"),
        ((8, "spiral", 8, 0), "windows='spiral' is not valid; allowed: context, reference, tiles"),
    ],
)
def test_impossible_windows_are_refused_by_name(arguments: tuple[int, str, int, int], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        blended_windows(*arguments)
