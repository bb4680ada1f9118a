"""What is measured of a clip, with whatever is known of it: its truth, or only what was asked for."""

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
    "l1",
    "psnr",
    "ssim",
    "face_l1",
    "face_psnr",
    "face_ssim",
    "lpips",
    "identity_error",
    "portrait_error",
    "identity_cosine",
    "landmark_error",
    "blendshape_distance",
    "faces_found",
    "flicker",
    "temporal_error",
    "true_warp_error",
    "warp_error",
)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What is known of a pair, for a clip of F frames.

    Attributes:
        portrait: uint8 (H, W, 3), fitted to the clip's size.
        portrait_landmarks: one frame.
        driving: F frames, the landmarks that drove the clip.
        truth: uint8 (F, H, W, 3), what the clip ought to show, if that is known.
        truth_motion: F frames, where the face is in it, if that is known.
    """

    portrait: Image
    portrait_landmarks: Motion
    driving: Motion
    truth: Image | None = None
    truth_motion: Motion | None = None


@dataclass(frozen=True, slots=True)
class ToolFiles:
    """The files that some measures need.

    Attributes:
        landmarker: MediaPipe's face_landmarker.task; None: the one that FYE_LANDMARKER names or that lies in the
            user's cache, and none if it isn't there.
        identity_model: see `fye_bench.metrics.models.Identity`.
        lpips: see `fye_bench.metrics.models.Lpips`.
        fvd: see `fye_bench.metrics.fvd.VideoFeatures`.
    """

    landmarker: Path | None = None
    identity_model: Path | None = None
    lpips: Path | None = None
    fvd: Path | None = None

    def found(self) -> dict[str, Path | None]:
        """The files by name, each of them there.

        Raises:
            InputError: one that was named is not.
        """
        files = {"landmarker": self._landmarker()}
        for name in ("identity_model", "lpips", "fvd"):
            files[name] = path = getattr(self, name)
            if path is not None and not path.is_file():
                raise InputError(f"{path}: no such file; give another with --{name.replace('_', '-')}, or leave it out")
        return files

    def digests(self) -> dict[str, str | None]:
        """Their SHA-256 by name, for the record of a run.

        Raises:
            InputError: one that was named is not there or cannot be read.
        """
        return {name: None if path is None else _digest(path) for name, path in self.found().items()}

    def _landmarker(self) -> Path | None:
        named = self.landmarker is not None or os.environ.get(LANDMARKER_VARIABLE)
        return find_landmarker(self.landmarker) if named or cached_landmarker().is_file() else None


@dataclass(frozen=True, slots=True, eq=False)
class Tools:
    """What measures with somebody else's weights, of each whatever there is.

    Attributes:
        landmarker: MediaPipe's face_landmarker.task.
        identity: who a face is.
        lpips: perceptual distance.
        features: of videos, for FVD, which is a number of many clips: `measure` has no use for them.
    """

    landmarker: Path | None = None
    identity: Identity | None = None
    lpips: Lpips | None = None
    features: VideoFeatures | None = None

    @classmethod
    def open(cls, files: ToolFiles) -> Self:
        """Open the files.

        Raises:
            InputError: one that was named is missing, damaged or something else.
            BackendError: what runs it is not installed.
        """
        found = files.found()
        landmarker, identity, lpips, fvd = (found[name] for name in ("landmarker", "identity_model", "lpips", "fvd"))
        if landmarker is not None:
            list(detect_live((), 1.0, landmarker))
        return cls(
            landmarker,
            None if identity is None else Identity(identity),
            None if lpips is None else Lpips(lpips),
            None if fvd is None else VideoFeatures(fvd),
        )


def measure(seen: Seen, made: Image, tools: Tools) -> dict[str, float]:
    """Measure a clip; the same numbers every time.

    Args:
        seen: what is known of it.
        made: uint8 (F, H, W, 3).
        tools: what there is to measure with.

    Returns:
        Every one of NAMES; NaN for what cannot be measured: without a truth, without its landmarks, without a tool,
        where no face is found, or of a single frame's steadiness.

    Raises:
        InputError: frames, landmarks and truth of different numbers or sizes, or frames of less than 16 pixels.
    """
    _check(seen, made)
    numbers = dict.fromkeys(NAMES, NAN)
    numbers["warp_error"] = warp_error(made)
    if seen.truth is not None:
        numbers |= _against_truth(seen.truth, seen.truth_motion, made)
        if tools.lpips is not None:
            numbers["lpips"] = tools.lpips(made, seen.truth)
    size = made.shape[1], made.shape[2]
    points = asked = retarget(seen.portrait_landmarks, seen.driving, size)
    if tools.landmarker is not None:
        faces = Faces.find(made, seen.driving, tools.landmarker)
        numbers |= measure_faces(made, faces, asked, seen.portrait, seen.portrait_landmarks, seen.driving)
        points = faces.points_or(asked)
    if tools.identity is not None:
        own = Shown.of(seen.portrait_landmarks, size).points[0]
        numbers["identity_cosine"] = tools.identity.cosine(made, points, seen.portrait, own)
    return numbers


def _against_truth(truth: Image, motion: Motion | None, made: Image) -> Mapping[str, float]:
    """The face counts in the frames in which the truth's was found."""
    size, face = (made.shape[1], made.shape[2]), np.zeros(made.shape[:3], np.float32)
    identity = NAN
    if motion is not None and motion.valid.any():
        known = motion.valid
        where = Shown.of(motion, size)
        there = Shown(where.mesh[known], where.pose[known], where.points[known], size)
        face[known] = face_mask(there.points, size)
        identity = texture_error(made[known], there, truth[known], there)
    errors = warp_errors(made, truth)
    errors = errors[np.isfinite(errors)]
    return {
        **distances(made, truth, face),
        **steadiness(made, truth),
        "identity_error": identity,
        "true_warp_error": float(errors.mean()) if len(errors) else NAN,
    }


def _check(seen: Seen, made: Image) -> None:
    if made.dtype != np.uint8 or made.ndim != 4 or made.shape[3] != 3 or 0 in made.shape:
        raise InputError(f"made frames are {made.dtype} {made.shape}; give uint8 (F, H, W, 3)")
    if min(made.shape[1:3]) < SMALLEST:
        raise InputError(f"frames of {made.shape[1]}x{made.shape[2]} are too small to measure; give {SMALLEST} or more")
    frames = {"the driving landmarks": len(seen.driving)}
    if seen.truth_motion is not None:
        frames["the truth's landmarks"] = len(seen.truth_motion)
    for what, count in frames.items():
        if count != len(made):
            raise InputError(f"{what} have {count} frames and the made clip has {len(made)}; give as many")
    pictures = {"the portrait": (seen.portrait, made.shape[1:])}
    if seen.truth is not None:
        pictures["the truth"] = (seen.truth, made.shape)
    for what, (picture, shape) in pictures.items():
        if picture.dtype != np.uint8 or picture.shape != shape:
            raise InputError(f"{what} is {picture.dtype} {picture.shape}; give uint8 {shape}")


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
