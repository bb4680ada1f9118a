"""Change where a head is turned, where it is, and where its eyes look."""

import numpy as np
from numpy.typing import NDArray

from fye_rt.landmarks.control import Control
from fye_rt.landmarks.curves import Values
from fye_rt.landmarks.library import LEFT_EYE, RIGHT_EYE
from fye_rt.landmarks.motion import Motion
from fye_rt.landmarks.rotation import (
    compose,
    euler_to_matrix,
    inverse,
    matrix_to_euler,
    matrix_to_quaternion,
    power,
    quaternion_to_matrix,
)

Array = NDArray[np.float64]

EYES = (RIGHT_EYE, LEFT_EYE)
MOST_TURNED = np.array((40.0, 60.0, 45.0))  # degrees about x, y and z of what an edited head may reach
GAZE = (0.26, 0.57)  # of the eye's width and height: movement of the iris at a gaze of 1
EYEBALL = 0.49  # radius in widths of the eye


class Head:
    """Changes the poses of a driver for a portrait.

    Args:
        portrait: the portrait's landmarks, one frame.
        first: the driver's first rotation (3, 3).
        anchor: the driver's first place (3,), centimetres.

    Attributes:
        clamped: whether a head had to be kept from turning further than a head can.
    """

    def __init__(self, portrait: Motion, first: Array, anchor: Array) -> None:
        self._own_rotation, self._first = (matrix_to_quaternion(x) for x in (portrait.pose[:, :3, :3], first[None]))
        self._place, self._anchor = portrait.pose[0, :3, 3], anchor
        self._width = float(np.ptp(portrait.mesh[0, :, 0]))
        self.clamped = False

    def __call__(self, control: Control, driven: Array, values: Values, strengths: Array) -> Array:
        """Return changed poses (F, 4, 4).

        Args:
            control: the changes.
            driven: the driver's poses (F, 4, 4).
            values: the control's values at each frame.
            strengths: (F, 3), of rotation, movement in the picture, and approach.
        """
        strength, pose = strengths[:, 0], driven.copy()
        turned = (strength != 1.0) | (control.rotation == "relative")
        if turned.any():
            rotation = matrix_to_quaternion(driven[turned, :3, :3])
            base = self._first if control.rotation == "relative" else self._own_rotation
            step = power(compose(rotation, inverse(base)), strength[turned])
            pose[turned, :3, :3] = quaternion_to_matrix(compose(step, np.broadcast_to(self._own_rotation, step.shape)))
        edits = np.stack((-values["pitch"], values["yaw"], -values["roll"]), axis=1)
        edited = edits.any(axis=1) | (strength > 1.0)
        if edited.any():
            angles = matrix_to_euler(pose[edited, :3, :3])
            most = np.maximum(MOST_TURNED, np.abs(angles))
            wanted = angles + edits[edited]
            reached = np.clip(wanted, -most, most)
            if (reached != wanted).any():
                self.clamped = True
            pose[edited, :3, :3] = euler_to_matrix(reached)
        own = self._place
        move = strengths[:, [1, 1, 2]]
        edits = np.stack((values["x"], values["y"], values["zoom"]), axis=1)
        moved = (move != 1.0).any(axis=1) | edits.any(axis=1)
        if moved.any():
            place = own + move[moved] * (driven[moved, :3, 3] - self._anchor)
            place = place / (1.0 + edits[moved, 2:])
            place[:, :2] += self._width * edits[moved, :2]
            pose[moved, :3, 3] = place - own + self._anchor
        return pose


class Gaze:
    """Changes where the irises of a driver lie in its eyes, for a portrait of one frame."""

    def __init__(self, portrait: Motion) -> None:
        self._iris = np.stack([_relative(portrait.points, eye)[0][0] for eye in EYES])

    def __call__(self, control: Control, motion: Motion, pose: Array, values: Values, strengths: Array) -> Array:
        """Return points (F, 478, 3) whose irises are moved.

        Args:
            control: the changes.
            motion: the driver.
            pose: changed poses (F, 4, 4).
            values: the control's values at each frame.
            strengths: (F, 2), of the right and the left eye.
        """
        points = motion.points.copy()
        x, y = GAZE[0] * values["gaze_x"], -GAZE[1] * values["gaze_y"]
        for eye, iris in enumerate(EYES):
            strength = strengths[:, eye]
            changed = (strength != 1.0) | (x != 0.0) | (y != 0.0) | (control.gaze_mode != "driver")
            if not changed.any():
                continue
            relative, low, extent = _relative(motion.points[changed], iris)
            if control.gaze_mode != "driver":
                relative += _straight(control.gaze_mode, pose[changed], extent, motion.source_size) - relative[:, :1]
            relative = self._iris[eye] + strength[changed, None, None] * (relative - self._iris[eye])
            relative += np.stack((x[changed], y[changed]), axis=1)[:, None]
            relative += np.clip(relative[:, :1], 0.0, 1.0) - relative[:, :1]  # the iris stays in its eye
            points[changed, iris[0], :2] = low + relative * extent
        return points


def _relative(points: Array, eye: tuple[slice, tuple[int, ...]]) -> tuple[Array, Array, Array]:
    """Place (F, 5, 2) of an iris in the box of its eye, the box's corner and its extent, (F, 1, 2) each."""
    iris, contour = eye
    low, high = points[:, contour, :2].min(axis=1, keepdims=True), points[:, contour, :2].max(axis=1, keepdims=True)
    extent = high - low
    seen = points[:, iris, :2]
    relative = np.divide(seen - low, extent, out=np.full_like(seen, 0.5), where=np.broadcast_to(extent > 0, seen.shape))
    return relative, low, extent


def _straight(mode: str, pose: Array, extent: Array, size: tuple[int, int]) -> Array:
    """Place (F, 1, 2) in the eye's box of an iris that looks straight ahead of the face, or at the camera."""
    centre = np.full((len(pose), 1, 2), 0.5)
    if mode == "camera":
        toward = -pose[:, :3, 3]
        toward = toward / np.linalg.norm(toward, axis=1, keepdims=True)
        x, y, _ = np.moveaxis((toward[:, None] * pose[:, :3, :3].transpose(0, 2, 1)).sum(axis=2), 1, 0)
        pixels = extent[:, 0] * (size[1], size[0])
        aspect = np.divide(pixels[:, 0], pixels[:, 1], out=np.full(len(pose), 2.0), where=pixels[:, 1] > 0)
        centre[:, 0, 0] += EYEBALL * x
        centre[:, 0, 1] -= EYEBALL * y * aspect
    return centre
