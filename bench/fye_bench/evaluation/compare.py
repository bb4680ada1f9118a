"""Compare two runs of one suite, pair by pair, or several runs with the first of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from fye_bench.evaluation.acceptance import RULE, Both, by_group, difference, judge
from fye_bench.evaluation.clips import read_clip
from fye_bench.evaluation.cost import cost_of, same_machine, speedup
from fye_bench.evaluation.ranking import COMBINED, EXPLANATION, standings, worst_first
from fye_bench.evaluation.report import headlines
from fye_bench.evaluation.saved import SavedPair, SavedRun
from fye_bench.metrics.images import psnr
from fye_bench.metrics.statistics import mean
from fye_bench.metrics.table import METRICS
from fye_rt.errors import InputError, OptionError
from fye_rt.timings import Progress, counted, no_progress

WORST = 10
FORMAT, OVERVIEW_FORMAT, VERSION = "fye-eval-comparison", "fye-eval-overview", 1
# what must be the same in both runs
_SAME: Mapping[str, tuple[str, ...]] = {
    "suite": ("suite", "digest"),
    "number of frames": ("frames",),
    "size": ("size",),
    "seed": ("options", "seed"),
}


def compare(a: SavedRun, b: SavedRun, by: str = COMBINED, progress: Progress = no_progress) -> dict[str, Any]:
    """Compare run B with run A.

    Args:
        a: a run.
        b: a run of the same suite, frames, size, seed and measuring networks.
        by: `COMBINED` or the metric that ranks the worst pairs.
        progress: called with (stage, done, total) pairs whose frames are compared.

    Returns:
        For JSON: both runs, the pairs that were compared, every metric's change from A to B by group, the distance of
        the frames, the cost, whether B may replace A, and the worst pairs.

    Raises:
        InputError: the two cannot be compared, or a stored clip is damaged.
        OptionError: no pair has the metric `by`.
    """
    pairs = _shared(a, b)
    measured = _measured(pairs)
    if by != COMBINED and by not in measured:
        raise OptionError(f"by={by!r}: no pair has it in both runs; choose {COMBINED} or one of {', '.join(measured)}")
    by_pair = _distances(a, b, pairs, progress)
    return {
        "format": FORMAT,
        "version": VERSION,
        "a": _describe(a),
        "b": _describe(b),
        "pairs": _coverage(a, b, pairs),
        "change": {group: _changes(chosen) for group, chosen in by_group(pairs).items()},
        "of_sets": _of_sets(a, b),
        "distance": _distance(by_pair),
        "cost": {
            "a": cost_of([pair_a for pair_a, _ in pairs]),
            "b": cost_of([pair_b for _, pair_b in pairs]),
            "speedup": speedup(pairs),
            "same_machine": same_machine(a, b),
        },
        "acceptance": judge(pairs) | {"rule": RULE},
        "worst": {"by": by, "explanation": _explanation(by), "pairs": _worst(pairs, by, by_pair)},
    }


def overview(runs: Sequence[SavedRun]) -> dict[str, Any]:
    """Compare runs with the first of them.

    Args:
        runs: two or more runs.

    Returns:
        For JSON: a row for each run, the metrics that are shown, and a sentence that recommends a run.

    Raises:
        InputError: a run cannot be compared with the first.
    """
    first = runs[0]
    rows = [_row(first, run) for run in runs]
    labels = [row["label"] for row in rows]
    for row, label in zip(rows, labels, strict=True):
        if labels.count(label) > 1:
            row["label"] = f"{label} ({row['folder']})"
    alike = all(same_machine(first, run) for run in runs)
    metrics = [name for name in headlines(first) if name in rows[0]["change"]]
    return {
        "format": OVERVIEW_FORMAT,
        "version": VERSION,
        "suite": first.text("suite", "name"),
        "metrics": metrics,
        "rows": rows,
        "same_machine": alike,
        "rule": RULE,
        "use": _advice(rows, alike),
    }


def _shared(a: SavedRun, b: SavedRun) -> list[Both]:
    """List the pairs that succeeded in both runs, in A's order.

    Raises InputError if the runs differ in more than the making of their clips, or share no pair.
    """
    measuring = {name: ("metrics", name) for run in (a, b) for name in run.at("metrics") or {}}
    for condition, path in {**_SAME, **measuring}.items():
        if a.at(*path) != b.at(*path):
            values = f"{a.text(*path)} and {b.text(*path)}"
            raise InputError(f"{a.folder} and {b.folder} differ in {condition}: {values}; compare like with like")
    by_name = {pair.name: pair for pair in b.succeeded}
    pairs = [(pair, by_name[pair.name]) for pair in a.succeeded if pair.name in by_name]
    if not pairs:
        raise InputError(f"{a.folder} and {b.folder} share no pair that succeeded in both; there is nothing to compare")
    return pairs


def _changes(pairs: Sequence[Both]) -> dict[str, Any]:
    """Compute the `difference` of every metric that some pair has in both runs."""
    differences = {metric: difference(pairs, metric) for metric in _measured(pairs)}
    return {metric: row for metric, row in differences.items() if row["change"]["n"]}


def _describe(run: SavedRun) -> dict[str, Any]:
    return {
        "folder": run.folder.name,
        "label": run.label,
        "suite": run.text("suite", "name"),
        "bundle": run.text("bundle", "digest"),
        "options": run.at("options"),
    }


def _coverage(a: SavedRun, b: SavedRun, pairs: Sequence[Both]) -> dict[str, Any]:
    names_a, names_b = ({pair.name for pair in run.pairs} for run in (a, b))
    return {
        "compared": len(pairs),
        "only_a": sorted(names_a - names_b),
        "only_b": sorted(names_b - names_a),
        "failed_a": {pair.name: pair.error for pair in a.failed},
        "failed_b": {pair.name: pair.error for pair in b.failed},
    }


def _of_sets(a: SavedRun, b: SavedRun) -> dict[str, Any]:
    """Values of metrics of all pairs together, such as FVD, which no single pair has."""
    means_a, means_b = (run.summary.get("all", {}) for run in (a, b))
    single = {name for run in (a, b) for pair in run.succeeded for name in pair.metrics}
    both = means_a.keys() & means_b.keys() - single
    return {name: {"a": means_a[name], "b": means_b[name]} for name in METRICS if name in both}


def _distances(a: SavedRun, b: SavedRun, pairs: Sequence[Both], progress: Progress = no_progress) -> dict[str, float]:
    """Compute the PSNR in decibels between the frames of each pair whose clips both runs have stored."""
    distances = {}
    for pair, _ in counted(pairs, "compare", progress):
        clips = [run.clip(pair.name) for run in (a, b)]
        if all(clip.is_file() for clip in clips):
            distances[pair.name] = psnr(read_clip(clips[0]), read_clip(clips[1]))
    return distances


def _distance(by_pair: Mapping[str, float]) -> dict[str, Any] | None:
    """Mean and interval of distances in decibels, the least and its pair; None without clips."""
    if not by_pair:
        return None
    nearest = min(by_pair, key=lambda name: (by_pair[name], name))
    return mean(list(by_pair.values())) | {"least": by_pair[nearest], "pair": nearest}


def _worst(pairs: Sequence[Both], by: str, distances: Mapping[str, float]) -> list[dict[str, Any]]:
    worsening = {pair_a.name: _worsening(pair_a, pair_b) for pair_a, pair_b in pairs}
    standing = standings(worsening)
    by_name = {pair_a.name: (pair_a, pair_b) for pair_a, pair_b in pairs}
    rows = []
    for name, score in worst_first(worsening, by)[:WORST]:
        pair_a, pair_b = by_name[name]
        # the metric that has worsened most comes first
        metrics = sorted(worsening[name], key=lambda metric: (metric != by, -standing[name][metric], metric))
        rows.append(
            {
                "pair": name,
                "family": pair_a.family,
                "kind": pair_a.kind,
                "score": score,
                "distance": distances.get(name),
                "metrics": {metric: {"a": pair_a.metrics[metric], "b": pair_b.metrics[metric]} for metric in metrics},
            }
        )
    return rows


def _worsening(pair_a: SavedPair, pair_b: SavedPair) -> dict[str, float]:
    badness = {name: METRICS[name].badness for name in pair_a.metrics.keys() & pair_b.metrics.keys()}
    return {name: bad(pair_b.metrics[name]) - bad(pair_a.metrics[name]) for name, bad in badness.items()}


def _measured(pairs: Sequence[Both]) -> list[str]:
    return [name for name in METRICS if any(name in a.metrics and name in b.metrics for a, b in pairs)]


def _explanation(by: str) -> str:
    if by != COMBINED:
        return f"Ranked by how much worse {METRICS[by].title} is in B than in A."
    return f"Ranked by how much worse B is than A in all metrics together. {EXPLANATION}"


def _row(first: SavedRun, run: SavedRun) -> dict[str, Any]:
    """Compare a run with the first; the first row has nothing to be judged by."""
    pairs = _shared(first, run)
    return {
        **_describe(run),
        "compared": len(pairs),
        "failed": len(run.failed),
        "summary": dict(run.summary.get("all", {})),
        "change": _changes(pairs),
        "cost": cost_of(run.succeeded),
        "speedup": speedup(pairs),
        "distance": None if run is first else _distance(_distances(first, run, pairs)),
        "acceptance": None if run is first else judge(pairs),
    }


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
