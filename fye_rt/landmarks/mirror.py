"""Mirror a motion, so that the portrait moves as the driving face does in a mirror."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fye_rt.files.rows import by_parts
from fye_rt.landmarks.motion import BLENDSHAPES, MESH_POINTS, POINTS, Motion

# The canonical face is symmetric. Its points left of the middle, in order, mirror those right of it, in order.
_MIDDLE = (0, 1, 2, 4, 5, 6, *range(8, 20), 94, 151, 152, 164, 168, 175, 195, 197, 199, 200)
_SIDES = np.setdiff1d(np.arange(MESH_POINTS), _MIDDLE)
_IRISES = (473, 476, 475, 474, 477, 468, 471, 470, 469, 472)  # each in the order middle, its four sides
# MediaPipe's blendshapes stand in alphabetical order, without "_neutral": most pairs stand side by side
_PAIRS = [(first, first + 1) for first in (0, 3, 6, *range(8, 22, 2), 27, 29, 33, 35, 43, 45, 47, 49)]
_PAIRS += [(23, 25), (32, 38)]  # jawLeft and jawRight, mouthLeft and mouthRight


def mirrored(motion: Motion) -> Motion:
    """Return the motion as a mirror shows it: left and right exchanged in points, mesh, pose and blendshapes."""
    mesh = np.arange(MESH_POINTS)
    half = len(_SIDES) // 2
    mesh[_SIDES[:half]], mesh[_SIDES[half:]] = _SIDES[half:], _SIDES[:half]
    shapes = np.arange(BLENDSHAPES)
    for left, right in _PAIRS:
        shapes[left], shapes[right] = right, left
    count, order = len(motion), [*mesh.tolist(), *_IRISES]

    def points(part: slice) -> NDArray[np.float64]:
        exchanged = motion.points[part][:, order]
        exchanged[..., 0] = 1 - exchanged[..., 0]
        return exchanged

    return replace(
        motion,
        points=by_parts(count, (POINTS, 3), points),
        mesh=by_parts(count, (MESH_POINTS, 3), lambda part: motion.mesh[part][:, mesh] * (-1, 1, 1)),
        pose=motion.pose * np.outer((-1, 1, 1, 1), (-1, 1, 1, 1)),
        blendshapes=motion.blendshapes[:, shapes],
    )
