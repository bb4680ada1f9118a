"""The driving face's expression and head motion on the portrait's face (the reference's FaceMeshAlign)."""

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError
from fye_rt.landmarks.geometry import FAR, NEAR, VERTICAL_FOV
from fye_rt.landmarks.motion import POINTS, Motion
from fye_rt.landmarks.rotation import euler_to_matrix, matrix_to_euler

Array = NDArray[np.float64]

# The reference keeps its projection matrix in float32 and multiplies by its transpose, which puts
# far * near / (near - far) = -1.0001 where -1 belongs.
FOCAL_LENGTH = float(np.float32(1.0 / np.tan(VERTICAL_FOV / 2.0)))
DEPTH_FACTOR = float(np.float32(FAR * NEAR / (NEAR - FAR)))

# iris: (its points, the contour of its eye)
RIGHT_EYE = (slice(468, 473), (33, 7, 163, 144, 145, 153, 154, 155, 246, 161, 160, 159, 158, 157, 173, 133))
LEFT_EYE = (slice(473, 478), (249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398, 263))


def retarget(portrait: Motion, motion: Motion, size: tuple[int, int], drop_first: bool = False) -> Array:
    """Landmarks of the portrait's face, moved as the driving face moves.

    The expression is the driving mesh's difference to its most neutral frame, added to the portrait's mesh; the
    rotation is the driving head's own; the translation is the driving head's relative to its first frame, added
    to the portrait's. A pinhole camera projects the result; each iris keeps its place inside its eye.

    Args:
        portrait: the portrait's landmarks, one frame.
        motion: the driving landmarks, F frames.
        size: height and width of the result, in pixels.
        drop_first: leave the first frame out, as the reference does; it anchors the translation either way.

    Returns:
        float64 (F, 478, 2), or (F - 1, 478, 2) with `drop_first`: x and y in pixels, y down.

    Raises:
        InputError: `portrait` has more than one frame, nothing is left after `drop_first`, or the motion leads
            the face through the camera.
    """
    if drop_first and len(motion) < 2:
        raise InputError('the motion has one frame and the reference drops the first; use windows="context" instead')
    points = Retargeter(portrait, motion, size).points(motion)
    return points[1:] if drop_first else points


class Retargeter:
    """`retarget` for a motion that comes bit by bit.

    Args:
        portrait: the portrait's landmarks, one frame.
        first: of the driving landmarks one frame or more: the first anchors the translation, and the one with the
            least expression is what expressions differ from.
        size: height and width of the result, in pixels.

    Raises:
        InputError: `portrait` has more than one frame.
    """

    def __init__(self, portrait: Motion, first: Motion, size: tuple[int, int]) -> None:
        if len(portrait) != 1:
            raise InputError(f"the portrait's landmarks have {len(portrait)} frames; give those of one picture")
        self._portrait, self._size = portrait, size
        self._neutral = first.mesh[neutral_frame(first)]
        self._anchor = first.pose[0, :3, 3]

    def points(self, motion: Motion) -> Array:
        """The portrait's landmarks, float64 (F, 478, 2), for F frames; as `retarget`."""
        mesh = motion.mesh - self._neutral + self._portrait.mesh[0]
        mesh_2d = project(mesh, aligned_pose(self._portrait, motion, self._anchor), self._size)
        points = np.empty((len(motion), POINTS, 2))
        points[:, : mesh_2d.shape[1]] = mesh_2d
        for iris, contour in (RIGHT_EYE, LEFT_EYE):
            seen, around = motion.points[:, iris, :2], motion.points[:, contour, :2]
            points[:, iris] = _place_iris(seen, around, mesh_2d[:, contour])
        return points


def neutral_frame(motion: Motion) -> int:
    """Index of the frame with the least expression: the smallest sum of blendshapes."""
    return int(np.argmin(motion.blendshapes.sum(axis=1)))


def aligned_pose(portrait: Motion, motion: Motion, anchor: Array) -> Array:
    """Poses float64 (F, 4, 4): the motion's rotations; its translations from `anchor`, (3,), on the portrait's."""
    pose = np.tile(np.eye(4), (len(motion), 1, 1))
    # The reference goes through Euler angles in degrees; this orthonormalises and sets the last bits.
    pose[:, :3, :3] = euler_to_matrix(matrix_to_euler(motion.pose[:, :3, :3]))
    pose[:, :3, 3] = motion.pose[:, :3, 3] - anchor + portrait.pose[0, :3, 3]
    return pose


def project(mesh: Array, pose: Array, size: tuple[int, int]) -> Array:
    """Pixels float64 (F, N, 2) of metric points (F, N, 3) under poses (F, 4, 4).

    Raises:
        InputError: a point does not lie in front of the camera.
    """
    height, width = size
    camera = mesh @ pose[:, :3, :3].transpose(0, 2, 1) + pose[:, None, :3, 3]
    x, y, z = camera[..., 0], camera[..., 1], camera[..., 2]
    behind = np.flatnonzero((z > -NEAR).any(axis=1))
    if behind.size:
        raise InputError(f"frame {behind[0]} of the motion leads the face through the camera; cut the frames around it")
    w = z * DEPTH_FACTOR
    return np.stack(
        (
            ((x * (FOCAL_LENGTH / (width / height))) / w + 1.0) / 2.0 * width,
            ((-y * FOCAL_LENGTH) / w + 1.0) / 2.0 * height,
        ),
        axis=-1,
    )


def _place_iris(iris: Array, contour: Array, target_contour: Array) -> Array:
    """Iris points (F, 5, 2) at the same place of the target eye's bounding box as of the driving eye's."""
    low, high = contour.min(axis=1, keepdims=True), contour.max(axis=1, keepdims=True)
    target_low, target_high = target_contour.min(axis=1, keepdims=True), target_contour.max(axis=1, keepdims=True)
    extent = high - low
    # an eye without extent (a damaged file) puts its iris in the middle instead of dividing by zero
    relative = np.divide(iris - low, extent, out=np.full_like(iris, 0.5), where=np.broadcast_to(extent > 0, iris.shape))
    return relative * (target_high - target_low) + target_low
