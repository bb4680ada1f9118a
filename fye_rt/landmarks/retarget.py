"""Move the driving face's expression and head motion onto the portrait's face (the reference's FaceMeshAlign)."""

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError
from fye_rt.files.rows import by_parts
from fye_rt.landmarks.geometry import FAR, NEAR, VERTICAL_FOV
from fye_rt.landmarks.motion import POINTS, Motion
from fye_rt.landmarks.rotation import euler_to_matrix, matrix_to_euler

Array = NDArray[np.float64]

# The reference keeps its projection matrix in float32 and multiplies by its transpose, which puts
# far * near / (near - far) = -1.0001 where -1 belongs.
FOCAL_LENGTH = float(np.float32(1.0 / np.tan(VERTICAL_FOV / 2.0)))
DEPTH_FACTOR = float(np.float32(FAR * NEAR / (NEAR - FAR)))

# (points of the iris, contour of its eye)
RIGHT_EYE = (slice(468, 473), (33, 7, 163, 144, 145, 153, 154, 155, 246, 161, 160, 159, 158, 157, 173, 133))
LEFT_EYE = (slice(473, 478), (249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398, 263))


def retarget(portrait: Motion, motion: Motion, size: tuple[int, int], drop_first: bool = False) -> Array:
    """Move the portrait's landmarks as the driving face moves.

    The driving mesh's difference from its most neutral frame is added to the portrait's mesh. The rotation is the
    driving head's; its translation relative to the first frame is added to the portrait's. A pinhole camera projects
    the result, and each iris keeps its place inside its eye.

    Args:
        portrait: the portrait's landmarks, one frame.
        motion: the driving landmarks, F frames.
        size: height and width of the result, in pixels.
        drop_first: omit the first frame, as the reference does; it anchors the translation either way.

    Returns:
        float64 (F, 478, 2), or (F - 1, 478, 2) with `drop_first`: x and y in pixels, y down.

    Raises:
        InputError: `portrait` has more than one frame, `drop_first` leaves no frame, or the motion moves the face
            through the camera.
    """
    if drop_first and len(motion) < 2:
        raise InputError('the motion has one frame and the reference drops the first; use windows="context" instead')
    retargeter = Retargeter(portrait, motion, size)
    points = by_parts(len(motion), (POINTS, 2), lambda part: retargeter.points(motion[part], part.start))
    return points[1:] if drop_first else points


class Retargeter:
    """Incremental form of `retarget`, for a motion that arrives in parts.

    Args:
        portrait: the portrait's landmarks, one frame.
        first: one or more driving frames: the first anchors the translation, and expressions are differences from the
            one with the least expression.
        size: height and width of the result, in pixels.

    Raises:
        InputError: `portrait` has more than one frame.
    """

    def __init__(self, portrait: Motion, first: Motion, size: tuple[int, int]) -> None:
        if len(portrait) != 1:
            raise InputError(f"the portrait's landmarks have {len(portrait)} frames; give those of one picture")
        self._portrait, self._size = portrait, size
        self._neutral = first.mesh[neutral_frame(first)] if first.rest is None else first.rest
        self._anchor = first.pose[0, :3, 3] if first.anchor is None else first.anchor

    def points(self, motion: Motion, number: int = 0) -> Array:
        """Return the portrait's landmarks for F driving frames, float64 (F, 478, 2), as `retarget` does.

        `number` is that of the first frame, for messages.
        """
        mesh = motion.mesh - self._neutral + self._portrait.mesh[0]
        mesh_2d = project(mesh, aligned_pose(self._portrait, motion, self._anchor), self._size, number)
        points = np.empty((len(motion), POINTS, 2))
        points[:, : mesh_2d.shape[1]] = mesh_2d
        for iris, contour in (RIGHT_EYE, LEFT_EYE):
            seen, around = motion.points[:, iris, :2], motion.points[:, contour, :2]
            points[:, iris] = _place_iris(seen, around, mesh_2d[:, contour])
        return points


def neutral_frame(motion: Motion) -> int:
    """Return the index of the frame with the least expression: the smallest sum of blendshapes."""
    return int(np.argmin(motion.blendshapes.sum(axis=1)))


def aligned_pose(portrait: Motion, motion: Motion, anchor: Array) -> Array:
    """Combine the motion's rotations with its translations from `anchor`, (3,), to the portrait's: (F, 4, 4)."""
    pose = np.tile(np.eye(4), (len(motion), 1, 1))
    # through Euler angles in degrees, as in the reference: this orthonormalises and determines the last bits
    pose[:, :3, :3] = euler_to_matrix(matrix_to_euler(motion.pose[:, :3, :3]))
    pose[:, :3, 3] = motion.pose[:, :3, 3] - anchor + portrait.pose[0, :3, 3]
    return pose


def project(mesh: Array, pose: Array, size: tuple[int, int], number: int = 0) -> Array:
    """Project metric points (F, N, 3) under poses (F, 4, 4) to pixels, float64 (F, N, 2); frames from `number` on.

    Raises:
        InputError: a point is not in front of the camera.
    """
    height, width = size
    camera = mesh @ pose[:, :3, :3].transpose(0, 2, 1) + pose[:, None, :3, 3]
    x, y, z = camera[..., 0], camera[..., 1], camera[..., 2]
    behind = np.flatnonzero((z > -NEAR).any(axis=1))
    if behind.size:
        frame = number + behind[0]
        raise InputError(f"frame {frame} of the motion moves the face through the camera; cut the frames around it")
    w = z * DEPTH_FACTOR
    return np.stack(
        (
            ((x * (FOCAL_LENGTH / (width / height))) / w + 1.0) / 2.0 * width,
            ((-y * FOCAL_LENGTH) / w + 1.0) / 2.0 * height,
        ),
        axis=-1,
    )


def _place_iris(iris: Array, contour: Array, target_contour: Array) -> Array:
    """Place iris points (F, 5, 2) in the target eye's bounding box as they are in the driving eye's."""
    low, high = contour.min(axis=1, keepdims=True), contour.max(axis=1, keepdims=True)
    target_low, target_high = target_contour.min(axis=1, keepdims=True), target_contour.max(axis=1, keepdims=True)
    extent = high - low
    # an eye without extent (a damaged file) gets its iris in the middle instead of a division by zero
    relative = np.divide(iris - low, extent, out=np.full_like(iris, 0.5), where=np.broadcast_to(extent > 0, iris.shape))
    return relative * (target_high - target_low) + target_low
