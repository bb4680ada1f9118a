"""What the face does, said by numbers: how much of the driver is taken over, and edits on top of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fye_rt.errors import OptionError

SIDES = ("left", "right")  # of the person
REGIONS = ("all", "expression", "pose", "mouth", "eyes")
ROTATIONS = ("absolute", "relative")
NEUTRALS = ("auto", "first", "portrait", "N", "FILE.npz")
GAZE_MODES = ("driver", "camera", "fixed")
EASINGS = ("linear", "ease", "hold")
# name -> (lowest, highest) of settings that may change over time
STRENGTHS: Mapping[str, tuple[float, float]] = {
    name: (0.0, 2.0)
    for name in (
        "expression",
        *(part + side for part in ("brows", "eyes", "mouth", "gaze") for side in ("", "_left", "_right")),
        "pose",
        "move",
        "approach",
    )
}
_SIGNED = (-1.0, 1.0)
EDITS: Mapping[str, tuple[float, float]] = {
    "yaw": (-45.0, 45.0),
    "pitch": (-25.0, 25.0),
    "roll": (-25.0, 25.0),
    "x": (-0.5, 0.5),
    "y": (-0.5, 0.5),
    "zoom": (-0.3, 0.3),
    "gaze_x": _SIGNED,
    "gaze_y": _SIGNED,
    **{part + side: _SIGNED for part in ("eye_open", "brow") for side in ("", "_left", "_right")},
    **{name: _SIGNED for name in ("brow_inner", "smile", "jaw", "lip_open", "pucker", "stretch")},
}
CURVES = {**STRENGTHS, **EDITS}
# MediaPipe's expression scores by Apple's names for them, without "_neutral"; left is the person's left
ARKIT: tuple[str, ...] = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen",
    "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight",
    "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight",
    "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
MAX_KEYFRAMES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyframe:
    """Values that a control reaches at one time.

    Attributes:
        time: seconds from the clip's first frame, 0 or more.
        values: values by name: strengths, edits and ARKit's names; settings that a keyframe omits are interpolated
            between those that name them.
        easing: the way to these values from the keyframe before: "linear", "ease" (slow at both ends) or "hold" (the
            values before stay until this time).

    Raises:
        OptionError: an unknown name, or a value outside its range.
    """

    time: float
    values: Mapping[str, float]
    easing: str = "ease"

    def __post_init__(self) -> None:
        _require(_number(self.time) and 0 <= self.time < math.inf, "time", self.time, "0 or more seconds")
        _require(self.easing in EASINGS, "easing", self.easing, ", ".join(EASINGS))
        if not isinstance(self.values, Mapping) or not self.values:
            raise OptionError(f"values={self.values!r} of a keyframe is not valid; give values by name")
        for name, value in self.values.items():
            check_value(name, value)
        object.__setattr__(self, "values", dict(self.values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Changes to the driving motion before it moves the portrait. The default changes nothing.

    Strengths say how much of the driver's movement the portrait takes over: 0 leaves the portrait as it is, 1 is the
    driver, 2 exaggerates; left and right are the person's, and a strength multiplies with those of its region.

    Attributes:
        expression: strength of all that the face does, gaze included.
        brows, eyes, mouth, gaze: strength of a region; also by side, as `brows_left`.
        pose: strength of the head's rotation.
        move: strength of the head's movement sideways, up and down.
        approach: strength of the head's movement to the camera and away.
        region: what is taken over: "all", "expression" (the head keeps the portrait's pose), "pose" (the face keeps
            the portrait's expression), "mouth" or "eyes" (these alone, without pose; eyes include brows and gaze).
        rotation: "absolute" takes the driver's rotation, as the paper does; "relative" turns the portrait from its own
            pose by what the driver turned since its first frame.
        neutral: driving face that counts as the portrait's expression: "auto" is the frame with the least expression,
            as in the paper; "first"; "portrait" is the frame whose scores are nearest to the portrait's; a number of a
            frame, from 0; or the motion file of a calm face.
        match_size: whether each region's movement is scaled by the ratio of its size in both faces, so that large
            eyes close and small mouths do not tear.
        close_lips: whether the portrait's parted lips are closed before the driver moves them.
        smooth: smoothing over time, 0 to 1; eyes and gaze are not smoothed, so that blinks stay sharp.
        yaw, pitch, roll: turn of the head in degrees: to the picture's right, up, and its top to the picture's right.
        x, y: movement of the head in widths of the face, to the picture's right and up.
        zoom: growth of the face; 0.1 makes it a tenth larger.
        gaze_x, gaze_y: direction of both eyes, -1 to 1: to the picture's right, and up.
        gaze_mode: where the eyes look before `gaze_x` and `gaze_y` are added: as the "driver", at the "camera"
            whatever the head does, or "fixed" straight ahead of the face.
        eye_open: opening of the eyes: -1 closes them, 1 opens them wide; also by side.
        brow: -1 lowers and 1 raises the brows; also by side.
        brow_inner: raises the inner ends of the brows (sorrow), or draws them down.
        smile: lifts the corners of the mouth, or draws them down.
        jaw: opens the jaw, or presses the lips together.
        lip_open: parts the lips, or closes them as far as they are open.
        pucker: rounds the lips, or draws them wide.
        stretch: draws the corners of the mouth apart, or together.
        arkit: weights 0 to 1 by ARKit's names, added to what the face does.
        keyframes: values over time, in place of the constant ones of the same names.

    Raises:
        OptionError: a value outside its range, or an unknown name; the message lists the valid ones.
    """

    expression: float = 1.0
    brows: float = 1.0
    brows_left: float = 1.0
    brows_right: float = 1.0
    eyes: float = 1.0
    eyes_left: float = 1.0
    eyes_right: float = 1.0
    mouth: float = 1.0
    mouth_left: float = 1.0
    mouth_right: float = 1.0
    gaze: float = 1.0
    gaze_left: float = 1.0
    gaze_right: float = 1.0
    pose: float = 1.0
    move: float = 1.0
    approach: float = 1.0
    region: str = "all"
    rotation: str = "absolute"
    neutral: str | int = "auto"
    match_size: bool = False
    close_lips: bool = False
    smooth: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    x: float = 0.0
    y: float = 0.0
    zoom: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    gaze_mode: str = "driver"
    eye_open: float = 0.0
    eye_open_left: float = 0.0
    eye_open_right: float = 0.0
    brow: float = 0.0
    brow_left: float = 0.0
    brow_right: float = 0.0
    brow_inner: float = 0.0
    smile: float = 0.0
    jaw: float = 0.0
    lip_open: float = 0.0
    pucker: float = 0.0
    stretch: float = 0.0
    arkit: Mapping[str, float] = field(default_factory=dict)
    keyframes: Sequence[Keyframe] = ()

    def __post_init__(self) -> None:
        for name in CURVES:
            check_value(name, getattr(self, name))
        if not isinstance(self.arkit, Mapping):
            raise OptionError(f"arkit={self.arkit!r} is not valid; give weights by name: {', '.join(ARKIT)}")
        for name, value in self.arkit.items():
            _require(name in ARKIT, "arkit", name, ", ".join(ARKIT))
            check_value(name, value)
        for name, values in (("region", REGIONS), ("rotation", ROTATIONS), ("gaze_mode", GAZE_MODES)):
            _require(getattr(self, name) in values, name, getattr(self, name), ", ".join(values))
        number = isinstance(self.neutral, int) and not isinstance(self.neutral, bool) and self.neutral >= 0
        known = self.neutral in NEUTRALS[:3] or str(self.neutral).endswith(".npz")
        _require(number or known, "neutral", self.neutral, ", ".join(NEUTRALS))
        for name in ("match_size", "close_lips"):
            _require(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")
        _require(_number(self.smooth) and 0 <= self.smooth <= 1, "smooth", self.smooth, "0 to 1")
        if not isinstance(self.keyframes, Sequence) or not all(
            isinstance(keyframe, Keyframe) for keyframe in self.keyframes
        ):
            raise OptionError("keyframes is not valid; give a list of keyframes: time, values, easing")
        if len(self.keyframes) > MAX_KEYFRAMES:
            raise OptionError(f"keyframes has {len(self.keyframes):,} entries; the limit is {MAX_KEYFRAMES:,}")
        seen: set[tuple[float, str]] = set()
        for time, name in ((keyframe.time, name) for keyframe in self.keyframes for name in keyframe.values):
            if (time, name) in seen:
                raise OptionError(f"keyframes give {name} twice at {time:g} seconds; leave one out")
            seen.add((time, name))
        object.__setattr__(self, "arkit", dict(self.arkit))
        object.__setattr__(self, "keyframes", tuple(sorted(self.keyframes, key=lambda keyframe: keyframe.time)))

    @property
    def is_neutral(self) -> bool:
        """Whether nothing is changed."""
        return self == Control()

    def as_dict(self) -> dict[str, Any]:
        """Return the settings that differ from the default, by name, for reports; keyframes as objects."""
        changed = {f.name: getattr(self, f.name) for f in fields(self)}
        default = {f.name: getattr(Control(), f.name) for f in fields(self)}
        values = {name: value for name, value in changed.items() if value != default[name]}
        if self.arkit:
            values["arkit"] = dict(self.arkit)
        if self.keyframes:
            values["keyframes"] = [
                {"time": keyframe.time, "values": dict(keyframe.values), "easing": keyframe.easing}
                for keyframe in self.keyframes
            ]
        return values

    def mirrored(self) -> "Control":
        """Return the control that does the same to a mirrored face."""
        changes: dict[str, Any] = {name: _mirrored_value(self, name) for name in CURVES}
        changes["arkit"] = {mirror_name(name): value for name, value in self.arkit.items()}
        changes["keyframes"] = tuple(
            replace(
                keyframe,
                values={mirror_name(name): _sign(name) * value for name, value in keyframe.values.items()},
            )
            for keyframe in self.keyframes
        )
        return replace(self, **changes)


def check_value(name: object, value: object) -> None:
    """Raise OptionError unless `name` can change over time and `value` is in its range."""
    low, high = (0.0, 1.0) if name in ARKIT else CURVES.get(str(name), (0.0, -1.0))
    if low > high:
        raise OptionError(f"{name!r} is not a value of a control; allowed: {', '.join((*CURVES, *ARKIT))}")
    _require(_number(value) and low <= value <= high, str(name), value, f"{low:g} to {high:g}")  # type: ignore[operator]


def mirror_name(name: str) -> str:
    """Return the name of the same value on the other side of the face."""
    for left, right in (("_left", "_right"), ("Left", "Right")):
        if name.endswith(left):
            return name.removesuffix(left) + right
        if name.endswith(right):
            return name.removesuffix(right) + left
    return name


def _mirrored_value(control: Control, name: str) -> float:
    value: float = getattr(control, mirror_name(name))
    return _sign(name) * value


def _sign(name: str) -> float:
    return -1.0 if name in ("yaw", "roll", "x", "gaze_x") else 1.0


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(valid: bool, name: str, value: object, allowed: str) -> None:
    if not valid:
        raise OptionError(f"{name}={value!r} is not valid; allowed: {allowed}")
