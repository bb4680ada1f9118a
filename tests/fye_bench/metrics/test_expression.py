"""The true expression of a face follows from what its frames show."""

import numpy as np
import pytest

from fye_bench.metrics.expression import expression, expression_of, gaze_of
from fye_bench.metrics.truth import Shown, cases, draw
from fye_training import face

SIZES = [(128, 128), (96, 160)]


@pytest.mark.parametrize("size", SIZES)
def test_the_gaze_of_an_iris_is_found_from_its_position(size: tuple[int, int]) -> None:
    for case in cases(8):
        one = draw(case, size, frames=3, stride=6)
        found = np.concatenate([gaze_of(one.character.shape, shown) for shown in (one.portrait_face, one.face)])
        np.testing.assert_allclose(found, one.gaze, atol=1e-10)  # centimetres


def test_a_face_that_is_driven_by_itself_has_the_expression_that_it_acts() -> None:
    for case in cases(5):
        one = draw(case, SIZES[0], frames=3, stride=6)
        place = face.placement(one.character.shape, SIZES[0], case.motion_seed)
        acted = face.motion(one.character.shape, one.acting, SIZES[0], place)
        moved = Shown.of(face.transfer(one.character.shape, acted, SIZES[0], place), SIZES[0])
        found = expression_of(one.character.shape, moved.mesh, gaze_of(one.character.shape, moved))
        np.testing.assert_allclose(found, expression(one.character.shape, one.acting), atol=1e-10)


def test_an_iris_beyond_its_eyeball_is_at_the_nearest_place() -> None:
    one = draw(cases(1)[0], SIZES[0], frames=2)
    points = one.face.points.copy()
    points[:, 468:] += (40.0, 0.0)  # pixels: beside the head
    found = gaze_of(one.character.shape, Shown(one.face.mesh, one.face.pose, points, one.face.size))
    assert np.isfinite(found).all() and (found[..., 0] > gaze_of(one.character.shape, one.face)[..., 0]).all()
