"""Motions that need no video: keyframes of a control, played by the canonical face."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from fye_rt.errors import InputError
from fye_rt.landmarks.control import CURVES, Control, Keyframe
from fye_rt.landmarks.edit import apply
from fye_rt.landmarks.geometry import VERTICAL_FOV
from fye_rt.landmarks.library import face
from fye_rt.landmarks.motion import BLENDSHAPES, POINTS, Motion

PREFIX = "builtin:"
FPS = 25.0
SIZE = (512, 512)  # height and width of the picture that shows the canonical face
DISTANCE = 35.0  # centimetres: the face is half as high as its picture

# (seconds, value) by name of a value; a track begins and ends with the same value, so that the motion can be repeated
Tracks = Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class Builtin:
    """A motion that fye-rt brings along.

    Attributes:
        description: what the face does, in a few words.
        seconds: length.
        tracks: keyframes of each value.
    """

    description: str
    seconds: float
    tracks: Tracks


def _blinks(*times: float) -> list[tuple[float, float]]:
    """Open eyes that blink: down in a twelfth of a second, up in an eighth."""
    points = [(0.0, 0.0)]
    for time in times:
        points += [(time, 0.0), (time + 0.08, -1.0), (time + 0.12, -1.0), (time + 0.25, 0.0)]
    return points


def _swing(seconds: float, *values: float) -> list[tuple[float, float]]:
    """Values at even distances, from 0 and back to 0."""
    every = (0.0, *values, 0.0)
    return [(seconds * number / (len(every) - 1), value) for number, value in enumerate(every)]


# opening of the jaw, rounding and width of the lips of syllables in the order of a sentence
_SYLLABLES = (
    (0.30, 0.0, 0.2), (0.10, 0.6, 0.0), (0.45, 0.0, 0.0), (0.05, 0.0, 0.5), (0.35, 0.2, 0.0), (0.15, 0.7, 0.0),
    (0.0, 0.0, 0.0), (0.40, 0.0, 0.3), (0.20, 0.4, 0.0), (0.50, 0.0, 0.1), (0.05, 0.1, 0.4), (0.25, 0.5, 0.0),
    (0.35, 0.0, 0.2), (0.0, 0.0, 0.0), (0.30, 0.3, 0.0), (0.10, 0.0, 0.5), (0.45, 0.1, 0.0), (0.15, 0.6, 0.0),
)  # fmt: skip


def _talk(column: int) -> list[tuple[float, float]]:
    """A value of the syllables: the lips meet for a moment after each."""
    points = [(0.0, 0.0)]
    for number, syllable in enumerate(_SYLLABLES):
        points += [(0.1 + 0.2 * number + 0.08, syllable[column]), (0.1 + 0.2 * number + 0.18, 0.3 * syllable[column])]
    return [*points, (4.0, 0.0)]


BUILTINS: Mapping[str, Builtin] = {
    "still": Builtin("rests", 1.0, {}),
    "idle": Builtin(
        "breathes, sways a little and blinks",
        6.0,
        {
            "yaw": _swing(6.0, 1.8, -0.6, -2.0, 0.8),
            "pitch": _swing(6.0, -0.6, 0.8, -0.4),
            "roll": _swing(6.0, 0.8, -0.8),
            "eye_open": _blinks(1.4, 4.3),
            "gaze_x": [(0.0, 0.0), (2.4, 0.0), (2.5, 0.15), (3.9, 0.15), (4.0, 0.0), (6.0, 0.0)],
            "smile": _swing(6.0, 0.06, 0.02),
        },
    ),
    "talk": Builtin(
        "speaks a sentence",
        4.0,
        {
            "jaw": _talk(0),
            "pucker": _talk(1),
            "stretch": _talk(2),
            "brow": _swing(4.0, 0.25, 0.0, 0.3, 0.05),
            "pitch": _swing(4.0, 2.0, -1.5, 1.5, -1.0),
            "yaw": _swing(4.0, -2.0, 2.5, -1.0),
            "eye_open": _blinks(1.1, 3.2),
        },
    ),
    "smile": Builtin(
        "smiles",
        3.0,
        {
            "smile": [(0.0, 0.0), (0.8, 0.9), (2.0, 0.9), (3.0, 0.0)],
            "eye_open": [(0.0, 0.0), (0.8, -0.25), (2.0, -0.25), (3.0, 0.0)],
            "pitch": [(0.0, 0.0), (0.9, 2.5), (2.0, 2.0), (3.0, 0.0)],
        },
    ),
    "nod": Builtin("nods", 2.0, {"pitch": _swing(2.0, -11.0, 3.0, -9.0), "eye_open": _blinks(0.3)}),
    "shake": Builtin("shakes the head", 2.4, {"yaw": _swing(2.4, 14.0, -14.0, 12.0, -10.0), "eye_open": _blinks(0.5)}),
    "look_around": Builtin(
        "looks to the sides, up and down, and turns after the eyes",
        5.0,
        {
            "gaze_x": [(0.0, 0.0), (0.4, 0.8), (1.5, 0.4), (1.8, -0.8), (2.9, -0.4), (3.2, 0.0), (5.0, 0.0)],
            "gaze_y": [(0.0, 0.0), (3.2, 0.0), (3.4, 0.7), (4.1, 0.5), (4.4, 0.0), (5.0, 0.0)],
            "yaw": [(0.0, 0.0), (0.5, 0.0), (1.4, 14.0), (1.9, 10.0), (2.8, -14.0), (3.5, 0.0), (5.0, 0.0)],
            "pitch": [(0.0, 0.0), (3.3, 0.0), (4.0, 7.0), (4.7, 0.0), (5.0, 0.0)],
            "eye_open": _blinks(1.6, 3.1),
        },
    ),
    "wink": Builtin(
        "winks with the left eye",
        1.6,
        {
            "eye_open_left": [(0.0, 0.0), (0.5, 0.0), (0.65, -1.0), (0.9, -1.0), (1.1, 0.0), (1.6, 0.0)],
            "smile": [(0.0, 0.0), (0.6, 0.45), (1.0, 0.45), (1.6, 0.0)],
            "roll": [(0.0, 0.0), (0.7, 3.0), (1.0, 3.0), (1.6, 0.0)],
        },
    ),
    "surprise": Builtin(
        "is surprised",
        2.4,
        {
            "brow": [(0.0, 0.0), (0.3, 0.0), (0.6, 1.0), (1.6, 0.8), (2.4, 0.0)],
            "eye_open": [(0.0, 0.0), (0.3, 0.0), (0.55, 0.9), (1.6, 0.7), (2.4, 0.0)],
            "jaw": [(0.0, 0.0), (0.35, 0.0), (0.7, 0.6), (1.6, 0.4), (2.4, 0.0)],
            "pitch": [(0.0, 0.0), (0.3, 0.0), (0.6, 4.0), (1.6, 3.0), (2.4, 0.0)],
        },
    ),
}


def is_builtin(source: object) -> bool:
    """Return whether a motion source names one of these: "builtin:nod"."""
    return isinstance(source, str | os.PathLike) and os.fspath(source).startswith(PREFIX)


def load_builtin(source: str) -> Motion:
    """Return a motion by its name, "builtin:nod".

    Raises:
        InputError: no motion has the name.
    """
    name = source.removeprefix(PREFIX)
    if name not in BUILTINS:
        known = ", ".join(PREFIX + known for known in BUILTINS)
        raise InputError(f"{source} is no motion that fye-rt brings along; there are {known}")
    return _played(name)


@lru_cache(maxsize=len(BUILTINS))
def _played(name: str) -> Motion:
    builtin = BUILTINS[name]
    control = Control(
        keyframes=[
            Keyframe(time=time, values={value: level})
            for value, track in builtin.tracks.items()
            for time, level in track
        ]
    )
    return apply(control, resting(1), resting(round(builtin.seconds * FPS)))


def eased(control: Control, seconds: float) -> tuple[Motion, Control]:
    """Return a resting motion, and a control that leads from the portrait's own face to what `control` says.

    Args:
        control: the face at the end; one with keyframes keeps them, and lasts as long as they do if that is longer.
        seconds: length of the way; 0 gives one frame, of the end.
    """
    frames = 1 + round(max(seconds, control.keyframes[-1].time if control.keyframes else 0.0) * FPS)
    control = replace(control, gaze=0.0)  # the resting face has no gaze of its own
    if frames > 1 and not control.keyframes:
        at_rest = Control(gaze=0.0)
        changed = {name: getattr(control, name) for name in CURVES if getattr(control, name) != getattr(at_rest, name)}
        start = {name: getattr(at_rest, name) for name in changed} | dict.fromkeys(control.arkit, 0.0)
        if start:
            way = (Keyframe(time=0.0, values=start), Keyframe(time=seconds, values={**changed, **control.arkit}))
            control = replace(control, keyframes=way)
    return resting(frames), control


def resting(frames: int) -> Motion:
    """Return the canonical face at rest in front of the camera."""
    anatomy = face()
    pose = np.tile(np.eye(4), (frames, 1, 1))
    pose[:, 2, 3] = -DISTANCE
    solid = np.concatenate((anatomy.mesh, anatomy.irises)) + np.array((0.0, 0.0, -DISTANCE))
    half = math.tan(VERTICAL_FOV / 2.0)
    points = np.empty((POINTS, 3))
    points[:, 0] = 0.5 - 0.5 * solid[:, 0] / (solid[:, 2] * half)
    points[:, 1] = 0.5 + 0.5 * solid[:, 1] / (solid[:, 2] * half)
    points[:, 2] = (solid[:, 2].mean() - solid[:, 2]) / (2.0 * DISTANCE * half)
    return Motion(
        points=np.tile(points, (frames, 1, 1)),
        mesh=np.tile(anatomy.mesh, (frames, 1, 1)),
        pose=pose,
        blendshapes=np.zeros((frames, BLENDSHAPES)),
        times=np.arange(frames) / FPS,
        fps=FPS,
        source_size=SIZE,
        valid=np.ones(frames, np.bool_),
    )
