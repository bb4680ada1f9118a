"""Cost in quality of fewer network evaluations, against the full run, which evaluates every step.

*Lossless* means: no metric against the truth is more than 1 % worse than the full run's (95 % paired interval over
cases), nor more than 3 % worse on average in any family or in exaggerated expressions, and the frames have a PSNR of at
least 35 dB to the full run's.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fye_bench.metrics.judge import Scores, change
from fye_bench.metrics.statistics import mean
from fye_bench.metrics.table import METRICS
from fye_bench.metrics.truth import cases

FULL = "full"
# the obvious alternatives: solvers with as many steps as evaluations
CONTROLS = {"DDIM, fewer steps": "ddim", "DPM-Solver++ 2M": "dpm", "UniPC 2": "unipc"}
MOST_WORSE, MOST_WORSE_SUBSET, LEAST_DISTANCE = 0.01, 0.03, 35.0


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Measurements of one clip, made in one way.

    Attributes:
        case: number of the case.
        seed: random seed of the initial noise.
        way: name of the way; `FULL` names the full run.
        evaluations: number of network evaluations.
        seconds: time of the denoising loop.
        full_seconds: time of the full run's loop, in the same run of the benchmark.
        distance: PSNR to the frames of the full run, decibels.
        scores: metrics against the truth.
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
        """Unique key of the measurement."""
        return self.case, self.seed, self.way

    def line(self) -> str:
        """Format the measurement as a line of the log."""
        scores = self.scores
        fields: dict[str, Any] = {name: getattr(self, name) for name in ("case", "seed", "way", "evaluations")}
        fields |= {"seconds": round(self.seconds, 4), "full_seconds": round(self.full_seconds, 4)}
        fields["distance"] = round(self.distance, 3)
        fields["numbers"] = {name: value if math.isfinite(value) else None for name, value in scores.numbers.items()}
        fields |= {"truth": scores.truth.round(5).tolist(), "read": scores.read.round(5).tolist()}
        return json.dumps(fields | {"seen": scores.seen.astype(int).tolist()}) + "\n"

    @classmethod
    def parse(cls, line: str) -> "Measured":
        """Parse a line of the log: the inverse of `line`."""
        fields = json.loads(line)
        scores = Scores(
            {name: math.nan if value is None else value for name, value in fields.pop("numbers").items()},
            np.array(fields.pop("truth")),
            np.array(fields.pop("read")),
            np.array(fields.pop("seen"), np.bool_),
        )
        return cls(**fields, scores=scores)


Pair = tuple[Measured, Measured]  # a way's clip, and the full run's


def summarise(found: Iterable[Measured]) -> dict[str, Any]:
    """Compare each way with the full runs of the same cases and seeds."""
    by_way: dict[str, list[Measured]] = {}
    for clip in found:
        by_way.setdefault(clip.way, []).append(clip)
    full = {clip.key[:2]: clip for clip in by_way.pop(FULL, [])}
    summary: dict[str, Any] = {}
    for name, clips in by_way.items():
        method, _, budget = name.partition(" @ ")
        by_case: dict[int, list[Pair]] = {}
        for clip in sorted(clips, key=lambda clip: clip.key):
            by_case.setdefault(clip.case, []).append((clip, full[clip.key[:2]]))
        summary.setdefault(method, []).append({"budget": float(budget)} | _compare(by_case))
    return {method: sorted(rows, key=lambda row: row["evaluations"]) for method, rows in summary.items()}


def _compare(by_case: Mapping[int, Sequence[Pair]]) -> dict[str, Any]:
    changes = _change(by_case.values())
    worst = max(((_worse(name, estimate, "high"), name) for name, estimate in changes.items()), default=(0.0, ""))
    subsets: dict[str, list[Sequence[Pair]]] = {}
    for case in cases(max(by_case) + 1):
        if case.number in by_case:
            subsets.setdefault(case.family, []).append(by_case[case.number])
            if case.kind == "exaggerated":
                subsets.setdefault(case.kind, []).append(by_case[case.number])
    worst_subset = max(
        (_worse(name, estimate, "mean"), f"{name}, {subset}")
        for subset, members in subsets.items()
        for name, estimate in _change(members).items()
    )
    clips = [clip for pairs in by_case.values() for clip, _ in pairs]
    distance = mean([float(np.mean([clip.distance for clip, _ in pairs])) for pairs in by_case.values()])
    lossless = worst[0] <= MOST_WORSE and worst_subset[0] <= MOST_WORSE_SUBSET
    return {
        "evaluations": float(np.mean([clip.evaluations for clip in clips])),
        "clips": len(clips),
        "speedup": float(np.median([clip.full_seconds / clip.seconds for clip in clips])),
        "distance": distance,
        "change": changes,
        "worst": {"metric": worst[1], "relative": worst[0]},
        "worst_subset": {"metric": worst_subset[1], "relative": worst_subset[0]},
        "lossless": bool(lossless and distance["mean"] >= LEAST_DISTANCE),
    }


def _change(by_case: Iterable[Sequence[Pair]]) -> dict[str, Any]:
    """Return the change of every metric; the seeds of a case are merged, for they are not independent cases."""
    merged = [tuple(_merge(column) for column in zip(*pairs, strict=True)) for pairs in by_case]
    return change(*zip(*merged, strict=True))


def _merge(clips: Sequence[Measured]) -> Scores:
    scores = [clip.scores for clip in clips]
    numbers = {name: float(np.mean([score.numbers[name] for score in scores])) for name in scores[0].numbers}
    arrays = (np.concatenate([getattr(score, name) for score in scores]) for name in ("truth", "read", "seen"))
    return Scores(numbers, *arrays)


def _worse(metric: str, estimate: Mapping[str, Any], bound: str) -> float:
    """Return by what share of the full run's value a metric is worse: on average, or at its interval's worse end."""
    if estimate["mean"] is None or not estimate["of"]:
        return 0.0
    if METRICS[metric].better == "more":
        return float(-estimate["low" if bound == "high" else bound] / abs(estimate["of"]))
    return float(estimate[bound] / abs(estimate["of"]))


def table(methods: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Yield the lines to print."""
    yield f"{'method':<20}{'evaluations':>12}{'speed':>8}{'to full run':>13}{'worst metric':>34}  lossless"
    for method, rows in methods.items():
        for row in rows:
            worst = f"{row['worst']['metric']} {100 * row['worst']['relative']:+.1f} %"
            yield (
                f"{method:<20}{row['evaluations']:>12.1f}{row['speedup']:>7.2f}x{row['distance']['mean']:>10.1f} dB"
                f"{worst:>34}  {'yes' if row['lossless'] else 'no'}"
            )
