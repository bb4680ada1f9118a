"""What a quality run found: numbers for machines, a table and a contact sheet for people."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fye_bench.metrics.expression import GROUPS
from fye_bench.metrics.images import psnr
from fye_bench.metrics.judge import Judge, Scores, change, summarise
from fye_bench.metrics.statistics import Estimate, groups, mean
from fye_bench.metrics.table import METRICS as MEASURES
from fye_bench.metrics.truth import Drawn, Image
from fye_bench.quality.run import Made, Saved
from fye_rt import media

# columns of the table: two anchors, the runtime, and the best that its VAE could do
VARIANTS = {"copied": "portrait copied", "made": "made", "ceiling": "VAE ceiling", "true": "true frames"}
# rows of the table
METRICS = {
    name: MEASURES[name]
    for name in (
        "l1",
        "psnr",
        "ssim",
        "face_psnr",
        "face_ssim",
        "lpips",
        "identity_error",
        "portrait_error",
        "identity_cosine",
        "flicker",
        "temporal_error",
        *(f"{group}_error" for group in GROUPS),
        *(f"{group}_correlation" for group in GROUPS),
    )
}
COLUMN = 27
OPTIONS = (
    "backend",
    "compute",
    "forecast",
    "guidance",
    "seed",
    "solver",
    "steps",
    "windows",
)  # that tell two runs apart
SHEET_FRAMES = 4  # of each case on the contact sheet


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A case, what was made of it, and its scores by variant."""

    drawn: Drawn
    made: Made
    scores: Mapping[str, Scores]


def describe(measured: Sequence[Measured]) -> dict[str, Any]:
    """Summaries by group and variant, and every case's numbers."""
    labels = [{"family": one.drawn.case.family, "kind": one.drawn.case.kind} for one in measured]
    return {
        "summary": {
            group: {variant: summarise([measured[i].scores[variant] for i in chosen]) for variant in VARIANTS}
            for group, chosen in groups(labels).items()
        },
        "cases": [_case(one) for one in measured],
    }


def compare(measured: Sequence[Measured], other: Saved, judge: Judge) -> dict[str, Any]:
    """Distance to another run's frames, decibels, and how every metric has changed since; both are measured anew."""
    frames = [other.frames[one.drawn.case.number] for one in measured]
    distances = [psnr(one.made.frames, clip) for one, clip in zip(measured, frames, strict=True)]
    theirs = [judge.compare(one.drawn, clip) for one, clip in zip(measured, frames, strict=True)]
    return {
        "model": other.workload["model"]["digest"],
        "workload": {name: other.workload.get(name) for name in OPTIONS},
        "distance": mean(distances),
        "distances": {str(one.drawn.case.number): value for one, value in zip(measured, distances, strict=True)},
        "change": change([one.scores["made"] for one in measured], theirs),
    }


def table(summary: Mapping[str, Mapping[str, Mapping[str, Estimate]]], shown: Sequence[str]) -> Iterator[str]:
    """The groups `shown` as lines of text: means with 95 % intervals over cases."""
    for group in shown:
        rows = summary[group]
        cases = rows["made"]["psnr"]["n"]
        yield f"{f'{group} ({cases})':<26}" + "".join(f"{label:<{COLUMN}}" for label in VARIANTS.values()).rstrip()
        for name, metric in METRICS.items():
            if name in rows["made"]:
                cells = "".join(f"{_cell(rows[variant][name], metric.decimals):<{COLUMN}}" for variant in VARIANTS)
                yield f"  {metric.title:<24}{cells}".rstrip()


def change_table(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines of text of `compare`."""
    worst = min(found["distances"].values())
    yield f"distance to the other run: {_cell(found['distance'], 1)} dB, least {worst:.1f} dB"
    yield f"  {'change since it':<24}{'mean':<32}relative"
    for name, metric in METRICS.items():
        estimate = found["change"].get(name)
        if estimate and estimate["mean"] is not None:
            relative = f"{100 * estimate['mean'] / abs(estimate['of']):+.2f} %" if estimate["of"] else ""
            yield f"  {metric.title:<24}{_cell(estimate, metric.decimals + 1, '+'):<32}{relative}".rstrip()


def sheet(measured: Sequence[Measured]) -> Image:
    """All cases, two beside each other: the portrait, and of some frames the landmarks, the truth and what was made."""
    pictures = [_strip(one) for one in measured]
    names = [str(one.drawn.case) for one in measured]
    rows = [pictures[i : i + 2] for i in range(0, len(pictures), 2)]
    labels = ["   |   ".join(names[i : i + 2]) for i in range(0, len(names), 2)]
    return media.contact_sheet(rows, [f"{label}      (portrait; landmarks, true, made)" for label in labels])


def _strip(one: Measured) -> Image:
    drawn = one.drawn
    chosen = np.linspace(0, len(drawn) - 1, min(SHEET_FRAMES, len(drawn))).round().astype(int)
    blank = np.zeros_like(drawn.portrait)
    columns = [np.concatenate((blank, drawn.portrait, blank))]
    columns += [np.concatenate((drawn.landmarks[i], drawn.frames[i], one.made.frames[i])) for i in chosen]
    return np.concatenate(columns, axis=1)


def _case(one: Measured) -> dict[str, Any]:
    case = one.drawn.case
    scores = {}
    for variant, score in one.scores.items():
        numbers = dict(score.numbers) | {f"{group}_correlation": score.correlation(group) for group in GROUPS}
        scores[variant] = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    return {
        "number": case.number,
        "family": case.family,
        "kind": case.kind,
        "identity_seed": case.identity_seed,
        "motion_seed": case.motion_seed,
        "network_evaluations": one.made.evaluations,
        "seconds": dict(one.made.seconds),
        "scores": scores,
    }


def _cell(estimate: Estimate, digits: int, sign: str = "") -> str:
    if estimate["mean"] is None:
        return "-"
    low, middle, high = (f"{estimate[name]:{sign}.{digits}f}" for name in ("low", "mean", "high"))
    return middle if low == high == middle else f"{middle} ({low} to {high})"
