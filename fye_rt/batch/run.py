"""Runs a batch in its folder; finished clips stay finished, whatever happens to the run.

NAME.mp4            the clip of a job; NAME.webm with alpha
records/NAME.json   the job's record, with times; written before its clip appears
results.jsonl       one line per job in the order of the jobs file, without times: equal for equal jobs
summary.json        counts, times and the machine
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fye_rt import machine
from fye_rt.batch.folder import Record, RunFolder
from fye_rt.batch.jobs import BadJob, Job
from fye_rt.batch.worker import RECORDS, AnimatorSpec, key
from fye_rt.batch.workers import Died, WorkerPool, work
from fye_rt.clips.write import extra
from fye_rt.errors import FyeError
from fye_rt.files import atomic_file, write_json
from fye_rt.timings import Progress, counted

RESULTS, SUMMARY = "results.jsonl", "summary.json"
_FIELDS = ("name", "line", "status", "output", "sha256", "frames", "size", "network_evaluations", "notices", "error")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a batch.

    Attributes:
        done: number of finished clips, by this run or an earlier one.
        kept: number of these that an earlier run made.
        failed: records of the failed jobs, in order.
    """

    done: int
    kept: int
    failed: Sequence[Record]


class Folder(RunFolder):
    """The folder of a batch, which keeps the clips of all jobs that were ever run there; see `RunFolder`."""

    kind = "batch"

    def __init__(self, path: Path) -> None:
        super().__init__(path, RECORDS)

    def finished(self, job: Job, bundle: str, engine: AnimatorSpec) -> Record | None:
        """Return the record of a job's clip if the clip exists and was made from the same inputs and settings."""
        record = self.read(job.name)
        if record.get("status") != "done":
            return None
        try:
            same = record["key"] == key(job, bundle, engine)
            whole = (self.path / job.file).stat().st_size == record["bytes"]
        except (FyeError, OSError, KeyError):
            return None
        return record | {"line": job.line} if same and whole else None

    def conclude(self, records: Sequence[Record], summary: dict[str, Any]) -> None:
        """Write the results of all jobs, in order, and the summary."""
        with atomic_file(self.path / RESULTS) as temporary, temporary.open("w") as file:
            for record in records:
                file.write(json.dumps({name: record[name] for name in _FIELDS if name in record}) + "\n")
        write_json(self.path / SUMMARY, summary)


def run(
    jobs: Sequence[Job | BadJob],
    folder: Folder,
    bundle: str,
    engine: AnimatorSpec,
    open_pool: Callable[[], WorkerPool],
    progress: Progress,
) -> Outcome:
    """Make the clips that are not finished yet.

    Args:
        jobs: jobs from `read_jobs`.
        folder: folder of the batch.
        bundle: digest of the bundle.
        engine: the Animator that makes the clips.
        open_pool: opens the workers; called only if a job is left to do.
        progress: called with (stage, done, total) jobs.

    Raises:
        FyeError: a worker could not be made, or a result could not be written.
    """
    start = time.perf_counter()
    records: dict[int, Record] = {}
    todo: list[Job] = []
    for job in counted(jobs, "check", progress):
        if isinstance(job, BadJob):
            records[job.line] = _failed(job, job.error)
        elif (record := folder.finished(job, bundle, engine)) is not None:
            records[job.line] = record
        else:
            todo.append(job)
    kept = sum(record["status"] == "done" for record in records.values())
    workers = 0
    try:
        if todo:
            pool = open_pool()
            workers = pool.size
            with closing(work(pool, todo, "make", progress)) as results:
                for job, result in results:
                    record = _failed(job, result.reason) if isinstance(result, Died) else result
                    if record["status"] != "done":  # the worker that made a clip has written its record
                        with extra(folder.path):
                            folder.keep(job.name, record)
                    records[record["line"]] = record
    finally:
        ordered = [records[job.line] for job in jobs if job.line in records]
        with extra(folder.path):
            folder.conclude(ordered, _summary(jobs, ordered, kept, workers, time.perf_counter() - start))
    failed = [record for record in ordered if record["status"] == "failed"]
    return Outcome(len(ordered) - len(failed), kept, failed)


def _failed(job: Job | BadJob, error: str) -> Record:
    return {"name": job.name, "line": job.line, "status": "failed", "error": error}


def _summary(
    jobs: Sequence[Job | BadJob], records: Sequence[Record], kept: int, workers: int, seconds: float
) -> dict[str, Any]:
    done = [record for record in records if record["status"] == "done"]
    new = len(done) - kept
    return {
        "jobs": len(jobs),
        "done": len(done),
        "of_them_there_already": kept,
        "failed": len(records) - len(done),
        "not_begun": len(jobs) - len(records),
        "workers": workers,
        "seconds": seconds,
        "clips_per_hour": 3600 * new / seconds if new else None,
        "peak_memory_bytes": max((record["peak_memory_bytes"] for record in done), default=None),
        "environment": machine.environment(),
    }
