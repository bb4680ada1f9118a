"""Regions of pictures: their shape and place, and the pixels that are cut out of them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_rt.media import fit_image
from fye_rt.media.crop import SHIFT, Region

PICTURE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    """A picture whose levels rise evenly: red to the right, green downwards."""
    y, x = np.mgrid[:height, :width]
    return np.stack([200 * x / width, 200 * y / height, np.full((height, width), 50)], axis=-1).round().astype(np.uint8)


def test_a_region_of_the_clips_size_is_cut_out_as_it_is() -> None:
    np.testing.assert_array_equal(Region(7, 20, 64, 48).cut(PICTURE, (48, 64)), PICTURE[20:68, 7:71])


@pytest.mark.parametrize("width", [200, 100])
def test_what_was_cut_out_is_the_clips_own(width: int) -> None:
    picture = np.zeros((100, 200, 3), np.uint8)
    Region(0, 0, width, 100).cut(picture, (100, width))[:] = 255
    assert not picture.any()


def test_the_border_is_repeated_beyond_the_picture() -> None:
    part = Region(-10, 80, 30, 30).cut(PICTURE, (30, 30))
    np.testing.assert_array_equal(part[:10, 10:], PICTURE[80:, :20])
    np.testing.assert_array_equal(part[:10, :10], np.repeat(PICTURE[80:, :1], 10, axis=1))
    np.testing.assert_array_equal(part[10:], np.repeat(part[9:10], 20, axis=0))


def test_a_region_wholly_outside_shows_the_border() -> None:
    part = Region(500, 10, 8, 8).cut(PICTURE, (8, 8))
    np.testing.assert_array_equal(part, np.repeat(PICTURE[10:18, -1:], 8, axis=1))


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (128, 128)])
def test_a_resized_region_keeps_its_place(size: tuple[int, int]) -> None:
    picture = smooth(200, 200)
    part = Region(40, 60, 64, 64).cut(picture, size)
    x = 40 + (np.arange(size[1]) + 0.5) * 64 / size[1] - 0.5
    np.testing.assert_allclose(part[size[0] // 2, :, 0], x, atol=1.01)


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, -135.0])
def test_points_and_pixels_are_mapped_alike(angle: float) -> None:
    picture, region, size = smooth(200, 200), Region(60.0, 70.0, 60.0, 40.0, angle), (80, 120)
    part = region.cut(picture, size)
    for x, y in ((20, 10), (100, 70), (60, 40)):
        seen = region.to_picture(np.array([x + 0.5, y + 0.5]), size) - 0.5
        np.testing.assert_allclose(part[y, x, :2], seen, atol=1.6)
        np.testing.assert_allclose(region.from_picture(seen + 0.5, size), (x + 0.5, y + 0.5), atol=1e-9)


def test_a_region_turned_by_a_quarter_is_the_picture_turned_back() -> None:
    part = Region(20, 10, 64, 64, 90.0).cut(PICTURE, (64, 64))
    np.testing.assert_array_equal(part, np.rot90(PICTURE[10:74, 20:84]))


def test_the_region_around_a_face_has_its_scale_shape_and_shift() -> None:
    region = Region.around((100, 200, 40, 50), (96, 192), 2.0)
    assert (region.width, region.height) == (200, 100)
    assert region.left + region.width / 2 == 120
    assert region.top + region.height / 2 == pytest.approx(225 - SHIFT * 100, abs=1)
    assert float(region.left).is_integer() and float(region.top).is_integer()


def test_the_region_around_a_turned_face_is_shifted_towards_its_forehead() -> None:
    region = Region.around((100, 200, 40, 50), (64, 64), 2.0, angle=90.0)  # the forehead points to the right
    assert region.left + region.width / 2 == pytest.approx(120 + SHIFT * 100)
    assert region.top + region.height / 2 == pytest.approx(225)


@pytest.mark.parametrize(
    ("box", "size"), [((5, 6, 30, 10), (64, 64)), ((0, 0, 7, 9), (48, 80)), ((1, 2, 8, 8), (8, 8))]
)
def test_the_region_of_a_named_part_contains_it_and_has_the_clips_shape(
    box: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    region = Region.of_shape(box, size)
    left, top, width, height = box
    assert region.left <= left and region.left + region.width >= left + width
    assert region.top <= top and region.top + region.height >= top + height
    assert region.width / region.height == pytest.approx(size[1] / size[0], rel=0.1)
    assert region.width == width or region.height == height


@pytest.mark.parametrize("picture", [(90, 120), (120, 90), (64, 64), (7, 300)])
def test_the_fitted_region_is_what_a_fitted_picture_shows(picture: tuple[int, int]) -> None:
    image, size = smooth(*picture), (64, 96)
    fitted, region = fit_image(image, *size), Region.fitted(picture, size)
    inside = fitted[..., 2] == 50
    y, x = (round(float(values.mean())) for values in np.nonzero(inside))
    seen = region.to_picture(np.array([x + 0.5, y + 0.5]), size) - 0.5
    expected = 200 * seen / picture[::-1]
    np.testing.assert_allclose(fitted[y, x, :2], expected, atol=6)
    assert region.covers(picture) == (picture[0] * size[1] == picture[1] * size[0])
