"""Runs of `fye eval`, read from their folders. What they hold is checked: folders come from strangers."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fye_bench.metrics.statistics import Estimate, groups
from fye_bench.metrics.table import METRICS
from fye_rt.errors import InputError
from fye_rt.media.checks import Limits, check_file

RESULTS, PERFORMANCE, REPORT = "results.json", "performance.json", "report.html"
FORMAT, VERSION = "fye-eval", 1
MAX_TEXT = 300  # characters of a line that is shown
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # names become file names
TRUTHS = ("driving", "drawn", "none")
_LIMITS = Limits(max_file=256 * 1024**2)
_OWN_WORK = ("measure",)  # a stage that is no part of making a clip


@dataclass(frozen=True, slots=True, eq=False)
class SavedPair:
    """One pair of a run.

    Attributes:
        name: it is also a file name.
        portrait: its name.
        motion: its name.
        family: of the portrait.
        kind: of the motion.
        mode: "self" or "cross".
        truth: one of TRUTHS.
        frames: that were made; None where none were.
        evaluations: of the denoising network; NaN where unknown.
        metrics: finite values by name, of those that this version knows.
        error: why the pair failed, one line, or None.
        seconds: that making it took; NaN where unknown.
        memory: bytes, the largest resident size; NaN where unknown.
    """

    name: str
    portrait: str
    motion: str
    family: str
    kind: str
    mode: str
    truth: str
    frames: int | None
    evaluations: float
    metrics: Mapping[str, float]
    error: str | None
    seconds: float
    memory: float


@dataclass(frozen=True, slots=True, eq=False)
class SavedRun:
    """A run from its folder.

    Attributes:
        folder: where it is.
        about: what was run, as results.json has it.
        pairs: all, in its order.
        summary: by group and metric, with intervals.
        environment: the machine, as performance.json has it; empty without one.
        left_out: names of metrics that this version doesn't know.
    """

    folder: Path
    about: Mapping[str, Any]
    pairs: tuple[SavedPair, ...]
    summary: Mapping[str, Mapping[str, Estimate]]
    environment: Mapping[str, Any]
    left_out: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path) -> "SavedRun":
        """Read a run.

        Raises:
            InputError: it is no run, of another version, or damaged.
        """
        path = folder / RESULTS
        if not path.is_file():
            raise InputError(f"{folder} is not a run: it has no {RESULTS}; make one with fye eval")
        found = _json(path)
        if found.get("format") != FORMAT or found.get("version") != VERSION:
            stated = f"{line(found.get('format'))} {line(found.get('version'))}"
            raise InputError(f"{path} has format {stated}, not {FORMAT} {VERSION}; make the run again")
        # timings are beside the point of a run: it can be read without them
        performance = _json(folder / PERFORMANCE) if (folder / PERFORMANCE).is_file() else {}
        try:
            costs = dict(performance.get("pairs", {}))
            pairs = tuple(_pair(fields, costs.get(fields["pair"], {})) for fields in found["pairs"])
            summary = {line(group): _estimates(rows) for group, rows in found["summary"].items()}
            about, environment = dict(found["run"]), dict(performance.get("environment", {}))
            measured = {line(name) for fields in found["pairs"] for name in fields["metrics"]}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {line(error)}"
            raise InputError(f"{path} is damaged ({what}); make the run again") from error
        if not pairs or len({pair.name for pair in pairs}) < len(pairs):
            raise InputError(f"{path} has no pairs, or two of one name; make the run again")
        return cls(folder, about, pairs, summary, environment, tuple(sorted(measured - METRICS.keys())))

    @property
    def made(self) -> tuple[SavedPair, ...]:
        """Pairs that did not fail."""
        return tuple(pair for pair in self.pairs if pair.error is None)

    @property
    def failed(self) -> tuple[SavedPair, ...]:
        """Pairs that did."""
        return tuple(pair for pair in self.pairs if pair.error is not None)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what was measured of any pair or of all, in the table's order."""
        found = {name for pair in self.made for name in pair.metrics} | self.summary.get("all", {}).keys()
        return tuple(name for name in METRICS if name in found)

    @property
    def label(self) -> str:
        """Backend, precision, forecast and bundle: what tells runs apart at a glance."""
        forecast = line(self.option("forecast", "method"))
        parts = (self.about.get("backend"), self.option("compute"), forecast, self.named("bundle"))
        return ", ".join("no forecast" if part == "off" else line(part) for part in parts)

    def named(self, what: str) -> str:
        """The name of the run's "bundle" or "suite"."""
        return line(self.at(what, "name"))

    def digest(self, what: str) -> str:
        """That of the run's "bundle" or "suite"."""
        return line(self.at(what, "digest"))

    def at(self, *path: str) -> Any:
        """What `about` has at a path of names, or None."""
        return _entry(self.about, *path)

    def option(self, *path: str) -> Any:
        """One of the options by its path, or None."""
        return self.at("options", *path)

    def clip(self, pair: str) -> Path:
        """Where the frames of a pair are kept, if they are."""
        return self.folder / "clips" / f"{pair}.mkv"

    def sheet(self, pair: str) -> Path:
        """Where the picture of a pair is, if there is one."""
        return self.folder / "sheets" / f"{pair}.jpg"


def grouped(pairs: Sequence[SavedPair]) -> dict[str, list[SavedPair]]:
    """Pairs by the groups that are reported together: all, each family, each kind."""
    labels = [{"family": pair.family, "kind": pair.kind} for pair in pairs]
    return {group: [pairs[i] for i in chosen] for group, chosen in groups(labels).items()}


def line(value: object) -> str:
    """Something from a file as one line of printable text, shortened; "-" for nothing."""
    text = "-" if value is None else str(value)
    shown = "".join(c if c.isprintable() else " " for c in text[: MAX_TEXT + 1]).strip()
    return shown if len(shown) <= MAX_TEXT else f"{shown[: MAX_TEXT - 1]}…"


def _pair(fields: Mapping[str, Any], cost: Mapping[str, Any]) -> SavedPair:
    name, error = fields["pair"], fields["error"]
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"a pair's name is {name!r}")
    if fields["truth"] not in TRUTHS:
        raise ValueError(f"truth of {name} is {fields['truth']!r}")
    stages = {stage: _number(value) for stage, value in dict(cost.get("seconds", {})).items()}
    seconds = [value for stage, value in stages.items() if stage not in _OWN_WORK]
    known = {metric: _number(value) for metric, value in dict(fields["metrics"]).items() if metric in METRICS}
    return SavedPair(
        name=name,
        **{key: line(fields[key]) for key in ("portrait", "motion", "family", "kind", "mode")},
        truth=fields["truth"],
        frames=None if fields["frames"] is None else int(fields["frames"]),
        evaluations=_number(fields["evaluations"]),
        metrics={metric: value for metric, value in known.items() if math.isfinite(value)},
        error=None if error is None else line(error),
        seconds=sum(seconds) if seconds else math.nan,
        memory=_number(cost.get("peak_memory_bytes")),
    )


def _estimates(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Estimate]:
    found = {}
    for name, row in rows.items():
        values = {bound: _number(row[bound]) for bound in ("mean", "low", "high")}
        if name in METRICS and math.isfinite(values["mean"]):
            found[name] = values | {"n": int(row["n"])}
    return found


def _number(value: object) -> float:
    """A number of JSON; NaN for null."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{line(value)!r} is not a number")
    return float(value)


def _entry(found: Any, *path: str) -> Any:
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(check_file(path, _LIMITS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not JSON ({line(error)}); make the run again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no run; make it again")
    return found
