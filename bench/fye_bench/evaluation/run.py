"""An evaluation in its folder: what is finished stays finished, and the result doesn't show that it was cut short.

run.json            what is evaluated, with what; another run doesn't go on here
pairs/NAME.json     what was found of a pair, and what it cost
clips/, sheets/     see `evaluator`
results.json        all of it, without times: the same for the same run
performance.json    times, memory, the machine
"""

import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fye_bench.environment import environment
from fye_bench.evaluation.evaluator import CLIPS, SHEETS, Record, Task
from fye_bench.evaluation.saved import FORMAT, PERFORMANCE, RESULTS, VERSION
from fye_bench.metrics.expression import GROUPS
from fye_bench.metrics.fvd import frechet
from fye_bench.metrics.statistics import Estimate, correlation, groups, mean
from fye_bench.speed.summary import summary
from fye_bench.suites.drawn import DrawnTruth
from fye_bench.suites.suite import Pair, Suite
from fye_rt.batch.workers import Crew, Died, work
from fye_rt.errors import InputError, OutputError
from fye_rt.files import alone, write_json

HEADER, PAIRS = "run.json", "pairs"

Tell = Callable[[str, int, int, str], None]  # (stage, finished, all, detail)


@dataclass(frozen=True, slots=True)
class Folder:
    """Where a run is kept.

    Attributes:
        path: of the folder.
        header: what tells this run from others, as JSON holds it.
    """

    path: Path
    header: Mapping[str, Any]

    @contextmanager
    def open(self) -> Iterator[None]:
        """Make it, or see that it is of this very run; no other run writes there meanwhile.

        Raises:
            InputError: it is of another run.
            OutputError: it holds other things, another run writes there, or it cannot be written.
        """
        wanted, file = json.loads(json.dumps(self.header)), self.path / HEADER
        try:
            if self.path.is_dir() and any(self.path.iterdir()):
                if not file.is_file():
                    raise OutputError(f"{self.path} holds other files than a run's; choose a new folder with -o")
                if other := _differences(wanted, _json(file)):
                    raise InputError(
                        f"{self.path} has a run with another {', '.join(other)}; choose a new folder with -o, or "
                        "repeat that command to go on with it"
                    )
            for folder in (PAIRS, CLIPS, SHEETS):
                (self.path / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"cannot write {self.path}: {error.strerror}; choose another folder with -o") from error
        with alone(self.path / PAIRS):
            write_json(file, wanted)
            yield

    def finished(self, pair: Pair) -> Record | None:
        """The record of a pair that was evaluated."""
        record = _json(self.path / PAIRS / f"{pair.name}.json")
        clip = self.path / CLIPS / f"{pair.name}.mkv"
        return record if record and record.get("error") is None and clip.is_file() else None

    def keep(self, record: Record) -> None:
        """Write what was found of a pair."""
        write_json(self.path / PAIRS / f"{record['pair']}.json", record)


def evaluate(
    suite: Suite, folder: Folder, crew: Callable[[], Crew], threads: int, tell: Tell
) -> tuple[Sequence[Record], Sequence[Record]]:
    """Evaluate the pairs that are not evaluated yet, and write the results of all.

    Args:
        suite: its pairs are evaluated.
        folder: of the run, open.
        crew: whose workers evaluate `Task`s; called if there is anything to do.
        threads: of a worker; 0: one per core.
        tell: shows progress.

    Returns:
        The records of all pairs in the suite's order, and those of them that failed.

    Raises:
        FyeError: a worker could not be made, or a result not be written.
    """
    start = time.perf_counter()
    records: dict[str, Record] = {}
    for number, pair in enumerate(suite.pairs):
        tell("check", number, len(suite.pairs), "")
        if (there := folder.finished(pair)) is not None:
            records[pair.name] = there
    tell("check", len(suite.pairs), len(suite.pairs), "")
    todo = [Task(pair) for pair in suite.pairs if pair.name not in records]
    workers = 0
    if todo:
        made_by = crew()
        workers = made_by.size
        with closing(_work(made_by, todo, tell)) as made:
            for record in made:
                folder.keep(record)
                records[record["pair"]] = record
    ordered = [records[pair.name] for pair in suite.pairs]
    write_json(folder.path / RESULTS, results(suite, folder.header, ordered))
    cost = performance(ordered) | {"workers": workers, "evaluated_now": len(todo)}
    facts = {"environment": environment(threads), **cost, "seconds": time.perf_counter() - start}
    write_json(folder.path / PERFORMANCE, facts)
    return ordered, [record for record in ordered if record["error"] is not None]


def results(suite: Suite, header: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """What results.json holds: nothing that differs between two runs of the same.

    Args:
        suite: that was evaluated.
        header: of the run.
        records: of its pairs, in their order.
    """
    pairs = []
    for pair, record in zip(suite.pairs, records, strict=True):
        truth = "drawn" if isinstance(pair.truth, DrawnTruth) else pair.truth or "none"
        named = {"pair": pair.name, "portrait": pair.portrait.name, "motion": pair.motion.name}
        named |= {"family": pair.portrait.family, "kind": pair.motion.kind, "mode": pair.mode, "truth": truth}
        found = {name: record[name] for name in ("frames", "evaluations", "metrics", "error")}
        pairs.append(named | found)
    done = [i for i, record in enumerate(records) if record["error"] is None]
    chosen = groups([pairs[i] for i in done]) if done else {}
    return {
        "format": FORMAT,
        "version": VERSION,
        "run": {**header, "suite": {**header["suite"], "pairs": len(records)}},
        "pairs": pairs,
        "summary": {group: summarise([records[done[i]] for i in which]) for group, which in chosen.items()},
    }


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Means over clips with 95 % intervals; correlations over all their frames; FVD over all clips.

    Args:
        records: of pairs that did not fail.
    """
    names = dict.fromkeys(name for record in records for name in record["metrics"])
    found = {name: mean([_number(record["metrics"].get(name)) for record in records]) for name in names}
    expressions = [record["expression"] for record in records if "expression" in record]
    for group, columns in GROUPS.items() if expressions else ():
        truth, read = zip(*(_columns(one, columns) for one in expressions), strict=True)
        found[f"{group}_correlation"] = correlation(truth, read)
    features = [record["features"] for record in records if "features" in record]
    if len(features) > 1:
        made, true = (np.array([one[which] for one in features]) for which in ("made", "true"))
        value = frechet(made, true)
        found["fvd"] = {"mean": value, "low": value, "high": value, "n": len(features)}  # one number of all clips
    return {name: estimate for name, estimate in found.items() if estimate["n"]}


def performance(records: Iterable[Record]) -> dict[str, Any]:
    """What pairs cost, and what each stage costs a clip."""
    records = list(records)
    costs = {record["pair"]: record["cost"] for record in records if "cost" in record}
    stages: dict[str, list[float]] = {}
    for cost in costs.values():
        for stage, seconds in cost["seconds"].items():
            stages.setdefault(stage, []).append(seconds)
    return {"pairs": costs, "summary": {stage: summary(seconds) for stage, seconds in stages.items()}}


def _work(crew: Crew, todo: Sequence[Task], tell: Tell) -> Generator[Record]:
    tell("evaluate", 0, len(todo), "")
    for number, (task, result) in enumerate(work(crew, todo), 1):
        tell("evaluate", number, len(todo), task.pair.name)
        if isinstance(result, Died):
            result = {"frames": None, "evaluations": None, "metrics": {}, "error": result.reason}
            yield {"pair": task.pair.name, **result}
        else:
            yield result


def _columns(found: Mapping[str, Any], columns: slice) -> tuple[Any, Any]:
    seen = np.array(found["seen"], np.bool_)[:, columns]
    return np.array(found["truth"])[:, columns][seen], np.array(found["read"])[:, columns][seen]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _json(path: Path) -> dict[str, Any]:
    """What a file holds, or nothing if it is damaged or missing."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _differences(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    return [key for key in dict.fromkeys((*wanted, *there)) if wanted.get(key) != there.get(key)]
