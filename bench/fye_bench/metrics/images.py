"""Distance of a clip's pictures to the true ones, and the clip's steadiness."""

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from fye_rt.errors import InputError

MOST_DECIBEL = 100.0  # PSNR of identical pictures

Image = NDArray[np.uint8]
Mask = NDArray[np.float32]


def psnr(generated: Image, true: Image) -> float:
    """Return the peak signal-to-noise ratio of two clips uint8 (F, H, W, 3), decibels, at most 100.

    It is that of the mean squared error over all frames.

    Raises:
        InputError: the clips differ in shape.
    """
    _check(generated, true)
    # in float64 one frame at a time
    squares = [np.square(a.astype(np.float64) - b).mean(axis=-1).sum() for a, b in zip(generated, true, strict=True)]
    return _decibels(float(sum(squares)) / max(generated[..., 0].size, 1))


def distances(generated: Image, true: Image, face: Mask) -> dict[str, float]:
    """Return L1 in levels of 255, PSNR and SSIM of whole frames and of the face; NaN without a face.

    SSIM follows Z. Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP
    13(4), 2004: Gaussian windows of standard deviation 1.5, mean over the channels.

    Args:
        generated: uint8 (F, H, W, 3).
        true: uint8 (F, H, W, 3).
        face: float32 (F, H, W), 1 in the face.

    Raises:
        InputError: the clips differ in shape.
    """
    _check(generated, true)
    whole, inside, area = np.zeros(3), np.zeros(3), 0.0
    for a, b, mask in zip(generated, true, face, strict=True):  # in float64 one frame at a time
        error = a.astype(np.float64) - b
        maps = np.stack((np.abs(error), np.square(error), _similarity(a, b))).mean(axis=-1)
        whole += maps.mean(axis=(1, 2))
        inside += (maps * mask).sum(axis=(1, 2))
        area += float(mask.sum(dtype=np.float64))
    l1, squared, ssim = (whole / len(true)).tolist()
    face_l1, face_squared, face_ssim = (inside / area if area else np.full(3, np.nan)).tolist()
    return {
        "l1": l1,
        "psnr": _decibels(squared),
        "ssim": ssim,
        "face_l1": face_l1,
        "face_psnr": _decibels(face_squared),
        "face_ssim": face_ssim,
    }


def steadiness(generated: Image, true: Image) -> dict[str, float]:
    """Compare the changes from frame to frame with the true ones, in two clips uint8 (F, H, W, 3).

    `flicker` is the mean absolute change of the generated frames over that of the true ones: 1 for the truth, 0 for a
    still picture, above 1 where things move that should stand still. `temporal_error` is the mean absolute difference
    of the two changes, in levels of 255: 0 for the truth, and a steady error costs nothing. Both are NaN for a single
    frame, and `flicker` is NaN for a truth that stands still.
    """
    _check(generated, true)
    if len(true) < 2:
        return {"flicker": float("nan"), "temporal_error": float("nan")}
    change, want = (np.diff(clip.astype(np.int16), axis=0) for clip in (generated, true))
    moving = float(np.abs(want).mean())
    return {
        "flicker": float(np.abs(change).mean()) / moving if moving else float("nan"),
        "temporal_error": float(np.abs(change - want).mean()),
    }


def _similarity(generated: Image, true: Image) -> NDArray[np.float64]:
    """Return the SSIM of each pixel and channel, (H, W, 3)."""
    return structural_similarity(
        generated, true, data_range=255, channel_axis=-1, gaussian_weights=True, use_sample_covariance=False, full=True
    )[1]


def _decibels(squared: float) -> float:
    """Return the PSNR of a mean squared error; NaN stays NaN."""
    return float(min(20 * np.log10(255) - 10 * np.log10(np.maximum(squared, 1e-12)), MOST_DECIBEL))


def _check(generated: Image, true: Image) -> None:
    if generated.shape != true.shape:
        raise InputError(f"frames of shape {generated.shape} cannot be compared with frames of shape {true.shape}")
