"""What edits know of a face: the canonical mesh, displacements of expressions, regions, and how skin follows.

face.npz is made by `python -m fye_training.library`. Its canonical mesh and triangles are those of MediaPipe's
face_landmarker.task, copyright The MediaPipe Authors, Apache License 2.0; all else is the project's own.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PATH = Path(__file__).with_name("face.npz")
Array = NDArray[np.float64]

SIDES = ("right", "left")  # of the person, in the order of all arrays
REGIONS = ("brows", "eyes", "mouth")  # columns of `Face.regions`, each right then left
# (points of the iris, contour of its eye)
RIGHT_EYE = (slice(468, 473), (33, 7, 163, 144, 145, 153, 154, 155, 246, 161, 160, 159, 158, 157, 173, 133))
LEFT_EYE = (slice(473, 478), (249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398, 263))
# from the outer corner to the inner one, without both; (right, left)
UPPER_LIDS = ((246, 161, 160, 159, 158, 157, 173), (466, 388, 387, 386, 385, 384, 398))
LOWER_LIDS = ((7, 163, 144, 145, 153, 154, 155), (249, 390, 373, 374, 380, 381, 382))
# from the person's right to left, without the corners
UPPER_LIP = (191, 80, 81, 82, 13, 312, 311, 310, 415)
LOWER_LIP = (95, 88, 178, 87, 14, 317, 402, 318, 324)


@dataclass(frozen=True, slots=True)
class Face:
    """Anatomy of the canonical face; all arrays are read-only.

    Attributes:
        mesh: float64 (468, 3), centimetres; x to the picture's right, y up, z towards the camera.
        triangles: int64 (898, 3), counter-clockwise as seen by the camera.
        skin: bool (898,), False for triangles across an eye's or the mouth's opening.
        mirror: int64 (468,), number of each point's mirror image.
        expressions: float64 (51, 468, 3), displacement in centimetres of each of `fye_rt.landmarks.control.ARKIT` at
            weight 1.
        lids: float64 (468, 2, 2, 7), weights by which points follow UPPER_LIDS and LOWER_LIDS of each eye.
        lips: float64 (468, 2, 9), weights by which points follow UPPER_LIP and LOWER_LIP.
        irises: float64 (10, 3), centimetres: centre, picture's right, top, left, bottom; right eye first.
        regions: float64 (468, 6), shares of REGIONS, right and left of each.
    """

    mesh: Array
    triangles: NDArray[np.int64]
    skin: NDArray[np.bool_]
    mirror: NDArray[np.int64]
    expressions: Array
    lids: Array
    lips: Array
    regions: Array
    irises: Array


@lru_cache(maxsize=1)
def face() -> Face:
    """Load face.npz."""
    with np.load(PATH) as file:
        arrays = {name: file[name] for name in file.files}
    for name, array in arrays.items():
        kind = {"f": np.float64, "i": np.int64}.get(array.dtype.kind, array.dtype)
        arrays[name] = array.astype(kind)
        arrays[name].flags.writeable = False
    return Face(**arrays)
