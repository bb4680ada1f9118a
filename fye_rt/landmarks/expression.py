"""Change what a face expresses: strengths of its regions, semantic edits, and the bounds of what a face can do."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fye_rt.landmarks.control import ARKIT, Control
from fye_rt.landmarks.curves import Values
from fye_rt.landmarks.library import LOWER_LIDS, LOWER_LIP, SIDES, UPPER_LIDS, UPPER_LIP, face

Array = NDArray[np.float64]

WIDEST_MOUTH = 0.9  # of the distance from nose to chin: the widest opening of the inner lips
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


class Expression:
    """Changes the meshes of a driver for a portrait.

    Args:
        own: the portrait's mesh (468, 3), centimetres.
        rest: the driver's neutral mesh (468, 3).

    Attributes:
        clamped: whether a mouth had to be kept from opening further than a face's can.
    """

    def __init__(self, own: Array, rest: Array) -> None:
        self._own, self._rest, self.clamped = own, rest, False

    def __call__(self, control: Control, driven: Array, values: Values, rest: Array, regions: Array) -> Array:
        """Return changed meshes (F, 468, 3).

        Args:
            control: the changes.
            driven: the driver's meshes (F, 468, 3).
            values: the control's values at each frame.
            rest: strength (F,) between the regions.
            regions: strengths (F, 6), in the order of `Face.regions`.
        """
        anatomy, own = face(), self._own
        scale = self._scale() if control.match_size else np.ones(len(own))
        # what differs from 1, so that points whose movement is taken over as it is keep their bits
        less = (rest - 1.0)[:, None] * np.maximum(1.0 - anatomy.regions.sum(axis=1), 0.0)
        for column in range(anatomy.regions.shape[1]):
            less = less + (regions - 1.0)[:, column, None] * anatomy.regions[:, column]
        factor = less * scale + (scale - 1.0)
        mesh = driven + factor[..., None] * (driven - self._rest)
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
        return self._bounded(mesh, driven, to_portrait)

    def _lids(self, target: Array, values: Values) -> Array:
        """Movement (F, 468, 3) of the lids for `eye_open`."""
        own, result = self._own, np.zeros_like(target)
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

    def _bounded(self, mesh: Array, driven: Array, to_portrait: Array) -> Array:
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
        own = self._own
        most = np.maximum(WIDEST_MOUTH * (own[1, 1] - own[152, 1]), _gap(before).max(axis=1))
        excess = np.maximum(_gap(mesh + to_portrait) - most[:, None], 0.0)
        if excess.any():
            self.clamped = True
            mesh = mesh + _follow(anatomy.lips, *_up_and_down(excess))
        return mesh

    def _scale(self) -> Array:
        """Ratio (468,) of each region's size in the portrait and in the driver."""
        regions = face().regions
        ratios = np.clip(_sizes(self._own) / _sizes(self._rest), *SIZES)
        return 1.0 + regions @ (np.repeat(ratios, 2) - 1.0)


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
