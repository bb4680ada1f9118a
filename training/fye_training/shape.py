"""Identities of drawn faces: neutral meshes from a few numbers."""

from dataclasses import astuple, dataclass, fields
from functools import lru_cache

import numpy as np

from fye_training.topology import (
    BROWS,
    EYES,
    FOREHEAD,
    LIPS,
    LOWER_LID,
    LOWER_LIP_INNER,
    MOUTH,
    UPPER_LID,
    UPPER_LIP_INNER,
    Array,
    canonical_face,
    spread,
)

LIP_GAP = 0.03  # centimetres between closed lips
LID_OPENING = 1.35  # MediaPipe's canonical eyes are narrower than real ones, which are half as high as wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """An identity's proportions, each in about [-1, 1], for cartoons up to 5; 0 is the canonical face, + is more.

    Spacing is the distance between the eyes, tilt lifts their outer corners, muzzle pushes nose and mouth forward like
    an animal's, and mouth height moves the mouth up.
    """

    face_width: float = 0.0
    face_length: float = 0.0
    jaw_width: float = 0.0
    chin_length: float = 0.0
    cheek_fullness: float = 0.0
    forehead_height: float = 0.0
    forehead_width: float = 0.0
    eye_size: float = 0.0
    eye_opening: float = 0.0
    eye_spacing: float = 0.0
    eye_tilt: float = 0.0
    eye_height: float = 0.0
    brow_height: float = 0.0
    brow_arch: float = 0.0
    brow_tilt: float = 0.0
    nose_length: float = 0.0
    nose_width: float = 0.0
    nose_depth: float = 0.0
    muzzle: float = 0.0
    mouth_width: float = 0.0
    mouth_height: float = 0.0
    lip_fullness: float = 0.0


@lru_cache(maxsize=4096)
def neutral_mesh(shape: Shape) -> Array:
    """An identity's face at rest, lips closed and eyes open: float64 (468, 3), centimetres, read-only."""
    mesh = rest_mesh() + np.tensordot(np.array(astuple(shape)), _shape_basis(), 1)
    mesh.flags.writeable = False
    return mesh


@lru_cache(maxsize=1)
def rest_mesh() -> Array:
    """The canonical face with closed lips and eyes opened to a real face's proportions; read-only."""
    mesh = canonical_face().mesh
    displacement = np.zeros_like(mesh)
    upper, lower = UPPER_LIP_INNER[1:-1], LOWER_LIP_INNER[1:-1]
    closing = (mesh[upper, 1] - mesh[lower, 1] - LIP_GAP) / 2.0
    displacement[upper, 1], displacement[lower, 1] = -closing, closing
    for upper, lower in zip(UPPER_LID, LOWER_LID, strict=True):
        opening = (mesh[upper, 1] - mesh[lower, 1]) * (LID_OPENING - 1.0)
        displacement[upper, 1], displacement[lower, 1] = 0.65 * opening, -0.35 * opening
    rest = mesh + spread(displacement)
    rest.flags.writeable = False
    return rest


def _bump(values: Array, centre: float, width: float) -> Array:
    return np.exp(-np.square((values - centre) / width))


def _step(values: Array, start: float, end: float) -> Array:
    """Rise from 0 at `start` to 1 at `end`, without a kink."""
    t = np.clip((values - start) / (end - start), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


@lru_cache(maxsize=1)
def _shape_basis() -> Array:
    """Displacements float64 (parameters, 468, 3) in centimetres at parameter 1, in the order of Shape's fields."""
    mesh = rest_mesh()
    x, y, z = mesh.T
    side = np.sign(x)
    zero = np.zeros_like(x)

    def field(dx: Array = zero, dy: Array = zero, dz: Array = zero) -> Array:
        return np.stack((dx, dy, dz), axis=-1)

    eye = mesh[EYES[1]]
    eye_x, eye_y = (eye[:, 0].max() + eye[:, 0].min()) / 2.0, (eye[:, 1].max() + eye[:, 1].min()) / 2.0
    right, up = np.abs(x) - eye_x, y - eye_y  # from the centre of the eye on the point's side
    near_eye = np.exp(-(np.square(right / 2.3) + np.square(up / 2.0)))
    # keeps the nose's bridge out of the eyes
    near_eye *= _step(np.abs(x), 0.3, 1.9)
    brow = np.zeros((468, 3))
    lift, arch, tilt = brow.copy(), brow.copy(), brow.copy()
    for contour in BROWS:
        t = (np.abs(x[contour]) - 1.2) / 4.0  # 0 at the inner end, 1 at the outer end
        lift[contour, 1] = 0.45
        arch[contour, 1] = 0.45 * _bump(t, 0.6, 0.4) - 0.15
        tilt[contour, 1] = 0.35 * (t - 0.5)
    lift[FOREHEAD, 1] = 0.25
    lips = brow.copy()
    rows = np.concatenate((LIPS, MOUTH))
    centre_y = mesh[13, 1]
    outer = np.isin(np.arange(468), LIPS)
    lips[rows, 1] = np.where(outer[rows], np.where(y[rows] > centre_y, 0.16, 0.3) * (y[rows] - centre_y), 0.0)
    lips[rows, 2] = np.where(outer[rows], 0.05, 0.12) * (1.0 - np.square(x[rows] / 2.6))
    mouth_y = y - centre_y
    near_mouth = np.exp(-(np.square(x / 4.0) + np.square(mouth_y / 2.4)))
    nose_front = _step(z, 3.2, 6.5) * _bump(x, 0.0, 2.3) * _bump(y, -0.7, 2.6)
    nose_side = _bump(x, 0.0, 2.6) * _bump(y, -0.9, 2.2) * _step(z, 3.5, 5.0)
    lower_face = _step(-y, -1.0, 7.0)
    basis = {
        "face_width": field(0.10 * x),
        "face_length": field(dy=0.08 * y),
        "jaw_width": field(0.15 * x * lower_face),
        "chin_length": field(dy=-0.9 * _step(-y, 5.2, 9.4)),
        "cheek_fullness": field(
            0.45 * side * _bump(np.abs(x), 5.5, 2.6) * _bump(y, -2.2, 2.8),
            dz=0.45 * _bump(np.abs(x), 4.6, 2.2) * _bump(y, -1.8, 2.4),
        ),
        "forehead_height": field(dy=0.9 * _step(y, 4.2, 8.3)),
        "forehead_width": field(0.10 * x * _step(y, 2.0, 8.0)),
        "eye_size": field(0.22 * right * side * near_eye, 0.24 * up * near_eye),
        "eye_opening": field(dy=0.26 * up * near_eye * np.exp(-np.square(up / 1.6))),
        "eye_spacing": field(0.26 * side * near_eye),
        "eye_tilt": field(dy=0.13 * right * near_eye),
        "eye_height": field(dy=0.28 * np.exp(-(np.square(right / 3.5) + np.square(up / 2.8)))),
        "brow_height": spread(lift),
        "brow_arch": spread(arch),
        "brow_tilt": spread(tilt),
        "nose_length": field(dy=-0.3 * nose_front * _step(-y, -2.5, 0.8)),
        "nose_width": field(0.17 * x * nose_side),
        "nose_depth": field(dz=0.65 * nose_front),
        "muzzle": field(dz=1.1 * np.exp(-(np.square(x / 3.8) + np.square((y + 2.8) / 3.2)))),
        "mouth_width": field(0.17 * x * near_mouth),
        "mouth_height": field(dy=0.32 * np.exp(-(np.square(x / 4.5) + np.square(mouth_y / 2.6)))),
        "lip_fullness": spread(lips),
    }
    return np.stack([basis[parameter.name] for parameter in fields(Shape)])
