import numpy as np
import pytest

from fye_training import face, masks
from fye_training.performance import perform, poses
from fye_training.shape import Shape
from fye_training.topology import BROWS, EYES, FACE_OVAL, LIPS

SIZE = (128, 128)


def pixels(size: tuple[int, int] = SIZE) -> np.ndarray:
    played = perform(2, 4, "calm") + poses(1, 8)
    return face.motion(Shape(), played, size).points[..., :2] * size[::-1]


def inside(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    columns, rows = np.floor(points).astype(int).T
    return mask[rows, columns]


def test_a_square_of_points_fills_its_area() -> None:
    points = np.zeros((1, 478, 2))
    angle = np.linspace(0.0, 2.0 * np.pi, len(FACE_OVAL), endpoint=False)
    points[0, FACE_OVAL] = 64.0 + 40.0 * np.stack((np.cos(angle), np.sin(angle)), axis=-1)
    mask = masks.face_mask(points, SIZE)
    assert mask.dtype == np.float32 and mask.shape == (1, *SIZE) and set(np.unique(mask)[[0, -1]]) == {0.0, 1.0}
    # the 36-gon's area; drawn lines are up to half a pixel wide of it
    area = 36 / 2 * 40.0**2 * np.sin(2.0 * np.pi / 36)
    assert mask.sum() == pytest.approx(area, abs=0.75 * 2.0 * np.pi * 40.0)
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
    assert all(
        inside(mask, frame[[1, 9, 13, 159, 386]]).min() == 1.0 for mask, frame in zip(faces, points, strict=True)
    )
    assert faces[:, 0, 0].max() == 0.0
    share = expressions.mean(axis=(1, 2)) / faces.mean(axis=(1, 2))
    assert (share > 0.08).all() and (share < 0.6).all()


def test_points_outside_the_picture_are_cut_off() -> None:
    points = pixels() + np.array((90.0, -70.0))
    assert masks.face_mask(points, SIZE).shape == (len(points), *SIZE)
    assert masks.face_mask(points, SIZE)[:, 100:].max() == 0.0


def test_latent_masks_are_area_averages() -> None:
    mask = np.zeros((1, 16, 24), np.float32)
    mask[0, :8, :4] = 1.0
    mask[0, 8:, 16:] = 0.25
    np.testing.assert_array_equal(masks.to_latent(mask), [[[0.5, 0.0, 0.0], [0.0, 0.0, 0.25]]])
