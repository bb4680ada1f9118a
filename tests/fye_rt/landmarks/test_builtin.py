"""Motions that need no video move any face, end where they begin, and are listed."""

import re

import numpy as np
import pytest

from fye_rt.errors import InputError
from fye_rt.landmarks import Motion, retarget
from fye_rt.landmarks.builtin import BUILTINS, eased, is_builtin, load_builtin, resting
from fye_rt.landmarks.control import CURVES, Control, Keyframe
from fye_rt.landmarks.edit import apply
from fye_training.face import motion as drawn
from fye_training.identity import identity
from fye_training.performance import resting as at_rest

SIZE = (256, 256)
MOVING = [name for name in BUILTINS if name != "still"]


@pytest.fixture(scope="module")
def portrait() -> Motion:
    return drawn(identity(3, "people").shape, at_rest(1), SIZE)


@pytest.mark.parametrize("name", BUILTINS)
def test_tracks_name_values_in_their_ranges_and_end_where_they_begin(name: str) -> None:
    builtin = BUILTINS[name]
    assert 1 <= builtin.seconds <= 6 and builtin.description
    for value, track in builtin.tracks.items():
        low, high = CURVES[value]
        times, levels = zip(*track, strict=True)
        assert times[0] == 0 and times == tuple(sorted(times)) and times[-1] <= builtin.seconds
        assert levels[0] == levels[-1] == 0 and min(levels) >= low and max(levels) <= high


@pytest.mark.parametrize("name", MOVING)
def test_a_motion_moves_the_face_and_can_be_repeated(name: str, portrait: Motion) -> None:
    motion = load_builtin(f"builtin:{name}")
    points = retarget(portrait, motion, SIZE)
    steps = np.abs(np.diff(points[:, :468], axis=0)).max(axis=(1, 2))
    assert np.abs(points - points[0]).max() > 4  # pixels
    assert np.abs(points[-1] - points[0]).max() <= 1.5 * steps.max()  # the step from the end to the beginning


def test_the_still_face_is_the_portraits_own(portrait: Motion) -> None:
    still = retarget(portrait, load_builtin("builtin:still"), SIZE)
    own = retarget(portrait, portrait, SIZE)
    np.testing.assert_allclose(still[:, :468], np.repeat(own[:, :468], 25, axis=0), rtol=0, atol=1e-9)


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    assert is_builtin("builtin:dance") and not is_builtin("dance.mp4") and not is_builtin(resting(1))
    with pytest.raises(InputError, match=re.escape("builtin:dance is no motion that fye-rt brings along; there are ")):
        load_builtin("builtin:dance")


def test_an_eased_clip_leads_from_the_portraits_own_face_to_the_edited_one(portrait: Motion) -> None:
    wanted = Control(smile=0.8, yaw=10.0, gaze_x=0.5, arkit={"jawOpen": 0.3})
    motion, control = eased(wanted, 0.4)
    points = retarget(portrait, motion, SIZE, control=control)
    still, end = eased(wanted, 0.0)
    assert len(points) == 11 and len(still) == 1 and not end.keyframes
    np.testing.assert_allclose(points[0], retarget(portrait, portrait, SIZE)[0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(points[-1], retarget(portrait, still, SIZE, control=end)[0], rtol=0, atol=1e-9)
    assert np.abs(points[-1] - points[0]).max() > 5  # pixels


def test_keyframes_keep_their_times(portrait: Motion) -> None:
    keyframes = [Keyframe(time=0.2, values={"yaw": 5.0}), Keyframe(time=1.0, values={"yaw": -5.0})]
    motion, control = eased(Control(keyframes=keyframes), 0.4)
    assert len(motion) == 26 and control.keyframes == tuple(keyframes)
    assert apply(control, portrait, motion).pose[5, 0, 2] > 0.05
