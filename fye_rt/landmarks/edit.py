"""Apply a `Control` to a driving motion, between reading and retargeting: pure float64 arithmetic, frame by frame."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError
from fye_rt.landmarks.control import ARKIT, Control
from fye_rt.landmarks.curves import curves
from fye_rt.landmarks.library import LOWER_LIDS, LOWER_LIP, UPPER_LIDS, UPPER_LIP, face
from fye_rt.landmarks.motion import Motion
from fye_rt.landmarks.retarget import LEFT_EYE, RIGHT_EYE, neutral_frame
from fye_rt.landmarks.rotation import (
    compose,
    euler_to_matrix,
    inverse,
    matrix_to_euler,
    matrix_to_quaternion,
    power,
    quaternion_to_matrix,
)

Array = NDArray[np.float64]
Values = Mapping[str, Array]  # (F,) by name

EYES = (RIGHT_EYE, LEFT_EYE)
SIDES = ("right", "left")
MOST_TURNED = np.array((40.0, 60.0, 45.0))  # degrees about x, y and z of what an edited head may reach
WIDEST_MOUTH = 0.9  # of the distance from nose to chin: the widest opening of the inner lips
GAZE = (0.26, 0.57)  # of the eye's width and height: movement of the iris at a gaze of 1
EYEBALL = 0.49  # radius in widths of the eye
BLINK = (0.9, 0.1)  # share of a closing eye that the upper and the lower lid take
WIDE = (0.4, 0.15)  # of the eye's opening at rest, which they add to a wide open one
SIZES = (0.5, 2.0)  # least and largest ratio of a region's size in two faces that is made up for
# edit: (expressions and their weights at 1, at -1)
RECIPES: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]] = {
    "smile": (
        {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0},
        {"mouthFrownLeft": 1.0, "mouthFrownRight": 1.0},
    ),
    "jaw": ({"jawOpen": 0.8}, {"jawOpen": -0.1}),
    "lip_open": (
        {"mouthLowerDownLeft": 1.0, "mouthLowerDownRight": 1.0, "mouthUpperUpLeft": 0.8, "mouthUpperUpRight": 0.8},
        {},
    ),
    "pucker": ({"mouthPucker": 1.0}, {"mouthPucker": -0.5}),
    "stretch": (
        {"mouthStretchLeft": 1.0, "mouthStretchRight": 1.0},
        {"mouthStretchLeft": -0.6, "mouthStretchRight": -0.6},
    ),
    "brow_inner": ({"browInnerUp": 1.0}, {"browInnerUp": -0.45}),
    "brow_left": ({"browOuterUpLeft": 1.0, "browInnerUp": 0.5}, {"browDownLeft": 1.0}),
    "brow_right": ({"browOuterUpRight": 1.0, "browInnerUp": 0.5}, {"browDownRight": 1.0}),
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
    return motion if control.is_neutral else Editor(control, portrait, motion).apply(motion)


class Editor:
    """Incremental form of `apply`, for a motion that arrives in parts.

    Args:
        control: the changes; `control` may be set to another one at any time, from any thread.
        portrait: the portrait's landmarks, one frame.
        first: one or more driving frames, from which `fye_rt.landmarks.retarget.Retargeter` would be made.

    Raises:
        InputError: as `apply`, or a motion file that the control names for the neutral face cannot be read.
    """

    def __init__(self, control: Control, portrait: Motion, first: Motion) -> None:
        if len(portrait) != 1:
            raise InputError(f"the portrait's landmarks have {len(portrait)} frames; give those of one picture")
        self.control = control
        self._portrait = portrait
        self._rest, self._rest_sizes = _rest(control, portrait, first)
        self._anchor = first.pose[0, :3, 3] if first.anchor is None else first.anchor
        self._start = float(first.times[0])
        self._first_rotation = _quaternions(first.pose[:1])
        self._own_rotation = _quaternions(portrait.pose)
        self._iris = np.stack([_relative(portrait.points, eye)[0][0] for eye in EYES])
        self._width = float(np.ptp(portrait.mesh[0, :, 0]))
        self.notices: set[str] = set()

    def apply(self, motion: Motion) -> Motion:
        """Return the next F frames, changed as `apply` would."""
        control = self.control
        values = curves(control, motion.times - self._start)
        strengths = _strengths(control, values)
        mesh = self._expression(control, motion, values, strengths)
        pose = self._head(control, motion, values)
        points = self._gaze(control, motion, pose, values, strengths)
        return replace(motion, mesh=mesh, pose=pose, points=points, rest=self._rest, anchor=self._anchor)

    def _expression(self, control: Control, motion: Motion, values: Values, strengths: "Strengths") -> Array:
        anatomy, own = face(), self._portrait.mesh[0]
        scale = self._scale() if control.match_size else np.ones(len(own))
        # what differs from 1, so that points whose movement is taken over as it is keep their bits
        less = strengths.rest[:, None] * np.maximum(1.0 - anatomy.regions.sum(axis=1), 0.0)
        for column in range(anatomy.regions.shape[1]):
            less = less + strengths.regions[:, column, None] * anatomy.regions[:, column]
        factor = less * scale + (scale - 1.0)
        mesh = motion.mesh + factor[..., None] * (motion.mesh - self._rest)
        for name, weight in _expression_weights(values).items():
            mesh = mesh + weight[:, None, None] * _displacement(name)
        to_portrait = own - self._rest
        if control.close_lips:
            gap = own[list(UPPER_LIP)] - own[list(LOWER_LIP)]
            mesh = mesh + _follow(anatomy.lips, (-gap / 2.0)[None], (gap / 2.0)[None])
        mesh = mesh + self._lids(mesh + to_portrait, values)
        closing = np.maximum(-values["lip_open"], 0.0)
        if closing.any():
            target = mesh + to_portrait
            gap = np.maximum(target[:, UPPER_LIP, 1] - target[:, LOWER_LIP, 1], 0.0) * closing[:, None]
            mesh = mesh + _follow(anatomy.lips, *_up_and_down(gap))
        return self._clamped(mesh, motion.mesh, to_portrait)

    def _lids(self, target: Array, values: Values) -> Array:
        """Movement (F, 468, 3) of the lids for `eye_open`."""
        own, result = self._portrait.mesh[0], np.zeros_like(target)
        for eye, side in enumerate(SIDES):
            amount = np.clip(values["eye_open"] + values[f"eye_open_{side}"], -1.0, 1.0)[:, None, None]
            if not amount.any():
                continue
            upper, lower = UPPER_LIDS[eye], LOWER_LIDS[eye]
            opening, at_rest = target[:, upper] - target[:, lower], own[list(upper)] - own[list(lower)]
            closing, widening = np.minimum(amount, 0.0), np.maximum(amount, 0.0)
            up = closing * BLINK[0] * opening + widening * WIDE[0] * at_rest
            down = -closing * BLINK[1] * opening - widening * WIDE[1] * at_rest
            result = result + _follow(face().lids[:, eye], up, down)
        return result

    def _clamped(self, mesh: Array, driven: Array, to_portrait: Array) -> Array:
        """Move lids and lips apart that the control, not the driver, has made to cross, and bound the mouth."""
        anatomy, target, before = face(), mesh + to_portrait, driven + to_portrait
        for eye in range(2):
            upper, lower = UPPER_LIDS[eye], LOWER_LIDS[eye]
            crossed = _crossed(target, before, upper, lower)
            if crossed.any():
                mesh = mesh + _follow(anatomy.lids[:, eye], *_up_and_down(-crossed))
        crossed = _crossed(target, before, UPPER_LIP, LOWER_LIP)
        if crossed.any():
            mesh = mesh + _follow(anatomy.lips, *_up_and_down(-crossed))
        own = self._portrait.mesh[0]
        most = np.maximum(WIDEST_MOUTH * (own[1, 1] - own[152, 1]), _gap(before).max(axis=1))
        excess = np.maximum(_gap(mesh + to_portrait) - most[:, None], 0.0)
        if excess.any():
            self.notices.add("the mouth opens as far as it can")
            mesh = mesh + _follow(anatomy.lips, *_up_and_down(excess))
        return mesh

    def _scale(self) -> Array:
        """Ratio (468,) of each region's size in the portrait and in the driver."""
        regions = face().regions
        ratios = np.clip(_sizes(self._portrait.mesh[0]) / self._rest_sizes, *SIZES)
        return 1.0 + regions @ (np.repeat(ratios, 2) - 1.0)

    def _head(self, control: Control, motion: Motion, values: Values) -> Array:
        still = control.region in ("expression", "mouth", "eyes")
        strength = np.zeros(len(motion)) if still else values["pose"]
        pose = motion.pose.copy()
        turned = (strength != 1.0) | (control.rotation == "relative")
        if turned.any():
            rotation = _quaternions(motion.pose[turned])
            base = self._first_rotation if control.rotation == "relative" else self._own_rotation
            step = power(compose(rotation, inverse(base)), strength[turned])
            pose[turned, :3, :3] = quaternion_to_matrix(compose(step, np.broadcast_to(self._own_rotation, step.shape)))
        edits = np.stack((-values["pitch"], values["yaw"], -values["roll"]), axis=1)
        edited = edits.any(axis=1) | (strength > 1.0)
        if edited.any():
            angles = matrix_to_euler(pose[edited, :3, :3])
            most = np.maximum(MOST_TURNED, np.abs(angles))
            wanted = angles + edits[edited]
            reached = np.clip(wanted, -most, most)
            if (reached != wanted).any():
                self.notices.add("the head turns as far as it can")
            pose[edited, :3, :3] = euler_to_matrix(reached)
        own = self._portrait.pose[0, :3, 3]
        move = np.stack((values["move"], values["move"], values["approach"]), axis=1) * (0.0 if still else 1.0)
        edits = np.stack((values["x"], values["y"], values["zoom"]), axis=1)
        moved = (move != 1.0).any(axis=1) | edits.any(axis=1)
        if moved.any():
            place = own + move[moved] * (motion.pose[moved, :3, 3] - self._anchor)
            place = place / (1.0 + edits[moved, 2:])
            place[:, :2] += self._width * edits[moved, :2]
            pose[moved, :3, 3] = place - own + self._anchor
        return pose

    def _gaze(self, control: Control, motion: Motion, pose: Array, values: Values, strengths: "Strengths") -> Array:
        points = motion.points.copy()
        x, y = GAZE[0] * values["gaze_x"], -GAZE[1] * values["gaze_y"]
        for eye, iris in enumerate(EYES):
            strength = strengths.gaze[:, eye]
            changed = (strength != 1.0) | (x != 0.0) | (y != 0.0) | (control.gaze_mode != "driver")
            if not changed.any():
                continue
            relative, low, extent = _relative(motion.points[changed], iris)
            if control.gaze_mode != "driver":
                relative += _straight(control.gaze_mode, pose[changed], extent, motion.source_size) - relative[:, :1]
            relative = self._iris[eye] + strength[changed, None, None] * (relative - self._iris[eye])
            relative += np.stack((x[changed], y[changed]), axis=1)[:, None]
            relative += np.clip(relative[:, :1], 0.0, 1.0) - relative[:, :1]  # the iris stays in its eye
            points[changed, iris[0], :2] = low + relative * extent
        return points


@dataclass(frozen=True, slots=True)
class Strengths:
    """Strengths less 1 of what is taken over.

    Attributes:
        rest: (F,), of the face between the regions.
        regions: (F, 6), in the order of `Face.regions`.
        gaze: (F, 2), strengths themselves, of the right and the left eye.
    """

    rest: Array
    regions: Array
    gaze: Array


def _strengths(control: Control, values: Values) -> Strengths:
    whole = values["expression"]
    taken = {
        "all": ("brows", "eyes", "mouth", "gaze", "rest"),
        "expression": ("brows", "eyes", "mouth", "gaze", "rest"),
        "pose": (),
        "mouth": ("mouth",),
        "eyes": ("brows", "eyes", "gaze"),
    }[control.region]

    def strength(part: str, side: str) -> Array:
        return whole * values[part] * values[f"{part}_{side}"] if part in taken else np.zeros_like(whole)

    regions = [strength(part, side) - 1.0 for part in ("brows", "eyes", "mouth") for side in SIDES]
    rest = (whole if "rest" in taken else np.zeros_like(whole)) - 1.0
    gaze = np.stack([strength("gaze", side) for side in SIDES], axis=1)
    return Strengths(rest, np.stack(regions, axis=1), gaze)


def _rest(control: Control, portrait: Motion, first: Motion) -> tuple[Array, Array]:
    """Return the driver's neutral mesh (468, 3), and the sizes of its regions."""
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
    return mesh, _sizes(mesh)


def _sizes(mesh: Array) -> Array:
    """Sizes (3,) in centimetres of what moves: brows above the eyes, the eyes' openings, the mouth's width."""
    brows = np.mean([np.linalg.norm(mesh[brow] - mesh[lid]) for brow, lid in ((105, 159), (334, 386))])
    eyes = np.mean([np.linalg.norm(mesh[upper] - mesh[lower]) for upper, lower in ((159, 145), (386, 374))])
    return np.maximum(np.array((brows, eyes, np.linalg.norm(mesh[61] - mesh[291]))), 1e-3)


def _expression_weights(values: Values) -> dict[str, Array]:
    """Weights (F,) by ARKit's names that edits add; those of a brow's side are named "browInnerUp_left"."""
    weights: dict[str, Array] = {}

    def add(name: str, weight: Array) -> None:
        if weight.any():
            weights[name] = weights[name] + weight if name in weights else weight

    sided = {side: values["brow"] + values[f"brow_{side}"] for side in SIDES}
    for edit, (positive, negative) in RECIPES.items():
        value = np.clip(sided[edit.removeprefix("brow_")], -1.0, 1.0) if edit[5:] in SIDES else values[edit]
        for recipe, amount in ((positive, np.maximum(value, 0.0)), (negative, np.maximum(-value, 0.0))):
            for name, share in recipe.items():
                one_side = name == "browInnerUp" and edit != "brow_inner"
                add(f"{name}{edit.removeprefix('brow')}" if one_side else name, share * amount)
    for way, amount in (("Up", np.maximum(values["gaze_y"], 0.0)), ("Down", np.maximum(-values["gaze_y"], 0.0))):
        for side in ("Left", "Right"):
            add(f"eyeLook{way}{side}", amount)
    for name in ARKIT:
        if name in values:
            add(name, values[name])
    return weights


def _displacement(name: str) -> Array:
    anatomy = face()
    expression, _, side = name.partition("_")
    displacement = anatomy.expressions[ARKIT.index(expression)]
    if not side:
        return displacement
    left = np.clip(0.5 + anatomy.mesh[:, :1], 0.0, 1.0)
    return displacement * (left if side == "left" else 1.0 - left)


def _follow(weights: Array, upper: Array, lower: Array) -> Array:
    """Movement (F, 468, 3) of the face that follows the upper and lower points (F, K, 3) of an opening."""
    movement = np.zeros((len(upper), *weights.shape[:1], 3))
    for share, points in ((weights[:, 0], upper), (weights[:, 1], lower)):
        near = share.any(axis=1)
        movement[:, near] += np.einsum("vk,fkc->fvc", share[near], points)
    return movement


def _up_and_down(gap: Array) -> tuple[Array, Array]:
    """Movement (F, K, 3) of upper and lower points that narrows openings by `gap` (F, K), half each."""
    half = np.zeros((*gap.shape, 3))
    half[..., 1] = gap / 2.0
    return -half, half


def _gap(mesh: Array) -> Array:
    return mesh[:, UPPER_LIP, 1] - mesh[:, LOWER_LIP, 1]


def _crossed(mesh: Array, before: Array, upper: tuple[int, ...], lower: tuple[int, ...]) -> Array:
    """How far (F, K) upper points are below lower ones, beyond what they were before."""
    least = np.minimum(before[:, upper, 1] - before[:, lower, 1], 0.0)
    return np.maximum(least - (mesh[:, upper, 1] - mesh[:, lower, 1]), 0.0)


def _relative(points: Array, eye: tuple[slice, tuple[int, ...]]) -> tuple[Array, Array, Array]:
    """Place (F, 5, 2) of an iris in the box of its eye, the box's corner and its extent, (F, 1, 2) each."""
    iris, contour = eye
    low, high = points[:, contour, :2].min(axis=1, keepdims=True), points[:, contour, :2].max(axis=1, keepdims=True)
    extent = high - low
    seen = points[:, iris, :2]
    relative = np.divide(seen - low, extent, out=np.full_like(seen, 0.5), where=np.broadcast_to(extent > 0, seen.shape))
    return relative, low, extent


def _straight(mode: str, pose: Array, extent: Array, size: tuple[int, int]) -> Array:
    """Place (F, 1, 2) in the eye's box of an iris that looks straight ahead of the face, or at the camera."""
    centre = np.full((len(pose), 1, 2), 0.5)
    if mode == "camera":
        toward = -pose[:, :3, 3]
        toward = toward / np.linalg.norm(toward, axis=1, keepdims=True)
        x, y, _ = np.moveaxis((toward[:, None] * pose[:, :3, :3].transpose(0, 2, 1)).sum(axis=2), 1, 0)
        pixels = extent[:, 0] * (size[1], size[0])
        aspect = np.divide(pixels[:, 0], pixels[:, 1], out=np.full(len(pose), 2.0), where=pixels[:, 1] > 0)
        centre[:, 0, 0] += EYEBALL * x
        centre[:, 0, 1] -= EYEBALL * y * aspect
    return centre


def _quaternions(pose: Array) -> Array:
    return matrix_to_quaternion(pose[:, :3, :3])
