"""How far a clip's pictures are from the true ones, and how steady it is."""

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from fye_rt.errors import InputError

MOST_DECIBEL = 100.0  # of identical pictures

Image = NDArray[np.uint8]
Mask = NDArray[np.float32]


def psnr(made: Image, true: Image, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio of a clip, decibels: of the mean squared error over all frames, at most 100.

    Args:
        made: uint8 (F, H, W, 3).
        true: the same.
        mask: float32 (F, H, W), weights of the pixels.

    Raises:
        InputError: two clips of different shapes.
    """
    _check(made, true)
    error = _mean(np.square(made.astype(np.float64) - true), mask)
    return min(MOST_DECIBEL, float(20 * np.log10(255) - 10 * np.log10(max(error, 1e-12))))


def distances(made: Image, true: Image, face: Mask) -> dict[str, float]:
    """L1 in levels of 255, PSNR and SSIM, of whole frames and of the face.

    SSIM is that of Z. Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE
    TIP 13(4), 2004: Gaussian windows of standard deviation 1.5, mean over the channels.

    Args:
        made: uint8 (F, H, W, 3).
        true: the same.
        face: float32 (F, H, W), 1 in the face.

    Raises:
        InputError: two clips of different shapes.
    """
    _check(made, true)
    error = np.abs(made.astype(np.float64) - true)
    similar = np.stack([_similarity(*frames) for frames in zip(made, true, strict=True)])
    return {
        "l1": _mean(error, None),
        "psnr": psnr(made, true),
        "ssim": _mean(similar, None),
        "face_l1": _mean(error, face),
        "face_psnr": psnr(made, true, face),
        "face_ssim": _mean(similar, face),
    }


def steadiness(made: Image, true: Image) -> dict[str, float]:
    """How much a clip changes from frame to frame, against the truth.

    `flicker` is the mean absolute change of the made frames over that of the true ones: 1 for the truth, 0 for a
    picture that stands still, above 1 where what should stand still does not. `temporal_error` is the mean absolute
    difference of the two changes, in levels of 255: 0 for the truth, and a steady error costs nothing.

    Args:
        made: uint8 (F, H, W, 3).
        true: the same.

    Returns:
        NaN where there is no change to compare with: a single frame, or a truth that stands still.
    """
    _check(made, true)
    if len(true) < 2:
        return {"flicker": float("nan"), "temporal_error": float("nan")}
    change, want = (np.diff(clip.astype(np.int16), axis=0) for clip in (made, true))
    moving = float(np.abs(want).mean())
    return {
        "flicker": float(np.abs(change).mean()) / moving if moving else float("nan"),
        "temporal_error": float(np.abs(change - want).mean()),
    }


def _similarity(made: Image, true: Image) -> NDArray[np.float64]:
    """SSIM of each pixel and channel, (H, W, 3)."""
    return structural_similarity(
        made, true, data_range=255, channel_axis=-1, gaussian_weights=True, use_sample_covariance=False, full=True
    )[1]


def _mean(values: NDArray[np.float64], mask: Mask | None) -> float:
    """Of (F, H, W, 3), weighted by mask (F, H, W)."""
    if mask is None:
        return float(values.mean())
    return float((values.mean(axis=-1) * mask).sum() / max(float(mask.sum()), 1.0))


def _check(made: Image, true: Image) -> None:
    if made.shape != true.shape:
        raise InputError(f"frames of shape {made.shape} cannot be compared with frames of shape {true.shape}")
