"""Metrics of a clip, with or without a truth."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from fye_bench.metrics.faces import NAN, Faces, measure_faces
from fye_bench.metrics.flow import warp_error
from fye_bench.metrics.fvd import VideoFeatures
from fye_bench.metrics.images import distances, steadiness
from fye_bench.metrics.models import Identity, Lpips
from fye_bench.metrics.seams import warp_errors
from fye_bench.metrics.texture import texture_error
from fye_bench.metrics.truth import Image, Shown
from fye_rt.errors import InputError
from fye_rt.files import sha256
from fye_rt.landmarks import Motion, cached_landmarker, detect_live, find_landmarker, retarget
from fye_rt.landmarks.detect import LANDMARKER_VARIABLE
from fye_training.masks import face_mask

SMALLEST = 16  # pixels: optical flow and SSIM need windows of about a dozen
NAMES = (
    *("l1", "psnr", "ssim", "face_l1", "face_psnr", "face_ssim", "lpips"),
    *("identity_error", "portrait_error", "identity_cosine"),
    *("landmark_error", "blendshape_distance", "faces_found"),
    *("flicker", "temporal_error", "true_warp_error", "warp_error"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A pair's portrait, driving motion and, where known, truth, for a clip of F frames.

    Attributes:
        portrait: uint8 (H, W, 3), fitted to the clip's size.
        portrait_landmarks: one frame.
        driving: F frames, the landmarks that drove the clip.
        truth: uint8 (F, H, W, 3), the true frames, if known.
        truth_motion: F frames, the landmarks of the truth, if known.
    """

    portrait: Image
    portrait_landmarks: Motion
    driving: Motion
    truth: Image | None = None
    truth_motion: Motion | None = None


@dataclass(frozen=True, slots=True)
class ToolFiles:
    """Files that some metrics need.

    Attributes:
        landmarker: MediaPipe's face_landmarker.task; None: the file named by FYE_LANDMARKER or in the user's cache,
            if any.
        identity_model: see `fye_bench.metrics.models.Identity`.
        lpips: see `fye_bench.metrics.models.Lpips`.
        fvd: see `fye_bench.metrics.fvd.VideoFeatures`.
    """

    landmarker: Path | None = None
    identity_model: Path | None = None
    lpips: Path | None = None
    fvd: Path | None = None

    def found(self) -> dict[str, Path | None]:
        """Return the files by name.

        Raises:
            InputError: a file does not exist.
        """
        named = self.landmarker is not None or os.environ.get(LANDMARKER_VARIABLE) or cached_landmarker().is_file()
        files = {"landmarker": find_landmarker(self.landmarker) if named else None}
        for name in ("identity_model", "lpips", "fvd"):
            files[name] = path = getattr(self, name)
            if path is not None and not path.is_file():
                raise InputError(f"{path}: no such file; give another {name}, or leave {name} out")
        return files

    def digests(self) -> dict[str, str | None]:
        """Return the files' SHA-256 by name, for the record of a run.

        Raises:
            InputError: a file does not exist or cannot be read.
        """
        return {name: None if path is None else _digest(path) for name, path in self.found().items()}


@dataclass(frozen=True, slots=True, eq=False)
class Tools:
    """Optional tools that measure with third-party weights.

    Attributes:
        landmarker: MediaPipe's face_landmarker.task.
        identity: face-recognition network.
        lpips: perceptual distance.
        features: video features for FVD, a number of many clips; `measure` does not use them.
    """

    landmarker: Path | None = None
    identity: Identity | None = None
    lpips: Lpips | None = None
    features: VideoFeatures | None = None

    @classmethod
    def open(cls, files: ToolFiles) -> Self:
        """Open the files.

        Raises:
            InputError: a file is missing, damaged or something else.
            BackendError: the package that runs a file is not installed.
        """
        landmarker, identity, lpips, fvd = files.found().values()
        if landmarker is not None:
            list(detect_live((), 1.0, landmarker))
        return cls(
            landmarker,
            None if identity is None else Identity(identity),
            None if lpips is None else Lpips(lpips),
            None if fvd is None else VideoFeatures(fvd),
        )


def measure(seen: Seen, generated: Image, tools: Tools) -> dict[str, float]:
    """Measure a clip, deterministically.

    Args:
        seen: portrait, motion and truth of the clip.
        generated: uint8 (F, H, W, 3).
        tools: available tools.

    Returns:
        All of NAMES; NaN where a metric lacks the truth, its landmarks, a tool or a face, and for the steadiness of a
        single frame.

    Raises:
        InputError: frames, landmarks and truth differ in number or size, or a side is below 16 pixels.
    """
    _check(seen, generated)
    numbers = dict.fromkeys(NAMES, NAN)
    numbers["warp_error"] = warp_error(generated)
    if seen.truth is not None:
        numbers |= _against_truth(seen.truth, seen.truth_motion, generated)
        if tools.lpips is not None:
            numbers["lpips"] = tools.lpips(generated, seen.truth)
    size = generated.shape[1], generated.shape[2]
    points = asked = retarget(seen.portrait_landmarks, seen.driving, size)
    if tools.landmarker is not None:
        faces = Faces.find(generated, seen.driving, tools.landmarker)
        numbers |= measure_faces(generated, faces, asked, seen.portrait, seen.portrait_landmarks, seen.driving)
        points = faces.points_or(asked)
    if tools.identity is not None:
        portrait_points = Shown.of(seen.portrait_landmarks, size).points[0]
        numbers["identity_cosine"] = tools.identity.cosine(generated, points, seen.portrait, portrait_points)
    return numbers


def _against_truth(truth: Image, motion: Motion | None, generated: Image) -> Mapping[str, float]:
    """Measure against the truth; metrics of the face use the frames in which the truth's was detected."""
    size, face = (generated.shape[1], generated.shape[2]), np.zeros(generated.shape[:3], np.float32)
    identity = NAN
    if motion is not None and motion.valid.any():
        known = motion.valid
        faces = Shown.of(motion, size)
        shown = Shown(faces.mesh[known], faces.pose[known], faces.points[known], size)
        face[known] = face_mask(shown.points, size)
        identity = texture_error(generated[known], shown, truth[known], shown)
    errors = warp_errors(generated, truth)
    errors = errors[np.isfinite(errors)]
    return {
        **distances(generated, truth, face),
        **steadiness(generated, truth),
        "identity_error": identity,
        "true_warp_error": float(errors.mean()) if len(errors) else NAN,
    }


def _check(seen: Seen, generated: Image) -> None:
    if generated.dtype != np.uint8 or generated.ndim != 4 or generated.shape[3] != 3 or 0 in generated.shape:
        raise InputError(f"generated frames are {generated.dtype} {generated.shape}; give uint8 (F, H, W, 3)")
    height, width = generated.shape[1:3]
    if min(height, width) < SMALLEST:
        raise InputError(f"frames of {height}x{width} are too small to measure; give {SMALLEST} or more")
    frames = {"the driving landmarks": len(seen.driving)}
    if seen.truth_motion is not None:
        frames["the truth's landmarks"] = len(seen.truth_motion)
    for name, count in frames.items():
        if count != len(generated):
            raise InputError(f"{name} have {count} frames and the generated clip has {len(generated)}; give as many")
    pictures = {"the portrait": (seen.portrait, generated.shape[1:])}
    if seen.truth is not None:
        pictures["the truth"] = (seen.truth, generated.shape)
    for name, (picture, shape) in pictures.items():
        if picture.dtype != np.uint8 or picture.shape != shape:
            raise InputError(f"{name} is {picture.dtype} {picture.shape}; give uint8 {shape}")


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
