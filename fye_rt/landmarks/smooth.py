"""Smooth a motion over time without delay, or while it arrives; eyes stay as they are, so that blinks stay sharp."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fye_rt.landmarks.library import face
from fye_rt.landmarks.motion import Motion
from fye_rt.landmarks.rotation import matrix_to_quaternion, quaternion_to_matrix

Array = NDArray[np.float64]

WIDEST = 0.25  # seconds, standard deviation of the window at strength 1
REACH = 3.0  # standard deviations on each side
# one-euro filter (G. Casiez, N. Roussel and D. Vogel, "1 € filter", CHI 2012) at strength 1 and at strength 0
SLOWEST, FASTEST = 0.5, 12.0  # hertz, cutoff of what rests
EAGERNESS = 0.3  # cutoff's growth with speed, in hertz by units a second
SPEED_CUTOFF = 1.0  # hertz


def smoothed(motion: Motion, strength: float) -> Motion:
    """Smooth head and face by a Gaussian window around each frame, which delays nothing.

    Args:
        motion: F frames.
        strength: 0 to 1; 0 returns the motion itself, 1 has a window of a quarter second's standard deviation.
    """
    if not strength or len(motion) == 1:
        return motion
    width = WIDEST * strength
    quaternions = matrix_to_quaternion(_rotations(motion.pose))
    # a quaternion and its opposite are the same rotation: neighbours get the same sign
    signs = np.where((quaternions[1:] * quaternions[:-1]).sum(axis=1) < 0, -1.0, 1.0)
    quaternions *= np.cumprod(np.concatenate(([1.0], signs)))[:, None]
    sources = (motion.mesh.reshape(len(motion), -1), motion.pose[:, :3, 3], quaternions)
    results = [np.empty_like(source) for source in sources]
    first = np.searchsorted(motion.times, motion.times - REACH * width)
    last = np.searchsorted(motion.times, motion.times + REACH * width, side="right")
    for frame, (start, stop) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        offsets = (motion.times[start:stop] - motion.times[frame]) / width
        weights = np.exp(-0.5 * offsets * offsets)
        weights /= weights.sum()
        for source, result in zip(sources, results, strict=True):
            result[frame] = weights @ source[start:stop]
    mesh, translation, rotation = results
    return _replaced(motion, mesh.reshape(motion.mesh.shape), translation, rotation)


class OneEuro:
    """Smooths a motion that arrives in parts: more where it rests, less where it moves, and never ahead of time.

    Args:
        strength: 0 to 1.
    """

    def __init__(self, strength: float) -> None:
        self._cutoff = FASTEST * (SLOWEST / FASTEST) ** strength
        self._strength = strength
        self._value: Array | None = None
        self._speed = np.zeros(0)
        self._time = 0.0

    def __call__(self, motion: Motion) -> Motion:
        """Return the next frames, smoothed."""
        if not self._strength:
            return motion
        frames = len(motion)
        quaternions = matrix_to_quaternion(_rotations(motion.pose))
        rows = np.concatenate((motion.mesh.reshape(frames, -1), motion.pose[:, :3, 3], 10.0 * quaternions), axis=1)
        results = np.stack([self._next(row, float(time)) for row, time in zip(rows, motion.times, strict=True)])
        mesh = results[:, :-7].reshape(motion.mesh.shape)
        return _replaced(motion, mesh, results[:, -7:-4], results[:, -4:])

    def _next(self, row: Array, time: float) -> Array:
        if self._value is None:
            self._value, self._speed = row, np.zeros_like(row)
        else:
            if row[-4:] @ self._value[-4:] < 0:
                row = np.concatenate((row[:-4], -row[-4:]))
            seconds = max(time - self._time, 1e-6)
            self._speed = self._speed + _share(SPEED_CUTOFF, seconds) * ((row - self._value) / seconds - self._speed)
            self._value = self._value + _share(self._cutoff + EAGERNESS * np.abs(self._speed), seconds) * (
                row - self._value
            )
        self._time = time
        return self._value


def _share(cutoff: Array | float, seconds: float) -> Array:
    """Share of a new value that a low-pass filter takes, by its cutoff in hertz."""
    step = 2.0 * math.pi * np.asarray(cutoff) * seconds
    return step / (step + 1.0)


def _rotations(pose: Array) -> Array:
    return pose[:, :3, :3]


def _replaced(motion: Motion, mesh: Array, translation: Array, quaternions: Array) -> Motion:
    regions = face().regions
    eyes = np.clip(regions[:, 2] + regions[:, 3], 0.0, 1.0)[:, None]
    pose = motion.pose.copy()
    pose[:, :3, :3] = quaternion_to_matrix(quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True))
    pose[:, :3, 3] = translation
    return replace(motion, mesh=mesh + eyes * (motion.mesh - mesh), pose=pose)
