"""Optical flow between the frames of a clip, and the clip's error under its own flow.

The flow is OpenCV's implementation of T. Kroeger et al., "Fast optical flow using dense inverse search", ECCV 2016.
"""

from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

# two flows agree if they differ by at most a tenth of their length and 0.7 pixels: constants of Sundaram et al.
_RELATIVE, _ABSOLUTE = 0.01, 0.5


def flow(frame: Image, other: Image) -> Floats:
    """Return the offset of each pixel of a frame in another one, float32 (H, W, 2): x and y in pixels.

    Args:
        frame: uint8 (H, W, 3).
        other: uint8 (H, W, 3).
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey, other_grey = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (frame, other))
    return search.calc(grey, other_grey, np.zeros((*grey.shape, 2), np.float32))


def moved(other: NDArray[Any], by: Floats) -> NDArray[Any]:
    """Warp `other` back onto the frame from which the flow starts.

    Args:
        other: uint8 or float32 (H, W, C), the second frame of `flow`.
        by: float32 (H, W, 2), from `flow`.
    """
    x, y = _places(by)
    return cv2.remap(other, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def warp_error(clip: Image) -> float:
    """Return the mean distance of each frame to the one before, moved by the clip's own flow: levels of 255.

    W.-S. Lai et al., "Learning blind video temporal consistency", ECCV 2018, use this measure where no truth is known.
    It ignores pixels that were hidden in the frame before: their flow leads out of the picture, or the opposite flow
    does not lead back (N. Sundaram et al., "Dense point trajectories by GPU-accelerated large displacement optical
    flow", ECCV 2010, equation 5). A limit on the error itself would ignore the very flicker to be measured: noise of 40
    levels a pixel would then cost no more than noise of 20.

    Args:
        clip: uint8 (F, H, W, 3).

    Returns:
        The mean over frames; NaN for a single frame, or where no flow leads back. A still picture has 0, so a clip
        that ignores what drives it may score better than one that follows.
    """
    errors = []
    for before, frame in pairwise(clip):
        back = flow(frame, before)
        seen = _leads_back(back, flow(before, frame))
        if seen.any():
            errors.append(float(np.abs(np.subtract(moved(before, back), frame, dtype=np.int16))[seen].mean()))
    return float(np.mean(errors)) if errors else float("nan")


def _leads_back(by: Floats, opposite: Floats) -> NDArray[np.bool_]:
    """Mark the pixels (H, W) whose flow stays in the picture and is undone by the opposite one."""
    returned = moved(opposite, by)
    lengths = np.square(by).sum(axis=-1) + np.square(returned).sum(axis=-1)
    x, y = _places(by)
    inside = (x >= 0) & (x <= by.shape[1] - 1) & (y >= 0) & (y <= by.shape[0] - 1)
    return inside & (np.square(by + returned).sum(axis=-1) <= _RELATIVE * lengths + _ABSOLUTE)


def _places(by: Floats) -> tuple[Floats, Floats]:
    rows, columns = np.indices(by.shape[:2], dtype=np.float32)
    return columns + by[..., 0], rows + by[..., 1]
