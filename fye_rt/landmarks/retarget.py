"""Move the driving face's expression and head motion onto the portrait's face (the reference's FaceMeshAlign)."""

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError
from fye_rt.files.rows import by_parts
from fye_rt.landmarks.control import Control
from fye_rt.landmarks.edit import Editor
from fye_rt.landmarks.geometry import FAR, NEAR, VERTICAL_FOV
from fye_rt.landmarks.library import LEFT_EYE, RIGHT_EYE
from fye_rt.landmarks.motion import POINTS, Motion
from fye_rt.landmarks.rotation import euler_to_matrix, matrix_to_euler
from fye_rt.landmarks.smooth import smoothed

Array = NDArray[np.float64]
NEUTRAL = Control()

# The reference keeps its projection matrix in float32 and multiplies by its transpose, which puts
# far * near / (near - far) = -1.0001 where -1 belongs.
FOCAL_LENGTH = float(np.float32(1.0 / np.tan(VERTICAL_FOV / 2.0)))
DEPTH_FACTOR = float(np.float32(FAR * NEAR / (NEAR - FAR)))


def retarget(
    portrait: Motion,
    motion: Motion,
    size: tuple[int, int],
    drop_first: bool = False,
    control: Control = NEUTRAL,
) -> Array:
    """Move the portrait's landmarks as the driving face moves.

    The driving mesh's difference from its most neutral frame is added to the portrait's mesh. The rotation is the
    driving head's; its translation relative to the first frame is added to the portrait's. A pinhole camera projects
    the result, and each iris keeps its place inside its eye.

    Args:
        portrait: the portrait's landmarks, one frame.
        motion: the driving landmarks, F frames.
        size: height and width of the result, in pixels.
        drop_first: omit the first frame, as the reference does; it anchors the translation either way.
        control: changes to the motion, as `fye_rt.landmarks.edit.apply` makes them.

    Returns:
        float64 (F, 478, 2), or (F - 1, 478, 2) with `drop_first`: x and y in pixels, y down.

    Raises:
        InputError: `portrait` has more than one frame, `drop_first` leaves no frame, or the motion moves the face
            through the camera.
    """
    return retargeted(portrait, motion, size, drop_first, control)[0]


def retargeted(
    portrait: Motion, motion: Motion, size: tuple[int, int], drop_first: bool, control: Control
) -> tuple[Array, tuple[str, ...]]:
    """Return what `retarget` does, and notices of what the control asked for that no face can do."""
    if drop_first and len(motion) < 2:
        raise InputError('the motion has one frame and the reference drops the first; use windows="context" instead')
    motion = smoothed(motion, control.smooth)
    retargeter = Retargeter(portrait, motion, size, control)
    points = by_parts(len(motion), (POINTS, 2), lambda part: retargeter.points(motion[part], part.start))
    return points[1:] if drop_first else points, retargeter.editor.notices


class Retargeter:
    """Incremental form of `retarget`, for a motion that arrives in parts.

    Args:
        portrait: the portrait's landmarks, one frame.
        first: one or more driving frames: the first anchors the translation, and expressions are differences from the
            one with the least expression.
        size: height and width of the result, in pixels.
        control: changes to the motion.

    Attributes:
        editor: applies the control; its `control` may be set to another one.

    Raises:
        InputError: `portrait` has more than one frame, or see `fye_rt.landmarks.edit.Editor`.
    """

    def __init__(self, portrait: Motion, first: Motion, size: tuple[int, int], control: Control = NEUTRAL) -> None:
        if len(portrait) != 1:
            raise InputError(f"the portrait's landmarks have {len(portrait)} frames; give those of one picture")
        self._portrait, self._size = portrait, size
        self.editor = Editor(control, portrait, first)

    def points(self, motion: Motion, number: int = 0) -> Array:
        """Return the portrait's landmarks for F driving frames, float64 (F, 478, 2), as `retarget` does.

        `number` is that of the first frame, for messages.
        """
        motion = self.editor.apply(motion)
        assert motion.rest is not None and motion.anchor is not None
        mesh = motion.mesh - motion.rest + self._portrait.mesh[0]
        mesh_2d = project(mesh, aligned_pose(self._portrait, motion, motion.anchor), self._size, number)
        points = np.empty((len(motion), POINTS, 2))
        points[:, : mesh_2d.shape[1]] = mesh_2d
        for iris, contour in (RIGHT_EYE, LEFT_EYE):
            seen, around = motion.points[:, iris, :2], motion.points[:, contour, :2]
            points[:, iris] = _place_iris(seen, around, mesh_2d[:, contour])
        return points


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
