"""Fit the canonical face to a few points of a picture: a pose, then the smoothest deformation through the points.

The driving head's rotation replaces that of the pose, so the pose has to tell a turned head from unusual proportions.
It is the one under which the deformation is smallest, where what is the same on both sides counts little if the face
has proportions of its own, as drawings and animals have, and what differs between the sides counts much.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fye_rt.landmarks.geometry import FaceGeometry
from fye_rt.landmarks.library import LEFT_EYE, RIGHT_EYE
from fye_rt.landmarks.retarget import DEPTH_FACTOR, FOCAL_LENGTH
from fye_rt.landmarks.rotation import euler_to_matrix

Array = NDArray[np.float64]

PITCH, YAW = 10.0, 25.0  # degrees, standard deviations expected of a portrait: few are drawn from below or above
DISTANCE = 0.15  # of its logarithm, standard deviation from that of a face without pitch and yaw
LEAST_DEVIATION = 0.15  # centimetres that points are set beside where they belong, by hand and between people
CLOSEST = 0.4  # of the eyes' distance to the camera: how far the nose may reach towards it
FOLD = (
    0.01  # square centimetres of a triangle that faces away; the mesh's triangles have 0.3, and closed lids fold less
)
SPLINES = 32  # of one deformation; a quarter of them shows which point folds it
# (corner, middle and corner of an eyelid, its other points)
LIDS = (
    ((33, 159, 133), (246, 161, 160, 158, 157, 173)),
    ((33, 145, 133), (7, 163, 144, 153, 154, 155)),
    ((362, 386, 263), (398, 384, 385, 387, 388, 466)),
    ((362, 374, 263), (382, 381, 380, 373, 390, 249)),
)
STEPS = 40  # of the pose's fit, which needs 5 to 15
LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)  # inner edges
OPENINGS = (RIGHT_EYE[1], LEFT_EYE[1], LIPS)


@dataclass(frozen=True, slots=True)
class Fit:
    """The canonical face, posed and deformed.

    Attributes:
        mesh: float64 (468, 3), centimetres, in the canonical face's frame.
        pose: float64 (4, 4), a rotation and a translation to the camera's frame.
        folded: int64 (K, 3), triangles whose orientation the deformation turns over, except those between the lids and
            between the lips, which may be closed.
        astray: the given vertex without which the fewest triangles are folded; None if none are.
    """

    mesh: Array
    pose: Array
    folded: NDArray[np.int64]
    astray: int | None


def fit(geometry: FaceGeometry, pixels: Mapping[int, tuple[float, float]], size: tuple[int, int]) -> Fit:
    """Fit the canonical face to points of a picture, which the fitted mesh projects to exactly.

    A point without its counterpart on the other side moves that one, too.

    Args:
        geometry: the canonical face.
        pixels: x and y in pixels by vertex, 0 to 467; at least four, not on one line.
        size: height and width of the picture, in pixels.
    """
    vertices = np.array(list(pixels))
    rays = _rays(np.array(list(pixels.values()), np.float64), size)
    counterparts = _counterparts(geometry.mesh)
    mesh = geometry.mesh.copy()
    scale, start = _upright(mesh[vertices], rays)
    reach = mesh[:, 2].max() - mesh[vertices, 2].mean()
    mesh[:, 2] *= min(1.0, CLOSEST / scale / reach)  # a face that fills the picture would reach the camera
    pose = _pose(_fit_pose(mesh[vertices], rays, _Sides.of(vertices, counterparts), start))
    moved = dict(zip(vertices.tolist(), _seen(mesh[vertices], rays, pose) - mesh[vertices, :2], strict=True))

    def deformed(points: Mapping[int, Array], splines: int = SPLINES) -> Array:
        fitted = mesh.copy()
        fitted[:, :2] = _deform(mesh[:, :2], _completed(mesh, points, counterparts), splines)
        return fitted

    def folds_without(vertex: int) -> int:
        others = {other: displacement for other, displacement in moved.items() if other != vertex}
        return len(_folded(mesh, deformed(others, SPLINES // 4), geometry.triangles))

    fitted = deformed(moved)
    folded = _folded(mesh, fitted, geometry.triangles)
    return Fit(fitted, pose, folded, min(moved, key=folds_without) if len(folded) else None)


def unproject(pixels: Array, depth: Array, size: tuple[int, int]) -> Array:
    """Invert `fye_rt.landmarks.retarget.project`: pixels (N, 2) at depths (N,) below zero to camera space (N, 3)."""
    return _rays(pixels, size) * -depth[:, None]


@dataclass(frozen=True, slots=True)
class _Sides:
    """Splits the deviations of points into those that are the same on both sides and those that differ.

    Attributes:
        pairs: (P, 2), rows of a point of the right side and its counterpart.
        middle: rows of points that have themselves as counterparts.
        others: rows of points whose counterpart is not given.
    """

    pairs: NDArray[np.int64]
    middle: NDArray[np.int64]
    others: NDArray[np.int64]

    @classmethod
    def of(cls, vertices: NDArray[np.int64], counterparts: NDArray[np.int64]) -> "_Sides":
        row = {vertex: index for index, vertex in enumerate(vertices.tolist())}
        other = [row.get(int(counterparts[vertex]), -1) for vertex in vertices.tolist()]
        pairs = [(index, partner) for index, partner in enumerate(other) if index < partner]
        middle = [index for index, partner in enumerate(other) if index == partner]
        alone = [index for index, partner in enumerate(other) if partner < 0]
        return cls(np.array(pairs, np.int64).reshape(-1, 2), np.array(middle, np.int64), np.array(alone, np.int64))

    def split(self, deviations: Array) -> tuple[Array, Array]:
        """Split deviations (N, 2) into symmetric ones and others, each a vector."""
        right, left = deviations[self.pairs[:, 0]], deviations[self.pairs[:, 1]] * (-1.0, 1.0)
        middle, alone = deviations[self.middle], deviations[self.others]
        same, other = (right + left) / np.sqrt(2.0), (right - left) / np.sqrt(2.0)
        return np.concatenate((same.ravel(), middle[:, 1], alone.ravel())), np.append(other.ravel(), middle[:, 0])


def _fit_pose(points: Array, rays: Array, sides: _Sides, start: Array) -> Array:
    """Fit pitch, yaw, roll in degrees and the translation's x / -z, y / -z and log(-z), by Gauss-Newton."""
    deviation = np.ones(2)  # of what is the same on both sides, and of what differs; from the residuals of each step

    def residuals(parameters: Array) -> Array:
        same, other = sides.split(_seen(points, rays, _pose(parameters)) - points[:, :2])
        expected = parameters[0] / PITCH, parameters[1] / YAW, (parameters[5] - start[5]) / DISTANCE
        return np.concatenate((same / deviation[0], other / deviation[1], expected))

    parameters = start
    steps = np.diag((0.1, 0.1, 0.1, 1e-4, 1e-4, 1e-4))
    for _ in range(STEPS):
        parts = sides.split(_seen(points, rays, _pose(parameters)) - points[:, :2])
        deviation = np.maximum([np.sqrt(np.square(part).mean()) for part in parts], LEAST_DEVIATION)
        current = residuals(parameters)
        slopes = np.stack([(residuals(parameters + step) - current) / step.sum() for step in steps], axis=1)
        change = np.linalg.lstsq(slopes, -current, rcond=None)[0]
        change *= min(1.0, 10.0 / max(np.abs(change[:3]).max(), 1e-9), 0.3 / max(np.abs(change[3:]).max(), 1e-9))
        while (
            np.square(residuals(parameters + change)).sum() > np.square(current).sum() and np.abs(change).max() > 1e-6
        ):
            change /= 2.0
        parameters = parameters + change
        if np.abs(change).max() < 1e-4:
            break
    return parameters


def _upright(points: Array, rays: Array) -> tuple[float, Array]:
    """Fit points without pitch and yaw, as if the camera were far away.

    Returns:
        The scale, 1 / centimetres at a distance of one from the camera, and the start for `_fit_pose`.
    """
    source, target = (array[:, 0] + 1j * array[:, 1] for array in (points, rays))
    centred = source - source.mean()
    turn = np.vdot(centred, target) / np.vdot(centred, centred).real
    origin = target.mean() - turn * source.mean()
    scale = float(np.abs(turn))
    distance = 1.0 / scale + points[:, 2].mean()
    roll = np.degrees(np.angle(turn))
    return scale, np.array((0.0, 0.0, roll, origin.real, origin.imag, np.log(distance)))


def _pose(parameters: Array) -> Array:
    pose = np.eye(4)
    pose[:3, :3] = euler_to_matrix(parameters[None, :3])[0]
    distance = np.exp(parameters[5])
    pose[:3, 3] = parameters[3] * distance, parameters[4] * distance, -distance
    return pose


def _rays(pixels: Array, size: tuple[int, int]) -> Array:
    """Return the directions (N, 3) from the camera to pixels (N, 2), of depth -1."""
    height, width = size
    x, y = 2.0 * pixels[:, 0] / width - 1.0, 1.0 - 2.0 * pixels[:, 1] / height
    scale = -DEPTH_FACTOR / FOCAL_LENGTH
    return np.stack((x * scale * width / height, y * scale, np.full(len(pixels), -1.0)), axis=-1)


def _seen(points: Array, rays: Array, pose: Array) -> Array:
    """Return x and y in the face's frame, (N, 2), where rays reach the depths of points (N, 3)."""
    camera = -pose[:3, :3].T @ pose[:3, 3]
    directions = rays @ pose[:3, :3]
    reached: Array = camera + directions * ((points[:, 2] - camera[2]) / directions[:, 2])[:, None]
    return reached[:, :2]


def _counterparts(mesh: Array) -> NDArray[np.int64]:
    """Return the vertex on the other side for each of a symmetric mesh; itself in the middle."""
    distances = np.linalg.norm(mesh[:, None] * (-1.0, 1.0, 1.0) - mesh[None], axis=-1)
    return distances.argmin(axis=1)


def _between(ends: Array, moved: Sequence[Array], point: Array) -> Array:
    """Interpolate the displacements of three points by a parabola along the first axis, so that an eye can be round."""
    x, (a, b, c) = point[0], ends[:, 0]
    weights = (x - b) * (x - c) / ((a - b) * (a - c)), (x - a) * (x - c) / ((b - a) * (b - c))
    return weights[0] * moved[0] + weights[1] * moved[1] + (1.0 - sum(weights)) * moved[2]


def _completed(mesh: Array, moved: Mapping[int, Array], counterparts: NDArray[np.int64]) -> dict[int, Array]:
    """Add displacements of the rest of the lids, and of the other side where nothing is known of it."""
    completed = dict(moved)
    for ends, between in LIDS:
        if moved.keys() >= set(ends):
            for vertex in between:
                completed.setdefault(vertex, _between(mesh[list(ends)], [moved[end] for end in ends], mesh[vertex]))
    for vertex in moved:
        completed.setdefault(int(counterparts[vertex]), moved[vertex] * (-1.0, 1.0))
    return completed


def _folded(mesh: Array, fitted: Array, triangles: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the triangles, (K, 3), that face away in the fitted mesh alone."""
    before, after = _areas(mesh, triangles), _areas(fitted, triangles)
    between = np.any([np.isin(triangles, opening).all(axis=1) for opening in OPENINGS], axis=0)
    return triangles[(before > 0.0) & (after < -FOLD) & ~between]


def _deform(points: Array, moved: Mapping[int, Array], splines: int) -> Array:
    """Move some rows of points (N, 2) by displacements (2,), and the others smoothly with them.

    One spline folds where neighbours move far apart or together; many small ones after each other do not.
    """
    rows, displacements = list(moved), np.array(list(moved.values()))
    affine = np.column_stack((np.ones(len(rows)), points[rows]))
    whole = np.column_stack((np.ones(len(points)), points)) @ np.linalg.lstsq(affine, displacements, rcond=None)[0]
    deformed = points + whole
    step = (points[rows] + displacements - deformed[rows]) / splines
    for _ in range(splines):
        deformed = deformed + _spline(deformed[rows], step, deformed)
    return deformed


def _spline(sources: Array, moved: Array, at: Array) -> Array:
    """Interpolate displacements (N, 2) of points (N, 2) at others (M, 2) by a thin-plate spline.

    F. L. Bookstein, "Principal warps: thin-plate splines and the decomposition of deformations", IEEE PAMI 11(6), 1989.
    """

    def kernel(points: Array) -> Array:
        squared = np.square(points[:, None] - sources[None]).sum(axis=-1)
        return squared * np.log(np.where(squared > 0.0, squared, 1.0)) / 2.0

    count = len(sources)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = kernel(sources)
    system[:count, count:] = np.column_stack((np.ones(count), sources))
    system[count:, :count] = system[:count, count:].T
    weights = np.linalg.solve(system, np.concatenate((moved, np.zeros((3, 2)))))
    spline: Array = kernel(at) @ weights[:count] + np.column_stack((np.ones(len(at)), at)) @ weights[count:]
    return spline


def _areas(mesh: Array, triangles: NDArray[np.int64]) -> Array:
    """Return the areas of triangles (T, 3) as seen from the front; below zero for those that face away."""
    a, b, c = mesh[triangles, :2].transpose(1, 0, 2)
    u, v = b - a, c - a
    areas: Array = (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]) / 2.0
    return areas
