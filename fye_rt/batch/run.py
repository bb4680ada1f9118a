"""A batch in its folder: what is finished stays finished, whatever happens to the run.

NAME.mp4            the clip of a job
records/NAME.json   what became of it, with its times; written before its clip appears
results.jsonl       a line for each job in the order of its file, without times: the same for the same jobs
summary.json        counts, times and the machine
"""

import json
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fye_rt import machine
from fye_rt.batch.jobs import BadJob, Job
from fye_rt.batch.worker import RECORDS, AnimatorSpec, Record, key, record_path
from fye_rt.batch.workers import Crew, Died, work
from fye_rt.clips.write import extra
from fye_rt.errors import FyeError, OutputError
from fye_rt.files import alone, atomic_file, remove_left_over, write_json
from fye_rt.timings import Progress

RESULTS, SUMMARY = "results.jsonl", "summary.json"
_TOLD = ("name", "line", "status", "output", "sha256", "frames", "size", "network_evaluations", "notices", "error")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch.

    Attributes:
        done: clips made, by this run or one before.
        kept: those of them that were there already.
        failed: records of the jobs that failed, in their order.
    """

    done: int
    kept: int
    failed: Sequence[Record]


class Folder:
    """Where a batch goes; a context manager, within which no other run can write there.

    Args:
        path: is made if it does not exist.

    Raises:
        OutputError: it holds other things than a batch, cannot be written, or another run writes there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records = path / RECORDS
        try:
            if path.is_dir() and not self._records.is_dir() and any(path.iterdir()):
                raise OutputError(f"{path} holds other files than a batch's; choose a new folder with -o")
            self._records.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"cannot write {path}: {error.strerror}; choose another folder with -o") from error
        self._alone = ExitStack()

    def __enter__(self) -> Self:
        self._alone.enter_context(alone(self._records))
        self._clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()
        self._alone.close()

    def _clear(self) -> None:
        """Remove what killed workers left."""
        for folder in (self.path, self._records):
            remove_left_over(folder)

    def finished(self, job: Job, bundle: str, engine: AnimatorSpec) -> Record | None:
        """The record of a clip that is there, made from the very same."""
        record = self._read(job.name)
        if record is None or record.get("status") != "done":
            return None
        try:
            same = record["key"] == key(job, bundle, engine)
            whole = (self.path / f"{job.name}.mp4").stat().st_size == record["bytes"]
        except (FyeError, OSError, KeyError):
            return None
        return record | {"line": job.line} if same and whole else None

    def keep(self, record: Record) -> None:
        """Write what became of a job that failed; who makes a clip writes its record."""
        write_json(record_path(self.path, record["name"]), record)

    def conclude(self, records: Sequence[Record], summary: dict[str, Any]) -> None:
        """Write the results of all jobs, in their order, and the summary."""
        with atomic_file(self.path / RESULTS) as temporary, temporary.open("w") as file:
            for record in records:
                file.write(json.dumps({name: record[name] for name in _TOLD if name in record}) + "\n")
        write_json(self.path / SUMMARY, summary)

    def _read(self, name: str) -> Record | None:
        try:
            record = json.loads(record_path(self.path, name).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) else None


def run(
    jobs: Sequence[Job | BadJob],
    folder: Folder,
    bundle: str,
    engine: AnimatorSpec,
    crew: Callable[[], Crew],
    progress: Progress,
) -> Outcome:
    """Make what is not made yet.

    Args:
        jobs: from `read_jobs`.
        folder: where clips go.
        bundle: digest of the model.
        engine: that makes them.
        crew: is called if there is anything to do.
        progress: called with (stage, done, total) jobs.

    Raises:
        FyeError: a worker could not be made, or a result not be written.
    """
    start = time.perf_counter()
    records: dict[int, Record] = {}
    todo: list[Job] = []
    for number, job in enumerate(jobs):
        progress("check", number, len(jobs))
        if isinstance(job, BadJob):
            records[job.line] = {"name": job.name, "line": job.line, "status": "failed", "error": job.error}
        elif (there := folder.finished(job, bundle, engine)) is not None:
            records[job.line] = there
        else:
            todo.append(job)
    progress("check", len(jobs), len(jobs))
    kept = sum(record["status"] == "done" for record in records.values())
    workers = 0
    try:
        if todo:
            workers, made = _work(crew(), todo, progress)
            with closing(made):
                for record in made:
                    if record["status"] != "done":
                        with extra(folder.path):
                            folder.keep(record)
                    records[record["line"]] = record
    finally:
        ordered = [records[job.line] for job in jobs if job.line in records]
        with extra(folder.path):
            folder.conclude(ordered, _summary(jobs, ordered, kept, workers, time.perf_counter() - start))
    failed = [record for record in ordered if record["status"] == "failed"]
    return Outcome(len(ordered) - len(failed), kept, failed)


def _work(crew: Crew, todo: Sequence[Job], progress: Progress) -> tuple[int, Generator[Record]]:
    def records() -> Generator[Record]:
        progress("make", 0, len(todo))
        for number, (job, result) in enumerate(work(crew, todo), 1):
            progress("make", number, len(todo))
            if isinstance(result, Died):
                yield {"name": job.name, "line": job.line, "status": "failed", "error": result.reason}
            else:
                yield result

    return crew.size, records()


def _summary(
    jobs: Sequence[Job | BadJob], records: Sequence[Record], kept: int, workers: int, seconds: float
) -> dict[str, Any]:
    done = [record for record in records if record["status"] == "done"]
    made = len(done) - kept
    return {
        "jobs": len(jobs),
        "done": len(done),
        "of_them_there_already": kept,
        "failed": len(records) - len(done),
        "not_begun": len(jobs) - len(records),
        "workers": workers,
        "seconds": seconds,
        "clips_per_hour": 3600 * made / seconds if made else None,
        "peak_memory_bytes": max((record["peak_memory_bytes"] for record in done), default=None),
        "environment": machine.environment(),
    }
