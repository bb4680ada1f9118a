"""Parts of animals: ears, fur, nose, whiskers, markings."""

import numpy as np
from numpy.typing import NDArray

from fye_training.drawing.canvas import Colour, Discs, During, Fill, Mark, Paint, Points, Stroke, unit_circle
from fye_training.drawing.character import Coat, Identity
from fye_training.drawing.colour import darker, lighter, mix
from fye_training.drawing.features import SIGNS
from fye_training.drawing.shading import Shading
from fye_training.drawing.view import Array, View, curve, direction
from fye_training.topology import canonical_face

# outlines of the right ear (n, 2), in centimetres: across (outwards) and along (from root to tip); then the root's
# place on the skull (azimuth, elevation) and the ear's lean outwards, in degrees
OUTLINES: dict[str, tuple[tuple[tuple[float, float], ...], tuple[float, float], float]] = {
    "pointed": (((-2.9, -1.2), (-2.3, 2.4), (0.3, 6.6), (2.2, 3.4), (2.8, -1.4)), (90.0, 52.0), 16.0),
    "round": (
        ((-2.1, -0.6), (-2.5, 1.4), (-1.4, 3.2), (0.5, 3.7), (2.2, 2.6), (2.7, 0.6), (2.0, -1.4)), (90.0, 44.0), 38.0
    ),
    "long": (
        ((-1.4, -1.4), (-2.0, 4.0), (-1.6, 8.2), (0.0, 10.6), (1.5, 8.4), (1.9, 4.0), (1.3, -1.4)), (90.0, 62.0), 12.0
    ),
    "floppy": (
        ((-1.4, -0.2), (-2.4, 4.0), (-2.2, 7.6), (-0.3, 9.2), (1.6, 7.4), (2.0, 3.4), (1.2, -0.4)), (84.0, 40.0), 158.0
    ),
    "side": (
        ((-1.6, -1.4), (-2.3, 1.3), (-1.3, 2.9), (0.5, 3.2), (2.0, 2.0), (2.0, -0.2), (1.0, -1.4)), (90.0, -2.0), 84.0
    ),
}  # fmt: skip
AT_THE_SIDE = ("floppy", "side")
NOSE_MIDDLE = np.array((0.0, -1.0))  # centimetres on the canonical face
MUZZLE_HEIGHT = -3.4


def complexion(identity: Identity, coat: Coat) -> tuple[Array, Array]:
    """Colours of the fur at the face's points (468, 3) and of the skull (3,)."""
    x, y, _ = canonical_face().mesh.T
    side = np.abs(x)
    face = np.tile(np.array(identity.skin, float), (468, 1))
    skull = np.array(coat.dye if coat.marking == "mask" else identity.skin, float)

    def wash(colour: Colour, strength: Array) -> None:
        face[:] += (np.array(colour, float) - face) * np.clip(strength, 0.0, 1.0)[:, None]

    def blot(across: float, up: float, width: float, height: float) -> Array:
        """Mask of an ellipse on either side: 1 inside, 0 a little outside."""
        distance = np.hypot((side - across) / width, (y - up) / height)
        return np.clip((1.15 - distance) / 0.3, 0.0, 1.0)

    if coat.marking == "mask":
        wash(coat.dye, 0.9 * blot(0.0, 6.6, 6.5, 2.6) + 0.9 * blot(0.0, 4.2, 1.0, 3.0))
        wash(coat.muzzle, blot(3.2, 2.6, 2.6, 2.0))
    if coat.marking == "eye patches":
        wash(coat.dye, 0.8 * blot(3.5, 2.3, 2.1, 1.9))
    if coat.marking == "blaze":
        wash(coat.muzzle, blot(0.0, 3.5, 1.1, 6.0))
    wash(coat.muzzle, np.maximum(blot(1.3, MUZZLE_HEIGHT, 2.6, 2.4), blot(0.0, -6.2, 2.8, 2.6)))
    if coat.tufts > 1.0:
        wash(coat.muzzle, 0.8 * blot(6.0, -3.6, 2.6, 2.2))
    wash(identity.shade, 0.3 * np.exp(-((x / 1.6) ** 2 + ((y + 6.4) / 0.5) ** 2)))
    wash(identity.shade, 0.25 * np.exp(-(((side - 3.2) / 2.2) ** 2 + ((y - 2.9) / 1.0) ** 2)))
    return face, skull


def ears(identity: Identity, view: View, coat: Coat, shading: Shading, in_front: bool) -> list[Mark]:
    """The ears that are drawn in front of the head, or those behind it, frame by frame."""
    corners, (azimuth, elevation), lean = OUTLINES[coat.ears]
    outline = curve(np.array(corners), 28) * coat.ear_size
    inner = curve(np.array(corners) * (0.6, 0.72) + (0.0, 0.35), 20) * coat.ear_size
    inside = coat.inner_ear if coat.ears != "floppy" else mix(coat.dye, identity.skin, 0.5)
    marks: list[Mark] = []
    for sign in SIGNS:
        ear = _Ear(view, direction(np.array((sign * azimuth,)), np.array((elevation,))), sign, lean)
        if coat.ears in AT_THE_SIDE:
            shift, near = ear.beside(view)
            visible = near if in_front else ~near
        elif in_front:
            continue
        else:
            shift, visible = np.zeros((len(view), 1, 2)), np.ones(len(view), np.bool_)
        width = max(identity.ink_width, 0.5) * view.line
        fur = Paint(shading, [view.head(ear(outline)) + shift], identity.ink, width)
        marks.append(During(visible, [fur, Fill(view.head(ear(inner)) + shift, inside)]))
    return marks


class _Ear:
    """Maps the outline of an ear into the head's frame."""

    def __init__(self, view: View, root: Array, sign: float, lean: float) -> None:
        tilt = np.deg2rad(lean)
        self.direction = root
        self.along = np.array((sign * np.sin(tilt), np.cos(tilt), 0.0))
        # cupped forwards: the outer edge is behind the inner edge
        self.across = np.array((sign * np.cos(tilt), -np.sin(tilt), -0.5))
        self.root = view.skull.points(root) + np.array((0.0, 0.0, 1.5 if lean < 80 else 0.0))

    def __call__(self, uv: Array) -> Array:
        points: Array = self.root + uv[:, :1] * self.across + uv[:, 1:] * self.along
        return points

    def beside(self, view: View) -> tuple[Points, NDArray[np.bool_]]:
        """Shift (F, 1, 2) of an ear at the side in the picture, and the frames (F,) in which it is on the near side.

        The ear stays on the head's visible side; before it changes to the far side, it slides off the head's edge
        instead of jumping.
        """
        facing = view.facing(self.direction)[:, 0]
        aside = self.root + np.sign(self.root[:, :1]) * (1.6, 0.0, 0.0)
        slide = np.clip((-0.18 - facing) / 0.12, 0.0, 1.0)[:, None, None]
        root = view.head(self.root)
        return view.shell(self.direction) - root + slide * (view.head(aside) - root), facing > -0.3


def tufts(identity: Identity, view: View, coat: Coat) -> list[Points]:
    """Outlines of the cheeks' tufts of fur."""
    if not coat.tufts:
        return []
    out = coat.tufts
    shape = np.array(
        ((0.0, 3.6), (0.25 * out, 1.2), (0.75 * out, 0.2), (0.35 * out, -0.4), (out, -2.0), (0.3 * out, -2.2),
         (0.6 * out, -4.2), (-0.6, -4.2), (-2.4, -3.8), (-2.0, 3.0))
    )  # fmt: skip
    outlines = []
    for sign, cheek in zip(SIGNS, (view.neutral[132], view.neutral[361]), strict=True):
        flat = np.stack((sign * shape[:, 0], shape[:, 1], -0.25 * shape[:, 0]), axis=-1)
        outlines.append(view.head(cheek + np.array((0.0, 0.6, 0.3)) + flat))
    return outlines


def markings(identity: Identity, view: View, coat: Coat) -> list[Mark]:
    """Stripes and spots."""
    if coat.marking == "stripes":
        return [Fill(view.face(wedge), coat.dye) for wedge in _stripes()]
    if coat.marking == "spots":
        generator = np.random.default_rng((identity.seed, 5))
        xy = generator.uniform((-5.5, -1.5), (5.5, 7.5), (7, 2))
        return [
            Fill(view.face(at + unit_circle(14) * generator.uniform(0.4, 0.9, (14, 1))), coat.dye)
            for at in xy
            if abs(at[0]) > 1.5 and not (abs(abs(at[0]) - 3.3) < 2.2 and abs(at[1] - 2.3) < 1.5)
        ]
    return []


def _stripes() -> list[Array]:
    """Outlines (n, 2) of tapered stripes on the canonical face's forehead and cheeks."""
    stripes = [np.array(((-0.35, 8.2), (0.35, 8.2), (0.0, 5.4)))]
    for sign in SIGNS:
        stripes.append(np.array(((1.3, 8.2), (2.2, 8.0), (0.9, 5.6))) * (sign, 1.0))
        stripes.append(np.array(((3.2, 7.8), (4.1, 7.3), (2.1, 5.8))) * (sign, 1.0))
        for top, reach in ((0.8, 5.0), (-1.1, 4.7), (-3.0, 4.5)):
            stripes.append(np.array(((7.6, top + 0.5), (7.6, top - 0.5), (reach, top - 0.3))) * (sign, 1.0))
    return stripes


def nose(identity: Identity, view: View, coat: Coat) -> list[Mark]:
    """The leathery nose with a highlight, and the line from nose to lip."""
    size = coat.nose_size
    half = np.array(((0.0, -0.35), (0.7, -0.25), (1.15, -0.55), (1.0, -1.2), (0.45, -1.85), (0.0, -2.05)))
    outline = np.concatenate((half, half[-2:0:-1] * (-1.0, 1.0)))
    outline = (outline - NOSE_MIDDLE) * size + NOSE_MIDDLE
    leather = view.face(curve(outline, 24, closed=True))
    line = view.points[:, np.array((2, 164, 0, 13))]
    glint = np.array((0.35 * np.sign(identity.light[0]), -0.65)) + unit_circle(12) * np.array((0.38, 0.2)) * size
    dark = darker(coat.nose, 0.6)
    marks: list[Mark] = [Stroke(line, darker(identity.lips, 0.6), view.line), Fill(leather, coat.nose)]
    for sign in SIGNS:
        nostril = np.array((0.5 * sign, -1.3)) * size + unit_circle(10) * np.array((0.22, 0.16)) * size
        marks.append(Fill(view.face(nostril), dark))
    return [*marks, Fill(view.face(glint), lighter(coat.nose, 0.45))]


def whiskers(identity: Identity, view: View, coat: Coat) -> list[Mark]:
    """Whiskers and their dots."""
    if not coat.whiskers:
        return []
    light = sum(identity.backdrop[0]) + sum(identity.skin) < 760
    colour = (250, 250, 246) if light else mix(identity.ink, (90, 80, 80), 0.5)
    roots = np.array(((1.7, -2.7), (2.0, -3.2), (1.8, -3.7)))
    marks: list[Mark] = []
    for sign in SIGNS:
        base = view.face(roots * (sign, 1.0))
        cheek = view.neutral[(205, 425)[int(sign > 0)]]
        t = np.linspace(0.0, 1.0, 6)[:, None]
        for row, rise in enumerate((0.9, 0.0, -0.9)):
            path = np.concatenate((5.4 * t * sign, rise * t - 0.5 * t * t, -1.6 * t), axis=1)
            away = view.head(cheek + path)
            marks.append(Stroke(base[:, row : row + 1] + away - away[:, :1], colour, 0.7 * view.line))
        marks.append(Discs(base, 0.11 * view.cm[:, None], darker(coat.muzzle, 0.5)))
    return marks
