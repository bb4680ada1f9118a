"""Rank pairs, the worst first, by one metric or by all together."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

COMBINED = "combined"
EXPLANATION = (
    "Each metric is put on one scale: its distance to the median over the pairs, in robust standard deviations "
    "(1.4826 times the median absolute deviation), positive where it is worse, and at most 5 either way, "
    "so that no single metric decides. A pair's rank is the mean over the metrics that it has."
)
_MOST = 5.0

Scores = Mapping[str, Mapping[str, float]]  # by pair, then by metric; larger is worse


def standings(badness: Scores) -> dict[str, dict[str, float]]:
    """Standardise each metric over the pairs, in robust standard deviations; positive is worse.

    Args:
        badness: by pair and metric, numbers that grow as the metric gets worse; a pair may lack metrics.
    """
    standing: dict[str, dict[str, float]] = {pair: {} for pair in badness}
    for metric in sorted({name for row in badness.values() for name in row}):
        pairs = [pair for pair, row in badness.items() if math.isfinite(row.get(metric, math.nan))]
        for pair, value in zip(pairs, _standardised([badness[pair][metric] for pair in pairs]), strict=True):
            standing[pair][metric] = float(value)
    return standing


def combined(standing: Mapping[str, float]) -> float:
    """Mean of a pair's standing over its metrics; NaN without metrics."""
    return float(np.mean(list(standing.values()))) if standing else math.nan


def worst_first(badness: Scores, by: str = COMBINED) -> list[tuple[str, float]]:
    """List pairs and the numbers that rank them, the worst first, without pairs that lack the number.

    Args:
        badness: as for `standings`.
        by: `COMBINED`, or the name of a metric.
    """
    if by == COMBINED:
        scores = {pair: combined(row) for pair, row in standings(badness).items()}
    else:
        scores = {pair: row.get(by, math.nan) for pair, row in badness.items()}
    known = [(pair, score) for pair, score in scores.items() if math.isfinite(score)]
    return sorted(known, key=lambda row: (-row[1], row[0]))


def _standardised(values: Sequence[float]) -> NDArray[np.float64]:
    column = np.array(values, np.float64)
    off = column - np.median(column)
    # the robust width is 0 if more than half of the pairs are equal
    scale = 1.4826 * float(np.median(np.abs(off))) or float(column.std())
    return np.clip(off / scale, -_MOST, _MOST) if scale > 0 else np.zeros_like(column)
