"""Numbers of repeated measurements."""

from collections.abc import Sequence

import numpy as np

Summary = dict[str, float]


def summary(seconds: Sequence[float]) -> Summary:
    """{n, mean, p50, p95, p99} of repeated timings."""
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99))
    return {"n": len(seconds), "mean": float(np.mean(seconds)), "p50": float(p50), "p95": float(p95), "p99": float(p99)}


def ratio(baseline: Sequence[float], other: Sequence[float]) -> Summary:
    """How many times faster `other` is: {n, median, min, max} over rounds, each compared with its own round.

    What slows the machine down for longer than a round slows both down and leaves their ratio.
    """
    ratios = np.divide(baseline, other)
    return {
        "n": len(ratios),
        "median": float(np.median(ratios)),
        "min": float(ratios.min()),
        "max": float(ratios.max()),
    }
