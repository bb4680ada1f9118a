"""Colours as RGB triples in [0, 255]."""

import colorsys

from fye_training.drawing.canvas import Colour


def mix(first: Colour, second: Colour, part: float) -> Colour:
    """Mix `part` of the second colour into the first; parts outside [0, 1] extrapolate."""
    return (
        _level(first[0] + (second[0] - first[0]) * part),
        _level(first[1] + (second[1] - first[1]) * part),
        _level(first[2] + (second[2] - first[2]) * part),
    )


def darker(colour: Colour, part: float) -> Colour:
    """Mix towards a warm black."""
    return mix(colour, (18, 10, 14), part)


def lighter(colour: Colour, part: float) -> Colour:
    """Mix towards white."""
    return mix(colour, (255, 255, 255), part)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Colour of a hue (in turns, any number), and of saturation and value in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return (_level(red * 255), _level(green * 255), _level(blue * 255))


def luminance(colour: Colour) -> float:
    """Perceived brightness in [0, 255] (ITU-R BT.601 luma)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _level(value: float) -> int:
    return max(0, min(255, round(value)))
