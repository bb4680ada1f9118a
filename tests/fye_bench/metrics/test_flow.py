"""A clip's own flow tells movement from flicker."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_bench.metrics import flow as module
from fye_bench.metrics.flow import flow, moved, warp_error

Image = NDArray[np.uint8]


def texture(height: int, width: int) -> NDArray[np.float64]:
    """Smooth blobs of 30 to 225 levels."""
    noise = np.random.default_rng(0).standard_normal((height, width))
    kernel = np.exp(-0.5 * (np.arange(-9, 10) / 3.0) ** 2)
    for axis in (0, 1):
        noise = np.apply_along_axis(np.convolve, axis, noise, kernel, "same")
    return np.clip(128 + 40 * noise / noise.std(), 30, 225)


def moving(frames: int, speed: int) -> Image:
    wide = np.repeat(texture(96, 128 + frames * speed)[..., None], 3, axis=-1).astype(np.uint8)
    return np.stack([wide[:, speed * k : speed * k + 128] for k in range(frames)])


def test_a_flow_points_to_the_new_place_of_a_moved_object() -> None:
    first, second = moving(2, 3)
    inner = flow(first, second)[16:-16, 16:-16]
    assert np.abs(np.median(inner, axis=(0, 1)) - (-3, 0)).max() < 0.1
    shown = moved(second, flow(first, second))[16:-16, 16:-16]
    assert np.abs(shown.astype(int) - first[16:-16, 16:-16]).mean() < 1


def test_the_warp_error_ignores_movement_and_counts_flicker() -> None:
    clip = moving(5, 2)
    assert warp_error(clip) < 0.1
    assert warp_error(moving(5, 8)) < 0.1  # what comes in at the edge is left out
    for levels in (4, 16, 25):
        restless = clip.copy()
        restless[1::2] += np.uint8(levels)
        assert warp_error(restless) == pytest.approx(levels, abs=1)


def test_the_warp_error_grows_with_noise_without_bound() -> None:
    clip, random = moving(4, 1), np.random.default_rng(0)
    noise = random.standard_normal(clip.shape)
    found = [warp_error(np.clip(clip + level * noise, 0, 255).astype(np.uint8)) for level in (0, 5, 10, 20, 40)]
    assert found == sorted(found)
    assert found[4] > 1.5 * found[3] > 2 * found[2]  # a limit on the error itself would hold it below the limit


def test_occluded_areas_are_left_out_of_the_warp_error(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = np.repeat(moving(1, 0), 4, axis=0)
    for k in range(4):  # something slides over it
        clip[k, 24:72, 20 + 8 * k : 68 + 8 * k] = 255 - moving(1, 0)[0, 24:72, 20:68]
    found = warp_error(clip)
    monkeypatch.setattr(module, "_leads_back", lambda by, _: np.ones(by.shape[:2], np.bool_))
    assert found < 0.7 * warp_error(clip)


@pytest.mark.parametrize("side", [16, 64])
def test_a_still_picture_has_no_warp_error(side: int) -> None:
    clip = np.repeat(np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8), 3, axis=0)
    assert warp_error(clip) == 0


def test_a_single_frame_has_no_warp_error() -> None:
    assert np.isnan(warp_error(moving(1, 0)))
