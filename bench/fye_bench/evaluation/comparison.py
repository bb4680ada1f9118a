"""Show comparisons of two or more runs, as pages and as lines of text."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fye_bench.evaluation import pictures, plots
from fye_bench.evaluation.rendering import memory, seconds, write_page
from fye_bench.evaluation.report import parts, sections, tables
from fye_bench.evaluation.saved import SavedRun
from fye_bench.metrics.statistics import Estimate
from fye_bench.metrics.table import METRICS, Metric
from fye_bench.studies.lossless import MOST_WORSE

SPAN = 0.05  # relative change at the ends of the scale, unless twice the largest mean is more
SHOWN = 4  # metrics of a pair in text
NOTABLE = ("better", "worse")


def write_comparison(found: Mapping[str, Any], a: SavedRun, b: SavedRun, out: Path) -> None:
    """Write a comparison by `compare` as a page: one file that needs no network and no script.

    Raises:
        InputError: a clip or a sheet is damaged.
        OutputError: the page could not be written.
    """
    named = {pair.name: pair for pair in a.pairs}
    overall = found["change"]["all"]
    known = {name: row for name, row in overall.items() if row["worse"]}
    span = max([SPAN, *(2 * abs(row["worse"]["mean"]) for row in known.values())])
    effects = {name: plots.interval(row["worse"], span, row["verdict"], MOST_WORSE) for name, row in known.items()}
    context = {
        "title": f"{a.text('suite', 'name')}: {found['b']['folder']} against {found['a']['folder']}",
        "found": found,
        "sections": sections(list(overall)),
        "tables": tables(list(overall)),
        "effects": effects,
        "span": span,
        "groups": parts(a, found["change"]),
        "strips": {row["pair"]: pictures.strip(a, b, named[row["pair"]]) for row in found["worst"]["pairs"]},
    }
    write_page(out, "comparison.html", context)


def write_overview(found: Mapping[str, Any], out: Path) -> None:
    """Write an overview by `overview` as a page: one file that needs no network and no script.

    Raises:
        OutputError: the page could not be written.
    """
    write_page(out, "overview.html", {"title": f"{found['suite']}: {len(found['rows'])} runs", "found": found})


def comparison_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a comparison as lines of text."""
    for name in ("a", "b"):
        yield f"{name.upper()}  {found[name]['folder']}: {found[name]['label']}"
    yield from _coverage(found["pairs"])
    distance, cost = found["distance"], found["cost"]
    if distance is not None:
        yield (
            f"distance of the frames: {distance['mean']:.1f} dB ({distance['low']:.1f} to {distance['high']:.1f}), "
            f"least {distance['least']:.1f} dB in {distance['pair']}"
        )
    yield f"{'':<26}{'A':>12}{'B':>12}"
    for label, name, text in (
        ("evaluations per clip", "evaluations", _number),
        ("seconds per clip", "seconds", seconds),
        ("peak memory", "peak_memory_bytes", memory),
    ):
        yield f"  {label:<24}" + "".join(f"{text(cost[run][name]):>12}" for run in ("a", "b"))
    if cost["speedup"] is not None:
        elsewhere = "" if cost["same_machine"] else ", on different machines"
        yield f"  B is {cost['speedup']:.2f} times as fast as A{elsewhere}"
    yield f"{'metric':<30}{'A':>10}{'B':>10}  {'B - A, 95 % interval':<32}{'relative':>10}  verdict"
    for name, row in found["change"]["all"].items():
        yield f"  {METRICS[name].title:<28}{_row(name, row)}"
    for name, both in found["of_sets"].items():
        values = "".join(f"{METRICS[name].text(both[run]['mean']):>10}" for run in ("a", "b"))
        yield f"  {METRICS[name].title:<28}{values}  of all clips together"
    notable = [
        (group, name, row)
        for group, rows in found["change"].items()
        for name, row in rows.items()
        if row["verdict"] in NOTABLE and row["verdict"] != found["change"]["all"][name]["verdict"]
    ]
    if notable:
        yield "seen in a family or kind, and not over all"
        for group, name, row in notable:
            yield f"  {f'{group}, {METRICS[name].label}':<28}{_row(name, row)}"
    yield found["acceptance"]["text"]
    yield f"pairs that suffer most, by {found['worst']['by']}"
    for row in found["worst"]["pairs"]:
        values = ", ".join(
            f"{METRICS[name].label} {METRICS[name].text(value['a'])} to {METRICS[name].text(value['b'])}"
            for name, value in list(row["metrics"].items())[:SHOWN]
        )
        yield f"  {row['pair']:<40} {row['score']:+.3g}  {values}"


def overview_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield an overview as lines of text."""
    width = max(len(row["label"]) for row in found["rows"]) + 2
    titles = "".join(f"{METRICS[name].title:>32}" for name in found["metrics"])
    yield f"{'run':<{width}}{'evaluations':>12}{'speed':>8}{'memory':>10}{titles}  in the first one's place"
    for row in found["rows"]:
        cost, judged = row["cost"], row["acceptance"]
        speed = "-" if row["speedup"] is None else f"{row['speedup']:.2f}x"
        cells = "".join(f"{_cell(name, row, first=judged is None):>32}" for name in found["metrics"])
        text = "" if judged is None else "accepted" if judged["accepted"] else judged["text"]
        spent = f"{_number(cost['evaluations']):>12}{speed:>8}{memory(cost['peak_memory_bytes']):>10}"
        yield f"{row['label']:<{width}}{spent}{cells}  {text}".rstrip()
    yield found["use"]


def _coverage(pairs: Mapping[str, Any]) -> Iterator[str]:
    yield f"{pairs['compared']} pairs compared"
    for name in ("a", "b"):
        if only := pairs[f"only_{name}"]:
            yield f"  {len(only)} only in {name.upper()}: {', '.join(only)}"
        for pair, error in pairs[f"failed_{name}"].items():
            yield f"  failed in {name.upper()}: {pair}: {error}"


def _row(name: str, row: Mapping[str, Any]) -> str:
    metric, change = METRICS[name], row["change"]
    share = f"{100 * change['mean'] / abs(row['a']):+.2f} %" if row["a"] else ""
    means = "".join(f"{metric.text(row[run]):>10}" for run in ("a", "b"))
    return f"{means}  {_interval(metric, change):<32}{share:>10}  {row['verdict']}"


def _cell(name: str, row: Mapping[str, Any], *, first: bool) -> str:
    metric = METRICS[name]
    if first or name not in row["change"]:
        return metric.text(row["summary"].get(name, {}).get("mean"))
    return _interval(metric, row["change"][name]["change"])


def _interval(metric: Metric, change: Estimate) -> str:
    low, middle, high = (metric.text(change[end], "+", 1) for end in ("low", "mean", "high"))
    return f"{middle} ({low} to {high})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
