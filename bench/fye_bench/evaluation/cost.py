"""What clips cost, and what of that can be compared between runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fye_bench.evaluation.acceptance import Both
from fye_bench.evaluation.saved import SavedPair, SavedRun


@dataclass(frozen=True, slots=True, eq=False)
class Cost:
    """What some pairs took: means over them, and the largest memory. NaN where unknown.

    Attributes:
        evaluations: of the denoising network, per clip.
        seconds: per clip, without measuring it.
        memory: bytes.
    """

    evaluations: float
    seconds: float
    memory: float

    @classmethod
    def of(cls, pairs: Sequence[SavedPair]) -> "Cost":
        """Of pairs, those that failed included where they count anything."""
        evaluations, seconds = ([getattr(pair, name) for pair in pairs] for name in ("evaluations", "seconds"))
        memory = max(_finite([pair.memory for pair in pairs]), default=math.nan)
        return cls(_mean(evaluations), _mean(seconds), memory)

    def as_dict(self) -> dict[str, float | None]:
        """For JSON."""
        values = {"evaluations": self.evaluations, "seconds": self.seconds, "peak_memory_bytes": self.memory}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


def speedup(pairs: Sequence[Both]) -> float | None:
    """How many times as fast the second run made a clip: the median over the pairs; None where times are unknown."""
    ratios = [one.seconds / other.seconds for one, other in pairs if one.seconds > 0 and other.seconds > 0]
    return float(np.median(ratios)) if ratios else None


def same_machine(a: SavedRun, b: SavedRun) -> bool:
    """Whether times of the two can be compared, as far as their environments tell."""
    return all(a.environment.get(name) == b.environment.get(name) for name in ("cpu", "gpu", "gpus", "threads"))


def _mean(values: Sequence[float]) -> float:
    known = _finite(values)
    return float(np.mean(known)) if known else math.nan


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]
