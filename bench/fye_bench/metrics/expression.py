"""A face's expression in numbers, and the crops of a picture from which it is read."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fye_bench.metrics.truth import Image, Shown
from fye_rt.landmarks.retarget import DEPTH_FACTOR, FOCAL_LENGTH, project
from fye_training.expressions import EYEBALL_RADIUS, deform, eyeball, irises
from fye_training.performance import Performance
from fye_training.shape import Shape, neutral_mesh
from fye_training.topology import (
    BROWS,
    CHIN,
    EYES,
    IRISES,
    LIPS,
    LOWER_LID,
    LOWER_LIP_INNER,
    NOSE,
    UPPER_LID,
    UPPER_LIP_INNER,
    Array,
)

# eye_right and brow_right are the person's, at the picture's left; gaze_right points to the picture's right
QUANTITIES = (
    *("eye_right", "eye_left", "gaze_right", "gaze_up", "brow_right", "brow_left"),
    *("mouth", "mouth_width", "smile"),
)
GROUPS = {"eyes": slice(0, 2), "gaze": slice(2, 4), "brows": slice(4, 6), "mouth": slice(6, 7), "lips": slice(7, 9)}
CORNERS = ((33, 133), (263, 362))  # corners of the eyes, the outer one first
MOUTH_POINTS = np.concatenate((LIPS, NOSE, CHIN))
OPEN = 0.12  # eye widths; the gaze of an eye less open is invisible
FACING = 0.4  # least cosine between an eye's plane and the line of sight; below, the eye is not read

EYE_CROP = (48, 40)  # height and width in pixels
MOUTH_CROP = (48, 48)
# (left, top) and side lengths of a crop around its centre: in eye widths; in distances between the eyes
Rectangle = tuple[tuple[float, float], tuple[float, float]]
EYE_FRAME: Rectangle = ((-0.9, 1.6), (1.8, 2.16))
MOUTH_FRAME: Rectangle = ((-0.75, 0.45), (1.5, 1.5))


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Crops of F pictures, as the expression reader sees them.

    Attributes:
        eyes: uint8 (F, 2, 48, 40, 3): the right eye with its brow, then the left one mirrored.
        mouth: uint8 (F, 48, 48, 3).
    """

    eyes: Image
    mouth: Image


def expression(shape: Shape, acting: Performance) -> Array:
    """Return the expression of an identity's performance, float64 (F, 9); see `expression_of`."""
    return expression_of(shape, deform(shape, acting.weights), irises(shape, acting.weights)[:, ::5, :2])


def expression_of(shape: Shape, mesh: Array, gaze: Array) -> Array:
    """Return the expression of an identity's true mesh.

    Args:
        shape: the identity's shape.
        mesh: float64 (F, 468, 3), centimetres.
        gaze: float64 (F, 2, 2), as `Truth.gaze`.

    Returns:
        float64 (F, 9), in the order of QUANTITIES. In eye widths: the mean opening of the lids, the offset of the
        irises from the middle of the eyes (mean of both), the height of the brow above the eye. In distances between
        the eyes: the mean opening of the lips, the distance between the mouth's corners, and their height above the
        middle of the closed mouth at rest.
    """
    neutral = neutral_mesh(shape)
    columns = np.empty((len(mesh), len(QUANTITIES)))
    looks = []
    for side in range(2):
        centre, width = _eye(neutral, side)
        lids = mesh[:, UPPER_LID[side][2:-2], 1] - mesh[:, LOWER_LID[side][2:-2], 1]
        columns[:, side] = lids.mean(axis=1) / width
        looks.append((gaze[:, side] - centre[:2]) / width)
        columns[:, 4 + side] = (mesh[:, BROWS[side], 1].mean(axis=1) - centre[1]) / width
    columns[:, 2:4] = np.mean(looks, axis=0)
    unit, middle = eye_distance(neutral), _mouth(neutral)
    lips = mesh[:, UPPER_LIP_INNER[3:-3], 1] - mesh[:, LOWER_LIP_INNER[3:-3], 1]
    columns[:, 6] = lips.mean(axis=1) / unit
    columns[:, 7] = (mesh[:, 291, 0] - mesh[:, 61, 0]) / unit
    columns[:, 8] = ((mesh[:, 291, 1] + mesh[:, 61, 1]) / 2.0 - middle[1]) / unit
    return columns


def gaze_of(shape: Shape, face: Shown) -> Array:
    """Locate irises on their eyeballs from the pixels that show them; returns float64 (F, 2, 2), as `Truth.gaze`.

    A line of sight that misses the eyeball (a gaze beyond what the eye can do) counts where it comes nearest.

    Args:
        shape: the identity's shape.
        face: face in F pictures; its pose doesn't scale.
    """
    neutral, gaze = neutral_mesh(shape), np.empty((len(face.points), 2, 2))
    to_face = np.linalg.inv(face.pose)
    camera = to_face[:, :3, 3]
    for side, iris in enumerate(IRISES):
        sight = np.einsum("fij,fj->fi", to_face[:, :3, :3], _sight(face.points[:, iris.start], face.size))
        centre, width = eyeball(neutral, side)
        # |camera + t sight - centre| = radius
        away = camera - centre
        along = (away * sight).sum(axis=1)
        beside = np.square(away).sum(axis=1) - along**2 - (EYEBALL_RADIUS * width) ** 2
        distance = -along - np.sqrt(np.maximum(-beside, 0.0))
        gaze[:, side] = (camera + distance[:, None] * sight)[:, :2]
    return gaze


def readable(shape: Shape, truth: Array, face: Shown) -> NDArray[np.bool_]:
    """Mark the visible quantities, bool (F, 9): not those of an eye turned away, nor the gaze of closed eyes.

    Args:
        shape: the identity's shape.
        truth: float64 (F, 9), from `expression`.
        face: face in F pictures.
    """
    neutral = neutral_mesh(shape)
    seen = np.ones(truth.shape, np.bool_)
    for side in range(2):
        outer, inner = neutral[list(CORNERS[side])]
        upper, lower = neutral[UPPER_LID[side][4]], neutral[LOWER_LID[side][4]]
        normal: Array = np.cross(inner - outer, upper - lower) * (1.0, -1.0)[side]
        centre = (outer + inner) / 2.0
        rotation = face.pose[:, :3, :3]
        sight = -(rotation @ centre + face.pose[:, :3, 3])
        cosine = ((rotation @ normal) * sight).sum(axis=1) / (np.linalg.norm(sight, axis=1) * np.linalg.norm(normal))
        seen[:, side] = seen[:, 4 + side] = cosine > FACING
    seen[:, 2:4] = (seen[:, :2] & (truth[:, :2] > OPEN)).all(axis=1, keepdims=True)
    return seen


def regions(frames: Image, shape: Shape, face: Shown) -> Regions:
    """Crop eyes and mouth, upright and seen from the front.

    An affine map places them. It is fitted to the neutral mesh under the frame's pose, so it depends on the head's
    position and not on its expression.

    Args:
        frames: uint8 (F, H, W, 3).
        shape: the identity's shape.
        face: face in the frames.
    """
    neutral = neutral_mesh(shape)
    posed = project(np.broadcast_to(neutral, (len(frames), *neutral.shape)), face.pose, face.size)
    eyes = np.empty((len(frames), 2, *EYE_CROP, 3), np.uint8)
    mouth = np.empty((len(frames), *MOUTH_CROP, 3), np.uint8)
    for side in range(2):
        points = np.concatenate((EYES[side], BROWS[side]))
        centre, width = _eye(neutral, side)
        local = (neutral[points, :2] - centre[:2]) / width * ((1.0, 1.0), (-1.0, 1.0))[side]
        for frame, pixels, crop in zip(frames, posed, eyes[:, side], strict=True):
            crop[:] = _cut(frame, local, pixels[points], EYE_FRAME, EYE_CROP)
    local = (neutral[MOUTH_POINTS, :2] - _mouth(neutral)[:2]) / eye_distance(neutral)
    for frame, pixels, crop in zip(frames, posed, mouth, strict=True):
        crop[:] = _cut(frame, local, pixels[MOUTH_POINTS], MOUTH_FRAME, MOUTH_CROP)
    return Regions(eyes, mouth)


def eye_distance(neutral: Array) -> float:
    """Return the distance between the middles of the eyes, centimetres."""
    return float(np.linalg.norm(_eye(neutral, 1)[0] - _eye(neutral, 0)[0]))


def _sight(pixels: Array, size: tuple[int, int]) -> Array:
    """Return unit vectors (F, 3) from the camera to pixels (F, 2); it inverts `fye_rt.landmarks.retarget.project`."""
    height, width = size
    right = (2.0 * pixels[:, 0] / width - 1.0) * (width / height)
    up = 1.0 - 2.0 * pixels[:, 1] / height
    ahead = np.full(len(pixels), FOCAL_LENGTH / DEPTH_FACTOR)
    sight = np.stack((right, up, ahead), axis=-1)
    return sight / np.linalg.norm(sight, axis=1, keepdims=True)


def _eye(neutral: Array, side: int) -> tuple[Array, float]:
    """Return the middle of an eye's corners, and their distance."""
    outer, inner = neutral[list(CORNERS[side])]
    return (outer + inner) / 2.0, float(np.linalg.norm(outer - inner))


def _mouth(neutral: Array) -> Array:
    """Return the middle of the closed mouth."""
    return (neutral[13] + neutral[14]) / 2.0


def _cut(frame: Image, local: Array, pixels: Array, rectangle: Rectangle, size: tuple[int, int]) -> Image:
    """Crop the part of a frame that shows a rectangle of local coordinates (N, 2), y up, visible at pixels (N, 2)."""
    (left, top), (wide, high) = rectangle
    place = np.stack(((local[:, 0] - left) / wide * size[1], (top - local[:, 1]) / high * size[0]), axis=-1) - 0.5
    solution = np.linalg.lstsq(np.column_stack((place, np.ones(len(place)))), pixels - 0.5, rcond=None)[0]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(frame, solution.T, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
