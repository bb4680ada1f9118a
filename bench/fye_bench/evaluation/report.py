"""Write the page of one run."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from fye_bench.evaluation import pictures, plots
from fye_bench.evaluation.cost import cost_of
from fye_bench.evaluation.ranking import EXPLANATION, combined, standings, worst_first
from fye_bench.evaluation.rendering import TIMES, memory, write_page
from fye_bench.evaluation.saved import REPORT, SavedPair, SavedRun, grouped, line
from fye_bench.metrics.table import HEADLINES, METRICS, SECTIONS

WORST = 12
SHOWN = 6  # worst metrics beside each of the worst pairs
TYPICAL = 12  # pairs at most, and two of each family at most
COLUMNS = 8  # metrics of a table, unless one section has more
_VERSIONS = ("fye_rt", "python")
_PACKAGES = ("numpy", "onnxruntime", "openvino", "torch")


def write_report(run: Path) -> Path:
    """Write a run's report.html: one file that needs no network and no script, the same bytes for the same run.

    Args:
        run: folder of the run.

    Returns:
        The page's path.

    Raises:
        InputError: the folder is no run, or a picture in it is damaged.
        OutputError: the page could not be written.
    """
    saved = SavedRun.load(run)
    write_page(run / REPORT, "report.html", context(saved))
    return run / REPORT


def context(run: SavedRun) -> dict[str, Any]:
    """Return the values of the page's template."""
    badness = _badness(run.succeeded)
    standing = standings(badness)
    costs = {group: cost_of(pairs) for group, pairs in grouped(run.pairs).items()}
    named = {pair.name: pair for pair in run.pairs}
    medians = {name: median(values) for name in run.metrics if (values := _values(run.succeeded, name))}
    return {
        "title": f"{run.text('suite', 'name')}: {run.label}",
        "run": run,
        "facts": facts(run),
        "headlines": headlines(run),
        "cost": costs["all"],
        "tables": tables(run.metrics),
        "single": list(medians),
        "groups": parts(run, costs),
        "group_costs": costs,
        "counts": {group: len(pairs) for group, pairs in grouped(run.succeeded).items()},
        "plots": _plots(run),
        "worst": [_card(run, named[name], standing[name], score) for name, score in worst_first(badness)[:WORST]],
        "median": medians,
        "typical": [(pair, pictures.sheet(run, pair)) for pair in typical(run.succeeded)],
        "explanation": EXPLANATION,
    }


def headlines(run: SavedRun) -> list[str]:
    """Return names of the few metrics that a page opens with."""
    overall = run.summary.get("all", {})
    first = (next((name for name in row if name in overall), None) for row in HEADLINES)
    return [name for name in first if name is not None]


def sections(metrics: Sequence[str]) -> dict[str, list[str]]:
    """Sort metrics into their sections, without empty ones."""
    by_section = {section: [name for name in metrics if METRICS[name].section == section] for section in SECTIONS}
    return {section: names for section, names in by_section.items() if names}


def tables(metrics: Sequence[str]) -> list[dict[str, list[str]]]:
    """Combine sections into tables that are not too wide."""
    combined_sections: list[dict[str, list[str]]] = []
    for section, names in sections(metrics).items():
        if not combined_sections or sum(map(len, combined_sections[-1].values())) + len(names) > COLUMNS:
            combined_sections.append({})
        combined_sections[-1][section] = names
    return combined_sections


def facts(run: SavedRun) -> list[tuple[str, list[tuple[str, str]]]]:
    """List what was run, how and where: terms and their values by heading."""
    options, machine = run.at("options") or {}, run.environment
    forecast = ", ".join(
        line(value) if name == "method" else f"{line(name)} {line(value)}"
        for name, value in (run.at("options", "forecast") or {}).items()
    )
    size = run.at("size")
    inputs = [
        ("suite", run.text("suite", "name")),
        ("suite digest", run.text("suite", "digest")[:16]),
        ("pairs", f"{len(run.pairs)}, {len(run.failed)} failed"),
        ("frames", "as the motion has" if run.at("frames") is None else run.text("frames")),
        ("size", "the bundle's" if not size else f" {TIMES} ".join(line(side) for side in size)),
        ("bundle", run.text("bundle", "name")),
        ("bundle digest", run.text("bundle", "digest")[:16]),
        ("stored in", run.text("bundle", "precision")),
    ]
    settings = [("backend", run.text("backend")), ("forecast", forecast or "-")]
    settings += [(line(name).replace("_", " "), line(value)) for name, value in options.items() if name != "forecast"]
    return [("What", inputs), ("How", settings), ("Where", _machine(machine))]


def parts(run: SavedRun, groups: Collection[str]) -> list[tuple[str, list[str]]]:
    """Sort groups under the headings of a table, in the run's order."""
    families, kinds = (
        [group for group in dict.fromkeys(names) if group in groups]
        for names in ([pair.family for pair in run.pairs], [pair.kind for pair in run.pairs])
    )
    return [("", ["all"]), ("Families", families), ("Kinds of motion", kinds)]


def typical(pairs: Sequence[SavedPair]) -> list[SavedPair]:
    """Choose the one or two median pairs of each family, by all metrics together."""
    rank = {name: combined(row) for name, row in standings(_badness(pairs)).items()}
    families: dict[str, list[SavedPair]] = {}
    for pair in sorted(pairs, key=lambda pair: (rank[pair.name], pair.name)):
        if math.isfinite(rank[pair.name]):
            families.setdefault(pair.family, []).append(pair)
    each = 2 if 2 * len(families) <= TYPICAL else 1
    chosen = []
    for family in sorted(families):
        ranked = families[family]
        first = max(0, (len(ranked) - each) // 2)
        chosen += ranked[first : first + each]
    return chosen[:TYPICAL]


def _machine(environment: Any) -> list[tuple[str, str]]:
    if not environment:
        return [("machine", "not kept: the run has no performance.json")]
    cpu, packages = environment.get("cpu") or {}, environment.get("packages") or {}
    versions = [f"{name} {line(environment[name])}" for name in _VERSIONS if environment.get(name)]
    versions += [f"{name} {line(packages[name])}" for name in _PACKAGES if packages.get(name)]
    bytes_ = environment.get("memory_bytes")
    rows = [
        ("processor", line(cpu.get("model"))),
        ("cores", f"{line(cpu.get('cores'))}, {line(environment.get('threads'))} used"),
        ("memory", memory(bytes_ if isinstance(bytes_, int) else None)),
        ("gpu", line(environment["gpu"]) if environment.get("gpu") else ""),
        ("system", line(environment.get("platform"))),
        ("versions", ", ".join(versions)),
        ("commit", line(environment.get("commit"))),
        ("date", line(environment.get("date"))),
    ]
    return [(term, value) for term, value in rows if value not in ("", "-")]


def _plots(run: SavedRun) -> list[tuple[str, Any]]:
    by_group = grouped(run.succeeded).items()
    families = {family: pairs for family, pairs in by_group if any(pair.family == family for pair in pairs)}
    shown = []
    for name in headlines(run):
        rows = {
            family: (_values(pairs, name), run.summary[family][name])
            for family, pairs in families.items()
            if name in run.summary.get(family, {})
        }
        if plot := plots.distribution(METRICS[name], rows):
            shown.append((name, plot))
    return shown


def _card(run: SavedRun, pair: SavedPair, standing: dict[str, float], score: float) -> dict[str, Any]:
    names = sorted(standing, key=lambda name: (-standing[name], name))[:SHOWN]
    return {"pair": pair, "score": score, "standing": standing, "metrics": names, "sheet": pictures.sheet(run, pair)}


def _badness(pairs: Sequence[SavedPair]) -> dict[str, dict[str, float]]:
    return {pair.name: {name: METRICS[name].badness(value) for name, value in pair.metrics.items()} for pair in pairs}


def _values(pairs: Sequence[SavedPair], metric: str) -> list[float]:
    return [pair.metrics[metric] for pair in pairs if metric in pair.metrics]
