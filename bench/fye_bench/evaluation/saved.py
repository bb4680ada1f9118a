"""Runs of `fye eval`, read from their folders. The files are checked, since folders come from strangers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, FailFast, Field, PrivateAttr

from fye_bench.json_input import Model, Strict, condition, parse, read_json
from fye_bench.metrics.statistics import Estimate, groups
from fye_bench.metrics.table import METRICS
from fye_bench.suites.manifest import Name
from fye_rt.errors import InputError, one_line

RESULTS, PERFORMANCE, REPORT = "results.json", "performance.json", "report.html"
FORMAT, VERSION = "fye-eval", 1
MAX_TEXT = 300  # characters of a line that is shown
MAX_BYTES = 256 * 1024**2
TRUTHS = ("driving", "drawn", "none")
_ITEMS = {"pairs": "pair", "metrics": "metric", "summary": "group", "seconds": "stage"}
_MEASURING = "measure"  # a stage that is no part of making a clip


def line(value: object) -> str:
    """Turn a value of a file into one line of printable text, shortened; None gives "-"."""
    text = "-" if value is None else str(value)
    printable = one_line(text[: MAX_TEXT + 1]).strip()
    return printable if len(printable) <= MAX_TEXT else f"{printable[: MAX_TEXT - 1]}…"


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name in METRICS and math.isfinite(value)}


Line = Annotated[str, AfterValidator(line)]
Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]


class _Object(Strict):
    """An object of a run's files, to which later versions may add fields."""

    model_config = ConfigDict(extra="ignore")


class _Cost(_Object):
    seconds: dict[str, Number] = Field(default_factory=dict)
    peak_memory_bytes: Number = math.nan


class SavedPair(_Object):
    """One pair of a run.

    Attributes:
        name: it is also a file name.
        portrait: name of the portrait.
        motion: name of the motion.
        family: of the portrait.
        kind: of the motion.
        mode: "self" or "cross".
        truth: one of TRUTHS.
        frames: number of frames in the clip, None without a clip.
        evaluations: network evaluations; NaN where unknown.
        metrics: finite values by name, of the metrics that this version knows.
        error: why the pair failed, one line, or None.
    """

    name: Name = Field(alias="pair")
    portrait: Line
    motion: Line
    family: Line
    kind: Line
    mode: Line
    truth: Annotated[str, condition(TRUTHS.__contains__, f"give one of {', '.join(TRUTHS)}")]
    frames: int | None
    evaluations: Number
    metrics: Annotated[dict[str, Number], AfterValidator(_finite)]
    error: Line | None
    _cost: _Cost = PrivateAttr(default_factory=_Cost)

    @property
    def seconds(self) -> float:
        """Time that making the clip took; NaN where unknown."""
        stages = [value for stage, value in self._cost.seconds.items() if stage != _MEASURING]
        return sum(stages) if stages else math.nan

    @property
    def memory(self) -> float:
        """Largest resident size in bytes; NaN where unknown."""
        return self._cost.peak_memory_bytes


class _Estimate(_Object):
    mean: Number
    low: Number
    high: Number
    n: int


class _Results(_Object):
    run: dict[str, Any]
    pairs: Annotated[list[SavedPair], FailFast()]
    summary: dict[Line, dict[str, _Estimate]]


class _Performance(_Object):
    environment: dict[str, Any] = Field(default_factory=dict)
    pairs: dict[str, _Cost] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class SavedRun:
    """A run from its folder.

    Attributes:
        folder: path of the folder.
        about: description of the run in results.json.
        pairs: all pairs, in the run's order.
        summary: by group and metric, with intervals.
        environment: description of the machine in performance.json; empty without that file.
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
        """Read a run. Its times may be missing.

        Raises:
            InputError: the folder is no run, or the run is damaged or of another version.
        """
        path = folder / RESULTS
        if not path.is_file():
            raise InputError(f"{folder} is not a run: it has no {RESULTS}; make one with fye eval")
        content = read_json(path, MAX_BYTES)
        stated = (content.get("format"), content.get("version")) if isinstance(content, dict) else (None, None)
        if stated != (FORMAT, VERSION):
            raise InputError(
                f"{path} has format {' '.join(map(line, stated))}, not {FORMAT} {VERSION}; make the run again"
            )
        results, times = _checked(_Results, content, path), folder / PERFORMANCE
        performance = _checked(_Performance, read_json(times, MAX_BYTES), times) if times.is_file() else _Performance()
        if len({pair.name for pair in results.pairs}) < max(1, len(results.pairs)):
            raise InputError(f"{path} has no pairs, or two of one name; make the run again")
        for pair in results.pairs:
            pair._cost = performance.pairs.get(pair.name, pair._cost)
        summary = {
            group: {name: row.model_dump() for name, row in rows.items() if name in METRICS and math.isfinite(row.mean)}
            for group, rows in results.summary.items()
        }
        measured = {line(name) for fields in content["pairs"] for name in fields["metrics"]}
        left_out = tuple(sorted(measured - METRICS.keys()))
        return cls(folder, results.run, tuple(results.pairs), summary, performance.environment, left_out)

    @property
    def succeeded(self) -> tuple[SavedPair, ...]:
        """The pairs that succeeded."""
        return tuple(pair for pair in self.pairs if pair.error is None)

    @property
    def failed(self) -> tuple[SavedPair, ...]:
        """The pairs that failed."""
        return tuple(pair for pair in self.pairs if pair.error is not None)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics of any pair or of all pairs together, in the table's order."""
        measured = {name for pair in self.succeeded for name in pair.metrics} | self.summary.get("all", {}).keys()
        return tuple(name for name in METRICS if name in measured)

    @property
    def label(self) -> str:
        """Backend, precision, forecast and bundle, which tell runs apart at a glance."""
        paths = (("backend",), ("options", "compute"), ("options", "forecast", "method"), ("bundle", "name"))
        parts = [self.text(*path) for path in paths]
        return ", ".join("no forecast" if part == "off" else part for part in parts)

    def at(self, *path: str) -> Any:
        """Return the value of `about` at a path of names, or None."""
        value: Any = self.about
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def text(self, *path: str) -> str:
        """Return the value of `about` at a path of names as one line of text."""
        return line(self.at(*path))

    def clip(self, pair: str) -> Path:
        """Return the path of a pair's frames, which may be missing."""
        return self.folder / "clips" / f"{pair}.mkv"

    def sheet(self, pair: str) -> Path:
        """Return the path of a pair's sheet, which may be missing."""
        return self.folder / "sheets" / f"{pair}.jpg"


def grouped(pairs: Sequence[SavedPair]) -> dict[str, list[SavedPair]]:
    """Sort pairs into the groups of a report: all, each family, each kind."""
    labels = [{"family": pair.family, "kind": pair.kind} for pair in pairs]
    return {group: [pairs[i] for i in chosen] for group, chosen in groups(labels).items()}


def _checked(model: type[Model], content: Any, path: Path) -> Model:
    try:
        return parse(model, content, _ITEMS)
    except InputError as error:
        raise InputError(f"{path} is damaged ({error}); make the run again") from error
