import json
from pathlib import Path

import numpy as np
import pytest

from fye_rt.errors import InputError
from fye_rt.landmarks import Motion, draw, face_region, landmark_images, overlay
from fye_rt.landmarks.draw import EDGES, IRIS_COLOUR, IRIS_HALF_WIDTH, IRIS_POINTS


def test_edges_and_iris_points_are_the_reference_s(data: Path) -> None:
    spec = json.loads((data / "landmarks" / "landmark_draw_spec.json").read_text())
    assert [[a, b, list(colour), 1] for a, b, colour in EDGES] == spec["connections_a_b_color_thickness"]
    assert list(IRIS_POINTS) == spec["iris_points"]
    assert list(IRIS_COLOUR) == spec["iris_color"]
    assert spec["iris_halfwidth"] == IRIS_HALF_WIDTH


@pytest.mark.usefixtures("opencv")
@pytest.mark.parametrize(("size", "name"), [((256, 256), "aligned_images"), ((192, 320), "aligned_images_320x192")])
def test_landmark_images_are_the_reference_s_pixel_for_pixel(
    portrait: Motion, motion: Motion, recorded: dict, size: tuple[int, int], name: str
) -> None:
    np.testing.assert_array_equal(landmark_images(portrait, motion, size, drop_first=True), recorded[name])


def only(points: dict[int, tuple[float, float]]) -> np.ndarray:
    """One frame whose other points all lie outside the picture."""
    frame = np.full((1, 478, 2), -100.0)
    for index, place in points.items():
        frame[0, index] = place
    return frame


@pytest.mark.usefixtures("opencv")
def test_an_edge_is_drawn_only_if_both_ends_are_inside() -> None:
    start, end, colour = EDGES[26]
    image = draw(only({start: (2.0, 4.0), end: (8.0, 4.0)}), (10, 10))[0]
    assert (image[4, 2:9] == colour).all() and np.count_nonzero(image.any(axis=2)) == 7
    assert not draw(only({start: (2.0, 4.0), end: (10.1, 4.0)}), (10, 10)).any()
    # a point exactly on the far border belongs to the last pixel
    assert (draw(only({start: (2.0, 4.0), end: (10.0, 4.0)}), (10, 10))[0, 4, 2:] == colour).all()


@pytest.mark.usefixtures("opencv")
@pytest.mark.parametrize(
    ("place", "rows", "columns"),
    [
        ((20.9, 10.2), slice(7, 13), slice(17, 23)),
        ((3.0, 3.0), slice(0, 6), slice(0, 6)),
        ((2.9, 10.0), slice(0, 0), slice(0, 0)),
        ((-9.0, 10.0), slice(0, 0), slice(0, 0)),
        ((41.0, 30.0), slice(27, 30), slice(38, 40)),
        ((43.0, 10.0), slice(0, 0), slice(0, 0)),
        ((np.nan, np.inf), slice(0, 0), slice(0, 0)),
    ],
)
def test_an_iris_is_cut_only_at_the_far_borders(place: tuple[float, float], rows: slice, columns: slice) -> None:
    expected = np.zeros((30, 40, 3), np.uint8)
    expected[rows, columns] = (255, 0, 0)
    np.testing.assert_array_equal(draw(only({468: place}), (30, 40))[0], expected)


def test_points_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(F, 478, 2\)"):
        draw(np.zeros((478, 2)), (8, 8))


@pytest.mark.usefixtures("opencv")
def test_an_overlay_marks_the_landmarks_and_leaves_the_picture_alone(portrait: Motion) -> None:
    image = np.full((64, 64, 3), 128, np.uint8)
    marked = overlay(image, portrait.points[0, :, :2] * 64)
    assert (image == 128).all()
    changed = (marked != image).any(axis=2)
    x, y = (portrait.points[0, 4, :2] * 64).astype(int)  # the tip of the nose carries a dot and no edge
    assert tuple(marked[y, x]) == (0, 255, 0)
    assert 100 < changed.sum() < 64 * 64 / 2


def test_the_face_region_is_the_hull_and_two_latent_pixels_more() -> None:
    images = np.zeros((3, 96, 128, 3), np.uint8)
    # corners of a rectangle: latent rows 3 to 5, columns 5 to 8
    images[0, [24, 24, 47, 47], [40, 71, 40, 71]] = (0, 9, 0)
    images[1, 95, 0, 2] = 1
    region = face_region(images)
    assert region.shape == (3, 12, 16) and region.dtype == np.bool_
    expected = np.zeros((12, 16), np.bool_)
    expected[1:8, 3:11] = True
    np.testing.assert_array_equal(region[0], expected)
    assert region[1].sum() == 9 and region[1, -3:, :3].all()  # what lies outside the picture is left out
    assert not region[2].any()
