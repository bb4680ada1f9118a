from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from fye_training.shape import LIP_GAP, Shape, neutral_mesh, rest_mesh
from fye_training.topology import LOWER_LID, LOWER_LIP_INNER, UPPER_LID, UPPER_LIP_INNER, canonical_face
from tests.fye_training.faces import folded, mirrored, people

Mesh = NDArray[np.float64]


def width(left: int) -> Callable[[Mesh], float]:
    return lambda mesh: mesh[left, 0] - mesh[canonical_face().mirror[left], 0]


def height(top: int, bottom: int = 6) -> Callable[[Mesh], float]:
    """By default above the nose's bridge, which nothing but the face's length moves."""
    return lambda mesh: mesh[top, 1] - mesh[bottom, 1]


# what grows with each parameter; centimetres
MEASURES: dict[str, Callable[[Mesh], float]] = {
    "face_width": width(356),
    "face_length": height(10, 152),
    "jaw_width": width(397),
    "chin_length": height(17, 152),
    "cheek_fullness": lambda mesh: mesh[425, 2],
    "forehead_height": height(10),
    "forehead_width": width(251),
    "eye_size": lambda mesh: mesh[263, 0] - mesh[362, 0],
    "eye_opening": height(386, 374),
    "eye_spacing": width(362),
    "eye_tilt": height(263, 362),
    "eye_height": height(386),
    "brow_height": height(282),
    "brow_arch": lambda mesh: mesh[334, 1] - (mesh[300, 1] + mesh[336, 1]) / 2.0,
    "brow_tilt": height(300, 336),
    "nose_length": height(6, 1),
    "nose_width": width(358),
    "nose_depth": lambda mesh: mesh[1, 2],
    "muzzle": lambda mesh: mesh[13, 2] + mesh[1, 2],
    "mouth_width": width(291),
    "mouth_height": height(13),
    "lip_fullness": height(0, 17),
}


def test_at_rest_lips_are_closed_and_eyes_open_wider_than_mediapipes() -> None:
    rest, canonical = rest_mesh(), canonical_face().mesh
    gap = rest[UPPER_LIP_INNER[1:-1], 1] - rest[LOWER_LIP_INNER[1:-1], 1]
    np.testing.assert_allclose(gap, LIP_GAP, atol=1e-12)  # of coordinates of 10 cm in float64
    for upper, lower in zip(UPPER_LID, LOWER_LID, strict=True):
        opening = (mesh[upper[4], 1] - mesh[lower[4], 1] for mesh in (rest, canonical))
        assert next(opening) > 1.2 * next(opening)
    np.testing.assert_array_equal(neutral_mesh(Shape()), rest)


@pytest.mark.parametrize("name", [field.name for field in fields(Shape)])
def test_each_shape_parameter_moves_the_face_as_its_name_says(name: str) -> None:
    less, rest, more = (MEASURES[name](neutral_mesh(Shape(**{name: value}))) for value in (-2.0, 0.0, 2.0))
    assert more - rest > 0.2  # a pixel and a half at 128 pixels
    assert rest - less == pytest.approx(more - rest)


@pytest.mark.parametrize("value", [-2.0, 2.0])
@pytest.mark.parametrize("name", [field.name for field in fields(Shape)])
def test_no_shape_parameter_folds_the_face(name: str, value: float) -> None:
    assert folded(neutral_mesh(Shape(**{name: value}))) == 0


@settings(max_examples=40, deadline=None)
@given(shape=people)
def test_every_person_is_symmetric_with_open_eyes_closed_lips_and_no_folds(shape: Shape) -> None:
    mesh = neutral_mesh(shape)
    np.testing.assert_allclose(mirrored(mesh), mesh, atol=1e-12)  # of coordinates of 10 cm in float64
    assert folded(mesh) == 0
    gap = mesh[UPPER_LIP_INNER[1:-1], 1] - mesh[LOWER_LIP_INNER[1:-1], 1]
    # meshes are linear in the parameters: at the worst corners of their box the lips' gap is 0.73 or 1.27 of the usual
    # one, and the lids' 0.112 cm
    assert gap.min() > 0.7 * LIP_GAP and gap.max() < 1.3 * LIP_GAP
    for upper, lower in zip(UPPER_LID, LOWER_LID, strict=True):
        assert (mesh[upper[1:-1], 1] - mesh[lower[1:-1], 1]).min() > 0.11


@pytest.mark.usefixtures("opencv")
def test_no_character_is_folded() -> None:
    from fye_training.identity import identity

    assert [seed for seed in range(60) if folded(neutral_mesh(identity(seed).shape))] == []


def test_an_identitys_mesh_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        neutral_mesh(Shape())[0] = 0.0
