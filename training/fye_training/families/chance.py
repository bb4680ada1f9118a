"""Random choices for all families."""

from dataclasses import fields
from typing import TypeVar

import numpy as np

from fye_training.drawing.canvas import Colour
from fye_training.drawing.colour import hsv
from fye_training.shape import Shape

Random = np.random.Generator
T = TypeVar("T")


def pick(random: Random, choices: tuple[T, ...], odds: tuple[float, ...] | None = None) -> T:
    """Pick one of the choices; odds need not sum to 1."""
    weights = None if odds is None else np.array(odds) / sum(odds)
    return choices[int(random.choice(len(choices), p=weights))]


def proportions(random: Random, spread: float, **fixed: float) -> Shape:
    """Random proportions, normally distributed around the canonical face, except those in `fixed`; no muzzle."""
    values = {field.name: float(np.clip(random.normal(0.0, 0.45 * spread), -1.2, 1.2)) for field in fields(Shape)}
    values["muzzle"] = 0.0
    return Shape(**values | fixed)


def around(random: Random, spread: float, **centres: float) -> Shape:
    """Random proportions around `centres`, or around the canonical face where `centres` has none."""
    return Shape(
        **{
            field.name: centres.get(field.name, 0.0) + float(np.clip(random.normal(0.0, 0.45 * spread), -1.2, 1.2))
            for field in fields(Shape)
            if field.name != "muzzle"
        },
        muzzle=centres.get("muzzle", 0.0),
    )


def light_from(random: Random) -> tuple[float, float, float]:
    """A random direction towards the light: from one side, above and in front."""
    azimuth = float(random.choice((-1.0, 1.0)) * random.uniform(20.0, 65.0))
    elevation = float(random.uniform(15.0, 50.0))
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    return float(np.sin(a) * np.cos(e)), float(np.sin(e)), float(np.cos(a) * np.cos(e))


def backdrop(random: Random, hue: float, saturation: float) -> tuple[Colour, Colour]:
    """Two random related colours, the first usually lighter."""
    first = hsv(hue, saturation * float(random.uniform(0.3, 1.0)), float(random.uniform(0.6, 0.98)))
    second = hsv(hue + float(random.uniform(-0.12, 0.12)), saturation, float(random.uniform(0.3, 0.75)))
    return first, second
