"""Seams: the borders between windows, and whether they are visible.

A clip of F frames has F - 1 steps, from each frame to the next. A step is a border if its two frames come from
different windows or from different weights of them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fye_bench.metrics.flow import Floats, flow, moved
from fye_rt.errors import InputError
from fye_rt.pieces import Piece
from fye_rt.windows import Window

Image = NDArray[np.uint8]
Array = NDArray[np.float64]
Borders = NDArray[np.bool_]

_OCCLUDED = 12.0  # levels of 255; the truth itself is off by more where the flow is wrong or something appears


def blended_borders(windows: Sequence[Window], frames: int) -> Borders:
    """Return the borders of overlapping windows, bool (F - 1,); a whole cross-fade is one border."""
    shares = np.zeros((len(windows), frames))
    for share, window in zip(shares, windows, strict=True):
        share[window.frames] = window.weights
    return np.abs(np.diff(shares, axis=1)).max(axis=0) > 1e-9


def piece_borders(pieces: Sequence[Piece], frames: int) -> Borders:
    """Return the borders of pieces that are made one after another, bool (F - 1,)."""
    maker = np.empty(frames, np.int64)
    for number, piece in enumerate(pieces):
        maker[piece.frames[~piece.pinned]] = number
    return np.diff(maker) != 0


def steps(generated: Image, true: Image) -> Array:
    """Return the distance of each change between frames to the true one, mean absolute levels of 255, (F - 1,)."""
    return np.array(
        [
            np.abs(np.subtract(b, a, dtype=np.int16) - np.subtract(d, c, dtype=np.int16)).mean()
            for a, b, c, d in zip(generated[:-1], generated[1:], true[:-1], true[1:], strict=True)
        ]
    )


def warp_errors(generated: Image, true: Image) -> Array:
    """Return the distance of each frame to the one before, moved as the truth, mean absolute levels of 255, (F - 1,).

    The movement is the true frames' optical flow; pixels where it doesn't explain the truth itself are left out, as in
    W.-S. Lai et al., "Learning blind video temporal consistency", ECCV 2018.
    """
    errors = []
    for k in range(len(true) - 1):
        back = flow(true[k + 1], true[k])

        def off(clip: Image, k: int = k, back: Floats = back) -> Array:
            return np.abs(moved(clip[k], back).astype(np.float64) - clip[k + 1]).mean(axis=-1)

        explained = off(true) <= _OCCLUDED
        errors.append(float(off(generated)[explained].mean()) if explained.any() else np.nan)
    return np.array(errors)


def ratio(values: Sequence[Array], borders: Sequence[Borders]) -> float:
    """Return the ratio of values at borders to values beside them.

    Every border is compared with the steps up to the borders before and after it, because borders may lie where more
    happens.

    Args:
        values: one number per step of each clip.
        borders: borders of each clip.

    Returns:
        1 where borders are as good as the rest; NaN without a border that has steps beside it.
    """
    at = beside = 0.0
    for clip, marks in zip(values, borders, strict=True):
        if clip.shape != marks.shape:
            raise InputError(f"{clip.shape} values have {marks.shape} marks; give one for each step")
        edges = np.flatnonzero(np.diff(np.concatenate([[False], marks, [False]])))  # begin and end alternate
        bounds = [0, *edges.tolist(), len(marks)]
        for i in range(0, len(edges), 2):
            last, start, end, following = bounds[i : i + 4]
            if last < start and end < following:
                at += float(clip[start:end].sum())
                beside += (end - start) * float(clip[last:start].mean() + clip[end:following].mean()) / 2
    return at / beside if beside else float("nan")
