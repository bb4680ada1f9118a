"""Times, memory and network evaluations of clips, and their comparison between runs."""

import math
from collections.abc import Sequence

import numpy as np

from fye_bench.evaluation.acceptance import Both
from fye_bench.evaluation.saved import SavedPair, SavedRun


def cost_of(pairs: Sequence[SavedPair]) -> dict[str, float | None]:
    """Sum up the cost of pairs, including known numbers of failed ones.

    Returns:
        For JSON, None where unknown. evaluations: mean network evaluations per clip. seconds: mean time per clip,
        without that of measuring it. peak_memory_bytes: largest resident size.
    """

    def known(name: str) -> list[float]:
        return [value for pair in pairs if math.isfinite(value := getattr(pair, name))]

    means = {name: float(np.mean(known(name))) if known(name) else None for name in ("evaluations", "seconds")}
    return {**means, "peak_memory_bytes": max(known("memory"), default=None)}


def speedup(pairs: Sequence[Both]) -> float | None:
    """Median over the pairs of how many times as fast the second run is; None where times are unknown."""
    ratios = [a.seconds / b.seconds for a, b in pairs if a.seconds > 0 and b.seconds > 0]
    return float(np.median(ratios)) if ratios else None


def same_machine(a: SavedRun, b: SavedRun) -> bool:
    """Whether the environments of two runs are the same, so that their times can be compared."""
    return all(a.environment.get(name) == b.environment.get(name) for name in ("cpu", "gpu", "gpus", "threads"))
