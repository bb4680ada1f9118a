"""Beards, glasses and hats."""

import numpy as np

from fye_training.drawing.canvas import Colour, Fill, Hull, HullFill, Inside, Mark, Points, Stroke, Strokes
from fye_training.drawing.character import Identity
from fye_training.drawing.colour import darker, lighter, mix
from fye_training.drawing.features import SIDES, SIGNS
from fye_training.drawing.hair import covered
from fye_training.drawing.shading import Shading
from fye_training.drawing.view import Array, View, curve, direction, sphere
from fye_training.topology import EYES, FACE_OVAL

JAWLINE = FACE_OVAL[9:28]  # from the picture's right ear under the chin to its left ear
HAT_VOLUME = 0.16  # height above the skull, in its radii
# half outlines on the canonical face, x and y: from the middle outwards and back; from the ear to the middle
MOUSTACHE = ((0.0, -2.55), (0.9, -2.5), (2.0, -2.95), (2.9, -3.9), (3.1, -4.6), (2.5, -4.3), (1.4, -3.75), (0.0, -3.6))
BEARD_TOP = ((7.3, 1.2), (6.7, -1.2), (5.6, -3.2), (4.2, -3.6), (3.0, -3.0), (1.2, -2.5), (0.0, -2.6))


def beard(identity: Identity, view: View, stone: Shading | None) -> list[Mark]:
    """The beard, which the lips are drawn over; `stone` is a sculpture's shading, of the same material."""
    kind = identity.beard
    colour = mix(identity.hair, identity.brow, 0.3)
    dark = darker(colour, 0.3)
    if kind in ("", "stubble"):
        return []
    marks: list[Mark] = []
    if kind == "full":
        marks += _full(identity, view, colour, stone)
    if kind == "goatee":
        half = np.array(((0.0, -5.3), (1.6, -5.3), (2.7, -4.3), (3.1, -5.4), (2.6, -7.6), (1.5, -9.2), (0.0, -9.6)))
        marks += _patch(identity, view, _mirrored(half), colour, stone)
    if kind in ("goatee", "moustache"):
        marks += _patch(identity, view, _mirrored(np.array(MOUSTACHE)), colour, stone)
        marks.append(Stroke(view.face(np.array(((0.0, -2.7), (0.0, -3.5)))), dark, view.line))
    return marks


def _mirrored(half: Array) -> Array:
    return np.concatenate((half, half[-2:0:-1] * (-1.0, 1.0)))


def _patch(identity: Identity, view: View, outline: Array, colour: Colour, stone: Shading | None) -> list[Mark]:
    return covered(identity, view, curve(view.face(outline), 32, closed=True), colour, stone)


def _full(identity: Identity, view: View, colour: Colour, stone: Shading | None) -> list[Mark]:
    """A beard from ear to ear, longer below the chin with age."""
    half = np.array(BEARD_TOP)
    top = view.face(np.concatenate((half * (-1.0, 1.0), half[-2::-1])))
    jaw = view.mesh[:, JAWLINE]
    at = np.sin(np.linspace(0.0, np.pi, len(JAWLINE)))[:, None]
    hanging = view.head(jaw + at * (0.0, -0.7 - 2.2 * identity.age, 0.1) + (1.0 - at) * (0.0, 0.0, 0.2))
    outline = np.concatenate((top, curve(hanging, 28)), axis=1)
    marks = covered(identity, view, outline, colour, stone)
    start, end = hanging[:, 4:-4:2], view.points[:, JAWLINE][:, 4:-4:2]
    locks = np.stack((end + 0.35 * (end - start), start + 0.2 * (end - start)), axis=2)
    marks.append(Strokes(locks, darker(colour, 0.3), view.line))
    return marks


def glasses(identity: Identity, view: View) -> list[Mark]:
    """Frames in front of the eyes, with arms to the ears."""
    if not identity.glasses:
        return []
    width = 1.3 * view.line
    marks: list[Mark] = []
    inner: list[Points] = []
    for side, sign in zip(SIDES, SIGNS, strict=True):
        eye = view.neutral[EYES[side]]
        centre = (eye.min(axis=0) + eye.max(axis=0)) / 2.0 + (0.1 * sign, -0.15, 0.0)
        centre[2] = max(eye[:, 2].max(), view.neutral[168, 2] - 1.0) + 0.5
        outline = _lens(identity.glasses) * (sign, 1.0)
        # lenses follow the face's curve
        solid = np.concatenate((outline, -0.22 * np.abs(outline[:, :1]) * np.sign(outline[:, :1] * sign)), axis=1)
        lens = view.head(centre + solid)
        reach = sign * np.abs(outline[:, 0]).max()
        hinge = centre + np.array((reach, 0.5, -0.4))
        arm = view.head(np.stack((hinge, view.neutral[(127, 356)[side]] + (0.35 * sign, 0.0, 0.6))))
        marks.append(Inside(lens, [Fill(lens, lighter(identity.frame, 0.85))], 0.12))
        marks += [Stroke(arm, identity.frame, width), Stroke(lens, identity.frame, width, closed=True)]
        inner.append(view.head((centre + np.array((-reach, 0.35, 0.35)))[None]))
    middle = view.head(view.neutral[168][None] + (0.0, 0.1, 0.5))
    marks.append(Stroke(np.concatenate((inner[0], middle, inner[1]), axis=1), identity.frame, width))
    return marks


def _lens(kind: str) -> Array:
    """Outline (n, 2) of the left lens, in centimetres around the eye."""
    angle = np.linspace(0.0, 2.0 * np.pi, 28, endpoint=False)
    x, y = np.cos(angle), np.sin(angle)
    if kind == "round":
        return 1.75 * np.stack((x, y), axis=-1)
    # a superellipse: between ellipse and rectangle
    x, y = np.sign(x) * np.abs(x) ** 0.55, np.sign(y) * np.abs(y) ** 0.55
    if kind == "cat":
        y = y + 0.35 * np.clip(x, 0.0, 1.0) * np.clip(y + 0.3, 0.0, 1.0)
    return np.stack((2.0 * x, 1.35 * y), axis=-1)


BRIMS = {"beanie": 26.0, "cap": 36.0, "band": 36.0}  # elevation in degrees


def hat_behind(identity: Identity, view: View) -> list[Mark]:
    """The part of a hat that the face may cover."""
    if identity.hat in ("", "band"):
        return []
    directions = sphere(220)
    dome = view.skull.points(directions[directions[:, 1] > np.sin(np.deg2rad(BRIMS[identity.hat]))], HAT_VOLUME)
    dark = darker(identity.cloth, 0.35)
    return [HullFill(Hull(view.head(dome)), dark, identity.ink, 2 * identity.ink_width * view.line)]


def hat(identity: Identity, view: View) -> list[Mark]:
    """The visible outside of a hat or headband."""
    if not identity.hat:
        return []
    dark, brim = darker(identity.cloth, 0.3), BRIMS[identity.hat]
    azimuth = np.linspace(-104.0, 104.0, 25)
    low = _ring(view, azimuth, brim, 0.13)
    if identity.hat == "band":
        high = _ring(view, azimuth, brim + 14.0, HAT_VOLUME)
        return [Fill(np.concatenate((low, high[:, ::-1]), axis=1), identity.cloth), Stroke(low, dark, view.line)]
    back = np.linspace(125.0, -125.0, 21)
    over = view.shell(direction(back, 45.0 + 40.0 * np.cos(np.linspace(-1.3, 1.3, 21)) ** 2), HAT_VOLUME)
    dome = np.concatenate((low, over), axis=1)
    marks: list[Mark] = [Fill(dome, identity.cloth)]
    if identity.hat == "beanie":
        high = _ring(view, azimuth, brim + 18.0, HAT_VOLUME)
        ribs = np.stack((low, high), axis=2)[:, 5:-5]
        band = np.concatenate((low, high[:, ::-1]), axis=1)
        return [*marks, Fill(band, mix(identity.cloth, identity.trim, 0.35)), Strokes(ribs, dark, view.line)]
    front = np.linspace(-58.0, 58.0, 15)
    root = _ring(view, front, brim, 0.14)
    depth = 4.6 * np.cos(np.deg2rad(front * 1.45))[:, None] ** 0.6
    peak = view.skull.points(direction(front, np.full(15, brim)), 0.14) + depth * (0.0, -0.12, 1.0)
    visor = np.concatenate((root, view.head(peak)[:, ::-1]), axis=1)
    seam = view.shell(direction(np.zeros(6), np.linspace(brim, 88.0, 6)), HAT_VOLUME)
    return [*marks, Stroke(seam, dark, view.line), Fill(visor, dark), Stroke(root, identity.trim, view.line)]


def _ring(view: View, azimuth: Array, elevation: float, volume: float) -> Points:
    return view.shell(direction(azimuth, np.full(len(azimuth), elevation)), volume)
