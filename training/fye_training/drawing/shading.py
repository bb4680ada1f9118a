"""Soft shading: colours of moving surface points, spread smoothly over the picture.

Each point adds its weighted colour to a coarse grid (bilinearly, so that nothing jumps as points move). Blurred colours
divided by equally blurred weights interpolate between scattered points (normalised convolution: Knutsson and Westin,
1993).
"""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from fye_training.drawing.canvas import Canvas, Image, Points
from fye_training.topology import Indices, canonical_face

GRID = 64  # cells along either side of the picture
TAPS = 11

Array = NDArray[np.float64]


class Shading:
    """Shading maps of a clip.

    Args:
        points: (F, n, 2), canvas pixels.
        colours: (F, n, 3), in [0, 255].
        weights: (F, n), at least 0: weight of each point; 0 for points that face away.
        blur: (F,), standard deviation in canvas pixels.
        size: canvas height and width.
        base: colour far from every point.
    """

    def __init__(
        self, points: Points, colours: Array, weights: Array, blur: Array, size: tuple[int, int], base: Array
    ) -> None:
        height, width = size
        cells = GRID / np.array([width, height], np.float64)
        splats = _splat((points + 0.5) * cells - 0.5, colours - base, weights)
        sigmas = blur * (GRID / height)
        self.maps = np.empty((len(points), GRID, GRID, 3), np.uint8)
        for splat, sigma, result in zip(splats, sigmas.tolist(), self.maps, strict=True):
            smooth = cv2.GaussianBlur(splat, (TAPS, TAPS), min(max(sigma, 0.8), 3.0), borderType=cv2.BORDER_REPLICATE)
            result[:] = np.clip(smooth[..., :3] / (smooth[..., 3:] + 1e-4) + base, 0.0, 255.0)

    def picture(self, canvas: Canvas, frame: int) -> Image:
        """The frame's map, scaled to the canvas's size."""
        cached = canvas.painted.get(id(self))
        if cached is not None and cached[0] == frame:
            return cached[1]
        picture = cached[1] if cached is not None else np.empty_like(canvas.image)
        height, width = canvas.mask.shape
        cv2.resize(self.maps[frame], (width, height), dst=picture, interpolation=cv2.INTER_LINEAR)
        canvas.painted[id(self)] = (frame, picture)
        return picture


def _splat(cells: Points, colours: Array, weights: Array) -> NDArray[np.float32]:
    """Add weighted colours and weights to the grid: float32 (F, GRID, GRID, 4)."""
    frames = len(cells)
    values = np.concatenate((colours * weights[..., None], weights[..., None]), axis=-1)
    low = np.floor(cells).astype(np.int64)
    part = cells - low
    result = np.zeros((4, frames * GRID * GRID))
    offset = np.arange(frames)[:, None] * (GRID * GRID)
    for right in (0, 1):
        for down in (0, 1):
            x, y = low[..., 0] + right, low[..., 1] + down
            share = np.abs(1 - right - part[..., 0]) * np.abs(1 - down - part[..., 1])
            inside = (x >= 0) & (x < GRID) & (y >= 0) & (y < GRID)
            index = np.where(inside, y * GRID + x, 0) + offset
            share = np.where(inside, share, 0.0)
            for channel in range(4):
                result[channel] += np.bincount(
                    index.ravel(), (share * values[..., channel]).ravel(), minlength=frames * GRID * GRID
                )
    return np.ascontiguousarray(result.reshape(4, frames, GRID, GRID).transpose(1, 2, 3, 0), np.float32)


def normals(mesh: Array) -> NDArray[np.float32]:
    """Unit normals (F, 468, 3) of face meshes (F, 468, 3)."""
    triangles, order, starts = _fans()
    points = mesh.astype(np.float32)
    a, b, c = (points[:, triangles[:, k]] for k in range(3))
    u, v = b - a, c - a
    faces = np.stack(
        (
            u[..., 1] * v[..., 2] - u[..., 2] * v[..., 1],
            u[..., 2] * v[..., 0] - u[..., 0] * v[..., 2],
            u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0],
        ),
        axis=-1,
    )
    sums = np.add.reduceat(faces[:, order], starts, axis=1)
    result: NDArray[np.float32] = sums / (np.linalg.norm(sums, axis=-1, keepdims=True) + 1e-6)
    return result


@lru_cache(maxsize=1)
def _fans() -> tuple[Indices, Indices, Indices]:
    """The face's triangles, the numbers of the triangles around each point, and each point's first index into them."""
    triangles = canonical_face().triangles
    corners = triangles.ravel()
    order = np.argsort(corners, kind="stable")
    return triangles, order // 3, np.searchsorted(corners[order], np.arange(corners.max() + 1))
