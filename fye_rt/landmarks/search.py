"""Find small and turned faces in a picture: in squares of falling size, then in the picture turned.

MediaPipe's detector sees 128x128 pixels of whatever it is shown. In a whole picture it misses faces smaller than an
eighth of the longer side, and places its crop inexactly up to a fifth; it takes faces that are upside down for others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fye_rt.errors import FaceNotFoundError, InputError
from fye_rt.landmarks.gaps import no_face
from fye_rt.landmarks.geometry import Array, Face, FaceGeometry, face_box
from fye_rt.landmarks.square import Image, Look, confirmed, distinct, face_side, is_exact, same, second_look
from fye_rt.media.opencv import load_cv2

FaceChoice = str | int  # a word of `fye_rt.options.FACES`, or a number from 1

SMALLEST_PIXELS = 24  # error 0.017 of the face, and jitter 0.007; at 16 pixels, 0.028 and 0.009
SMALLEST_SQUARE = 224  # pixels; shows every face of 32
SURE_TILES = 100  # looks that a search for faces under 32 pixels may take, and twice what one for turned faces may
_STEP = 0.625  # between squares, of their side: a face is whole in one, or larger than half of it
_MARGIN = 0.125  # of a square, replicated around the picture
_COUNTED = 1 / 3  # of the largest face: smaller ones are not counted among "several"


def choose_face(points: Sequence[Array], face: FaceChoice, size: tuple[int, int], source: str = "the picture") -> int:
    """Choose one of several faces.

    Args:
        points: one or more faces, each float64 (478, >= 2), x and y in units of the picture's width and height.
        face: "largest" (by its box), "left", "right", "center" (nearest to the picture's), or a number from 1, counted
            from left to right by the centres of the boxes.
        size: height and width of the picture in pixels.
        source: the picture's name, for the message.

    Returns:
        Index into `points`.

    Raises:
        InputError: the picture has no face of this number.
    """
    boxes = [face_box(each, size) for each in points]
    centres = [(left + width / 2, top + height / 2) for left, top, width, height in boxes]
    order = sorted(range(len(boxes)), key=lambda k: centres[k])
    match face:
        case "largest":
            return max(range(len(boxes)), key=lambda k: boxes[k][2] * boxes[k][3])
        case "left":
            return order[0]
        case "right":
            return order[-1]
        case "center":
            return min(range(len(boxes)), key=lambda k: math.dist(centres[k], (size[1] / 2, size[0] / 2)))
    if not isinstance(face, int) or not 1 <= face <= len(boxes):
        raise InputError(no_such_face(face, len(boxes), source))
    return order[face - 1]


def no_such_face(face: FaceChoice, faces: int, source: str) -> str:
    """Return the message for a face number that is not there."""
    seen = "one face is" if faces == 1 else f"{faces} faces are"
    return f"{source}: {seen} found, and there is no face {face}; faces are counted from 1, left to right"


def find_face(
    image: Image, look: Look, geometry: FaceGeometry, face: FaceChoice, source: str = "the picture"
) -> tuple[Face, int]:
    """Find one face of a picture, and look at it again unless the first look is exact.

    Args:
        image: uint8 (H, W, 3), RGB.
        look: finds the faces in a picture.
        geometry: the canonical face.
        face: which of several faces, as for `choose_face`.
        source: the picture's name, for messages.

    Returns:
        The face, and the number of faces that were counted.

    Raises:
        FaceNotFoundError: there is none, or it is too small.
        InputError: there is no face of this number.
    """
    size = image.shape[0], image.shape[1]
    faces = first = look(image)
    if not first:
        sought = search(image, look, geometry)
        if sought.tiny and not sought.faces:
            _, _, width, height = sought.tiny
            raise FaceNotFoundError(
                f"{source}: its face is {width:.0f}x{height:.0f} pixels, and its longer side must have at least "
                f"{SMALLEST_PIXELS}; use a larger picture of it"
            )
        if not sought.faces:
            raise no_face(1, source, size, sought.side, sought.where)
        faces = sought.faces
    if face != "largest":
        faces = every_face(image, look, geometry, faces)
    chosen = faces[choose_face([points for points, _ in faces], face, size, source)]
    if any(chosen is other for other in first):
        if is_exact(chosen, size):
            chosen = confirmed(image, chosen, look, geometry)
        else:
            chosen = second_look(image, chosen, look, geometry) or chosen
    return chosen, len(faces)


@dataclass(frozen=True, slots=True)
class Sought:
    """Faces that a search found, and where it looked.

    Attributes:
        faces: the faces of the first level that has any, in units of the whole picture.
        side: the smallest square in pixels in which every face is large enough to be used.
        where: a phrase for a message: what was looked at.
        tiny: the box of the largest face that is too small to be used, in pixels.
    """

    faces: list[Face]
    side: int
    where: str
    tiny: tuple[float, float, float, float] | None = None


def search(image: Image, look: Look, geometry: FaceGeometry, most: int | None = None) -> Sought:
    """Search a picture, in which the first look found nothing, for small and turned faces.

    Args:
        image: uint8 (H, W, 3), RGB.
        look: finds the faces in a picture.
        geometry: the canonical face.
        most: number of squares of one search; None for as many as faces of 32 pixels take.
    """
    size = image.shape[0], image.shape[1]
    sides = _affordable(size, most)
    tiny: tuple[float, float, float, float] | None = None
    for turn in (0, 1, 3, 2):
        turned = np.ascontiguousarray(np.rot90(image, turn))
        levels = sides
        if turn:
            levels = [max(size), *_affordable(size, SURE_TILES // 2 if most is None else 0)]
        for side in levels:
            faces = [_turned_back(face, turn, size) for face in _level(turned, side, look)]
            faces = distinct([again for face in faces if (again := second_look(image, face, look, geometry))], size)
            large = [face for face in faces if face_side(face_box(face[0], size)) >= SMALLEST_PIXELS]
            if large:
                return Sought(large, side, "")
            tiny = max(
                [tiny, *(face_box(face[0], size) for face in faces)], key=lambda box: face_side(box) if box else 0
            )
    turns = "turned by 90, 180 or 270 degrees"
    squares = f"in squares of {sides[0]}{f' to {sides[-1]}' * (len(sides) > 1)} pixels" if sides else ""
    where = f"neither {squares} nor {turns}" if sides else f"nor in it {turns}"
    return Sought([], min(max(SMALLEST_SQUARE, sides[-1]) if sides else max(size), max(size)), where, tiny)


def every_face(image: Image, look: Look, geometry: FaceGeometry, faces: list[Face]) -> list[Face]:
    """Return faces and the others of their picture that are at least a third as large as the largest, in any order.

    One look finds four faces at most, and misses those that are small in what it is shown.
    """
    size = image.shape[0], image.shape[1]
    largest = max(face_side(face_box(face[0], size)) for face in faces)
    candidates = list(faces)
    for side in _sides(size):
        if largest <= side <= 7 * largest:
            candidates += [face for face in _level(image, side, look) if not any(same(face, f, size) for f in faces)]
    others = distinct(candidates[len(faces) :], size)
    others = [again for face in others if (again := second_look(image, face, look, geometry))]
    counted = distinct([*faces, *others], size)
    return [face for face in counted if face_side(face_box(face[0], size)) >= _COUNTED * largest]


def _level(image: Image, side: int, look: Look) -> list[Face]:
    """Look at a picture in overlapping squares (a side as long as the picture's: at the picture itself)."""
    cv2 = load_cv2()
    height, width = image.shape[:2]
    if side >= max(height, width):
        return look(image)
    margin = round(side * _MARGIN)
    pixels = min(side, 2 * SMALLEST_SQUARE)
    scale = pixels / side
    level = image if scale == 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    edge = round(margin * scale)
    level = cv2.copyMakeBorder(level, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
    faces = []
    for top in _starts(level.shape[0], pixels):
        for left in _starts(level.shape[1], pixels):
            square = level[top : top + pixels, left : left + pixels]
            for points, scores in look(square):
                points = points.copy()
                points[:, :2] *= square.shape[1::-1]
                points[:, :2] += (left - edge, top - edge)
                points[:, :2] /= np.array(level.shape[1::-1]) - 2 * edge
                points[:, 2] *= square.shape[1] / (level.shape[1] - 2 * edge)
                faces.append((points, scores))
    return distinct(sorted(faces, key=lambda face: -face_side(face_box(face[0], (height, width)))), (height, width))


def _starts(length: int, side: int) -> list[int]:
    """Return the first pixels of overlapping squares that cover a length."""
    count = max(math.ceil((length - side) / (_STEP * side)), 0) + 1
    return [round(k * max(length - side, 0) / max(count - 1, 1)) for k in range(count)]


def _sides(size: tuple[int, int]) -> list[int]:
    """Return the sides of squares, falling by halves."""
    sides = [SMALLEST_SQUARE // 2]
    while sides[0] * 2 < max(size):
        sides.insert(0, sides[0] * 2)
    return sides if sides[0] < max(size) else []


def _affordable(size: tuple[int, int], most: int | None) -> list[int]:
    """Return the sides whose squares are few enough together; by default all, half of the smallest if cheap."""
    affordable, total = [], 0
    for side in _sides(size):
        total += math.prod(len(_starts(round(length + 2 * _MARGIN * side), side)) for length in size)
        if total <= (SURE_TILES if most is None else most) or (most is None and side >= SMALLEST_SQUARE):
            affordable.append(side)
    return affordable


def _turned_back(face: Face, turn: int, size: tuple[int, int]) -> Face:
    """Return a face, found in a picture turned by numpy.rot90, in units of the picture (of height and width `size`)."""
    points = face[0].copy()
    x, y = points[:, 0].copy(), points[:, 1].copy()
    points[:, 0], points[:, 1] = [(x, y), (1.0 - y, x), (1.0 - x, 1.0 - y), (y, 1.0 - x)][turn]
    if turn % 2:
        points[:, 2] *= size[0] / size[1]
    return points, face[1]
