"""Run an evaluation in a folder. An interrupted run continues there, and its results don't show the interruption.

run.json            the run's settings; only a run of the same settings may continue here
pairs/NAME.json     results and cost of a pair
clips/, sheets/     see `evaluator`
results.json        results of all pairs, without times: the same for the same run
performance.json    times, memory, the machine
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from fye_bench.environment import environment
from fye_bench.evaluation.evaluator import CLIPS, SHEETS, Task, unmeasured
from fye_bench.evaluation.saved import FORMAT, PERFORMANCE, RESULTS, VERSION
from fye_bench.metrics.expression import GROUPS
from fye_bench.metrics.fvd import frechet
from fye_bench.metrics.statistics import Estimate, correlation, groups, mean
from fye_bench.speed.summary import summary
from fye_bench.suites.suite import Pair, Suite
from fye_rt.batch.folder import Record, RunFolder
from fye_rt.batch.workers import Died, WorkerPool, work
from fye_rt.files import write_json
from fye_rt.timings import Progress, counted

PAIRS = "pairs"


class Folder(RunFolder):
    """The folder of an evaluation, which the same settings continue; see `RunFolder`.

    Args:
        path: path of the folder.
        header: settings that distinguish this run from others, for JSON.
    """

    option = " with -o"

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        super().__init__(path, PAIRS, (CLIPS, SHEETS), header)

    def finished(self, pair: Pair) -> Record | None:
        """Return the record of a pair that was evaluated, or None."""
        record = self.read(pair.name)
        clip = self.path / CLIPS / f"{pair.name}.mkv"
        return record if record and record.get("error") is None and clip.is_file() else None


def evaluate(
    suite: Suite, folder: Folder, open_pool: Callable[[], WorkerPool], threads: int, progress: Progress
) -> list[Record]:
    """Evaluate the remaining pairs, and write the results of all.

    Args:
        suite: the suite whose pairs are evaluated.
        folder: folder of the run, open.
        open_pool: returns workers that evaluate `Task`s; called only if a pair remains.
        threads: threads of a worker; 0: one per core.
        progress: called with (stage, done, total) pairs.

    Returns:
        The records of the pairs that failed, in the suite's order.

    Raises:
        FyeError: a worker could not be started, or a result could not be written.
    """
    start = time.perf_counter()
    records: dict[str, Record] = {}
    for pair in counted(suite.pairs, "check", progress):
        if (record := folder.finished(pair)) is not None:
            records[pair.name] = record
    todo = [Task(pair) for pair in suite.pairs if pair.name not in records]
    workers = 0
    if todo:
        pool = open_pool()
        workers = pool.size
        with closing(work(pool, todo, "evaluate", progress)) as new:
            for task, result in new:
                name = task.pair.name
                records[name] = unmeasured(name, result.reason) if isinstance(result, Died) else result
                folder.keep(name, records[name])
    ordered = [records[pair.name] for pair in suite.pairs]
    write_json(folder.path / RESULTS, _results(suite, folder.header, ordered))
    cost = _performance(ordered) | {"workers": workers, "evaluated_now": len(todo)}
    facts = {"environment": environment(threads), **cost, "seconds": time.perf_counter() - start}
    write_json(folder.path / PERFORMANCE, facts)
    return [record for record in ordered if record["error"] is not None]


def _results(suite: Suite, header: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """Return the content of results.json, which is equal for equal runs; `records` has the suite's order."""
    pairs = []
    for pair, record in zip(suite.pairs, records, strict=True):
        row = {"pair": pair.name, "portrait": pair.portrait.name, "motion": pair.motion.name}
        row |= {
            "family": pair.portrait.family,
            "kind": pair.motion.kind,
            "mode": pair.mode,
            "truth": pair.kind_of_truth,
        }
        pairs.append(row | {name: record[name] for name in ("frames", "evaluations", "metrics", "error")})
    done = [i for i, record in enumerate(records) if record["error"] is None]
    members = groups([pairs[i] for i in done]) if done else {}
    return {
        "format": FORMAT,
        "version": VERSION,
        "run": {**header, "suite": {**header["suite"], "pairs": len(records)}},
        "pairs": pairs,
        "summary": {group: summarise([records[done[i]] for i in numbers]) for group, numbers in members.items()},
    }


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Compute means over clips with 95 % intervals, correlations over all frames, and FVD over all clips.

    Args:
        records: records of pairs that did not fail.
    """
    names = dict.fromkeys(name for record in records for name in record["metrics"])
    estimates = {name: mean([_number(record["metrics"].get(name)) for record in records]) for name in names}
    expressions = [record["expression"] for record in records if "expression" in record]
    for group, columns in GROUPS.items() if expressions else ():
        truth, read = zip(*(_columns(expression, columns) for expression in expressions), strict=True)
        estimates[f"{group}_correlation"] = correlation(truth, read)
    features = [record["features"] for record in records if "features" in record]
    if len(features) > 1:
        generated, true = (np.array([feature[source] for feature in features]) for source in ("made", "true"))
        value = frechet(generated, true)
        # one number for all clips has no interval
        estimates["fvd"] = {"mean": value, "low": value, "high": value, "n": len(features)}
    return {name: estimate for name, estimate in estimates.items() if estimate["n"]}


def _performance(records: Sequence[Record]) -> dict[str, Any]:
    """Collect the cost of pairs, and sum up the stages over clips."""
    costs = {record["pair"]: record["cost"] for record in records if "cost" in record}
    stages: dict[str, list[float]] = {}
    for cost in costs.values():
        for stage, seconds in cost["seconds"].items():
            stages.setdefault(stage, []).append(seconds)
    return {"pairs": costs, "summary": {stage: summary(seconds) for stage, seconds in stages.items()}}


def _columns(expression: Mapping[str, Any], columns: slice) -> tuple[Any, Any]:
    seen = np.array(expression["seen"], np.bool_)[:, columns]
    return np.array(expression["truth"])[:, columns][seen], np.array(expression["read"])[:, columns][seen]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
