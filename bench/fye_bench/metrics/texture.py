"""Compare faces whatever their expression and pose, by unwrapping pictures into the canonical face's texture."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from fye_bench.metrics.truth import Image, Shown
from fye_training.topology import Array, canonical_face

SIDE = 128  # texels
FACING = 0.3  # least cosine between surface and line of sight: flatter triangles are a few pixels wide
BEHIND = 0.6  # centimetres behind the nearest surface in its pixel that still count as that surface


@dataclass(frozen=True, slots=True, eq=False)
class _Texels:
    """The N texels of the skin, without the openings of eyes and mouth.

    Attributes:
        triangle: (N,), triangle of each texel.
        weights: (N, 3), barycentric.
    """

    triangle: NDArray[np.intp]
    weights: Array


def texture_error(generated: Image, generated_face: Shown, true: Image, true_face: Shown) -> float:
    """Return the mean absolute difference of the textures of two clips uint8 (F, H, W, 3), in levels of 255.

    Only texels that both show count; the difference is NaN without any.
    """
    total, count = _differences(generated, generated_face, true, true_face).sum(axis=0)
    return float(total / count) if count else float("nan")


def texture_errors(generated: Image, generated_face: Shown, true: Image, true_face: Shown) -> Array:
    """Return the `texture_error` of each frame, (F,)."""
    total, count = _differences(generated, generated_face, true, true_face).T
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def _differences(generated: Image, generated_face: Shown, true: Image, true_face: Shown) -> Array:
    """Return the sum and the number of compared values of each frame, (F, 2)."""
    sums = []
    for (a, in_a), (b, in_b) in zip(_unwrap(generated, generated_face), _unwrap(true, true_face), strict=True):
        both = in_a & in_b
        sums.append((float(np.abs(a[both] - b[both]).sum()), 3.0 * int(both.sum())))
    return np.array(sums)


def _unwrap(frames: Image, face: Shown) -> list[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Return the colours of the texels in each frame, float32 (N, 3), and which texels it shows, (N,)."""
    texels, triangles = _texels(), canonical_face().triangles
    corners = triangles[texels.triangle]
    unwrapped = []
    for frame, mesh, pose, points in zip(frames, face.mesh, face.pose, face.points, strict=True):
        camera = mesh @ pose[:3, :3].T + pose[:3, 3]
        places = np.einsum("nk,nkc->nc", texels.weights, points[corners])
        depth = np.einsum("nk,nk->n", texels.weights, -camera[corners, 2])
        pixel = (places - 0.5).astype(np.float32)  # OpenCV's pixel centres are whole numbers
        colours = cv2.remap(frame, pixel[None, :, 0], pixel[None, :, 1], cv2.INTER_LINEAR)[0]
        nearest, front = _nearest(camera[triangles], points[triangles], face.size)
        row, column = np.floor(places).astype(int)[:, ::-1].T
        inside = (row >= 0) & (row < face.size[0]) & (column >= 0) & (column < face.size[1])
        seen = inside & front[texels.triangle]
        seen[inside] &= depth[inside] < nearest[row[inside], column[inside]] + BEHIND
        unwrapped.append((colours.astype(np.float32), seen))
    return unwrapped


def _nearest(corners: Array, pixels: Array, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the depth of the nearest surface in each pixel (H, W), and which triangles (T, 3, 3) face the camera."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    middle = corners.mean(axis=1)
    facing = -(normal * middle).sum(axis=1)
    cosine = facing / (np.linalg.norm(normal, axis=1) * np.linalg.norm(middle, axis=1) + 1e-12)
    depth = np.full(size, np.inf, np.float32)
    fixed = np.round((pixels - 0.5) * 16).astype(np.int32)
    for triangle in np.argsort(middle[:, 2]):  # the farthest first
        if cosine[triangle] > 0:
            cv2.fillConvexPoly(depth, fixed[triangle], float(-middle[triangle, 2]), cv2.LINE_8, 4)
    return depth, cosine > FACING


@lru_cache(maxsize=1)
def _texels() -> _Texels:
    face = canonical_face()
    corners = face.uv[face.triangles] * SIDE
    fixed = np.round((corners - 0.5) * 16).astype(np.int32)
    owner = np.full((SIDE, SIDE), -1, np.int32)
    for triangle in np.flatnonzero(face.skin):
        cv2.fillConvexPoly(owner, fixed[triangle], int(triangle), cv2.LINE_8, 4)
    row, column = np.nonzero(owner >= 0)
    triangle = owner[row, column].astype(np.intp)
    a, b, c = corners[triangle].transpose(1, 0, 2)
    texel = np.stack((column, row), axis=-1).astype(np.float64) + 0.5
    whole = _area(a, b, c)
    weights = np.stack((_area(texel, b, c), _area(a, texel, c), _area(a, b, texel)), axis=-1) / whole[:, None]
    # a texel whose centre lies just outside its triangle takes the colour of its edge
    weights = np.clip(weights, 0.0, None)
    return _Texels(triangle, weights / weights.sum(axis=-1, keepdims=True))


def _area(a: Array, b: Array, c: Array) -> Array:
    return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
