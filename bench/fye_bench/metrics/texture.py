"""Whose face it is: pictures unwrapped into the canonical face's texture, where expression and pose are gone."""

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
    """The texels of the skin, N of them: not what covers the eyes' and the mouth's openings.

    Attributes:
        triangle: (N,).
        weights: (N, 3), barycentric.
    """

    triangle: NDArray[np.intp]
    weights: Array


def texture_error(made: Image, made_face: Shown, true: Image, true_face: Shown) -> float:
    """Mean absolute difference of two clips' textures, where both see the face, in levels of 255.

    Args:
        made: uint8 (F, H, W, 3).
        made_face: where the face is in them.
        true: uint8 (F, H, W, 3).
        true_face: where the face is in them.

    Returns:
        NaN where no texel is seen in both.
    """
    total, count = _differences(made, made_face, true, true_face).sum(axis=0)
    return float(total / count) if count else float("nan")


def texture_errors(made: Image, made_face: Shown, true: Image, true_face: Shown) -> Array:
    """As `texture_error`, of each frame, (F,)."""
    total, count = _differences(made, made_face, true, true_face).T
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def _differences(made: Image, made_face: Shown, true: Image, true_face: Shown) -> Array:
    """Sum and number of what was compared in each frame, (F, 2)."""
    textures = (_unwrap(clip, face) for clip, face in ((made, made_face), (true, true_face)))
    found = []
    for (first, seen), (second, also_seen) in zip(*textures, strict=True):
        both = seen & also_seen
        found.append((float(np.abs(first[both] - second[both]).sum()), 3.0 * int(both.sum())))
    return np.array(found)


def _unwrap(frames: Image, face: Shown) -> list[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Of each frame, the colours of the texels, float32 (N, 3), and which of them it shows, (N,)."""
    texels, triangles = _texels(), canonical_face().triangles
    corners = triangles[texels.triangle]
    unwrapped = []
    for frame, mesh, pose, points in zip(frames, face.mesh, face.pose, face.points, strict=True):
        camera = mesh @ pose[:3, :3].T + pose[:3, 3]
        where = np.einsum("nk,nkc->nc", texels.weights, points[corners])
        deep = np.einsum("nk,nk->n", texels.weights, -camera[corners, 2])
        pixel = (where - 0.5).astype(np.float32)  # OpenCV's pixel centres are whole numbers
        colours = cv2.remap(frame, pixel[None, :, 0], pixel[None, :, 1], cv2.INTER_LINEAR)[0]
        nearest, front = _nearest(camera[triangles], points[triangles], face.size)
        row, column = np.floor(where).astype(int)[:, ::-1].T
        inside = (row >= 0) & (row < face.size[0]) & (column >= 0) & (column < face.size[1])
        seen = inside & front[texels.triangle]
        seen[inside] &= deep[inside] < nearest[row[inside], column[inside]] + BEHIND
        unwrapped.append((colours.astype(np.float32), seen))
    return unwrapped


def _nearest(corners: Array, pixels: Array, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Depth of the nearest surface in each pixel (H, W), and which triangles (T, 3, 3) face the camera enough."""
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
    owner = np.full((SIDE, SIDE), -1, np.int32)
    for triangle in np.flatnonzero(face.skin):
        cv2.fillConvexPoly(
            owner, np.round((corners[triangle] - 0.5) * 16).astype(np.int32), int(triangle), cv2.LINE_8, 4
        )
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
