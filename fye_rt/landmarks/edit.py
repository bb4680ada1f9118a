"""Apply a `Control` to a driving motion, between reading and retargeting: pure float64 arithmetic, frame by frame."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError
from fye_rt.landmarks.control import Control
from fye_rt.landmarks.curves import Values, curves
from fye_rt.landmarks.expression import Expression
from fye_rt.landmarks.head import Gaze, Head
from fye_rt.landmarks.library import SIDES
from fye_rt.landmarks.motion import Motion, neutral_frame
from fye_rt.landmarks.smooth import smoothed

Array = NDArray[np.float64]

TAKEN = {  # by region
    "all": ("brows", "eyes", "mouth", "gaze", "rest", "head"),
    "expression": ("brows", "eyes", "mouth", "gaze", "rest"),
    "pose": ("head",),
    "mouth": ("mouth",),
    "eyes": ("brows", "eyes", "gaze"),
}


def apply(control: Control, portrait: Motion, motion: Motion) -> Motion:
    """Change a driving motion as a control says. A neutral control returns the motion itself.

    Args:
        control: the changes.
        portrait: the portrait's landmarks, one frame.
        motion: the driving landmarks, F frames; times count from the first.

    Returns:
        F frames for `fye_rt.landmarks.retarget.retarget`, which carry the neutral face and the anchor of their
        movement, as the edited frames no longer show them.

    Raises:
        InputError: `portrait` has more than one frame, or the control's neutral frame is not in the motion.
    """
    if control.is_neutral:
        return motion
    motion = smoothed(motion, control.smooth)
    return Editor(control, portrait, motion).apply(motion)


class Editor:
    """Incremental form of `apply`, for a motion that arrives in parts.

    Args:
        control: the changes.
        portrait: the portrait's landmarks, one frame.
        first: one or more driving frames: the first one anchors the head, and the neutral face is among them.

    Attributes:
        control: may be set to another one at any time, from any thread; its neutral face does not count.

    Raises:
        InputError: as `apply`, or a motion file that the control names for the neutral face cannot be read.
    """

    def __init__(self, control: Control, portrait: Motion, first: Motion) -> None:
        if len(portrait) != 1:
            raise InputError(f"the portrait's landmarks have {len(portrait)} frames; give those of one picture")
        self.control = control
        self._rest = _rest(control, portrait, first)
        self._anchor = first.pose[0, :3, 3] if first.anchor is None else first.anchor
        self._start = float(first.times[0])
        self._expression = Expression(portrait.mesh[0], self._rest)
        self._head = Head(portrait, first.pose[0, :3, :3], self._anchor)
        self._gaze = Gaze(portrait)

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines about what the control asked for and no face can do."""
        parts = {"the mouth opens": self._expression.clamped, "the head turns": self._head.clamped}
        return tuple(f"the control: {part} no further than a face's can" for part, clamped in parts.items() if clamped)

    def apply(self, motion: Motion) -> Motion:
        """Return the next F frames, changed as `apply` would."""
        control = self.control
        if control.is_neutral:
            return replace(motion, rest=self._rest, anchor=self._anchor)
        values = curves(control, motion.times - self._start)
        strengths = _strengths(control, values)
        mesh = self._expression(control, motion.mesh, values, strengths.rest, strengths.regions)
        pose = self._head(control, motion.pose, values, strengths.head)
        points = self._gaze(control, motion, pose, values, strengths.gaze)
        return replace(motion, mesh=mesh, pose=pose, points=points, rest=self._rest, anchor=self._anchor)


@dataclass(frozen=True, slots=True)
class Strengths:
    """How much of the driver's movement is taken over.

    Attributes:
        rest: (F,), of the face between the regions.
        regions: (F, 6), in the order of `Face.regions`.
        gaze: (F, 2), of the right and the left eye.
        head: (F, 3), of its rotation, its movement in the picture, and its approach.
    """

    rest: Array
    regions: Array
    gaze: Array
    head: Array


def _strengths(control: Control, values: Values) -> Strengths:
    whole, taken = values["expression"], TAKEN[control.region]
    none = np.zeros_like(whole)

    def strength(part: str, side: str) -> Array:
        return whole * values[part] * values[f"{part}_{side}"] if part in taken else none

    regions = [strength(part, side) for part in ("brows", "eyes", "mouth") for side in SIDES]
    head = [values[name] if "head" in taken else none for name in ("pose", "move", "approach")]
    return Strengths(
        rest=whole if "rest" in taken else none,
        regions=np.stack(regions, axis=1),
        gaze=np.stack([strength("gaze", side) for side in SIDES], axis=1),
        head=np.stack(head, axis=1),
    )


def _rest(control: Control, portrait: Motion, first: Motion) -> Array:
    """Return the driver's neutral mesh (468, 3)."""
    chosen = control.neutral
    if isinstance(chosen, str) and chosen.endswith(".npz"):
        profile = Motion.load(chosen)
        mesh = profile.mesh[neutral_frame(profile)]
    elif first.rest is not None:
        mesh = first.rest
    elif chosen == "portrait":
        distance = np.square(first.blendshapes - portrait.blendshapes[0]).sum(axis=1)
        mesh = first.mesh[int(np.argmin(distance))]
    else:
        frame = {"auto": neutral_frame(first), "first": 0}.get(str(chosen), chosen)
        if not isinstance(frame, int) or frame >= len(first):
            raise InputError(f"neutral={chosen!r} is no frame of the motion, which has {len(first)}")
        mesh = first.mesh[frame]
    return mesh
