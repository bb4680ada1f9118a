"""Surroundings of the head: the background, and the shoulders in their clothes."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fye_training.drawing.canvas import (
    SUPERSAMPLING,
    Colour,
    Discs,
    Fill,
    Image,
    Inside,
    Mark,
    Points,
    Stroke,
    unit_circle,
)
from fye_training.drawing.character import Identity
from fye_training.drawing.colour import darker, lighter, mix
from fye_training.drawing.view import Array, View, curve

CHEST_DEPTH = -4.5  # centimetres behind the face; the body is flat


def background(identity: Identity, size: tuple[int, int]) -> Image:
    """The picture behind the character: uint8, at the canvas's size for pictures of `size`."""
    height, width = size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING
    generator = np.random.default_rng((identity.seed, 7))
    near, far = (np.array(colour, np.float32) for colour in identity.backdrop)
    y, x = np.mgrid[0:64, 0:64].astype(np.float32) / 63.0
    if identity.background == "spot":
        centre_x, centre_y = generator.uniform(0.3, 0.7), generator.uniform(0.3, 0.5)
        part = np.clip(np.hypot(x - centre_x, y - centre_y) * 1.3, 0.0, 1.0)
    else:
        slope = generator.uniform(-0.4, 0.4)
        part = np.clip(y + slope * (x - 0.5), 0.0, 1.0)
    base = cv2.resize(near + (far - near) * part[..., None], (width, height), interpolation=cv2.INTER_LINEAR)
    picture = np.clip(base, 0, 255).astype(np.uint8)
    first, second = identity.backdrop
    extent = np.array((width, height), np.float64)
    if identity.background == "bokeh":
        for _ in range(14):
            centre = (generator.uniform(0.0, 1.0, 2) * extent).astype(int).tolist()
            layer = picture.copy()
            tone = lighter(mix(first, second, float(generator.uniform())), float(generator.uniform(0.15, 0.5)))
            cv2.circle(layer, centre, int(generator.uniform(0.03, 0.1) * height), tone, -1, cv2.LINE_AA)
            picture = cv2.addWeighted(picture, 0.6, layer, 0.4, 0.0)
    elif identity.background in ("stripes", "rays"):
        count = int(generator.integers(4, 9))
        tone = mix(first, second, 0.6) if identity.background == "rays" else mix(second, first, 0.35)
        for stripe in range(count):
            if identity.background == "rays":
                corners = np.array(((0.0, 0.0), _around(2 * stripe, 2 * count), _around(2 * stripe + 1, 2 * count)))
                corners = (corners * 1.5 + 0.5) * extent
            else:
                left = (stripe + 0.25) / count
                corners = np.array(((left, 0), (left + 0.5 / count, 0), (left + 0.5 / count, 1), (left, 1))) * extent
            cv2.fillPoly(picture, [np.rint(corners * 16).astype(np.int32)], tone, cv2.LINE_AA, 4)
    elif identity.background == "wall":
        horizon = float(generator.uniform(0.55, 0.8)) * height
        cv2.rectangle(picture, (0, int(horizon)), (width, height), darker(second, 0.25), -1)
        left, top = generator.uniform(-0.1, 0.15), generator.uniform(0.02, 0.15)
        frame = (np.array(((left, top), (left + 0.3, top + 0.3))) * extent).astype(int).tolist()
        cv2.rectangle(picture, frame[0], frame[1], lighter(first, 0.35), -1)
        cv2.rectangle(picture, frame[0], frame[1], darker(second, 0.35), max(2, height // 64))
    elif identity.background == "sky":
        for _ in range(5):
            middle = generator.uniform((0.0, 0.05), (1.0, 0.6)) * extent
            for _ in range(4):
                puff = (middle + generator.uniform(-0.06, 0.06, 2) * extent * (1.6, 0.5)).astype(int).tolist()
                cv2.circle(
                    picture, puff, int(generator.uniform(0.03, 0.06) * height), lighter(first, 0.7), -1, cv2.LINE_AA
                )
    return picture


def _around(step: int, steps: int) -> tuple[float, float]:
    angle = 2.0 * np.pi * step / steps
    return float(np.cos(angle)), float(np.sin(angle))


@dataclass(frozen=True, slots=True)
class _Body:
    """The outline of the shoulders, and placement of shapes on them."""

    identity: Identity
    view: View

    @property
    def chin(self) -> float:
        return float(self.view.neutral[152, 1])

    def at(self, xy: Array) -> Points:
        """Project points (n, 2) on the chest, relative to the chin."""
        return self.view.body(np.column_stack((xy[:, 0], xy[:, 1] + self.chin, np.full(len(xy), CHEST_DEPTH))))

    def patch(self, right: Sequence[tuple[float, float]], colour: Colour) -> Mark:
        """Fill a symmetric outline, given its right half."""
        return Fill(self.at(_both_sides(np.array(right))), colour)

    def outline(self) -> Points:
        """Outline of the body, which ends below the picture."""
        half = np.array(((0.0, -3.6), (2.9, -3.8), (4.6, -3.3), (7.5, -4.7), (11.0, -6.0), (14.0, -7.8), (15.6, -12.0)))
        breadth = 13.5 + 0.9 * self.view.neutral[361, 0]
        if self.identity.family == "cartoons":  # a big head on narrow shoulders
            breadth = (13.5 + 0.54 * self.view.neutral[361, 0]) * 19.0 / 21.0
        half = half * (breadth / 19.0, 1.0)
        return self.at(_both_sides(np.concatenate((half, ((half[-1, 0] + 1.5, -40.0),)))))


def shoulders(identity: Identity, view: View) -> list[Mark]:
    """The upper body."""
    body = _Body(identity, view)
    outline = body.outline()
    cloth, dark = identity.cloth, darker(identity.cloth, 0.28)
    marks: list[Mark] = []
    if identity.ink_width:
        marks.append(Stroke(outline, identity.ink, 2 * identity.ink_width * view.line, closed=True))
    marks.append(Fill(outline, cloth))
    shadow = np.array(((0.0, -9.0), (8.0, -6.0), (30.0, -5.0), (30.0, -40.0), (4.0, -40.0)))
    shaded = Fill(body.at(shadow * (-np.sign(identity.light[0]), 1.0)), mix(cloth, dark, 0.55))
    inside = {
        "fur": _chest, "drapery": _folds, "stripes": _stripes, "collar": _collar,
        "vneck": _neckline, "jacket": _neckline,
    }.get(identity.clothes)  # fmt: skip
    marks.append(Inside(outline, [shaded, *(inside(body) if inside else [])]))
    over = {"crew": _rim, "stripes": _rim, "hoodie": _rim, "jacket": _lapels, "collar": _buttons}.get(identity.clothes)
    return [*marks, *(over(body) if over else [])]


def _chest(body: _Body) -> list[Mark]:
    coat = body.identity.coat
    bib = ((0.0, -2.0), (5.0, -3.0), (6.2, -6.0), (4.6, -7.0), (5.2, -9.5), (3.4, -10.5), (3.6, -13.0), (0.0, -15.0))
    return [body.patch(bib, coat.muzzle)] if coat else []


def _stripes(body: _Body) -> list[Mark]:
    marks = []
    for row in range(6):
        top = -8.0 - 3.0 * row
        band = ((0.0, top - 0.9), (9.0, top), (25.0, top + 0.6), (25.0, top - 0.8), (0.0, top - 2.3))
        marks.append(body.patch(band, body.identity.trim))
    return marks


def _neckline(body: _Body) -> list[Mark]:
    depth, inner = (-10.5, body.identity.skin) if body.identity.clothes == "vneck" else (-22.0, body.identity.trim)
    return [body.patch(((0.0, -3.0), (5.6, -3.0), (0.0, depth)), mix(inner, darker(inner, 0.3), 0.4))]


def _collar(body: _Body) -> list[Mark]:
    trim = body.identity.trim
    marks: list[Mark] = []
    for sign in (-1.0, 1.0):
        flap = body.at(np.array(((1.0, -6.6), (5.5, -3.2), (7.4, -5.4), (4.2, -9.4))) * (sign, 1.0))
        marks += [Fill(flap, lighter(trim, 0.2)), Stroke(flap, darker(trim, 0.3), body.view.line, closed=True)]
    return marks


def _rim(body: _Body) -> list[Mark]:
    """The collar's hem, a ring around the throat."""
    identity = body.identity
    hood = identity.clothes == "hoodie"
    radius, thickness = {"crew": (5.1, 1.0), "stripes": (5.1, 0.9)}.get(identity.clothes, (6.6, 2.6))
    circle = unit_circle(24)
    drop = -3.6 - 1.1 * (circle[:, 1] > 0) * circle[:, 1] * thickness**0.3 + body.chin
    ring = np.stack((radius * circle[:, 0], drop, 2.6 * circle[:, 1] - 4.5), axis=-1)[circle[:, 1] > -0.2]
    line = body.view.body(ring[np.argsort(ring[:, 0])])
    colour = mix(identity.cloth, darker(identity.cloth, 0.28), 0.6 if hood else 1.0)
    return [Stroke(line, colour, thickness * 2.4 * body.view.line)]


def _lapels(body: _Body) -> list[Mark]:
    lapel = np.array(((5.2, -3.2), (8.0, -5.8), (6.2, -9.0), (0.4, -22.0), (3.4, -9.0)))
    colour = mix(body.identity.cloth, darker(body.identity.cloth, 0.28), 0.7)
    return [Fill(body.at(lapel * (sign, 1.0)), colour) for sign in (-1.0, 1.0)]


def _buttons(body: _Body) -> list[Mark]:
    places = body.at(np.array(((0.0, -10.5), (0.0, -14.5))))
    return [Discs(places, 0.45 * body.view.cm[:, None], lighter(body.identity.trim, 0.5))]


def _folds(body: _Body) -> list[Mark]:
    """A cloak that falls from one shoulder across the chest: bare skin above, curved folds below."""
    side = (np.sign(body.identity.light[0]), 1.0)
    bare = np.array(((-6.5, -2.0), (6.5, -2.0), (9.5, -6.0), (4.0, -8.6), (-3.0, -10.0), (-8.0, -6.0))) * side
    marks: list[Mark] = [Fill(body.at(curve(bare, 24, closed=True)), body.identity.skin)]
    for row in range(6):
        drop = np.array((0.0, 0.2 + 2.3 * row))
        fold = curve(np.array(((11.0, -4.2), (5.0, -8.4), (-2.0, -10.0), (-12.0, -9.0))) - drop, 14)
        marks.append(Stroke(body.at(fold * side), body.identity.trim, 2.0 * body.view.line))
        lit = body.at((fold + np.array((0.0, 0.7))) * side)
        marks.append(Stroke(lit, lighter(body.identity.cloth, 0.25), body.view.line))
    return marks


def _both_sides(right: Array) -> Array:
    """Mirror a right half (n, 2), given from top to bottom, into a closed outline."""
    return np.concatenate((right, right[::-1] * (-1.0, 1.0)))
