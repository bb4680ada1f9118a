"""Pasting: what is outside of the mask keeps its bytes, and the portrait itself gives the picture again."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_rt.media.crop import Region
from fye_rt.media.paste import Paste, feathered, shape_of

SIZE = (64, 64)
REGIONS = [(20, 10, 64, 64), (20, 10, 40, 40), (5, 6, 100, 100), (-20, 30, 64, 64), (40.5, 10.25, 50.5, 50.5)]
FACE = np.array([[20.0, 20], [44, 20], [44, 50], [20, 50]])


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = pytest.importorskip("skimage.data").astronaut()[::4, ::4]
    return np.ascontiguousarray(image)


def pasting(
    picture: NDArray[np.uint8], region: Region, kind: str = "oval", feather: float = 0.3, color: str = "none"
) -> Paste:
    mask = feathered(shape_of(kind, SIZE, FACE), feather)
    return Paste(picture, region, region.cut(picture, SIZE), mask, color)


@pytest.mark.parametrize("box", REGIONS)
@pytest.mark.parametrize("angle", [0.0, 17.0, 90.0])
@pytest.mark.parametrize("kind", ["box", "oval", "face"])
def test_the_portrait_pasted_back_is_the_picture(
    picture: NDArray[np.uint8], box: tuple[float, float, float, float], angle: float, kind: str
) -> None:
    region = Region(*box, angle)
    for color in ("none", "mean"):
        paste = pasting(picture, region, kind, color=color)
        assert paste.rectangle[2] > 0
        np.testing.assert_array_equal(paste(region.cut(picture, SIZE)), picture)


@pytest.mark.parametrize("feather", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("angle", [0.0, 30.0])
@pytest.mark.parametrize("kind", ["box", "oval", "face"])
def test_a_frame_changes_nothing_outside_of_the_mask(
    picture: NDArray[np.uint8], kind: str, angle: float, feather: float
) -> None:
    region = Region(30, 20, 48, 48, angle)
    frame = 255 - region.cut(picture, SIZE)
    paste = pasting(picture, region, kind, feather)
    changed = (paste(frame) != picture).any(axis=-1)
    y, x = np.nonzero(changed)
    points = region.from_picture(np.stack([x, y], axis=-1) + 0.5, SIZE)
    shape = np.pad(shape_of(kind, SIZE, FACE), 2)
    near = np.any([np.roll(shape, (dy, dx), (0, 1)) for dy in range(-2, 3) for dx in range(-2, 3)], axis=0)
    assert changed.any()
    assert near[tuple(np.floor(points + 2).astype(int).T[::-1])].all()  # pixels at the edge are in the mask in part
    left, top, width, height = paste.rectangle
    assert not np.delete(changed, slice(top, top + height), axis=0).any()
    assert not np.delete(changed, slice(left, left + width), axis=1).any()


def test_a_frame_of_the_pictures_scale_is_pasted_as_it_is(picture: NDArray[np.uint8]) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)
    pasted = pasting(picture, Region(10, 20, 64, 64), "box", 0.0)(frame)
    np.testing.assert_array_equal(pasted[20:84, 10:74], frame)


@pytest.mark.parametrize("angle", [0.0, 25.0])
def test_where_a_frame_differs_it_hides_the_picture(picture: NDArray[np.uint8], angle: float) -> None:
    region = Region(20, 20, 90, 90, angle)
    frame = np.full((*SIZE, 3), 255, np.uint8)
    frame[:, :, 2] = 0
    paste = pasting(picture, region, "box", 0.0)
    np.testing.assert_array_equal(paste(frame)[60:70, 60:70], np.broadcast_to((255, 255, 0), (10, 10, 3)))


def test_detail_of_the_picture_stays_where_a_frame_does_not_differ(picture: NDArray[np.uint8]) -> None:
    region = Region(14, 14, 96, 96)
    frame = region.cut(picture, SIZE)
    frame[40:] = 128
    pasted = pasting(picture, region, "box", 0.0)(frame)
    np.testing.assert_array_equal(pasted[14:60, 14:110], picture[14:60, 14:110])
    assert (pasted[90:105, 20:100] == 128).all()


def test_a_mean_colour_is_that_of_the_picture_at_the_edge(picture: NDArray[np.uint8]) -> None:
    region = Region(20, 10, 64, 64)
    frame = region.cut(picture, SIZE) // 2
    plain, adapted = (pasting(picture, region, "oval", 0.5, color)(frame).astype(int) for color in ("none", "mean"))
    ring = (np.hypot(*(np.mgrid[:64, :64] - 31.5)) > 22)[..., None] & np.ones((1, 1, 3), bool)
    under = picture[10:74, 20:84].astype(int)
    errors = [abs((image[10:74, 20:84] - under)[ring].mean()) for image in (plain, adapted)]
    assert errors[1] < errors[0] / 2


def test_a_cut_out_frame_over_the_picture_is_the_pasted_frame(picture: NDArray[np.uint8]) -> None:
    region = Region(20, 10, 64, 64)
    frame = 255 - region.cut(picture, SIZE)
    paste = pasting(picture, region)
    layer = paste.cut_out(frame)
    assert layer.shape == (*picture.shape[:2], 4) and not layer[layer[..., 3] == 0].any()
    alpha = layer[..., 3:] / 255
    over = layer[..., :3] * alpha + picture * (1 - alpha)
    np.testing.assert_allclose(over, paste(frame), atol=1.1)


def test_several_frames_are_pasted_over_each_other(picture: NDArray[np.uint8]) -> None:
    first, second = (pasting(picture, Region(x, 20, 40, 40), "box", 0.0) for x in (5, 70))
    white, black = np.full((*SIZE, 3), 255, np.uint8), np.zeros((*SIZE, 3), np.uint8)
    canvas = first(white)
    second.onto(canvas, black)
    assert (canvas[30, 10] == 255).all() and (canvas[30, 90] == 0).all()
    np.testing.assert_array_equal(canvas[70:], picture[70:])


def test_a_region_outside_of_the_picture_changes_nothing(picture: NDArray[np.uint8]) -> None:
    region = Region(1000, 10, 64, 64)
    paste = pasting(picture, region)
    assert paste.rectangle[2:] == (0, 0)
    np.testing.assert_array_equal(paste(np.zeros((*SIZE, 3), np.uint8)), picture)
    assert not paste.cut_out(np.zeros((*SIZE, 3), np.uint8)).any()


@pytest.mark.parametrize("kind", ["box", "oval", "face"])
def test_a_soft_edge_falls_smoothly_to_nothing_within_the_shape(kind: str) -> None:
    shape = shape_of(kind, (64, 96), FACE)
    hard, soft = feathered(shape, 0.0), feathered(shape, 0.5)
    np.testing.assert_array_equal(hard > 0, shape)
    assert set(np.unique(hard)) <= {0.0, 1.0}
    assert not soft[~shape].any() and (soft <= hard).all() and soft.max() > 0.99
    assert np.abs(np.diff(soft, axis=0)).max() < 0.25 and np.abs(np.diff(soft, axis=1)).max() < 0.25


def test_a_face_mask_contains_all_landmarks_and_ends_before_the_clip_does() -> None:
    shape = shape_of("face", SIZE, FACE)
    assert shape[tuple(FACE.astype(int).T[::-1])].all()
    assert not shape[0].any() and not shape[:, 0].any()
    with pytest.raises(ValueError, match="needs its landmarks"):
        shape_of("face", SIZE)
