"""Masks of a frame's face and of its expression, for losses and metrics."""

import numpy as np
from numpy.typing import NDArray

from fye_rt.media.opencv import load_cv2
from fye_training.topology import BROWS, EYES, FACE_OVAL, LIPS, Array

DILATION = 0.04  # margin around eyes, brows and mouth, in heights of the face
SUBPIXEL = 4  # fractional bits of OpenCV's coordinates

Mask = NDArray[np.float32]


def face_mask(points: Array, size: tuple[int, int]) -> Mask:
    """Mask of the face: the convex hull of its oval. OpenCV's edges lie two thirds of a pixel outside of it.

    Args:
        points: float64 (F, 478, 2), x and y in pixels.
        size: height and width of the picture.

    Returns:
        float32 (F, H, W), 1 inside, anti-aliased.
    """
    return _filled(points, (FACE_OVAL,), size)


def expression_mask(points: Array, size: tuple[int, int]) -> Mask:
    """Mask of eyes, brows and mouth: their convex hulls, dilated by a twenty-fifth of the face's height.

    Args:
        points: float64 (F, 478, 2), x and y in pixels.
        size: height and width of the picture.

    Returns:
        float32 (F, H, W), 1 inside, anti-aliased.
    """
    return _filled(points, (*EYES, *BROWS, LIPS), size, DILATION)


def to_latent(mask: Mask) -> Mask:
    """Average a mask (F, H, W) to the share of each latent pixel (F, H/8, W/8); H and W are multiples of 8."""
    frames, height, width = mask.shape
    return mask.reshape(frames, height // 8, 8, width // 8, 8).mean(axis=(2, 4))


def _filled(points: Array, regions: tuple[NDArray[np.intp], ...], size: tuple[int, int], dilation: float = 0.0) -> Mask:
    cv2 = load_cv2()
    masks = np.zeros((len(points), *size), np.uint8)
    # pixel centres are at whole numbers in OpenCV and at halves in landmarks
    fixed = np.round((points - 0.5) * (1 << SUBPIXEL)).astype(np.int32)
    for mask, frame, exact in zip(masks, fixed, points, strict=True):
        radius = dilation * float(np.linalg.norm(exact[10] - exact[152]))
        for region in regions:
            hull = cv2.convexHull(frame[region])
            cv2.fillConvexPoly(mask, hull, 255, cv2.LINE_AA, SUBPIXEL)
            if radius:
                cv2.polylines(mask, [hull], True, 255, max(1, round(2 * radius)), cv2.LINE_AA, SUBPIXEL)
    return masks.astype(np.float32) / np.float32(255)
