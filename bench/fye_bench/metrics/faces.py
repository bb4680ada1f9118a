"""Compare what MediaPipe sees in generated frames with what drove them; these metrics need no true frames."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fye_bench.metrics.texture import texture_error
from fye_bench.metrics.truth import Image, Shown
from fye_rt.landmarks import Motion, detect_live
from fye_rt.landmarks.motion import neutral_frame
from fye_training.topology import LOWER_LID, Array

NAN = float("nan")
OUTER_CORNERS = [int(lid[0]) for lid in LOWER_LID]  # landmarks of the eyes


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Faces that MediaPipe finds in N of a clip's F frames.

    Attributes:
        found: bool (F,), frames with a face.
        shown: faces in the N frames.
        blendshapes: float64 (N, 51).
    """

    found: NDArray[np.bool_]
    shown: Shown
    blendshapes: Array

    @classmethod
    def find(cls, frames: Image, driving: Motion, landmarker: Path) -> Self:
        """Find the largest face of every frame; equal frames give equal faces.

        Args:
            frames: uint8 (F, H, W, 3).
            driving: F frames, whose times are used.
            landmarker: MediaPipe's face_landmarker.task.

        Raises:
            InputError: the landmarker is damaged.
            BackendError: MediaPipe is not installed.
        """
        timed = zip(driving.times.tolist(), frames, strict=True)
        # one by one: detection in a driving video refuses a video without a face, and bridges gaps; every frame alone
        motions = list(detect_live(timed, driving.fps, landmarker, "the generated clip", search=False))
        faces = [motion for motion in motions if motion is not None]

        def joined(name: str, shape: tuple[int, ...]) -> Array:
            return np.concatenate([np.empty((0, *shape)), *(getattr(face, name) for face in faces)])

        size = frames.shape[1], frames.shape[2]
        points = joined("points", (478, 3))[..., :2] * (size[1], size[0])
        shown = Shown(joined("mesh", (468, 3)), joined("pose", (4, 4)), points, size)
        return cls(np.array([motion is not None for motion in motions]), shown, joined("blendshapes", (51,)))

    def points_or(self, asked: Array) -> Array:
        """Return the landmarks of all frames, (F, 478, 2): the detected ones, else those `asked` for."""
        points = asked.copy()
        points[self.found] = self.shown.points
        return points


def measure_faces(
    generated: Image, faces: Faces, asked: Array, portrait: Image, rest: Motion, driving: Motion
) -> dict[str, float]:
    """Return all metrics of the detected faces, by name; without a face, all but `faces_found` are NaN.

    Args:
        generated: uint8 (F, H, W, 3).
        faces: faces detected in `generated`.
        asked: float64 (F, 478, 2), pixels: the landmarks that drove the clip.
        portrait: uint8 (H, W, 3).
        rest: the portrait's landmarks, one frame.
        driving: F frames.
    """
    return {
        "faces_found": float(faces.found.mean()),
        "landmark_error": landmark_error(faces, asked, rest),
        "blendshape_distance": blendshape_distance(faces, rest, driving),
        "portrait_error": portrait_error(generated, faces, portrait, rest),
    }


def landmark_error(faces: Faces, asked: Array, rest: Motion) -> float:
    """Return the normalised mean error of the landmarks: their distance to those asked for, per cent of the eyes'.

    The eyes' distance is that of their outer corners (C. Sagonas et al., "300 faces in-the-wild challenge", Image and
    Vision Computing 47, 2016), here the portrait's, in three dimensions. In each frame's picture it would shrink as the
    head turns, and the clip would seem worse.

    See `measure_faces` for the arguments.
    """
    if not faces.found.any():
        return NAN
    height, width = faces.shown.size
    right, left = rest.points[0, OUTER_CORNERS] * (width, height, width)
    distance = np.linalg.norm(faces.shown.points - asked[faces.found], axis=-1)
    return float(100 * distance.mean() / np.linalg.norm(right - left))


def blendshape_distance(faces: Faces, rest: Motion, driving: Motion) -> float:
    """Return the mean absolute difference of MediaPipe's 51 expression weights of two clips, in [0, 2].

    Both are changes: the generated frames' from the portrait, the driving frames' from the most neutral one of them,
    which is the change that retargeting puts onto the portrait. So neither a mouth that is always a little open nor
    MediaPipe's misreading of a drawn face at rest counts. See `measure_faces` for the arguments.
    """
    if not faces.found.any():
        return NAN
    wanted = driving.blendshapes - driving.blendshapes[neutral_frame(driving)]
    return float(np.abs(faces.blendshapes - rest.blendshapes[0] - wanted[faces.found]).mean())


def portrait_error(generated: Image, faces: Faces, portrait: Image, rest: Motion) -> float:
    """Return the difference of the detected faces' texture from the portrait's, mean absolute levels of 255.

    It tells, without a network, whether the face stays the portrait's. Light that changes as the head turns counts too.
    See `measure_faces` for the arguments.
    """
    if not faces.found.any():
        return NAN
    frames = generated[faces.found]
    still = Shown.of(rest, faces.shown.size).still(len(frames))
    return texture_error(frames, faces.shown, np.broadcast_to(portrait, frames.shape), still)
