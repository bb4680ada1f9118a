"""A mirrored motion is that of the mirrored picture."""

from pathlib import Path

import numpy as np
import pytest

from fye_rt.landmarks import detect_image, retarget
from fye_rt.landmarks.mirror import mirrored
from fye_rt.landmarks.motion import Motion


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    picture: np.ndarray = pytest.importorskip("skimage.data").astronaut()[:256, 96:352]
    return picture


@pytest.fixture(scope="module")
def motion(face: np.ndarray, landmarker: Path) -> Motion:
    return detect_image(face, landmarker)


def test_landmarks_of_a_mirrored_picture_are_the_mirrored_landmarks(
    face: np.ndarray, motion: Motion, landmarker: Path
) -> None:
    seen = detect_image(np.ascontiguousarray(face[:, ::-1]), landmarker)
    other = mirrored(motion)
    # the networks are not symmetric: 1.5 pixels of 256 for the mesh, 1.7 for the irises
    np.testing.assert_allclose(other.points[..., :2], seen.points[..., :2], atol=0.008)
    np.testing.assert_allclose(other.mesh, seen.mesh, atol=0.5)
    np.testing.assert_allclose(other.pose[0, :3, :3], seen.pose[0, :3, :3], atol=0.05)
    assert np.corrcoef(other.blendshapes[0], seen.blendshapes[0])[0, 1] > 0.95


def test_a_motion_mirrored_twice_is_itself(motion: Motion) -> None:
    again = mirrored(mirrored(motion))
    np.testing.assert_allclose(again.points, motion.points, atol=1e-12)
    for name in ("mesh", "pose", "blendshapes"):
        assert np.array_equal(getattr(again, name), getattr(motion, name))


def test_a_mirrored_face_drives_a_mirrored_portrait_to_mirrored_points(motion: Motion) -> None:
    points = retarget(motion, motion, (256, 256))
    other = retarget(mirrored(motion), mirrored(motion), (256, 256))
    expected = mirrored(motion).points[..., :2] * 256
    assert np.abs(other - expected).max() < 1.0
    assert abs(float(points[..., 0].mean() + other[..., 0].mean()) - 256) < 0.1
