"""Rotations as matrices, unit quaternions (x, y, z, w) and extrinsic x-y-z Euler angles.

The order of operations is that of scipy.spatial.transform.Rotation, through which the reference passes head poses. The
C library computes sine, cosine and arctangent one number at a time: NumPy's vectorised versions differ from it in the
last bit on some processors.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def matrix_to_quaternion(matrix: Array) -> Array:
    """Convert matrices (F, 3, 3) to unit quaternions (F, 4), orthonormalising those that are not quite rotations.

    F. L. Markley, "Unit quaternion from rotation matrix", J. Guidance, Control, and Dynamics 31(2), 2008.
    """
    gram = matrix @ matrix.transpose(0, 2, 1)
    skewed = ~np.isclose(gram, np.eye(3), atol=1e-12).all(axis=(1, 2))
    if skewed.any():
        left, _, right = np.linalg.svd(matrix[skewed])
        matrix = matrix.copy()
        matrix[skewed] = left @ right  # the nearest rotation
    quaternion = np.empty((len(matrix), 4))
    for m, q in zip(matrix, quaternion, strict=True):
        trace = m[0, 0] + m[1, 1] + m[2, 2]
        i = int(np.argmax((m[0, 0], m[1, 1], m[2, 2], trace)))
        if i == 3:
            q[:] = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1.0 + trace
        else:
            j, k = (i + 1) % 3, (i + 2) % 3
            q[i] = 1.0 - trace + 2.0 * m[i, i]
            q[j] = m[j, i] + m[i, j]
            q[k] = m[k, i] + m[i, k]
            q[3] = m[k, j] - m[j, k]
        q /= math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
    return quaternion


def quaternion_to_matrix(quaternion: Array) -> Array:
    """Convert unit quaternions (F, 4) to rotation matrices (F, 3, 3)."""
    x, y, z, w = quaternion.T
    x2, y2, z2, w2 = x * x, y * y, z * z, w * w
    xy, zw, xz, yw, yz, xw = x * y, z * w, x * z, y * w, y * z, x * w
    rows = (
        (x2 - y2 - z2 + w2, 2.0 * (xy - zw), 2.0 * (xz + yw)),
        (2.0 * (xy + zw), -x2 + y2 - z2 + w2, 2.0 * (yz - xw)),
        (2.0 * (xz - yw), 2.0 * (yz + xw), -x2 - y2 + z2 + w2),
    )
    return np.array(rows).transpose(2, 0, 1)


def matrix_to_euler(matrix: Array) -> Array:
    """Convert rotation matrices (F, 3, 3) to extrinsic x-y-z angles in degrees (F, 3).

    E. Bernardes and S. Viollet, "Quaternion to Euler angles conversion", PLoS ONE 17(11), 2022.
    """
    x, y, z, w = matrix_to_quaternion(matrix).T
    # the paper's a, b, c, d for the sequence x-y-z, whose sign is +1
    a, b, c, d = w - y, x + z, y + w, z - x
    middle = 2.0 * _each(math.atan2, np.hypot(c, d), np.hypot(a, b))
    half_sum, half_difference = _each(math.atan2, b, a), _each(math.atan2, d, c)
    first, third = half_sum - half_difference, half_sum + half_difference
    # gimbal lock: only the sum or the difference of the outer angles is defined, so the third is set to zero
    upright, inverted = np.abs(middle) <= 1e-7, np.abs(middle - np.pi) <= 1e-7
    first = np.where(upright, 2.0 * half_sum, np.where(inverted, -2.0 * half_difference, first))
    third = np.where(upright | inverted, 0.0, third)
    angles = np.stack((first, middle - np.pi / 2.0, third), axis=-1)
    angles = np.where(angles < -np.pi, angles + 2.0 * np.pi, np.where(angles > np.pi, angles - 2.0 * np.pi, angles))
    return np.rad2deg(angles)


def euler_to_matrix(degrees: Array) -> Array:
    """Convert extrinsic x-y-z angles in degrees (F, 3) to rotation matrices (F, 3, 3)."""
    half = np.deg2rad(degrees) / 2.0
    quaternion = np.zeros((3, len(half), 4))
    for axis in range(3):
        quaternion[axis, :, axis] = _each(math.sin, half[:, axis])
        quaternion[axis, :, 3] = _each(math.cos, half[:, axis])
    x, y, z = quaternion
    return quaternion_to_matrix(compose(z, compose(y, x)))


def slerp(start: Array, end: Array, fraction: float) -> Array:
    """Return the rotation matrix (3, 3) at `fraction` of the shorter arc from `start` to `end`."""
    p, q = matrix_to_quaternion(np.stack((start, end)))
    cosine = float(p @ q)
    q, cosine = (-q, -cosine) if cosine < 0 else (q, cosine)
    angle = math.acos(min(cosine, 1.0))
    if angle < 1e-6:  # sin(angle) would cancel; the chord is the arc here
        mixed = (1.0 - fraction) * p + fraction * q
    else:
        mixed = (math.sin((1.0 - fraction) * angle) * p + math.sin(fraction * angle) * q) / math.sin(angle)
    return quaternion_to_matrix(mixed[None] / np.linalg.norm(mixed))[0]


def inverse(quaternion: Array) -> Array:
    """Return the rotations back, (F, 4)."""
    return quaternion * (-1.0, -1.0, -1.0, 1.0)


def power(quaternion: Array, exponent: Array) -> Array:
    """Return rotations (F, 4) by `exponent` (F,) times the angle, about the same axes, the shorter way round."""
    quaternion = quaternion * np.where(quaternion[:, 3:] < 0, -1.0, 1.0)
    sine = np.linalg.norm(quaternion[:, :3], axis=1)
    half = np.arctan2(sine, quaternion[:, 3])
    scale = np.divide(np.sin(exponent * half), sine, out=exponent.copy(), where=sine > 1e-9)
    return np.concatenate((quaternion[:, :3] * scale[:, None], np.cos(exponent * half)[:, None]), axis=1)


def compose(p: Array, q: Array) -> Array:
    """Return the product of quaternions (F, 4), or (1, 4): the rotation q, then p."""
    (px, py, pz, pw), (qx, qy, qz, qw) = p.T, q.T
    return np.stack(
        (
            pw * qx + qw * px + (py * qz - pz * qy),
            pw * qy + qw * py + (pz * qx - px * qz),
            pw * qz + qw * pz + (px * qy - py * qx),
            pw * qw - px * qx - py * qy - pz * qz,
        ),
        axis=-1,
    )


def _each(function: Callable[..., float], *arrays: Array) -> Array:
    return np.array([function(*values) for values in zip(*arrays, strict=True)], np.float64)
