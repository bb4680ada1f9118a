from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fye_training import face, masks
from fye_training.performance import perform, poses
from fye_training.shape import Shape
from fye_training.topology import BROWS, EYES, FACE_OVAL, LIPS, Array

pytestmark = pytest.mark.usefixtures("opencv")

SIZE = (128, 128)


def pixels(size: tuple[int, int] = SIZE) -> np.ndarray:
    played = perform(2, 4, "calm") + poses(1, 8)
    return face.motion(Shape(), played, size).points[..., :2] * size[::-1]


def inside(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    columns, rows = np.floor(points).astype(int).T
    return mask[rows, columns]


@pytest.mark.parametrize("radius", [8.0, 20.3, 40.0])
def test_a_polygon_of_points_fills_its_area(radius: float) -> None:
    points = np.zeros((1, 478, 2))
    angle = np.linspace(0.0, 2.0 * np.pi, len(FACE_OVAL), endpoint=False)
    points[0, FACE_OVAL] = 64.0 + radius * np.stack((np.cos(angle), np.sin(angle)), axis=-1)
    mask = masks.face_mask(points, SIZE)
    assert mask.dtype == np.float32 and mask.shape == (1, *SIZE) and set(np.unique(mask)[[0, -1]]) == {0.0, 1.0}
    # the 36-gon's area, and two thirds of a pixel all around it: OpenCV centres an anti-aliased line on the edge
    area = 36 / 2 * radius**2 * np.sin(2.0 * np.pi / 36)
    assert (mask.sum() - area) / (2.0 * np.pi * radius) == pytest.approx(2 / 3, abs=0.05)
    rows, columns = np.indices(SIZE) + 0.5
    assert (mask[0] * columns).sum() / mask.sum() == pytest.approx(64.0, abs=0.1)
    assert (mask[0] * rows).sum() / mask.sum() == pytest.approx(64.0, abs=0.1)


def test_the_expression_mask_holds_eyes_brows_and_mouth_with_a_margin() -> None:
    points = pixels()
    for frame, mask in zip(points, masks.expression_mask(points, SIZE), strict=True):
        margin = masks.DILATION * np.linalg.norm(frame[10] - frame[152])
        for region in (*EYES, *BROWS, LIPS):
            outwards = frame[region] - frame[region].mean(axis=0)
            outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
            # two pixels less: the rounded width of the line, and the hull's corners
            moved = frame[region] + outwards * max(margin - 2.0, 0.0)
            moved = moved[((moved >= 0.0) & (moved < 128.0)).all(axis=1)]
            assert inside(mask, moved).min() > 0.5
    for frame, mask in zip(points[:4], masks.expression_mask(points[:4], SIZE), strict=True):
        # chin, ears, nose; the first four frames look ahead
        assert inside(mask, frame[[152, 234, 454, 5]]).max() == 0.0


def test_the_face_mask_holds_the_features_and_not_the_corners() -> None:
    points = pixels()
    faces, expressions = masks.face_mask(points, SIZE), masks.expression_mask(points, SIZE)
    features = [1, 9, 13, 159, 386]
    assert all(inside(mask, frame[features]).min() == 1.0 for mask, frame in zip(faces, points, strict=True))
    assert faces[:, 0, 0].max() == 0.0
    share = expressions.mean(axis=(1, 2)) / faces.mean(axis=(1, 2))
    assert (share > 0.08).all() and (share < 0.6).all()


def test_the_expression_lies_within_the_face_but_for_its_margin() -> None:
    points = pixels()
    expressions = masks.expression_mask(points, SIZE)
    middle = points[:, 5, None]  # the ridge of the nose
    grown = masks.face_mask(middle + (points - middle) * 1.05, SIZE)
    outside = np.maximum(expressions - grown, 0.0).sum(axis=(1, 2)) / expressions.sum(axis=(1, 2))
    assert outside[:4].max() < 0.002  # the first four frames look ahead
    assert outside.max() < 0.1  # the far brow of a turned head passes the oval


@settings(max_examples=25, deadline=None)
@given(x=st.integers(-12, 12), y=st.integers(-12, 12), mask=st.sampled_from((masks.face_mask, masks.expression_mask)))
def test_a_face_partly_outside_the_picture_is_cut_off_at_its_border(
    x: int, y: int, mask: Callable[[Array, tuple[int, int]], masks.Mask]
) -> None:
    points, (dx, dy) = pixels(), (8 * x, 8 * y)
    cut = mask(points + np.array((dx, dy)), SIZE)
    whole = mask(points + 100.0, (328, 328))
    shown = whole[:, 100 - dy : 228 - dy, 100 - dx : 228 - dx]
    # OpenCV clips lines at the border, which changes up to three pixels beside it, and a line's edges by a few 255ths
    np.testing.assert_allclose(cut[:, 3:-3, 3:-3], shown[:, 3:-3, 3:-3], atol=0.04)
    assert cut.min() >= 0.0 and cut.max() <= 1.0


def test_a_face_far_outside_the_picture_leaves_nothing() -> None:
    for offset in (300.0, -300.0, 1e5):
        assert not masks.face_mask(pixels() + offset, SIZE).any()
        assert not masks.expression_mask(pixels() + offset, SIZE).any()


def test_a_frame_has_its_own_mask() -> None:
    points = pixels()
    for mask in (masks.face_mask, masks.expression_mask):
        np.testing.assert_array_equal(mask(points[3:4], SIZE), mask(points, SIZE)[3:4])


def test_latent_masks_are_area_averages() -> None:
    mask = np.zeros((1, 16, 24), np.float32)
    mask[0, :8, :4] = 1.0
    mask[0, 8:, 16:] = 0.25
    np.testing.assert_array_equal(masks.to_latent(mask), [[[0.5, 0.0, 0.0], [0.0, 0.0, 0.25]]])


@settings(max_examples=25, deadline=None)
@given(mask=arrays(np.float32, (2, 16, 24), elements=st.floats(0, 1, width=32)))
def test_latent_masks_keep_the_mean_and_the_range(mask: masks.Mask) -> None:
    latent = masks.to_latent(mask)
    assert latent.shape == (2, 2, 3) and latent.dtype == np.float32
    assert latent.min() >= 0.0 and latent.max() <= 1.0
    np.testing.assert_allclose(latent.mean(axis=(1, 2)), mask.mean(axis=(1, 2)), atol=1e-6)  # sums in float32
