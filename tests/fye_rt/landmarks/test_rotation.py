import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fye_rt.landmarks.rotation import (
    euler_to_matrix,
    matrix_to_euler,
    matrix_to_quaternion,
    quaternion_to_matrix,
    slerp,
)

ANGLES = arrays(np.float64, (1, 3), elements=st.floats(-180.0, 180.0))


def about(axis: int, degrees: float) -> np.ndarray:
    """Rotation about one axis, from its definition."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    j, k = (axis + 1) % 3, (axis + 2) % 3
    matrix[[j, j, k, k], [j, k, j, k]] = cosine, -sine, sine, cosine
    return matrix


@given(ANGLES)
def test_euler_angles_turn_about_the_fixed_axes_x_then_y_then_z(angles: np.ndarray) -> None:
    x, y, z = angles[0]
    np.testing.assert_allclose(euler_to_matrix(angles)[0], about(2, z) @ about(1, y) @ about(0, x), atol=1e-14)


@settings(max_examples=200)
@given(ANGLES)
def test_a_rotation_survives_euler_angles(angles: np.ndarray) -> None:
    matrix = euler_to_matrix(angles)
    # 1e-6: within 1e-7 rad of gimbal lock the third angle is set to zero
    np.testing.assert_allclose(euler_to_matrix(matrix_to_euler(matrix)), matrix, atol=1e-6)


def test_gimbal_lock_and_half_turns_survive_euler_angles() -> None:
    angles = np.array(
        [[10.0, 90.0, 20.0], [10.0, -90.0, 20.0], [180.0, 0.0, 0.0], [0.0, 180.0, 0.0], [0.0, 0.0, 180.0]]
    )
    matrix = euler_to_matrix(angles)
    np.testing.assert_allclose(euler_to_matrix(matrix_to_euler(matrix)), matrix, atol=1e-14)


def test_a_skewed_matrix_becomes_the_nearest_rotation() -> None:
    rotation = euler_to_matrix(np.array([[20.0, -30.0, 40.0]]))
    # a symmetric factor on the right is what the nearest rotation drops
    stretched = rotation @ np.diag([1.001, 0.999, 1.0])
    np.testing.assert_allclose(quaternion_to_matrix(matrix_to_quaternion(stretched)), rotation, atol=1e-14)


def test_slerp_turns_at_constant_speed_along_the_shorter_arc() -> None:
    turned = slerp(about(1, 170.0), about(1, -170.0), 0.25)
    np.testing.assert_allclose(turned, about(1, 175.0), atol=1e-14)
    # quaternions of opposite sign: -100 degrees has a positive y, -80 degrees a negative one
    np.testing.assert_allclose(slerp(about(1, -100.0), about(1, -80.0), 0.5), about(1, -90.0), atol=1e-14)
    np.testing.assert_allclose(slerp(about(0, 10.0), about(0, 10.0), 0.5), about(0, 10.0), atol=1e-14)
