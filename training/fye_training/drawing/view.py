"""Projection of a head's parts into the picture, from the face's surface, the skull, the head's or the body's frame.

The head's frame is the canonical face's (centimetres, x to the picture's right, y up, z towards the camera). The body's
frame has the same origin and scale but does not turn with the head.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from fye_rt.landmarks.motion import Motion
from fye_rt.landmarks.retarget import FOCAL_LENGTH, project
from fye_training.drawing.canvas import SUPERSAMPLING, Points
from fye_training.topology import Indices, canonical_face

Array = NDArray[np.float64]

BODY_FOLLOWS = np.array((0.7, 0.85, 1.0))  # share of the head's shift that the shoulders follow
LOOKUP_CELLS = 400
LOOKUP_REACH = 10.0  # centimetres: the lookup table covers x and y from -10 to 10


@dataclass(frozen=True, slots=True)
class Skull:
    """An ellipsoid behind the face. Directions are unit vectors in the frame in which it is a sphere.

    Attributes:
        centre: (3,), centimetres in the head's frame.
        radii: (3,), centimetres.
    """

    centre: Array
    radii: Array

    @classmethod
    def of_face(cls, mesh: Array, height: float = 1.0) -> "Skull":
        """The skull that continues a neutral face's temples and forehead; `height` scales its rise above the face."""
        brow, top, chin = mesh[168], mesh[10], mesh[152]
        centre = np.array((0.0, brow[1], mesh[[127, 356], 2].mean() - 0.6))
        above = (top[1] - brow[1]) + 0.19 * height * (top[1] - chin[1])
        # deep enough to reach the top of the forehead
        depth = (top[2] - centre[2]) / np.sqrt(1.0 - ((top[1] - brow[1]) / above) ** 2)
        return cls(centre, np.array(((mesh[356, 0] - mesh[127, 0]) / 2.0, above, depth)))

    def points(self, directions: Array, volume: Array | float = 0.0) -> Array:
        """Points (..., 3) on the surface, or `volume` radii above it."""
        return self.centre + self.radii * directions * (1.0 + np.asarray(volume)[..., None])


def direction(azimuth: Array | float, elevation: Array | float) -> Array:
    """Unit vectors (..., 3) of angles in degrees: azimuth 0 is the front and grows to the picture's right."""
    a, e = np.deg2rad(np.asarray(azimuth, np.float64)), np.deg2rad(np.asarray(elevation, np.float64))
    a, e = np.broadcast_arrays(a, e)
    return np.stack((np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)), axis=-1)


@lru_cache(maxsize=4)
def sphere(count: int) -> Array:
    """Evenly spread directions (count, 3): a Fibonacci lattice."""
    step = np.arange(count) + 0.5
    y = 1.0 - 2.0 * step / count
    angle = np.pi * (1.0 + np.sqrt(5.0)) * step
    radius = np.sqrt(1.0 - y * y)
    return np.stack((np.cos(angle) * radius, y, np.sin(angle) * radius), axis=-1)


class View:
    """The frames of a clip, seen by the camera; methods that project return canvas pixels for all frames.

    Attributes:
        size: canvas height and width.
        points: (F, 478, 2), the face's points in canvas pixels.
        cm: (F,), canvas pixels per centimetre at the head's distance.
        line: width in canvas pixels of a line that is one pixel wide in a picture of 128.
        neutral: (468, 3), the identity's face at rest.
        skull: the identity's skull.
        camera: (F, 3), the camera's position in the head's frame.
    """

    def __init__(self, motion: Motion, size: tuple[int, int], neutral: Array, skull: Skull) -> None:
        height, width = size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING
        self.size, self.neutral, self.skull = (height, width), neutral, skull
        self.points: Points = motion.points[..., :2] * (width, height) - 0.5
        self.mesh, self.pose = motion.mesh, motion.pose
        self.cm = height / 2.0 * FOCAL_LENGTH / -motion.pose[:, 2, 3]
        self.line = min(height, width) / 128.0
        self._body_pose = np.tile(np.eye(4), (len(motion), 1, 1))
        self._body_pose[:, :3, 3] = motion.pose[:, :3, 3] * BODY_FOLLOWS
        self.camera = np.linalg.inv(motion.pose)[:, :3, 3]

    def __len__(self) -> int:
        return len(self.points)

    def face(self, xy: Array) -> Points:
        """Project points of the face's surface, given by x and y of the canonical face (n, 2), to (F, n, 2)."""
        corners, weights = attach(xy)
        return np.einsum("fnkc,nk->fnc", self.points[:, corners], weights)

    def head(self, points: Array) -> Points:
        """Project points fixed to the head: (n, 3), or (F, n, 3) if they move."""
        return self._project(points, self.pose)

    def body(self, points: Array) -> Points:
        """Project points (n, 3) fixed to the body."""
        return self._project(points, self._body_pose)

    def shell(self, directions: Array, volume: Array | float = 0.0) -> Points:
        """Project points on the skull, moving hidden points to its visible edge.

        A point on the far side moves to the nearest point of that edge, so that the outline of a patch becomes the
        outline of its visible part.

        Args:
            directions: (n, 3), or (F, n, 3) if they move over the skull.
            volume: height above the skull in its radii, (n,) or a number.
        """
        camera = (self.camera - self.skull.centre) / (self.skull.radii * (1.0 + np.mean(volume)))
        distance = np.linalg.norm(camera, axis=-1, keepdims=True)
        towards = camera / distance
        edge = (1.0 / np.maximum(distance, 1.05))[:, None]
        height = np.einsum("fnc,fc->fn" if directions.ndim == 3 else "nc,fc->fn", directions, towards)[..., None]
        across = directions - height * towards[:, None]
        across /= np.linalg.norm(across, axis=-1, keepdims=True) + 1e-9
        limb = edge * towards[:, None] + np.sqrt(1.0 - edge * edge) * across
        return self.head(self.skull.points(np.where(height < edge, limb, directions), volume))

    def facing(self, directions: Array) -> Array:
        """Cosine (F, n) between the skull's normals at directions (n, 3) and the directions to the camera."""
        normals = directions / self.skull.radii
        normals = normals / np.linalg.norm(normals, axis=-1, keepdims=True)
        to_camera = self.camera[:, None] - self.skull.points(directions)
        to_camera /= np.linalg.norm(to_camera, axis=-1, keepdims=True)
        cosine: Array = (to_camera * normals).sum(axis=-1)
        return cosine

    def _project(self, points: Array, pose: Array) -> Points:
        frames = np.broadcast_to(points, (len(self), *points.shape[-2:]))
        return project(frames, pose, self.size) - 0.5


def tube(centres: Points, radii: Array) -> Points:
    """Outline (F, 2 n, 2) of a line of n points with varying radii, (n,) or (F, n)."""
    along = np.gradient(centres, axis=1)
    along /= np.linalg.norm(along, axis=-1, keepdims=True) + 1e-6
    across = np.stack((-along[..., 1], along[..., 0]), axis=-1) * np.asarray(radii)[..., None]
    return np.concatenate((centres + across, (centres - across)[:, ::-1]), axis=1)


def curve(points: Array, count: int, closed: bool = False) -> Array:
    """Sample `count` points of the smooth curve (Catmull-Rom) through points (..., n, C)."""
    if closed:
        padded = np.concatenate((points[..., -1:, :], points, points[..., :2, :]), axis=-2)
    else:
        first, last = points[..., :1, :], points[..., -1:, :]
        padded = np.concatenate((2 * first - points[..., 1:2, :], points, 2 * last - points[..., -2:-1, :]), axis=-2)
    spans = padded.shape[-2] - 3
    at = np.linspace(0.0, spans, count, endpoint=not closed)
    span = np.minimum(at.astype(int), spans - 1)
    t = (at - span)[:, None]
    p0, p1, p2, p3 = (padded[..., span + k, :] for k in range(4))
    smooth: Array = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2)
    return smooth + 0.5 * (3 * p1 - p0 - 3 * p2 + p3) * t**3


@lru_cache(maxsize=1)
def _lookup() -> NDArray[np.int32]:
    """Number of the canonical face's frontmost triangle at (y, x), int32 (LOOKUP_CELLS, LOOKUP_CELLS); -1 beside it."""
    face = canonical_face()
    table = np.full((LOOKUP_CELLS, LOOKUP_CELLS), -1, np.int32)
    cells = _cells(face.mesh[:, :2])
    for triangle in np.argsort(face.mesh[face.triangles, 2].mean(axis=1)):
        cv2.fillConvexPoly(table, np.rint(cells[face.triangles[triangle]]).astype(np.int32), int(triangle))
    return table


def _cells(xy: Array) -> Array:
    return (xy + LOOKUP_REACH) * (LOOKUP_CELLS / (2.0 * LOOKUP_REACH))


def attach(xy: Array) -> tuple[Indices, Array]:
    """Corners intp (n, 3) and weights (n, 3) of the face's triangles at x and y of the canonical face (n, 2).

    A point beside the face extrapolates the nearest triangle.
    """
    face, table = canonical_face(), _lookup()
    at = np.clip(np.rint(_cells(xy)), 0, LOOKUP_CELLS - 1).astype(int)
    numbers = table[at[:, 1], at[:, 0]]
    outside = numbers < 0
    if outside.any():
        centres = face.mesh[face.triangles, :2].mean(axis=1)
        numbers[outside] = np.square(xy[outside, None] - centres).sum(axis=-1).argmin(axis=1)
    corners = face.triangles[numbers]
    a, b, c = (face.mesh[corners[:, k], :2] for k in range(3))
    u, v, w = b - a, c - a, xy - a
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    second = (w[:, 0] * v[:, 1] - w[:, 1] * v[:, 0]) / area
    third = (u[:, 0] * w[:, 1] - u[:, 1] * w[:, 0]) / area
    weights = np.stack((1.0 - second - third, second, third), axis=-1)
    # clipped because a sliver seen edge-on would throw nearby points far away
    weights = np.clip(weights, -1.0, 2.0)
    return corners, weights / weights.sum(axis=1, keepdims=True)
