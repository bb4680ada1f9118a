"""Times, memory and network evaluations of clips, and their comparison between runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fye_bench.evaluation.acceptance import Both
from fye_bench.evaluation.saved import SavedPair, SavedRun


@dataclass(frozen=True, slots=True, eq=False)
class Cost:
    """Cost of some pairs: means over them, and the largest memory. NaN where unknown.

    Attributes:
        evaluations: network evaluations per clip.
        seconds: time per clip, without that of measuring it.
        memory: largest resident size in bytes.
    """

    evaluations: float
    seconds: float
    memory: float

    @classmethod
    def of(cls, pairs: Sequence[SavedPair]) -> "Cost":
        """Sum up the cost of pairs, including known numbers of failed ones."""
        evaluations, seconds = ([getattr(pair, name) for pair in pairs] for name in ("evaluations", "seconds"))
        memory = max(_finite([pair.memory for pair in pairs]), default=math.nan)
        return cls(_mean(evaluations), _mean(seconds), memory)

    def as_dict(self) -> dict[str, float | None]:
        """Return the cost for JSON, with None in place of NaN."""
        values = {"evaluations": self.evaluations, "seconds": self.seconds, "peak_memory_bytes": self.memory}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


def speedup(pairs: Sequence[Both]) -> float | None:
    """Median over the pairs of how many times as fast the second run is; None where times are unknown."""
    ratios = [a.seconds / b.seconds for a, b in pairs if a.seconds > 0 and b.seconds > 0]
    return float(np.median(ratios)) if ratios else None


def same_machine(a: SavedRun, b: SavedRun) -> bool:
    """Whether the environments of two runs are the same, so that their times can be compared."""
    return all(a.environment.get(name) == b.environment.get(name) for name in ("cpu", "gpu", "gpus", "threads"))


def _mean(values: Sequence[float]) -> float:
    known = _finite(values)
    return float(np.mean(known)) if known else math.nan


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]
