"""Whether a number grows along clips."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fye_bench.metrics.statistics import LEVEL, RESAMPLES, Estimate

BLOCK = 25  # frames, a second: what happens in one is hardly related to the next

Array = NDArray[np.float64]


def drift(values: Sequence[Array], against: Sequence[Array] | None = None) -> Estimate:
    """How much a number changes from the first frame to the last, along straight lines, as a share of its mean.

    The interval is from clips of resampled seconds: what follows the lines stays, what scatters around them is drawn
    again in blocks.

    Args:
        values: of each clip, one number a frame; clips of one length, longer than a second.
        against: the same numbers of the same clips made in another way. How the difference changes is then returned, as
            a share of these: what makes single frames hard is in both.

    Returns:
        mean, low, high: of the change from first to last frame, over the mean; n: clips.
    """
    table, mean = np.array(values), float(np.mean(values))
    if against is not None:
        table, mean = table - np.array(against), float(np.mean(against))
    lines, rest = _fit(table)
    random = np.random.default_rng(0)
    blocks = -(-table.shape[1] // BLOCK)
    changes = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        starts = random.integers(table.shape[1] - BLOCK + 1, size=(len(table), blocks))
        places = (starts[..., None] + np.arange(BLOCK)).reshape(len(table), -1)[:, : table.shape[1]]
        changes[number] = _change(lines + np.take_along_axis(rest, places, axis=1)) / mean
    low, high = np.percentile(changes, ((100 - LEVEL) / 2, (100 + LEVEL) / 2))
    return {"mean": _change(table) / mean, "low": float(low), "high": float(high), "n": len(table)}


def _fit(table: Array) -> tuple[Array, Array]:
    """Straight lines through the rows of (clips, frames), and what is left."""
    time = np.linspace(-0.5, 0.5, table.shape[1])
    slope = table @ time / (time @ time)
    lines = table.mean(axis=1, keepdims=True) + slope[:, None] * time
    return lines, table - lines


def _change(table: Array) -> float:
    """From first to last frame, on average over the rows."""
    time = np.linspace(-0.5, 0.5, table.shape[1])
    return float((table @ time / (time @ time)).mean())
