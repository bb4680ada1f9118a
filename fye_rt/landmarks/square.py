"""Look again at a face in an upright square that is cut around it, at the picture's full resolution."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fye_rt.landmarks.geometry import Array, Face, FaceGeometry, face_angle, face_box, misfit
from fye_rt.media.crop import cut
from fye_rt.media.opencv import load_cv2

Image = NDArray[np.uint8]
Look = Callable[[Image], list[Face]]  # the faces in a picture, as MediaPipe finds them

# Shares are of the longer side of the face's box. Error and jitter of the points, in shares of the face, at 0.14 of the
# picture: 0.0077 and 0.0073; at 0.2: 0.0063 and 0.0031; from 0.3 to 0.6: 0.005 and 0.002.
EXACT_FACE = 0.2  # of the picture's longer side: no second look from here on
SIDE = 2.5  # side of the square of a second look, in faces
# Pixels of a second look: a face has 205, MediaPipe's own crop of it 256. Its points lie half a pixel too far up and
# left: with faces of 20 to 100 pixels, the error is half as large if they are enlarged before.
_LOOK = 512
_STRAIGHT = 20.0  # degrees of tilt that are left as they are, so that pixels are not interpolated
_TURN = 60.0  # degrees of tilt within a square after which it is turned by a quarter
_TILTED = 45.0  # degrees from which on the landmarks of a large face lose exactness: 0.02 of the face at 90
_SUSPICIOUS, _IMPROBABLE = 0.62, 0.8  # centimetres of `misfit`
_MOST_FACES = 64  # looked at again


def face_side(box: tuple[float, float, float, float]) -> float:
    """Return the longer side of a box."""
    return max(box[2], box[3])


def is_exact(face: Face, size: tuple[int, int]) -> bool:
    """Return whether a face is so large in a picture that a second look finds nothing better."""
    return face_side(face_box(face[0], size)) >= EXACT_FACE * max(size)


@dataclass(frozen=True, slots=True)
class Square:
    """A square of a picture in which a face is looked at again.

    Attributes:
        x: centre, in pixels.
        y: centre, in pixels.
        side: in pixels.
        angle: tilt of the square, in degrees as by `face_angle`; a face with this tilt is upright in it.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0

    @classmethod
    def around(cls, face: Face, size: tuple[int, int], turn: float = 0.0) -> Self:
        """Return the square of a face, with its tilt (plus `turn`) made upright."""
        left, top, width, height = face_box(face[0], size)
        angle = face_angle(face[0], size) + turn
        quarter = 90.0 * round(angle / 90.0)
        angle = quarter if abs(angle - quarter) < _STRAIGHT else angle
        return cls(left + width / 2, top + height / 2, SIDE * face_side((left, top, width, height)), angle)

    def quartered(self) -> "Square":
        """Return this square with its angle rounded to a quarter turn, at which no pixel is interpolated."""
        return replace(self, angle=90.0 * round(self.angle / 90.0))

    def faces(self, image: Image, look: Look) -> list[Face]:
        """Look at the square, edges replicated, and return faces in units of the whole picture."""
        cv2 = load_cv2()
        side = max(round(self.side), 8)
        left, top = round(self.x - side / 2), round(self.y - side / 2)
        quarters = self.angle / 90.0
        if quarters == round(quarters):
            square = np.rot90(cut(image, left, top, side, side), round(quarters))
            square = cv2.resize(square, (_LOOK, _LOOK), interpolation=_interpolation(side))
        else:
            radians = math.radians(self.angle)
            margin = math.ceil(side * (abs(math.cos(radians)) + abs(math.sin(radians)) - 1) / 2) + 1
            around = cut(image, left - margin, top - margin, side + 2 * margin, side + 2 * margin)
            pixels = round(around.shape[0] * min(_LOOK / side, 1.0))
            around = cv2.resize(around, (pixels, pixels), interpolation=cv2.INTER_AREA)
            scale = pixels / (side + 2 * margin) * side / _LOOK  # from a pixel of the look to one of `around`
            back = scale * _rotation(self.angle)
            shift = pixels / 2 - 0.5 - back @ np.full(2, (_LOOK - 1) / 2)
            square = cv2.warpAffine(
                around,
                np.column_stack((back, shift)),
                (_LOOK, _LOOK),
                flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
        return [self._in_picture(face, left, top, side, image) for face in look(square)]

    def following(self, face: Face, size: tuple[int, int]) -> "Square":
        """Return this square, moved no further than keeps a face well inside, and resized no more than it needs."""
        target = Square.around(face, size)
        side = float(np.clip(self.side, target.side / 1.3, target.side * 1.3))
        slack = 0.15 * side
        x = float(np.clip(self.x, target.x - slack, target.x + slack))
        y = float(np.clip(self.y, target.y - slack, target.y + slack))
        tilt = (face_angle(face[0], size) - self.angle + 180.0) % 360.0 - 180.0
        return Square(x, y, side, self.angle if abs(tilt) < _TURN else target.quartered().angle)

    def _in_picture(self, face: Face, left: int, top: int, side: int, image: Image) -> Face:
        height, width = image.shape[:2]
        points = face[0].copy()
        turned = (points[:, :2] - 0.5) @ _rotation(self.angle).T + 0.5
        points[:, :2] = (turned * side + (left, top)) / (width, height)
        points[:, 2] *= side / width
        return points, face[1]


def second_look(image: Image, face: Face, look: Look, geometry: FaceGeometry) -> Face | None:
    """Look again at a face in its square, also turned by quarters, and take the tilt on which most looks agree.

    A face is found in a square with its tilt and in those turned by 90 degrees. Landmarks that are put on a face upside
    down, or on none, come from one or two of the four looks, and from fewer still around themselves.

    Returns:
        The face as seen in an upright square, or None if it is not found again or improbable.
    """
    size = image.shape[0], image.shape[1]

    def votes(candidate: Face, sightings: list[Face]) -> tuple[int, float]:
        return sum(_agree(candidate, f, size) for f in sightings), -misfit(candidate[0], size, geometry)

    sightings = _sightings(image, face, look)
    tilts: list[Face] = []
    for sighting in sorted(sightings, key=lambda f: votes(f, sightings), reverse=True):
        if not any(_agree(sighting, other, size) for other in tilts):
            tilts.append(sighting)
    if len(tilts) > 1:
        tilts.sort(key=lambda f: votes(f, _sightings(image, f, look)), reverse=True)
    if not tilts or (len(sightings) == 1 and misfit(tilts[0][0], size, geometry) > _IMPROBABLE):
        return None
    upright = [f for f in Square.around(tilts[0], size).faces(image, look) if _agree(f, tilts[0], size)]
    return nearest(upright, tilts[0], size) or tilts[0]


def confirmed(image: Image, face: Face, look: Look, geometry: FaceGeometry) -> Face:
    """Return a large face as it is, or as a second look sees it if its tilt or its landmarks are odd."""
    size = image.shape[0], image.shape[1]
    upright = abs(face_angle(face[0], size)) < _TILTED
    if upright and misfit(face[0], size, geometry) <= _SUSPICIOUS:
        return face
    again = second_look(image, face, look, geometry)
    if again is None or (upright and _agree(again, face, size)):
        return face
    return again


def _sightings(image: Image, face: Face, look: Look) -> list[Face]:
    """Look at a face in its square and in that turned by quarters; the last quarter only if the others disagree."""
    size = image.shape[0], image.shape[1]
    sightings: list[Face] = []
    for turn in (0.0, 90.0, 270.0, 180.0):
        sightings += [f for f in Square.around(face, size, turn).faces(image, look) if _is_near(f, face, size)]
        if turn == 270.0 and len(sightings) == 3 and all(_agree(sightings[0], f, size) for f in sightings):
            break
    return sightings


def _is_near(face: Face, other: Face, size: tuple[int, int]) -> bool:
    """Return whether a finding lies where an inexact one was, and is not of another order of size."""
    (x, y, w, h), (left, top, width, height) = face_box(face[0], size), face_box(other[0], size)
    side, longer = max(w, h), max(width, height)
    away = max(abs(x + w / 2 - left - width / 2), abs(y + h / 2 - top - height / 2))
    return away <= 0.5 * max(side, longer) and 0.4 < side / max(longer, 1e-9) < 2.5


def _agree(face: Face, other: Face, size: tuple[int, int]) -> bool:
    """Return whether two findings are of one face with one tilt."""
    tilt = face_angle(face[0], size) - face_angle(other[0], size)
    return same(face, other, size) and abs((tilt + 180.0) % 360.0 - 180.0) < _STRAIGHT


def same(face: Face, other: Face, size: tuple[int, int]) -> bool:
    """Return whether two findings are of one face: the centre of either box lies in the other, and sizes agree."""
    (x, y, w, h), (left, top, width, height) = face_box(face[0], size), face_box(other[0], size)
    inside = abs(x + w / 2 - left - width / 2) <= max(w, width) / 2 and abs(y + h / 2 - top - height / 2) <= (
        max(h, height) / 2
    )
    return inside and 1 / 3 < (w * h) / max(width * height, 1e-9) < 3


def nearest(faces: list[Face], face: Face, size: tuple[int, int]) -> Face | None:
    """Return the finding of a face that is nearest to where it was, if it is one of `faces`."""

    def distance(other: Face) -> float:
        return float(np.linalg.norm((other[0][:, :2].mean(axis=0) - face[0][:, :2].mean(axis=0)) * (size[1], size[0])))

    return min((other for other in faces if same(other, face, size)), key=distance, default=None)


def distinct(faces: list[Face], size: tuple[int, int]) -> list[Face]:
    """Drop doubles; of each the first is kept."""
    kept: list[Face] = []
    for face in faces[:_MOST_FACES]:
        if not any(same(face, other, size) for other in kept):
            kept.append(face)
    return kept


def _interpolation(side: int) -> int:
    cv2 = load_cv2()
    return int(cv2.INTER_AREA if side > _LOOK else cv2.INTER_CUBIC)


def _rotation(angle: float) -> Array:
    """Return the matrix of a clockwise rotation, y down."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return np.array(((cosine, -sine), (sine, cosine)))
