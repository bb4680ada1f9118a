"""Face landmarks: detected by MediaPipe in a driving video, moved onto the portrait, and drawn for the guider.

Importing this package loads NumPy alone; MediaPipe and OpenCV are loaded on first use.
"""

from fye_rt.landmarks.detect import (
    LANDMARKER_URL,
    cached_landmarker,
    cut_notices,
    detect_frames,
    detect_image,
    detect_live,
    find_landmarker,
)
from fye_rt.landmarks.draw import draw, landmark_images, overlay
from fye_rt.landmarks.geometry import face_angle, face_box
from fye_rt.landmarks.images import Drawn, LandmarkImages, Pictures, face_region, movement
from fye_rt.landmarks.motion import MAX_FRAMES, Motion
from fye_rt.landmarks.points import is_points_file, load_points
from fye_rt.landmarks.retarget import Retargeter, retarget
from fye_rt.landmarks.search import FaceChoice, choose_face
from fye_rt.landmarks.template import load_template

__all__ = [
    "LANDMARKER_URL",
    "MAX_FRAMES",
    "Drawn",
    "FaceChoice",
    "LandmarkImages",
    "Motion",
    "Pictures",
    "Retargeter",
    "cached_landmarker",
    "choose_face",
    "cut_notices",
    "detect_frames",
    "detect_image",
    "detect_live",
    "draw",
    "face_angle",
    "face_box",
    "face_region",
    "find_landmarker",
    "is_points_file",
    "landmark_images",
    "load_points",
    "load_template",
    "movement",
    "overlay",
    "retarget",
]
