"""`fye bench batch`: clips an hour with one worker and with several, and what handing out a job costs."""

import argparse
import json
import pickle
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fye_bench import arguments
from fye_bench.environment import OtherLoad, environment
from fye_bench.speed.workload import describe_bundle
from fye_rt import files, machine
from fye_rt.batch.jobs import Job, read_jobs
from fye_rt.batch.placement import open_workers
from fye_rt.batch.run import Folder
from fye_rt.batch.worker import AnimatorSpec, ClipWorker
from fye_rt.batch.workers import Make, work
from fye_rt.bundle import Bundle, shipped_bundle, shipped_bundles
from fye_rt.cli import terminal
from fye_rt.cli.demo import FAMILIES
from fye_rt.clips import write
from fye_rt.errors import OptionError

CHORES = 1000  # tasks that do nothing


@dataclass(frozen=True, slots=True)
class Chore:
    """A task that does nothing, as large as a job.

    Attributes:
        job: that it is as large as.
    """

    job: Job

    @property
    def group(self) -> str:
        """As of the job."""
        return self.job.group


def idle(threads: int) -> Make:
    """Makes workers that do nothing."""
    return partial(partial, _nothing)


def _nothing(chore: Chore) -> dict[str, Any]:
    return {"name": chore.job.name, "line": chore.job.line, "status": "done", "error": None}


def main(argv: Sequence[str]) -> int:
    """Run `fye bench batch` with its arguments; returns the exit code.

    Raises:
        FyeError: an option, a file or a backend is at fault.
    """
    given = _parse(argv)
    if given.json is not None:
        write.check_output(given.json, (".json",))
    cores = machine.cores() or 1
    ways: dict[str, tuple[int, int | None, str | None]] = {
        "one process, one thread": (1, None, None),
        "one process, all cores": (0, None, None),
        f"{cores} processes": (1, cores, None),
    }
    if given.ray is not None:
        ways[f"Ray, {cores} workers"] = (1, cores, given.ray)
    if cores == 1:
        raise OptionError("one core has no room for two workers; run this on a machine with more")
    bundle = Bundle.load(given.bundle or shipped_bundle())
    load = OtherLoad()
    with tempfile.TemporaryDirectory() as place, terminal.working(given.quiet) as bars:
        jobs = _jobs(Path(place), given.jobs, given.frames, bundle)
        made, overheads = {}, {}
        for number, (name, way) in enumerate(ways.items()):
            bars("measure", number, len(ways), name)
            made[name] = _clips(Path(place) / f"out{number}", jobs, AnimatorSpec(bundle.path.absolute()), way)
            overheads[name] = _overhead(jobs, way)
        bars("measure", len(ways), len(ways))
        written = _records(Path(place) / "records", jobs)
    result = {
        "command": ["fye", "bench", "batch", *argv],
        "environment": environment(cores),
        "other_load_cores": load.cores(),
        "workload": {
            "model": describe_bundle(bundle),
            "jobs": len(jobs),
            "portraits": len({job.request.portrait for job in jobs}),
            "frames": given.frames,
            "options": replace(jobs[0].request.options, seed=0).as_dict(),
        },
        "clips": made,
        "overhead": overheads | {"a record": {"seconds_a_task": written}},
        "bytes": {"task": len(pickle.dumps(jobs[0])), "record": len(json.dumps(_nothing(Chore(jobs[0]))))},
    }
    if given.json is not None:
        files.write_json(given.json, result)
    for line in table(result):
        terminal.say(line)
    return 0


def table(result: Mapping[str, Any]) -> list[str]:
    """What was found, as lines of text."""
    lines = [f"{'':<26}{'clips an hour':>14}{'first clip':>12}{'a task that does nothing':>28}"]
    for name, row in result["clips"].items():
        overhead = result["overhead"][name]
        lines.append(
            f"{name:<26}{row['clips_per_hour']:>14,.0f}{row['first_clip_seconds']:>10.1f} s"
            f"{1e3 * overhead['seconds_a_task']:>25.2f} ms"
        )
    lines.append(f"{'a record on disk':<26}{1e3 * result['overhead']['a record']['seconds_a_task']:>51.2f} ms")
    return lines


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = arguments.Parser(prog="fye bench batch", description="Time batches with one worker and with several.")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="by default the shipped one")
    numbers: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument("--jobs", **numbers, default=24, choices=arguments.Between(4, 1000), help="clips (%(default)s)")
    parser.add_argument(
        "--frames", **numbers, default=16, choices=arguments.Between(1, 16), help="of a clip (%(default)s)"
    )
    parser.add_argument("--ray", metavar="ADDRESS|local", help="also the actors of a Ray cluster, one a core")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(argv)


def _jobs(folder: Path, count: int, frames: int, bundle: Bundle) -> list[Job]:
    """The shipped portraits in turn, with their own motions and other noise each time."""
    lines = []
    for number in range(count):
        inputs = shipped_bundles() / "demo" / FAMILIES[number % len(FAMILIES)]
        files = {"portrait": str(inputs / "portrait.png"), "motion": str(inputs / "landmarks")}
        lines.append(json.dumps(files | {"name": f"clip{number}", "seed": number}))
    (folder / "jobs.jsonl").write_text("\n".join(lines))
    jobs = read_jobs(folder / "jobs.jsonl", {"frames": frames}, bundle)
    return [job for job in jobs if isinstance(job, Job)]


def _clips(
    folder: Path, jobs: Sequence[Job], engine: AnimatorSpec, way: tuple[int, int | None, str | None]
) -> dict[str, float]:
    """Make all clips. The rate is that between the first clip of the slowest worker to begin and the last clip."""
    start, times = time.perf_counter(), []
    with Folder(folder) as kept:

        def maker(threads: int) -> Make:
            return partial(ClipWorker, replace(engine, threads=threads), folder)

        crew = open_workers(maker, *way)
        size, workers = crew.size, set()
        warm = 0
        for _, record in work(crew, jobs):
            kept.keep(record)
            times.append(time.perf_counter() - start)
            workers.add(record["worker"])
            if len(workers) == size and not warm:
                warm = len(times)
    steady = (len(times) - warm) / (times[-1] - times[warm - 1])
    return {
        "workers": size,
        "seconds": times[-1],
        "first_clip_seconds": times[0],
        "clips_per_hour": 3600 * steady,
        "clips_in_the_rate": len(times) - warm,
    }


def _overhead(jobs: Sequence[Job], way: tuple[int, int | None, str | None]) -> dict[str, float]:
    """Of tasks that do nothing, when all workers have begun."""
    chores = [Chore(jobs[i % len(jobs)]) for i in range(CHORES)]
    start, times = time.perf_counter(), []
    for _ in work(open_workers(idle, *way), chores):
        times.append(time.perf_counter() - start)
    half = len(times) // 2
    return {"first_seconds": times[0], "seconds_a_task": (times[-1] - times[half]) / (len(times) - 1 - half)}


def _records(folder: Path, jobs: Sequence[Job]) -> float:
    """Seconds that writing a record takes."""
    times = []
    with Folder(folder) as kept:
        for job in jobs:
            start = time.perf_counter()
            kept.keep(_nothing(Chore(job)))
            times.append(time.perf_counter() - start)
    return statistics.median(times)
