"""Compare several runs of one suite with the first, and recommend one."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fye_bench.evaluation.acceptance import RULE, judge
from fye_bench.evaluation.compare import changes, check_alike, describe, distance, distances, shared
from fye_bench.evaluation.cost import Cost, same_machine, speedup
from fye_bench.evaluation.rendering import memory, write_page
from fye_bench.evaluation.report import headlines
from fye_bench.evaluation.saved import SavedRun
from fye_bench.metrics.table import METRICS

FORMAT, VERSION = "fye-eval-overview", 1


def overview(runs: Sequence[Path]) -> dict[str, Any]:
    """Compare runs with the first of them.

    Args:
        runs: folders of two or more runs.

    Returns:
        For JSON: a row for each run, the metrics that are shown, and a sentence that recommends a run.

    Raises:
        InputError: a folder is no run, or cannot be compared with the first.
    """
    first, *others = (SavedRun.load(folder) for folder in runs)
    rows = [_row(first, first, first_row=True), *(_row(first, run, first_row=False) for run in others)]
    _tell_apart(rows)
    alike = all(same_machine(first, run) for run in others)
    metrics = [name for name in headlines(first) if name in rows[0]["change"]]
    return {
        "format": FORMAT,
        "version": VERSION,
        "suite": first.named("suite"),
        "metrics": metrics,
        "rows": rows,
        "same_machine": alike,
        "rule": RULE,
        "use": _advice(rows, alike),
    }


def write_overview(runs: Sequence[Path], out: Path) -> None:
    """Write an `overview` as a page: one file that needs no network and no script.

    Raises:
        FyeError: see `overview`.
        OutputError: the page could not be written.
    """
    write_overview_of(overview(runs), out)


def write_overview_of(found: Mapping[str, Any], out: Path) -> None:
    """Write the page of an overview that exists; see `write_overview`."""
    write_page(out, "overview.html", {"title": f"{found['suite']}: {len(found['rows'])} runs", "found": found})


def _row(first: SavedRun, run: SavedRun, *, first_row: bool) -> dict[str, Any]:
    check_alike(first, run)
    pairs = shared(first, run)
    return {
        **describe(run),
        "compared": len(pairs),
        "failed": len(run.failed),
        "summary": dict(run.summary.get("all", {})),
        "change": changes(pairs),
        "cost": Cost.of(run.made).as_dict(),
        "speedup": speedup(pairs),
        "distance": None if first_row else distance(dict(distances(first, run, pairs))),
        "acceptance": None if first_row else judge(pairs),
    }


def _tell_apart(rows: Sequence[dict[str, Any]]) -> None:
    """Add the folder to labels that several runs share."""
    labels = [row["label"] for row in rows]
    for row, label in zip(rows, labels, strict=True):
        if labels.count(label) > 1:
            row["label"] = f"{label} ({row['folder']})"


def _advice(rows: Sequence[Mapping[str, Any]], alike: bool) -> str:
    first, *others = rows
    judged = [row for row in others if row["acceptance"]["accepted"] is not None]
    accepted = [row for row in judged if row["acceptance"]["accepted"]]
    timed = [row for row in accepted if row["speedup"] is not None]
    if not judged:
        return "No advice: " + others[0]["acceptance"]["text"] + "."
    if not accepted:
        return f"Use {first['label']}: no other run is accepted in its place."
    if not timed:
        return "No advice: the runs that are accepted in the first one's place have no times."
    best = max(timed, key=lambda row: row["speedup"])
    caution = "" if alike else " The runs were timed on different machines."
    if best["speedup"] <= 1:
        return f"Use {first['label']}: no run that is accepted in its place is faster.{caution}"
    more = f"{best['speedup']:.2f} times as fast as {first['label']}, and accepted in its place"
    return f"Use {best['label']}: {more}.{caution}"


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield an overview as lines of text."""
    width = max(len(row["label"]) for row in found["rows"]) + 2
    titles = "".join(f"{METRICS[name].title:>32}" for name in found["metrics"])
    yield f"{'run':<{width}}{'evaluations':>12}{'speed':>8}{'memory':>10}{titles}  in the first one's place"
    for row in found["rows"]:
        cost, judged = row["cost"], row["acceptance"]
        evaluations = "-" if cost["evaluations"] is None else f"{cost['evaluations']:.1f}"
        speed = "-" if row["speedup"] is None else f"{row['speedup']:.2f}x"
        cells = "".join(f"{_cell(name, row, first=judged is None):>32}" for name in found["metrics"])
        text = "" if judged is None else "accepted" if judged["accepted"] else judged["text"]
        spent = f"{evaluations:>12}{speed:>8}{memory(cost['peak_memory_bytes']):>10}"
        yield f"{row['label']:<{width}}{spent}{cells}  {text}".rstrip()
    yield found["use"]


def _cell(name: str, row: Mapping[str, Any], *, first: bool) -> str:
    metric = METRICS[name]
    if first or name not in row["change"]:
        return metric.text(row["summary"].get(name, {}).get("mean"))
    low, middle, high = (metric.text(row["change"][name]["change"][end], "+", 1) for end in ("low", "mean", "high"))
    return f"{middle} ({low} to {high})"
