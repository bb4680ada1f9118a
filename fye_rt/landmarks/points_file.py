"""Read the named points of a face from JSON or CSV.

    {"right_eye_outer": [150, 212], "right_eye_inner": [196, 214], ...}        JSON: x and y in pixels
    right_eye_outer,150,212                                                    CSV: name, x, y

Right and left are the face's own, as in MediaPipe: the right eye of a face that looks at you is at the left of the
picture.
"""

import csv
import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from fye_rt.errors import InputError
from fye_rt.files import parse_json, shown
from fye_rt.media import LIMITS, kind_of
from fye_rt.media.checks import Limits, check_file

Point = tuple[float, float]

MAX_BYTES = 65536  # thirty points have two thousand
VERTICES = {  # of MediaPipe's mesh, by name
    "right_eye_outer": 33,
    "right_eye_inner": 133,
    "right_eye_upper": 159,
    "right_eye_lower": 145,
    "left_eye_inner": 362,
    "left_eye_outer": 263,
    "left_eye_upper": 386,
    "left_eye_lower": 374,
    "nose_tip": 1,
    "mouth_right": 61,
    "mouth_left": 291,
    "upper_lip": 0,
    "lower_lip": 17,
    "upper_lip_inner": 13,
    "lower_lip_inner": 14,
    "right_brow_outer": 70,
    "right_brow_middle": 105,
    "right_brow_inner": 107,
    "left_brow_inner": 336,
    "left_brow_middle": 334,
    "left_brow_outer": 300,
    "right_nostril": 129,
    "left_nostril": 358,
    "right_side": 234,
    "left_side": 454,
    "forehead": 10,
    "chin": 152,
}
PUPILS = ("right_pupil", "left_pupil")
REQUIRED = tuple(VERTICES)[:11]
NAMES = (*VERTICES, *PUPILS)


@dataclass(frozen=True, slots=True)
class NamedPoints:
    """Points of a face by name.

    Attributes:
        points: x and y in pixels, y down, by a name of `NAMES`; those of `REQUIRED` are there.
        size: height and width of the picture in pixels, if they are known.
        source: where they come from, for messages.
    """

    points: Mapping[str, Point]
    size: tuple[int, int] | None
    source: str

    def scaled(self, size: tuple[int, int]) -> "NamedPoints":
        """Return the points in a picture of `size` that shows the same.

        Raises:
            InputError: the points' own picture has another shape, or a point is outside the picture.
        """
        own = self.size or size
        factors = size[1] / own[1], size[0] / own[0]
        if not math.isclose(*factors, rel_tol=0.02):
            raise InputError(
                f"{self.source} says its picture is {own[1]}x{own[0]} pixels, and the picture is {size[1]}x{size[0]}; "
                "set the points in this picture, or correct size"
            )
        points = {name: (x * factors[0], y * factors[1]) for name, (x, y) in self.points.items()}
        for name, (x, y) in points.items():
            if not (0 <= x <= size[1] and 0 <= y <= size[0]):
                was = "({:g}, {:g})".format(*self.points[name])
                raise InputError(
                    f"{self.source}: {name} at {was} is outside the picture, which is {own[1]}x{own[0]} pixels; "
                    "correct it, or enlarge the picture's border"
                )
        return replace(self, points=points, size=size)


def read_points(path: str | os.PathLike[str]) -> NamedPoints:
    """Read named points; nothing is fitted, and without a size no border is known.

    Raises:
        InputError: as `load_points`, for what the file alone shows.
    """
    path = check_file(path, Limits(max_file=LIMITS.max_file))
    kind = kind_of(path)
    if kind != "points":
        known = "" if kind == "video" else f" but a {kind}"  # any unknown file is left to FFmpeg, as a video
        raise InputError(f"{path} is not a JSON or CSV file of named points{known}; give one")
    path = check_file(path, Limits(max_file=MAX_BYTES), "leave only the points of one face in it")
    raw = path.read_bytes()
    try:
        is_json = raw.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")
        points, size = _from_json(raw.removeprefix(b"\xef\xbb\xbf")) if is_json else (_from_csv(raw), None)
        if missing := [name for name in REQUIRED if name not in points]:
            raise InputError(f"it lacks {', '.join(missing)}; set {'it' if len(missing) == 1 else 'them'} too")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return NamedPoints(points, size, str(path))


def _from_json(raw: bytes) -> tuple[dict[str, Point], tuple[int, int] | None]:
    content = parse_json(raw)
    if not isinstance(content, dict):
        raise InputError('it is not a JSON object; write {"right_eye_outer": [x, y], ...}')
    settings = {key: content.pop(key) for key in ("size", "sides") if key in content}
    if "points" in content:
        named = content.pop("points")
        if content:
            raise InputError(f"it has {shown(next(iter(content)))} beside points; only size and sides may stand there")
        content = named
        if not isinstance(content, dict):
            raise InputError('its points are not a JSON object; write {"right_eye_outer": [x, y], ...}')
    sides = settings.get("sides", "face")
    if sides not in ("face", "picture"):
        raise InputError(f'sides={shown(sides)} is not known; write "face" for the face\'s own sides, or "picture"')
    points: dict[str, Point] = {}
    for name, value in content.items():
        if not isinstance(value, list) or len(value) != 2:
            raise InputError(f"{shown(name)} is {shown(value)}; give [x, y] in pixels")
        _add(points, name, value, sides == "picture")
    return points, _size(settings.get("size"))


def _size(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    whole = isinstance(value, list) and len(value) == 2 and all(type(side) is int for side in value)
    if not whole or not all(1 <= side <= LIMITS.max_side for side in value):
        raise InputError(f"size is {shown(value)}; give [height, width] in whole pixels, 1 to {LIMITS.max_side}")
    return value[0], value[1]


def _from_csv(raw: bytes) -> dict[str, Point]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("it is not text in UTF-8; save it as CSV with UTF-8") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    delimiter = next((mark for mark in ("\t", ";") if lines and mark in lines[0]), ",")
    points: dict[str, Point] = {}
    try:
        rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"it is not CSV ({error}); write name, x, y in each line") from error
    for index, row in enumerate(rows):
        cells = [cell.strip() for cell in row]
        if index == 0 and [cell.lower() for cell in cells] == ["name", "x", "y"]:
            continue
        if len(cells) != 3:
            raise InputError(f"{shown(lines[index])} is not a point; write name, x, y in each line")
        if delimiter == ";":  # of spreadsheets that write a decimal comma
            cells[1:] = [cell.replace(",", ".") for cell in cells[1:]]
        _add(points, cells[0], [_number(cell) for cell in cells[1:]])
    return points


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def _add(points: dict[str, Point], name: str, value: list[Any], mirrored: bool = False) -> None:
    key = name.strip().lower().replace(" ", "_").replace("-", "_")
    if mirrored:
        key = key.replace("right", "\0").replace("left", "right").replace("\0", "left")
    if key not in NAMES:
        near = get_close_matches(key, NAMES, 3, 0.5)
        remedy = f"did you mean {' or '.join(near)}?" if near else f"a point is one of {', '.join(NAMES)}"
        raise InputError(f"{shown(name)} is not the name of a point; {remedy}")
    if key in points:
        raise InputError(f"{key} is there twice; remove one")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise InputError(f"{key} has {shown(number)} in place of a number; give x and y in pixels")
    points[key] = float(value[0]), float(value[1])
