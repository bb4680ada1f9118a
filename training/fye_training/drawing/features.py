"""Eyes, brows, nose and mouth, which follow the mesh."""

import numpy as np

from fye_training.drawing.canvas import Colour, Discs, Fill, Inside, Mark, Points, Stroke, Strokes, unit_circle
from fye_training.drawing.character import Identity
from fye_training.drawing.colour import darker, lighter, mix
from fye_training.drawing.view import View, curve, tube
from fye_training.topology import (
    EYES,
    LOWER_BROW,
    LOWER_LID,
    LOWER_LIP_INNER,
    LOWER_LIP_OUTER,
    MOUTH,
    UPPER_BROW,
    UPPER_LID,
    UPPER_LIP_INNER,
    UPPER_LIP_OUTER,
)

SIDES = (0, 1)  # the person's right (the picture's left), then left
SIGNS = (-1.0, 1.0)
CREASES = (np.array((247, 30, 29, 27, 28, 56, 190)), np.array((467, 260, 259, 257, 258, 286, 414)))
BAGS = (np.array((226, 31, 228, 229, 230, 231, 232)), np.array((446, 261, 448, 449, 450, 451, 452)))
JAW = np.array((152, 175, 199, 200))
WHITE: Colour = (255, 255, 255)


def eyes(identity: Identity, view: View) -> list[Mark]:
    """Eyeballs cut to the lids' opening, with lids, lashes and creases."""
    marks: list[Mark] = []
    for side in SIDES:
        contour = view.points[:, EYES[side]]
        lid = view.points[:, UPPER_LID[side]]
        marks.append(Inside(contour, _eyeball(identity, view, side, lid)))
        if identity.ink_width or identity.coat:
            marks.append(Stroke(contour, identity.lash, max(identity.ink_width, 0.8) * view.line, closed=True))
        fold = mix(identity.skin, identity.shade, 0.85)
        if identity.coat is None:
            marks.append(Stroke(curve(view.points[:, CREASES[side]], 13), fold, view.line))
        if identity.age > 0.5:
            marks.append(Stroke(view.points[:, BAGS[side]], mix(identity.skin, identity.shade, 0.7), view.line))
        lower = view.points[:, LOWER_LID[side]][:, :-1]
        marks.append(Stroke(lower, mix(fold, identity.lash, 0.45), view.line))
        marks.append(Fill(_lash_line(identity, view, lid), identity.lash))
    return marks


def _eyeball(identity: Identity, view: View, side: int, lid: Points) -> list[Mark]:
    iris = view.points[:, 468 + 5 * side : 473 + 5 * side]
    centre = iris[:, :1]
    across, down = (iris[:, 1] - iris[:, 3]) / 2.0, (iris[:, 4] - iris[:, 2]) / 2.0
    circle = unit_circle()
    disc = (circle[:, :1] * across[:, None] + circle[:, 1:] * down[:, None]) * identity.iris_size
    radius = np.linalg.norm(down, axis=-1)[:, None] * identity.iris_size
    slit = np.array((0.45, 1.25)) if identity.coat and identity.coat.slit else np.array((1.0, 1.0))
    glint = centre + np.stack((0.3 * radius * np.sign(identity.light[0] or 1.0), -0.35 * radius), axis=-1)
    shadow = tube(lid, np.full(lid.shape[1], 0.22) * view.cm[:, None])
    if identity.family == "sculptures":
        return _carved_eyeball(identity, centre, disc, (view.points[:, EYES[side]], shadow))
    marks: list[Mark] = [
        Fill(view.points[:, EYES[side]], identity.sclera),
        Fill(centre + disc, darker(identity.iris, 0.5)),
        Fill(centre + 0.8 * disc, identity.iris),
        Fill(centre + np.array((0.0, 0.25)) * radius[..., None] + 0.5 * disc, lighter(identity.iris, 0.25)),
        Fill(centre + 0.45 * disc * slit, darker(identity.iris, 0.85)),
        Fill(shadow, mix(identity.sclera, identity.shade, 0.55)),
    ]
    # the lid's shadow is only on the white, so that the iris keeps its contrast
    marks.insert(1, marks.pop())
    marks.append(Discs(glint, 0.26 * radius, WHITE))
    return marks


def _carved_eyeball(identity: Identity, centre: Points, disc: Points, rows: tuple[Points, Points]) -> list[Mark]:
    """A sculpted eye: the iris is a ring cut into the ball, the pupil a hole."""
    contour, shadow = rows
    return [
        Fill(contour, identity.sclera),
        Fill(shadow, mix(identity.sclera, identity.shade, 0.3)),
        Fill(centre + disc, identity.lash),
        Fill(centre + 0.74 * disc, identity.iris),
        Fill(centre + 0.46 * disc, darker(identity.shade, 0.45)),
    ]


def _lash_line(identity: Identity, view: View, lid: Points) -> Points:
    """The upper lid's line, thicker outside, with a short flick beyond the corner."""
    flick = lid[:, :1] + 0.35 * (lid[:, :1] - lid[:, 2:3])
    line = curve(np.concatenate((flick, lid), axis=1), 14)
    at = np.linspace(0.0, 1.0, line.shape[1])
    width = (0.04 + 0.14 * np.minimum(at / 0.2, 1.0) * (1.0 - at) ** 0.6) * identity.lash_width
    width = np.maximum(width * view.cm[:, None], 0.35 * view.line)
    raised = line - np.stack((np.zeros_like(width), 0.6 * width), axis=-1)
    return tube(raised, width)


def brows(identity: Identity, view: View) -> list[Mark]:
    """Tapered brows."""
    marks: list[Mark] = []
    for side in SIDES:
        upper, lower = view.points[:, UPPER_BROW[side]], view.points[:, LOWER_BROW[side]]
        middle, half = (upper + lower) / 2.0, (upper - lower) / 2.0
        taper = np.array((0.25, 0.75, 1.0, 1.05, 0.9))[:, None] * identity.brow_width * 0.8
        top, bottom = curve(middle + half * taper, 11), curve(middle - half * taper, 11)
        marks.append(Fill(np.concatenate((top, bottom[:, ::-1]), axis=1), identity.brow))
    return marks


def nose(identity: Identity, view: View) -> list[Mark]:
    """Nostrils, the lines of wings and base, and a highlight on the tip."""
    soft = identity.ink if identity.ink_width else mix(identity.skin, identity.shade, 0.75)
    dark = darker(identity.shade, 0.45)
    circle = unit_circle(12)
    marks: list[Mark] = []
    wings = view.points[:, np.array((129, 102, 64, 98))], view.points[:, np.array((358, 331, 294, 327))]
    for side, sign in zip(SIDES, SIGNS, strict=True):
        marks.append(Stroke(curve(wings[side][:, 1:], 7), soft, view.line))
        nostril = np.array((0.72 * sign, -1.78)) + circle * (0.36, 0.17)
        marks.append(Fill(view.face(nostril), dark))
    base = np.array(((-0.75, -2.0), (-0.35, -2.12), (0.0, -2.2), (0.35, -2.12), (0.75, -2.0)))
    marks.append(Stroke(view.face(base), soft, view.line))
    # a sculpture's shading already has highlights
    shine = 0.25 + 0.5 * identity.gloss if identity.family != "sculptures" else 0.3 * identity.gloss
    tip = np.array((0.22 * np.sign(identity.light[0]), -0.35)) + circle * (0.34, 0.42)
    marks.append(Inside(view.face(tip), [Fill(view.face(tip), identity.glow)], shine))
    return marks


def mouth(identity: Identity, view: View) -> list[Mark]:
    """The opening with teeth and tongue, then the lips around it."""
    points = view.points
    upper, lower = points[:, UPPER_LIP_INNER], points[:, LOWER_LIP_INNER]
    top, bottom = curve(points[:, UPPER_LIP_OUTER], 21), curve(points[:, LOWER_LIP_OUTER], 21)
    upper_lip = np.concatenate((top, upper[:, ::-1]), axis=1)
    lower_lip = np.concatenate((bottom, lower[:, ::-1]), axis=1)
    seam = identity.ink if identity.ink_width else darker(identity.lips, 0.6)
    pen = max(identity.ink_width, 1.0) * view.line
    middle = lower[:, 2:-2]
    across = np.linspace(-1.0, 1.0, 7)
    rows = (
        middle + (points[:, LOWER_LIP_OUTER[2:-2]] - middle) * (0.5 - 0.2 * sign * (1.0 - across[:, None] ** 2))
        for sign in (-1.0, 1.0)
    )
    first, second = rows
    shine = np.concatenate((first, second[:, ::-1]), axis=1)
    around = np.concatenate((top, bottom[:, ::-1]), axis=1)
    outline: list[Mark] = [Stroke(around, seam, pen, closed=True)] if identity.family == "cartoons" else []
    return [
        *outline,
        Fill(around, identity.lips),
        Inside(points[:, MOUTH], _mouth_inside(identity, view)),
        Fill(upper_lip, darker(identity.lips, 0.14)),
        Fill(lower_lip, identity.lips),
        Inside(shine, [Fill(shine, lighter(identity.lips, 0.5))], 0.3 + 0.5 * identity.gloss),
        Stroke(upper, seam, pen),
        Stroke(lower, mix(identity.lips, seam, 0.6), view.line),
    ]


def _mouth_inside(identity: Identity, view: View) -> list[Mark]:
    neutral = view.neutral
    lips = neutral[13]
    width = 0.82 * neutral[308, 0]
    x = np.linspace(-1.0, 1.0, 9)
    arch = np.stack((width * x, np.zeros(9), -0.7 - 1.6 * x * x), axis=-1) + np.array((0.0, lips[1], lips[2]))
    jaw = (view.mesh[:, JAW] - neutral[JAW]).mean(axis=1, keepdims=True)
    upper = [arch + np.array((0.0, 0.9, 0.0)), arch + np.stack((0 * x, -0.32 + 0.3 * x * x, 0 * x), axis=-1)]
    lower = [
        arch + np.stack((0 * x, -0.36 - 0.15 * x * x, -0.3 + 0 * x), axis=-1),
        arch + np.array((0.0, -1.2, -0.3)),
    ]
    circle = unit_circle()
    tongue = np.concatenate((circle * (1.35, 0.75), np.zeros((len(circle), 1))), axis=1) + lips + (0.0, -1.25, -1.4)
    upper_edges = [view.head(row) for row in upper]
    lower_edges = [view.head(row + jaw) for row in lower]
    stone = identity.family == "sculptures"
    enamel = (246, 242, 232) if not stone else mix(identity.skin, identity.shade, 0.15)
    dark = (62, 14, 22) if not stone else darker(identity.shade, 0.7)
    flesh = (206, 92, 98) if not stone else mix(identity.shade, dark, 0.3)
    upper_gaps = np.stack(upper_edges, axis=2)[:, 1:-1]
    return [
        Fill(view.points[:, MOUTH], dark),
        Fill(np.concatenate((lower_edges[0], lower_edges[1][:, ::-1]), axis=1), mix(enamel, dark, 0.12)),
        Fill(view.head(tongue + jaw), flesh),
        Fill(np.concatenate((upper_edges[0], upper_edges[1][:, ::-1]), axis=1), enamel),
        Strokes(upper_gaps, mix(enamel, dark, 0.16), view.line),
    ]
