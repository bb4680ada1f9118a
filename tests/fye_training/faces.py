"""Faces that several tests look at, and what can be said of a mesh."""

from dataclasses import fields

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from fye_training.expressions import EXPRESSIONS, INDEX
from fye_training.shape import Shape, rest_mesh
from fye_training.topology import canonical_face

CARTOON = Shape(eye_size=2.0, eye_opening=1.5, jaw_width=-1.5, mouth_width=1.0, brow_height=-1.0)
ANIMAL = Shape(eye_spacing=1.0, nose_length=-1.0, muzzle=1.5, face_width=1.0)
SHAPES = (Shape(), CARTOON, ANIMAL)

# as far as a person's proportions go
people = st.builds(Shape, **{field.name: st.floats(-1.2, 1.2) for field in fields(Shape)})


def weights(**values: float) -> NDArray[np.float64]:
    """One frame (1, 51) of these expressions."""
    row = np.zeros((1, len(EXPRESSIONS)))
    for name, value in values.items():
        row[0, INDEX[name]] = value
    return row


def mirrored(mesh: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mirror image of a mesh (..., 468, 3), its points in their order."""
    return mesh[..., canonical_face().mirror, :] * (-1, 1, 1)


def folded(mesh: NDArray[np.float64]) -> int:
    """Triangles of a mesh (468, 3) whose normal turned by more than a right angle from the face at rest."""
    return int(((_normals(mesh) * _normals(rest_mesh())).sum(axis=1) <= 0.0).sum())


def _normals(mesh: NDArray[np.float64]) -> NDArray[np.float64]:
    canonical = canonical_face()
    a, b, c = (mesh[canonical.triangles[canonical.skin, corner]] for corner in range(3))
    return np.cross(b - a, c - a)
