"""What a way to fewer evaluations costs in quality, against the full run, which evaluates every step.

*Lossless*: no metric against the truth is more than 1 % worse than the full run's (95 % paired interval over cases),
in no family and in no exaggerated expression more than 3 % on average, and the frames are at least 35 dB from its own.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fye_bench.metrics.judge import Scores, change
from fye_bench.metrics.statistics import Estimate, mean
from fye_bench.metrics.table import METRICS
from fye_bench.metrics.truth import cases

FULL = "full"
# what anyone would try first, by name: solvers with as many steps as evaluations
CONTROLS = {"DDIM, fewer steps": "ddim", "DPM-Solver++ 2M": "dpm", "UniPC 2": "unipc"}
MOST_WORSE, MOST_WORSE_SUBSET, LEAST_DISTANCE = 0.01, 0.03, 35.0


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One clip, made in one way.

    Attributes:
        case: its number.
        seed: of the noise.
        way: its name; `FULL` is the full run's.
        evaluations: of the network.
        seconds: the denoising loop took.
        full_seconds: the full run's took, in the same run of the benchmark.
        distance: to the frames of the full run, decibels.
        scores: against the truth.
    """

    case: int
    seed: int
    way: str
    evaluations: int
    seconds: float
    full_seconds: float
    distance: float
    scores: Scores

    @property
    def key(self) -> tuple[int, int, str]:
        """What tells it from the others."""
        return self.case, self.seed, self.way

    def line(self) -> str:
        """For the log."""
        scores = self.scores
        fields: dict[str, Any] = {name: getattr(self, name) for name in ("case", "seed", "way", "evaluations")}
        fields |= {"seconds": round(self.seconds, 4), "full_seconds": round(self.full_seconds, 4)}
        fields["distance"] = round(self.distance, 3)
        fields["numbers"] = {name: value if math.isfinite(value) else None for name, value in scores.numbers.items()}
        fields |= {"truth": scores.truth.round(5).tolist(), "read": scores.read.round(5).tolist()}
        return json.dumps(fields | {"seen": scores.seen.astype(int).tolist()}) + "\n"

    @classmethod
    def parse(cls, line: str) -> "Measured":
        """The inverse of `line`."""
        fields = json.loads(line)
        scores = Scores(
            {name: math.nan if value is None else value for name, value in fields.pop("numbers").items()},
            np.array(fields.pop("truth")),
            np.array(fields.pop("read")),
            np.array(fields.pop("seen"), np.bool_),
        )
        return cls(**fields, scores=scores)


def summarise(found: Iterable[Measured]) -> dict[str, Any]:
    """Each way against the full runs of the same cases and seeds."""
    by_way: dict[str, list[Measured]] = {}
    for one in found:
        by_way.setdefault(one.way, []).append(one)
    full = {one.key[:2]: one for one in by_way.pop(FULL, [])}
    summary: dict[str, Any] = {}
    for name, ones in by_way.items():
        method, _, budget = name.partition(" @ ")
        ones = sorted(ones, key=lambda one: one.key)
        pairs = [(one, full[one.key[:2]]) for one in ones]
        summary.setdefault(method, []).append({"budget": float(budget)} | _compared(pairs))
    return {method: sorted(rows, key=lambda row: row["evaluations"]) for method, rows in summary.items()}


def _compared(pairs: Sequence[tuple[Measured, Measured]]) -> dict[str, Any]:
    changed = _change(pairs)
    worst = max(((_worse(name, one, "high"), name) for name, one in changed.items()), default=(0.0, ""))
    subsets = []
    numbers = sorted({one.case for one, _ in pairs})
    for key in ("family", "kind"):
        for value in sorted({getattr(case, key) for case in cases(max(numbers) + 1) if case.number in numbers}):
            if key == "kind" and value != "exaggerated":
                continue
            chosen = {case.number for case in cases(max(numbers) + 1) if getattr(case, key) == value}
            for name, one in _change([pair for pair in pairs if pair[0].case in chosen]).items():
                subsets.append((_worse(name, one, "mean"), f"{name}, {value}"))
    distance = _distance(pairs)
    lossless = worst[0] <= MOST_WORSE and max(subsets)[0] <= MOST_WORSE_SUBSET
    return {
        "evaluations": float(np.mean([one.evaluations for one, _ in pairs])),
        "clips": len(pairs),
        "speedup": float(np.median([one.full_seconds / one.seconds for one, _ in pairs])),
        "distance": distance,
        "change": changed,
        "worst": {"metric": worst[1], "relative": worst[0]},
        "worst_subset": {"metric": max(subsets)[1], "relative": max(subsets)[0]},
        "lossless": bool(lossless and distance["mean"] >= LEAST_DISTANCE),
    }


def _distance(pairs: Sequence[tuple[Measured, Measured]]) -> Estimate:
    by_case: dict[int, list[float]] = {}
    for one, _ in pairs:
        by_case.setdefault(one.case, []).append(one.distance)
    return mean([float(np.mean(values)) for values in by_case.values()])


def _change(pairs: Sequence[tuple[Measured, Measured]]) -> dict[str, Any]:
    """Of every metric; a case's seeds are no cases of their own."""
    by_case: dict[int, list[tuple[Measured, Measured]]] = {}
    for pair in pairs:
        by_case.setdefault(pair[0].case, []).append(pair)
    merged = [tuple(_merged(column) for column in zip(*of_case, strict=True)) for of_case in by_case.values()]
    return change(*zip(*merged, strict=True))


def _merged(ones: Sequence[Measured]) -> Scores:
    scores = [one.scores for one in ones]
    numbers = {name: float(np.mean([score.numbers[name] for score in scores])) for name in scores[0].numbers}
    arrays = (np.concatenate([getattr(score, name) for score in scores]) for name in ("truth", "read", "seen"))
    return Scores(numbers, *arrays)


def _worse(metric: str, estimate: Mapping[str, Any], bound: str) -> float:
    """By what share of the full run's value a metric is worse: on average, or at the worse end of its interval."""
    if estimate["mean"] is None or not estimate["of"]:
        return 0.0
    if METRICS[metric].better == "more":
        return float(-estimate["low" if bound == "high" else bound] / abs(estimate["of"]))
    return float(estimate[bound] / abs(estimate["of"]))


def table(methods: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Lines of text."""
    yield f"{'method':<20}{'evaluations':>12}{'speed':>8}{'to full run':>13}{'worst metric':>34}  lossless"
    for method, rows in methods.items():
        for row in rows:
            worst = f"{row['worst']['metric']} {100 * row['worst']['relative']:+.1f} %"
            yield (
                f"{method:<20}{row['evaluations']:>12.1f}{row['speedup']:>7.2f}x{row['distance']['mean']:>10.1f} dB"
                f"{worst:>34}  {'yes' if row['lossless'] else 'no'}"
            )
