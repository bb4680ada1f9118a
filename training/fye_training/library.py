"""Make the runtime's library of a face: `python -m fye_training.library`.

It holds what the runtime's edits need of the drawn faces' anatomy, on the canonical face: displacements of every
expression, how the skin follows the lids and lips, and which points belong to which region.
"""

import numpy as np

from fye_rt.landmarks.library import PATH
from fye_training.expressions import EXPRESSIONS, INDEX, deform, irises
from fye_training.shape import Shape
from fye_training.topology import (
    BROWS,
    EYES,
    LIPS,
    LOWER_LID,
    LOWER_LIP_INNER,
    LOWER_LIP_OUTER,
    MOUTH,
    UPPER_LID,
    UPPER_LIP_INNER,
    UPPER_LIP_OUTER,
    Array,
    canonical_face,
    spread,
)

JAW_SAMPLE = 0.5  # weight at which the jaw's turn is taken for a straight movement


def main() -> None:
    """Write the library beside the runtime's code."""
    face = canonical_face()
    np.savez_compressed(
        PATH,
        mesh=face.mesh.astype(np.float32),
        triangles=face.triangles.astype(np.int16),
        skin=face.skin,
        mirror=face.mirror.astype(np.int16),
        expressions=expressions().astype(np.float32),
        lids=lids().astype(np.float32),
        lips=lips().astype(np.float32),
        regions=regions().astype(np.float32),
        irises=irises(Shape(), np.zeros((1, len(EXPRESSIONS))))[0].astype(np.float32),
    )


def expressions() -> Array:
    """Displacements (51, 468, 3) in centimetres of each expression at weight 1."""
    weights = np.eye(len(EXPRESSIONS))
    weights[INDEX["jawOpen"]] *= JAW_SAMPLE
    moved = deform(Shape(), weights) - deform(Shape(), np.zeros((1, len(EXPRESSIONS))))
    moved[INDEX["jawOpen"]] /= JAW_SAMPLE
    open_and_shut = np.zeros((2, len(EXPRESSIONS)))
    open_and_shut[:, INDEX["jawOpen"]] = JAW_SAMPLE
    open_and_shut[1, INDEX["mouthClose"]] = JAW_SAMPLE  # it only closes lips that the jaw has parted
    opened, shut = deform(Shape(), open_and_shut)
    moved[INDEX["mouthClose"]] = (shut - opened) / JAW_SAMPLE
    return moved


def lids() -> Array:
    """Weights (468, 2, 2, 7) by which the face follows points of a lid: right and left eye, upper and lower lid."""
    values = np.zeros((468, 28))
    for eye in range(2):
        for lid, points in enumerate((UPPER_LID[eye], LOWER_LID[eye])):
            values[points[1:-1], 14 * eye + 7 * lid + np.arange(7)] = 1.0
    return spread(values).reshape(468, 2, 2, 7)


def lips() -> Array:
    """Weights (468, 2, 9) by which the face follows points of the upper and lower inner lip; outer lips by 0.7."""
    values = np.zeros((468, 18))
    for lip, (inner, outer) in enumerate(((UPPER_LIP_INNER, UPPER_LIP_OUTER), (LOWER_LIP_INNER, LOWER_LIP_OUTER))):
        for rim, share in ((inner, 1.0), (outer, 0.7)):
            values[rim[1:-1], 9 * lip + np.arange(9)] = share
    return spread(values).reshape(468, 2, 9)


def regions() -> Array:
    """Share (468, 6) in [0, 1] of brows, eyes and mouth, each right then left; eyes, brows and lips belong wholly."""
    mesh = canonical_face().mesh
    values = np.zeros((468, 6))
    for side in range(2):
        values[BROWS[side], side] = 1.0
        values[EYES[side], 2 + side] = 1.0
    half = np.abs(mesh[MOUTH, 0]).max() / 2.0
    left = np.clip(0.5 + mesh[:, 0] / (2.0 * half), 0.0, 1.0)
    mouth = np.zeros(468)
    mouth[np.concatenate((MOUTH, LIPS))] = 1.0
    drop = np.clip((1.5 - mesh[:, 1]) / 8.5, 0.0, 1.0)  # the jaw moves the lower half of the face
    lower = (mesh[:, 1] < mesh[LIPS, 1].max()) & (mouth == 0.0)
    mouth[lower] = (drop * drop * (3.0 - 2.0 * drop))[lower]
    values[:, 4], values[:, 5] = mouth * (1.0 - left), mouth * left
    shares = np.clip(spread(values), 0.0, 1.0)
    # where the interpolation overshoots, all shares together are no more than the whole
    return shares / np.maximum(shares.sum(axis=1, keepdims=True), 1.0)


if __name__ == "__main__":
    main()
