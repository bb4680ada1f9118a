"""Hair, attached to the skull."""

import numpy as np

from fye_training.drawing.canvas import (
    Colour,
    Discs,
    Fill,
    Hull,
    HullFill,
    Inside,
    Mark,
    Paint,
    Points,
    Stroke,
    Strokes,
)
from fye_training.drawing.character import Identity
from fye_training.drawing.colour import darker, lighter, mix
from fye_training.drawing.features import SIGNS
from fye_training.drawing.shading import Shading
from fye_training.drawing.view import Array, View, curve, direction, sphere, tube

LONG = ("bob", "long", "wavy")
HIDDEN_BELOW = 38.0  # degrees of elevation at which a turned head's forehead meets the skull's far edge


def volume(identity: Identity) -> float:
    """Height of the hair above the skull, in its radii."""
    return {"bald": 0.0, "receding": 0.03, "short": 0.06, "curly": 0.16, "afro": 0.3, "spiky": 0.08}.get(
        identity.hair_style, 0.1
    )


def back(identity: Identity, view: View) -> list[Mark]:
    """The hair behind neck and shoulders."""
    style = identity.hair_style
    if style == "bald":
        return []
    marks: list[Mark] = []
    dark = darker(identity.hair, 0.32)
    centre, radii = view.skull.centre, view.skull.radii
    if style in LONG:
        bottom = {"bob": view.neutral[152, 1] - 0.5, "long": view.neutral[152, 1] - 9.0}.get(
            style, view.neutral[152, 1] - 6.0
        )
        side = radii[0] * 1.12
        right = np.array(
            ((side * 0.8, centre[1] + 5.0), (side * 1.04, centre[1] - 1.0), (side * 1.2, (bottom + centre[1]) / 2 - 2))
        )
        sweep = np.array(((side * 1.12, bottom + 0.5), (side * 0.55, bottom - 0.8), (0.0, bottom)))
        half = np.concatenate((right, sweep))
        outline = np.concatenate((half, half[::-1] * (-1.0, 1.0)))
        if style == "wavy":
            outline[:, 0] *= 1.0 + 0.05 * np.cos(np.arange(len(outline)) * np.pi)
        outline = curve(outline, 48, closed=True)
        depth = np.full((len(outline), 1), centre[2] - 1.5)
        marks += covered(identity, view, view.head(np.concatenate((outline, depth), axis=1)), dark)
    if style == "bun":
        knot = view.head((centre + np.array((0.0, radii[1] * 1.15, -radii[2] * 0.45)))[None])
        size = 3.4 * view.cm[:, None]
        if identity.ink_width:
            marks.append(Discs(knot, size + identity.ink_width * view.line, identity.ink))
        marks.append(Discs(knot, size, mix(identity.hair, dark, 0.35)))
        marks.append(
            Discs(knot + np.array((-0.8, -0.9)) * view.cm[:, None, None], 0.45 * size, lighter(identity.hair, 0.08))
        )
    if style == "ponytail":
        sign = np.sign(identity.parting) or 1.0
        tail = np.array(
            ((0.2, 5.0, -9.5), (5.0, 6.0, -12.0), (9.5, 1.0, -11.5), (10.5, -6.0, -10.0), (8.5, -11.0, -9.0))
        )
        line = curve(view.head(tail * (sign, 1.0, 1.0) + (0.0, centre[1], 0.0)), 14)
        radius = np.interp(np.linspace(0, 1, 14), (0, 0.3, 0.7, 1.0), (1.2, 2.6, 2.2, 0.1)) * view.cm[:, None]
        marks += covered(identity, view, tube(line, radius), mix(identity.hair, dark, 0.5))
    return marks


def covered(identity: Identity, view: View, points: Points, colour: Colour, stone: Shading | None = None) -> list[Mark]:
    """A patch of hair with its outline; on a sculpture, filled from its shading and set off by a groove."""
    if stone is not None:
        groove = Stroke(points, mix(identity.skin, identity.ink, 0.7), 2.0 * view.line, closed=True)
        return [groove, *_carved(identity, points, stone)]
    marks: list[Mark] = [Fill(points, colour)]
    if identity.ink_width:
        marks.insert(0, Stroke(points, identity.ink, 2 * identity.ink_width * view.line, closed=True))
    return marks


def _carved(identity: Identity, points: Points, stone: Shading) -> list[Mark]:
    return [Paint(stone, [points]), Inside(points, [Fill(points, identity.hair)], 0.45)]


def behind_face(identity: Identity, view: View, stone: Shading | None) -> list[Mark]:
    """The hair on the skull, behind the face; `stone` is the shading of a sculpture."""
    if identity.hair_style == "bald":
        return []
    directions = sphere(220)
    low = -0.55 if identity.hair_style not in LONG else -0.8
    directions = directions[directions[:, 1] > low]
    shade = mix(identity.hair, darker(identity.hair, 0.32), 0.6)
    marks: list[Mark] = []
    height = volume(identity)
    if identity.hair_style in ("curly", "afro"):
        curls = directions[::2]
        centres = view.shell(curls, height - 0.08)
        size = (1.9 if identity.hair_style == "curly" else 2.3) * view.cm[:, None]
        if identity.ink_width:
            marks.append(Discs(centres, size + identity.ink_width * view.line, identity.ink))
        # the scalp hides the background between the curls
        scalp = HullFill(Hull(view.head(view.skull.points(directions, 0.06))), shade, shade, 0.0)
        return [*marks, scalp, Discs(centres, size, shade)]
    hull = Hull(view.head(view.skull.points(directions, height)))
    if stone is not None:
        return [Paint(stone, [hull], mix(identity.skin, identity.ink, 0.7), 0.5 * view.line)]
    return [HullFill(hull, shade, identity.ink, 2 * identity.ink_width * view.line)]


def hairline(identity: Identity) -> Array:
    """The front edge of the hair (n, 2), azimuth and elevation in degrees, from the picture's left to its right."""
    azimuth = np.linspace(-98.0, 98.0, 57)
    a = np.abs(azimuth)
    edge = 37.0 - 4.0 * (a / 60.0) ** 2
    # the temples' corner, then down in front of the ears
    edge = np.where(a > 62, np.interp(a, (62, 72, 80, 86, 98), (32, 20, 8, -14, -20)), edge)
    style, parting = identity.hair_style, identity.parting
    if style == "receding":
        edge = np.where(a < 68, 47.0 + 9.0 * np.cos(np.deg2rad(a * 3.2 + 180.0)), edge)
    elif style in ("bob", "long", "wavy") and abs(parting) < 0.35:
        edge = np.where(a < 60, 25.0 + 1.5 * np.cos(a * 0.35), np.interp(a, (60, 76, 98), (24, -5, -24)))
    elif style in ("side", "long", "wavy", "bob"):
        away = np.abs(azimuth - 32.0 * np.sign(parting))
        edge = np.where(a < 70, np.interp(away, (0, 12, 60, 105), (45, 38, 24, 12)), edge)
    elif style == "spiky":
        edge = edge - np.where(a < 66, 13.0 * np.abs(((azimuth + 90) / 17.0) % 2 - 1.0), 0.0) + 2.0
    elif style in ("curly", "afro"):
        edge = edge - 3.0 + 2.5 * np.cos(np.deg2rad(azimuth * 15.0))
    elif style == "quiff":
        edge = edge + 2.0
    else:
        edge = edge + 1.5 * np.cos(np.deg2rad(azimuth * 9.0 + 90 * parting))
    return np.stack((azimuth, edge), axis=-1)


def front(identity: Identity, view: View, stone: Shading | None) -> list[Mark]:
    """The hair over the forehead and in front of the ears; `stone` is the shading of a sculpture."""
    if identity.hair_style == "bald":
        return []
    height = volume(identity)
    line = hairline(identity)
    over = np.stack((np.linspace(125.0, -125.0, 21), 45.0 + 40.0 * np.cos(np.linspace(-1.3, 1.3, 21)) ** 2), axis=-1)
    crown = np.broadcast_to(direction(over[:, 0], over[:, 1]), (len(view), len(over), 3))
    rise = np.concatenate((np.full(len(line), 0.02 + 0.3 * height), np.full(len(over), height)))
    # flat at the patch's edge, rising to the hair's volume
    patch = view.shell(np.concatenate((_before_face(view, line, 0.0), crown), axis=1), rise)
    marks: list[Mark] = []
    edge = view.shell(_before_face(view, line, -1.6), 0.01)
    shadow = mix(identity.skin, mix(identity.skin, identity.shade, identity.contrast), 0.9)
    marks.append(Fill(np.concatenate((edge, patch[:, : len(line)][:, ::-1]), axis=1), shadow))
    if identity.ink_width:
        marks.append(Stroke(patch[:, : len(line)], identity.ink, 2 * identity.ink_width * view.line))
    marks += [Fill(patch, identity.hair)] if stone is None else _carved(identity, patch, stone)
    marks += _strands(identity, view, line, height)
    if identity.hair_style == "quiff":
        marks += _quiff(identity, view, height)
    return marks


def _before_face(view: View, line: Array, lower: float) -> Array:
    """Directions (F, n, 3) of the visible hairline: the forehead hides its far temple."""
    azimuth, elevation = line.T
    facing = view.facing(direction(azimuth, np.maximum(elevation, HIDDEN_BELOW)))
    hidden = np.clip((0.35 - facing) / 0.25, 0.0, 1.0)
    lifted = elevation + (np.maximum(elevation, HIDDEN_BELOW) - elevation) * hidden + lower
    return direction(np.broadcast_to(azimuth, lifted.shape), lifted)


def _strands(identity: Identity, view: View, line: Array, height: float) -> list[Mark]:
    """Lines of the locks and a band of light; highlights on curls."""
    style = identity.hair_style
    generator = np.random.default_rng((identity.seed, 11))
    marks: list[Mark] = []
    if style in ("curly", "afro"):
        places = sphere(220)
        places = places[(places[:, 1] > 0.62) | ((places[:, 1] > 0.45) & (places[:, 2] < 0.5))]
        centres = view.shell(places, height - 0.06)
        radius = 1.75 * view.cm[:, None]
        marks.append(Discs(centres, radius, identity.hair))
        light = np.array((np.sign(identity.light[0]), -1.0)) * view.cm[:, None, None] * 0.55
        tone = lighter(identity.hair, 0.1)
        marks.append(Discs(centres[:, ::2] + light, 0.8 * view.cm[:, None], tone))
        return marks
    band = np.linspace(-55.0, 55.0, 15) + 25.0 * np.sign(identity.light[0])
    upper = direction(band, 64.0 - 6.0 * np.cos(np.deg2rad(band)))
    lower = direction(band, 55.0 + 3.0 * np.cos(np.deg2rad(band * 9)))
    glow = np.concatenate((view.shell(upper, height), view.shell(lower, height)[:, ::-1]), axis=1)
    marks.append(Fill(glow, mix(identity.hair, lighter(identity.hair, 0.35), 0.5 + 0.5 * identity.gloss)))
    roots = generator.uniform(-75.0, 75.0, 11)
    start = np.interp(roots, line[:, 0], line[:, 1])
    part = 35.0 * identity.parting
    t = np.linspace(0.0, 1.0, 7)
    azimuth = roots[:, None] + (part - roots[:, None]) * (0.75 * t**1.5)
    elevation = start[:, None] + (82.0 - start[:, None]) * t * 0.9
    paths = view.shell(direction(azimuth, elevation).reshape(-1, 3), 0.5 * height + 0.02)
    marks.append(Strokes(paths.reshape(len(view), len(roots), 7, 2), darker(identity.hair, 0.28), view.line))
    return marks


def _quiff(identity: Identity, view: View, height: float) -> list[Mark]:
    base = np.linspace(-48.0, 48.0, 9)
    low = view.shell(direction(base, 38.0 + 0.0 * base), 0.06)
    sway = 14.0 * identity.parting
    high = view.shell(direction(base + sway, 58.0 + 0.0 * base), height + 0.14 + 0.10 * np.cos(np.deg2rad(base * 1.7)))
    tuft = curve(np.concatenate((low, high[:, ::-1]), axis=1), 36, closed=True)
    return [*covered(identity, view, tuft, lighter(identity.hair, 0.06))]


def side_locks(identity: Identity, view: View) -> list[Mark]:
    """Long hair beside the face, behind its edge."""
    if identity.hair_style not in LONG:
        return []
    chin = view.neutral[152, 1]
    bottom = {"bob": chin + 1.0, "long": chin - 7.0}.get(identity.hair_style, chin - 4.5)
    centre, radii = view.skull.centre, view.skull.radii
    marks: list[Mark] = []
    for sign in SIGNS:
        path = np.array(
            (
                (radii[0] * 0.80, centre[1] + 5.0, 0.5),
                (radii[0] * 1.02, centre[1] + 0.5, -0.5),
                (radii[0] * 1.05, (centre[1] + bottom) / 2.0, -1.2),
                (radii[0] * 0.98, bottom, -1.5),
            )
        )
        line = curve(view.head(path * (sign, 1.0, 1.0) + (0.0, 0.0, centre[2] + 2.0)), 14)
        t = np.linspace(0.0, 1.0, 14)
        wave = 0.25 * np.cos(t * 14.0) if identity.hair_style == "wavy" else 0.0
        radius = (np.interp(t, (0, 0.3, 0.75, 1.0), (1.2, 2.2, 2.3, 0.5)) + wave) * view.cm[:, None]
        marks += covered(identity, view, tube(line, radius), identity.hair)
        marks.append(Stroke(line[:, 3:-1], darker(identity.hair, 0.28), view.line))
    return marks
