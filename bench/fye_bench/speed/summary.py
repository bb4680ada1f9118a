"""Summaries of repeated measurements, and rows that are printed as they are measured."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fye_bench.environment import OtherLoad, environment
from fye_rt.cli import terminal

Summary = dict[str, float]


def summary(seconds: Sequence[float]) -> Summary:
    """Summarise repeated timings as {n, mean, p50, p95, p99}."""
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99))
    return {"n": len(seconds), "mean": float(np.mean(seconds)), "p50": float(p50), "p95": float(p95), "p99": float(p99)}


def ratio(baseline: Sequence[float], other: Sequence[float]) -> Summary:
    """Summarise how many times faster `other` is, round by round, as {n, median, min, max}.

    A disturbance that lasts longer than a round slows both and leaves their ratio.
    """
    ratios = np.divide(baseline, other)
    low, high = float(ratios.min()), float(ratios.max())
    return {"n": len(ratios), "median": float(np.median(ratios)), "min": low, "max": high}


def spread(speedup: Mapping[str, float]) -> str:
    """Format a `ratio` as its median and range."""
    return f"{speedup['median']:.2f} ({speedup['min']:.2f}-{speedup['max']:.2f})"


def measure_rows(
    name: str,
    rows: Iterable[dict[str, Any]],
    header: str,
    line: Callable[[Mapping[str, Any]], str],
    threads: int,
    workload: Mapping[str, Any],
) -> dict[str, Any]:
    """Print rows under a header while they are measured, and return the result of a benchmark.

    Args:
        name: key of the rows in the result.
        rows: measurements, which take place as they are iterated over.
        header: first line to print.
        line: formats a row.
        threads: threads of the measured code.
        workload: the measured workload.
    """
    facts, measured = environment(threads), []
    others = OtherLoad()
    terminal.say(header)
    for row in rows:
        measured.append(row)
        terminal.say(line(row))
    facts["other_processes_cores"] = others.cores()
    return {"environment": facts, "workload": workload, name: measured}
