"""Drift: whether a number grows along clips."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fye_bench.metrics.statistics import LEVEL, RESAMPLES, Estimate

BLOCK = 25  # frames of one second, which is hardly related to the next

Array = NDArray[np.float64]


def drift(values: Sequence[Array], against: Sequence[Array] | None = None) -> Estimate:
    """Fit straight lines to a number, and return its change from the first frame to the last as a share of its mean.

    The interval comes from clips of resampled seconds: the lines stay, and the scatter around them is drawn again in
    blocks.

    Args:
        values: one number a frame of each clip; all clips have the same length, more than a second.
        against: the same numbers of the same clips, made in another way. The result is then the change of the
            difference, as a share of these numbers: both contain what makes single frames hard.

    Returns:
        mean, low and high of the change from first to last frame, over the mean; n: number of clips.
    """
    table, mean = np.array(values), float(np.mean(values))
    if against is not None:
        table, mean = table - np.array(against), float(np.mean(against))
    time = np.linspace(-0.5, 0.5, table.shape[1])
    lines = table.mean(axis=1, keepdims=True) + (table @ time / (time @ time))[:, None] * time
    rest = table - lines
    random = np.random.default_rng(0)
    blocks = -(-table.shape[1] // BLOCK)
    changes = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        starts = random.integers(table.shape[1] - BLOCK + 1, size=(len(table), blocks))
        places = (starts[..., None] + np.arange(BLOCK)).reshape(len(table), -1)[:, : table.shape[1]]
        changes[number] = _change(lines + np.take_along_axis(rest, places, axis=1)) / mean
    low, high = np.percentile(changes, ((100 - LEVEL) / 2, (100 + LEVEL) / 2))
    return {"mean": _change(table) / mean, "low": float(low), "high": float(high), "n": len(table)}


def _change(table: Array) -> float:
    """Return the change from first to last frame, averaged over the rows."""
    time = np.linspace(-0.5, 0.5, table.shape[1])
    return float((table @ time / (time @ time)).mean())
