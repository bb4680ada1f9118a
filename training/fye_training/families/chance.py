"""Random choices that all families share."""

from dataclasses import fields
from typing import TypeVar

import numpy as np

from fye_training.drawing.canvas import Colour
from fye_training.drawing.colour import hsv
from fye_training.shape import Shape

Random = np.random.Generator
T = TypeVar("T")


def pick(random: Random, choices: tuple[T, ...], odds: tuple[float, ...] | None = None) -> T:
    """One of the choices; odds need not sum to 1."""
    weights = None if odds is None else np.array(odds) / sum(odds)
    return choices[int(random.choice(len(choices), p=weights))]


def proportions(random: Random, spread: float, **fixed: float) -> Shape:
    """A face's shape: normally distributed around the canonical face, but for what is fixed; no muzzle."""
    values = {field.name: float(np.clip(random.normal(0.0, 0.45 * spread), -1.2, 1.2)) for field in fields(Shape)}
    values["muzzle"] = 0.0
    return Shape(**values | fixed)


def around(random: Random, spread: float, **centres: float) -> Shape:
    """A face's shape around that of a kind: `centres` where that differs from the canonical face."""
    return Shape(
        **{
            field.name: centres.get(field.name, 0.0) + float(np.clip(random.normal(0.0, 0.45 * spread), -1.2, 1.2))
            for field in fields(Shape)
            if field.name != "muzzle"
        },
        muzzle=centres.get("muzzle", 0.0),
    )


def light_from(random: Random) -> tuple[float, float, float]:
    """A direction towards the light: from one side, above, in front."""
    azimuth = float(random.choice((-1.0, 1.0)) * random.uniform(20.0, 65.0))
    elevation = float(random.uniform(15.0, 50.0))
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    return float(np.sin(a) * np.cos(e)), float(np.sin(e)), float(np.cos(a) * np.cos(e))


def backdrop(random: Random, hue: float, saturation: float) -> tuple[Colour, Colour]:
    """Two related colours, the first one lighter as a rule."""
    first = hsv(hue, saturation * float(random.uniform(0.3, 1.0)), float(random.uniform(0.6, 0.98)))
    second = hsv(hue + float(random.uniform(-0.12, 0.12)), saturation, float(random.uniform(0.3, 0.75)))
    return first, second
