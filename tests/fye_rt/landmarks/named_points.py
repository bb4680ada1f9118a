"""Points of faces, set by hand, for tests."""

from collections.abc import Mapping
from pathlib import Path

from fye_rt.files import write_json
from fye_rt.landmarks import Motion
from fye_rt.landmarks.points_file import REQUIRED, VERTICES

Points = dict[str, tuple[float, float]]

# scikit-image's cat (451x300): seen from its left, its face fills the picture, its eyes are round
CAT_SIZE = 300, 451
CAT: Points = {
    "right_eye_outer": (136, 96), "right_eye_inner": (206, 138), "right_eye_upper": (187, 90),
    "right_eye_lower": (156, 144), "left_eye_inner": (297, 152), "left_eye_outer": (341, 124),
    "left_eye_upper": (308, 114), "left_eye_lower": (328, 161), "right_pupil": (174, 110), "left_pupil": (315, 131),
    "nose_tip": (263, 240), "mouth_right": (205, 272), "mouth_left": (303, 276), "upper_lip": (258, 264),
    "lower_lip": (258, 284), "right_brow_inner": (218, 85), "right_brow_middle": (180, 62),
    "right_brow_outer": (120, 70), "left_brow_inner": (290, 100), "left_brow_middle": (325, 82),
    "left_brow_outer": (357, 105),
}  # fmt: skip
# a dog from the front: small eyes far apart, a long muzzle, no brows
DOG_SIZE = 512, 512
DOG: Points = {
    "right_eye_outer": (140, 170), "right_eye_inner": (185, 175), "right_eye_upper": (163, 158),
    "right_eye_lower": (163, 190), "left_eye_inner": (327, 175), "left_eye_outer": (372, 170),
    "left_eye_upper": (349, 158), "left_eye_lower": (349, 190), "nose_tip": (256, 350), "mouth_right": (190, 420),
    "mouth_left": (322, 420), "upper_lip": (256, 405), "lower_lip": (256, 450), "chin": (256, 480),
}  # fmt: skip


def points_of(motion: Motion, names: tuple[str, ...] = REQUIRED) -> Points:
    """The named points of a detected face, in pixels."""
    height, width = motion.source_size
    pixels = motion.points[0, :, :2] * (width, height)
    return {name: (float(x), float(y)) for name in names for x, y in [pixels[VERTICES[name]]]}


def write_points(path: Path, points: Mapping[str, object], **more: object) -> Path:
    write_json(path, {**more, "points": points} if more else points)
    return path
