import numpy as np
import pytest

from fye_bench.metrics.drift import drift
from fye_bench.metrics.seams import blended_borders, piece_borders, ratio, steps, warp_errors
from fye_rt import pieces, windows
from fye_rt.errors import InputError


def test_windows_without_overlap_have_a_border_between_them() -> None:
    plan = windows.blended_windows(72, "reference", 24, 0)
    assert np.flatnonzero(blended_borders(plan, 72)).tolist() == [23, 47]


def test_the_whole_of_a_cross_fade_is_a_border() -> None:
    plan = windows.blended_windows(44, "context", 24, 4)  # frames 20 to 23 are in both
    assert np.flatnonzero(blended_borders(plan, 44)).tolist() == [19, 20, 21, 22, 23]


def test_key_frames_have_a_border_on_either_side() -> None:
    clip = pieces.key_frame_pieces(40, 24)
    keys = clip[0].frames[1:-1].tolist()
    inner = {step for key in keys for step in (key - 1, key)}
    assert set(np.flatnonzero(piece_borders(clip, 40)).tolist()) == {0, 38} | inner


def test_a_stream_has_one_border_a_window() -> None:
    clip = tuple(pieces.live_pieces([24, 20, 6], 4))
    assert np.flatnonzero(piece_borders(clip, 50)).tolist() == [23, 43]


def test_the_seam_ratio_compares_borders_with_the_frames_beside_them() -> None:
    marks = np.zeros(19, np.bool_)
    marks[[4, 5, 14]] = True
    calm = np.where(marks, 3.0, 2.0)
    assert ratio([calm], [marks]) == pytest.approx(1.5)
    assert ratio([calm, np.ones(19)], [marks, marks]) == pytest.approx(12 / 9)
    rising = np.arange(19.0)  # more happens later, and borders are no worse for it
    assert ratio([rising], [marks]) == pytest.approx(1, abs=0.1)


def test_borders_at_the_ends_of_a_clip_are_left_out() -> None:
    marks = np.array([True, False, False, True])
    assert np.isnan(ratio([np.ones(4)], [marks])) and np.isnan(ratio([np.ones(4)], [np.zeros(4, np.bool_)]))
    with pytest.raises(InputError):
        ratio([np.ones(3)], [marks])


def moving(frames: int, speed: int) -> np.ndarray:
    texture = np.random.default_rng(0).integers(0, 256, (80, 200, 3), np.uint8)
    texture = np.stack([np.convolve(row, np.ones(9) / 9, "same") for row in texture.mean(-1)])[..., None]
    wide = np.repeat(texture, 3, axis=-1).astype(np.uint8)
    return np.stack([wide[:, speed * k : speed * k + 96] for k in range(frames)])


def test_a_steady_error_does_not_show_in_changes() -> None:
    true = moving(5, 2)
    made = np.minimum(true, 200) + np.uint8(20)
    assert steps(np.minimum(true, 200), np.minimum(true, 200)).max() == 0
    assert steps(made, np.minimum(true, 200)).max() == 0
    made[2] += 7
    assert steps(made, np.minimum(true, 200)).tolist() == pytest.approx([0, 7, 7, 0])


def test_a_clip_that_moves_as_the_truth_has_a_small_warp_error() -> None:
    true = moving(6, 3)
    right, jerky = warp_errors(true, true), warp_errors(true[[0, 1, 2, 2, 4, 5]], true)
    assert right.shape == (5,) and right.max() < 2
    assert jerky[2] > 4 * right[2] and jerky[3] > 4 * right[3]
    assert jerky[0] == right[0]


def test_drift_is_the_change_from_first_to_last_frame_over_the_mean() -> None:
    line = np.linspace(9.0, 11.0, 200)
    found = drift([line, line])
    assert found["mean"] == pytest.approx(0.2) and found["n"] == 2
    assert found["low"] == pytest.approx(0.2) and found["high"] == pytest.approx(0.2)
    noisy = [10 + np.random.default_rng(seed).standard_normal(200) for seed in range(4)]
    found = drift(noisy)
    assert found["low"] < 0 < found["high"] and found["high"] - found["low"] < 0.2


def test_drift_ignores_changes_that_both_clips_share() -> None:
    hard = 10 + 5 * np.sin(np.arange(200) / 40)
    found = drift([hard + np.linspace(0, 1, 200)], [hard])
    assert found["mean"] == pytest.approx(1 / hard.mean()) and found["low"] > 0.9 * found["mean"]
