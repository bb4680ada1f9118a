"""Cuts of a driving video are told from what a head can do, on a real talking head and on drawn performances."""

import dataclasses
from functools import reduce

import numpy as np
import pytest

from fye_rt.landmarks import Motion, cut_notices
from fye_rt.landmarks.motion import find_cuts
from fye_training import face, performance
from fye_training.performance import Performance, perform, resting
from fye_training.shape import Shape

ARRAYS = ("points", "mesh", "pose", "blendshapes")
SIZE = (256, 256)
HEAD = face.talking_head()  # 120 frames, 30 a second
OTHER = Shape(face_width=1.5, face_length=-1.0, jaw_width=1.5, eye_spacing=1.0, nose_length=1.5, mouth_width=1.0)


def frames_of(motion: Motion, chosen: np.ndarray, fps: float) -> Motion:
    """These frames, evenly spaced."""
    fields = {name: getattr(motion, name)[chosen] for name in (*ARRAYS, "valid")}
    return dataclasses.replace(motion, **fields, times=np.arange(len(chosen)) / fps, fps=fps)


def joined(first: Motion, then: Motion, fps: float = 30.0) -> Motion:
    fields = {name: np.concatenate((getattr(first, name), getattr(then, name))) for name in (*ARRAYS, "valid")}
    return dataclasses.replace(first, **fields, times=np.arange(len(fields["points"])) / fps, fps=fps)


def framed(motion: Motion, scale: float = 1.0, right: float = 0.0) -> Motion:
    """Another framing: the picture enlarged around the face, and moved by parts of its width."""
    points = motion.points.copy()
    centre = points[:, :, :2].mean(axis=(0, 1))
    points[..., :2] = (points[..., :2] - centre) * scale + centre + (right, 0.0)
    return dataclasses.replace(motion, points=points)


def played(shape: Shape, acted: Performance, fps: float = 25.0, height: float = 0.5) -> Motion:
    return face.motion(shape, acted, SIZE, face.placement(shape, SIZE, height=height), fps)


@pytest.mark.parametrize("fps", [10.0, 25.0, 30.0, 60.0])
@pytest.mark.parametrize("place", [(0.3, 0.15), (0.65, 0.0), (0.5, -0.25)])
def test_a_cut_to_another_person_is_found_at_its_first_frame(fps: float, place: tuple[float, float]) -> None:
    height, right = place
    talking = played(Shape(), perform(1, 60, "talking"))
    other = framed(played(OTHER, perform(2, 60, "calm"), height=height), right=right)
    assert find_cuts(joined(talking, other, fps)) == [60]
    assert find_cuts(joined(other, talking, fps)) == [60]


def test_cuts_to_and_from_a_still_portrait_are_found() -> None:
    still = played(OTHER, resting(40))
    assert find_cuts(joined(joined(HEAD[:60], still), HEAD[60:])) == [60, 100]


@pytest.mark.parametrize("change", [{"scale": 0.6}, {"scale": 1.5}, {"right": 0.3}, {"scale": 1.4, "right": -0.2}])
def test_a_cut_to_another_framing_of_the_same_person_is_found(change: dict[str, float]) -> None:
    assert find_cuts(joined(HEAD[:70], framed(HEAD[70:], **change))) == [70]


def test_several_cuts_are_all_found() -> None:
    parts = [framed(HEAD[start : start + 30], right=0.3 * (start % 60 > 0)) for start in (0, 30, 60, 90)]
    assert find_cuts(reduce(joined, parts)) == [30, 60, 90]


@pytest.mark.parametrize("stride", [1, 2, 3, 6, 15, 30])
def test_a_talking_head_has_no_cut_at_30_to_1_frames_a_second(stride: int) -> None:
    assert find_cuts(HEAD[::stride]) == []


@pytest.mark.parametrize("repeats", [2, 3, 6])
def test_repeated_frames_and_the_steps_between_them_are_no_cuts(repeats: int) -> None:
    chosen = np.repeat(np.arange(0, 120, repeats), repeats)
    assert find_cuts(frames_of(HEAD, chosen, 30.0)) == []


@pytest.mark.parametrize("seed", range(6))
def test_jumpy_videos_that_lost_frames_have_no_cuts(seed: int) -> None:
    random = np.random.default_rng(seed)
    kept = np.flatnonzero(random.random(120) < random.uniform(0.15, 0.6))
    lost = dataclasses.replace(frames_of(HEAD, kept, 10.0), times=HEAD.times[kept])
    assert find_cuts(lost) == []
    assert find_cuts(frames_of(HEAD, kept, 10.0)) == []
    assert find_cuts(frames_of(HEAD, np.sort(random.integers(0, 120, 120)), 30.0)) == []  # stutters


@pytest.mark.parametrize("kind", performance.KINDS)
def test_blinks_speech_and_head_turns_are_no_cuts_at_any_speed(kind: str) -> None:
    for seed in range(2):
        motion = played(Shape(), perform(seed, 150, kind))
        for stride in (1, 2, 5, 12):
            assert find_cuts(motion[::stride]) == []
            assert find_cuts(frames_of(motion, np.arange(0, 150, stride), 25.0)) == []  # played that much faster


@pytest.mark.parametrize("fps", [10.0, 25.0, 60.0])
def test_a_shaken_head_and_a_quick_look_aside_are_no_cuts(fps: float) -> None:
    seconds = np.arange(int(4 * fps)) / fps
    for yaw in (45 * np.sin(2 * np.pi * 3 * seconds), 40 * np.tanh(20 * (seconds - 2))):
        turned = resting(len(seconds))
        turned.rotation[:, 1] = yaw
        assert find_cuts(played(Shape(), turned, fps)) == []


def test_one_frame_of_wrong_landmarks_is_no_cut() -> None:
    points = HEAD.points.copy()
    points[50] += 0.4
    assert find_cuts(dataclasses.replace(HEAD, points=points)) == []


def test_a_cut_behind_interpolated_frames_is_found() -> None:
    motion = joined(HEAD[:60], framed(HEAD[60:], scale=0.5, right=0.5))
    points, valid = motion.points.copy(), motion.valid.copy()
    points[56:64] = np.linspace(points[56], points[64], 8)
    valid[56:64] = False
    assert find_cuts(dataclasses.replace(motion, points=points, valid=valid)) == [64]


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_motions_of_a_few_frames_have_no_cuts(frames: int) -> None:
    assert find_cuts(HEAD[:frames]) == []
    nobody = dataclasses.replace(HEAD[:frames], valid=np.zeros(frames, np.bool_))
    assert find_cuts(nobody) == []


def test_the_notice_lists_the_first_cuts_and_counts_the_others() -> None:
    assert cut_notices(HEAD, "talk.mp4") == []
    (notice,) = cut_notices(joined(HEAD[:60], framed(HEAD[60:], scale=0.5)), "talk.mp4")
    assert notice == (
        "talk.mp4: the face or its framing changes at frame 60 (2.00 s), where the portrait jumps; cut the video there"
    )
    parts = [framed(HEAD[:30], right=0.3 * (k % 2)) for k in range(12)]
    (notice,) = cut_notices(reduce(joined, parts), "talk.mp4")
    assert "frames 30 (1.00 s), 60 (2.00 s)" in notice and "and 3 more" in notice
