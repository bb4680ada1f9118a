"""MediaPipe's face mesh: the canonical face, its contours, and smooth interpolation over its surface.

canonical_face.npz (468 points in centimetres, their texture coordinates, 898 triangles) is the canonical face of
MediaPipe's face_landmarker.task, copyright The MediaPipe Authors, licensed under the Apache License 2.0.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fye_rt.landmarks.library import LEFT_EYE, RIGHT_EYE

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


def _indices(text: str) -> Indices:
    return np.array(text.split(), np.intp)


# from the person's right to left (the picture's left to right), ends shared
UPPER_LIP_OUTER = _indices("61 185 40 39 37 0 267 269 270 409 291")
UPPER_LIP_INNER = _indices("78 191 80 81 82 13 312 311 310 415 308")
LOWER_LIP_INNER = _indices("78 95 88 178 87 14 317 402 318 324 308")
LOWER_LIP_OUTER = _indices("61 146 91 181 84 17 314 405 321 375 291")
# from the outer corner to the inner corner, ends shared; (right, left)
UPPER_LID = (_indices("33 246 161 160 159 158 157 173 133"), _indices("263 466 388 387 386 385 384 398 362"))
LOWER_LID = (_indices("33 7 163 144 145 153 154 155 133"), _indices("263 249 390 373 374 380 381 382 362"))
# from the outer end to the inner end; (right, left)
UPPER_BROW = (_indices("70 63 105 66 107"), _indices("300 293 334 296 336"))
LOWER_BROW = (_indices("46 53 52 65 55"), _indices("276 283 282 295 285"))
# clockwise in the picture, from the top of the forehead
FACE_OVAL = _indices(
    "10 338 297 332 284 251 389 356 454 323 361 288 397 365 379 378 400 377 "
    "152 148 176 149 150 136 172 58 132 93 234 127 162 21 54 103 67 109"
)
NOSE = _indices("168 6 197 195 5 4 1 19 94 2 98 97 327 326 64 294 48 278 129 358 49 279")
NOSE_WING = _indices("294 278 279 358 327 326")  # the left wing, outermost point first
CHEEKS = (_indices("205 50 101 187"), _indices("425 280 330 411"))  # (right, left), points near the lips first
FOREHEAD = _indices("151 9 8 69 299 104 333 108 337 68 298")
CHIN = _indices("199 175")

MOUTH = np.concatenate((UPPER_LIP_INNER, LOWER_LIP_INNER[-2:0:-1]))  # the opening's contour, a closed loop
LIPS = np.concatenate((UPPER_LIP_OUTER, LOWER_LIP_OUTER[-2:0:-1]))  # the lips' outer contour, a closed loop
EYES = tuple(np.concatenate((upper, lower[-2:0:-1])) for upper, lower in zip(UPPER_LID, LOWER_LID, strict=True))
BROWS = tuple(np.concatenate((upper, lower[::-1])) for upper, lower in zip(UPPER_BROW, LOWER_BROW, strict=True))
IRISES = (RIGHT_EYE[0], LEFT_EYE[0])

HANDLES: Indices = np.unique(np.concatenate((LIPS, MOUTH, *EYES, *BROWS, FACE_OVAL, NOSE, *CHEEKS, FOREHEAD, CHIN)))

TENSION = 4.0  # per square centimetre; bending alone would overshoot to 2.3 times a handle's value beside it


@dataclass(frozen=True, slots=True)
class CanonicalFace:
    """The canonical face.

    Attributes:
        mesh: float64 (468, 3), centimetres; x to the picture's right, y up, z towards the camera.
        uv: float64 (468, 2), texture coordinates in [0, 1], v down.
        triangles: intp (898, 3), counterclockwise seen from the front; the eyes and the mouth are covered.
        skin: bool (898,), False for triangles that cover an eye's or the mouth's opening.
        mirror: intp (468,), number of each point's mirror image.
    """

    mesh: Array
    uv: Array
    triangles: Indices
    skin: NDArray[np.bool_]
    mirror: Indices


@lru_cache(maxsize=1)
def canonical_face() -> CanonicalFace:
    """Load the canonical face beside this module; its arrays are read-only."""
    with np.load(Path(__file__).with_name("canonical_face.npz")) as file:
        mesh, uv, triangles = file["mesh"].astype(float), file["uv"].astype(float), file["triangles"].astype(np.intp)
    skin = np.ones(len(triangles), np.bool_)
    for opening in (MOUTH, *EYES):
        skin &= ~np.isin(triangles, opening).all(axis=1)
    mirror = np.argmin(np.square(mesh[:, None] - mesh[None] * (-1.0, 1.0, 1.0)).sum(axis=2), axis=1)
    for array in (mesh, uv, triangles, skin, mirror):
        array.flags.writeable = False
    return CanonicalFace(mesh, uv, triangles, skin, mirror)


@lru_cache(maxsize=1)
def interpolation() -> Array:
    """Weights float64 (468, len(HANDLES)) that spread values at the handles smoothly over the face.

    The interpolant minimises a bending and a stretching energy, |L x|^2 + TENSION x L x with the cotangent Laplacian
    L. It works on the canonical face with open eyes and mouth, so that nothing spreads from lip to lip or lid to lid.
    M. Botsch and O. Sorkine, "On linear variational surface deformation methods", IEEE TVCG 14(1), 2008,
    section 3.
    """
    face = canonical_face()
    count, triangles = len(face.mesh), face.triangles[face.skin]
    laplacian, area = np.zeros((count, count)), np.zeros(count)
    for corner in range(3):
        a, b, c = (triangles[:, (corner + k) % 3] for k in range(3))
        u, v = face.mesh[b] - face.mesh[a], face.mesh[c] - face.mesh[a]
        sine = np.linalg.norm(np.cross(u, v), axis=1)
        # clipped because the negative cotangent of a sliver's wide angle would make weights overshoot
        cotangent = np.maximum((u * v).sum(axis=1) / sine, 0.05) / 2.0
        np.add.at(laplacian, (b, c), -cotangent)
        np.add.at(laplacian, (c, b), -cotangent)
        np.add.at(area, a, sine / 6.0)
    np.fill_diagonal(laplacian, -laplacian.sum(axis=1))
    energy = laplacian.T @ (laplacian / area[:, None]) + TENSION * laplacian
    free = np.setdiff1d(np.arange(count), HANDLES)
    weights = np.zeros((count, len(HANDLES)))
    weights[HANDLES, np.arange(len(HANDLES))] = 1.0
    weights[free] = np.linalg.solve(energy[np.ix_(free, free)], -energy[np.ix_(free, HANDLES)])
    weights.flags.writeable = False
    return weights


def spread(values: Array) -> Array:
    """Spread values (..., 468, C) smoothly from the handles over the face; values elsewhere are ignored."""
    return np.einsum("vh,...hc->...vc", interpolation(), values[..., HANDLES, :], optimize=True)
