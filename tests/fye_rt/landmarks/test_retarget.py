import dataclasses

import numpy as np
import pytest

from fye_rt.errors import InputError
from fye_rt.landmarks import Motion, Retargeter, retarget
from fye_rt.landmarks.motion import neutral_frame
from fye_rt.landmarks.retarget import aligned_pose, project
from fye_rt.landmarks.rotation import matrix_to_euler


def check(computed: np.ndarray, recorded: np.ndarray) -> None:
    """Bit for bit where LAPACK orthonormalises with the instructions it did when the reference was recorded.

    With others its singular vectors differ in the last bit, and what follows from them in two or three.
    """
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    ulp = 0 if {"AVX512_SKX", "X86_V4"} & set(found) else 8  # 3 were the most seen
    np.testing.assert_allclose(computed, recorded, rtol=0, atol=ulp * np.spacing(np.abs(recorded).max()))


def test_every_intermediate_of_the_reference_is_reproduced(portrait: Motion, motion: Motion, recorded: dict) -> None:
    neutral = neutral_frame(motion)
    assert neutral == recorded["min_bs_idx"]
    check(matrix_to_euler(motion.pose[:, :3, :3]), recorded["pose_arr"][:, :3])
    pose = aligned_pose(portrait, motion, motion.pose[0, :3, 3])
    np.testing.assert_array_equal(pose[:, :3, 3], recorded["pose_arr"][:, 3:])
    check(pose, recorded["pose_mats"])
    mesh = motion.mesh - motion.mesh[neutral] + portrait.mesh[0]
    check(project(mesh, pose, (256, 256)), recorded["projected"])


def test_retargeted_points_are_the_reference_s(portrait: Motion, motion: Motion, recorded: dict) -> None:
    check(retarget(portrait, motion, (256, 256)), recorded["keypoints478"])


def test_retargeting_frame_by_frame_gives_the_same_points(portrait: Motion, motion: Motion) -> None:
    whole = retarget(portrait, motion, (256, 192))
    bits = Retargeter(portrait, motion, (256, 192))
    np.testing.assert_array_equal(np.concatenate([bits.points(motion[k : k + 1]) for k in range(10)]), whole)
    # of less the rest is not known: the first frames say what the face is at rest
    first = Retargeter(portrait, motion[:1], (256, 192))
    np.testing.assert_array_equal(first.points(motion[:1]), retarget(portrait, motion[:1], (256, 192)))


def test_retargeting_drops_the_first_frame_only_if_asked(portrait: Motion, motion: Motion) -> None:
    every = retarget(portrait, motion, (192, 320))
    assert every.shape == (10, 478, 2)
    np.testing.assert_array_equal(retarget(portrait, motion, (192, 320), drop_first=True), every[1:])


def test_a_motion_of_one_frame_works_unless_its_only_frame_would_be_dropped(portrait: Motion, motion: Motion) -> None:
    assert retarget(portrait, motion[:1], (256, 256)).shape == (1, 478, 2)
    with pytest.raises(InputError, match='windows="context"'):
        retarget(portrait, motion[:1], (256, 256), drop_first=True)


def test_a_portrait_of_several_frames_is_refused(motion: Motion) -> None:
    with pytest.raises(InputError, match="10 frames"):
        retarget(motion, motion, (256, 256))


def test_a_portrait_that_drives_itself_returns_to_its_own_landmarks(portrait: Motion) -> None:
    points = retarget(portrait, portrait, (256, 256))[0]
    # 0.05 px: the accidental 1.0001 of the reference's projection, at up to 128 px from the centre, and its rounding
    np.testing.assert_allclose(points, portrait.points[0, :, :2] * 256, atol=0.05)


def test_a_face_behind_the_camera_is_refused_with_its_frame(portrait: Motion, motion: Motion) -> None:
    pose = motion.pose.copy()
    pose[3, 2, 3] += 60.0
    with pytest.raises(InputError, match="frame 3 of the motion moves the face through the camera"):
        retarget(portrait, dataclasses.replace(motion, pose=pose), (256, 256))


def test_a_closed_eye_without_extent_gives_finite_points(portrait: Motion, motion: Motion) -> None:
    flat = dataclasses.replace(motion, points=np.full_like(motion.points, 0.5))
    assert np.isfinite(retarget(portrait, flat, (256, 256))).all()
