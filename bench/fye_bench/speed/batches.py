"""`fye bench batch`: measure clips per hour with one worker and with several, and the overhead of a job."""

import json
import pickle
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fye_bench.arguments import benchmark, option
from fye_bench.environment import OtherLoad, environment
from fye_bench.speed.workload import describe_bundle
from fye_rt import machine
from fye_rt.batch.jobs import Job, read_jobs
from fye_rt.batch.placement import open_workers
from fye_rt.batch.run import Folder
from fye_rt.batch.worker import AnimatorSpec, ClipWorker
from fye_rt.batch.workers import Make, work
from fye_rt.bundle import Bundle, shipped_bundle, shipped_bundles
from fye_rt.cli import terminal
from fye_rt.cli.arguments import BundleFolder, Quiet
from fye_rt.cli.demo import FAMILIES
from fye_rt.errors import OptionError

CHORES = 1000
Way = tuple[int, int | None, str | None]  # threads, processes and Ray cluster, as for `open_workers`


@dataclass(frozen=True, slots=True)
class Chore:
    """A task that does nothing and is as large as its job."""

    job: Job

    @property
    def group(self) -> str:
        """Group of the job."""
        return self.job.group


def idle(threads: int) -> Make:
    """Make workers that do nothing."""
    return partial(partial, _nothing)


def _nothing(chore: Chore) -> dict[str, Any]:
    return {"name": chore.job.name, "line": chore.job.line, "status": "done", "error": None}


@benchmark("fye bench batch")
def main(
    bundle: BundleFolder = None,
    jobs: Annotated[int, option("N", "Number of clips.", min=4, max=1000)] = 24,
    frames: Annotated[int, option("N", "Frames of a clip.", min=1, max=16)] = 16,
    ray: Annotated[str | None, option("ADDRESS|local", "Also time a Ray cluster with one actor per core.")] = None,
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Time batches with one worker and with several."""
    cores = machine.cores() or 1
    ways: dict[str, Way] = {
        "one process, one thread": (1, None, None),
        "one process, all cores": (0, None, None),
        f"{cores} processes": (1, cores, None),
    }
    if ray is not None:
        ways[f"Ray, {cores} workers"] = (1, cores, ray)
    if cores == 1:
        raise OptionError("one core has no room for two workers; run this on a machine with more cores")
    model = Bundle.load(bundle or shipped_bundle())
    load = OtherLoad()
    with tempfile.TemporaryDirectory() as folder, terminal.working(quiet) as bars:
        clips = _jobs(Path(folder), jobs, frames, model)
        rates, overheads = {}, {}
        for number, (name, way) in enumerate(ways.items()):
            bars("measure", number, len(ways))
            rates[name] = _clips(Path(folder) / f"out{number}", clips, AnimatorSpec(model.path.absolute()), way)
            overheads[name] = _overhead(clips, way)
        bars("measure", len(ways), len(ways))
        written = _records(Path(folder) / "records", clips)
    result = {
        "environment": environment(cores),
        "other_load_cores": load.cores(),
        "workload": {
            "model": describe_bundle(model),
            "jobs": len(clips),
            "portraits": len({job.requests[0].portrait for job in clips}),
            "frames": frames,
            "options": replace(clips[0].requests[0].options, seed=0).as_dict(),
        },
        "clips": rates,
        "overhead": overheads | {"a record": {"seconds_a_task": written}},
        "bytes": {"task": len(pickle.dumps(clips[0])), "record": len(json.dumps(_nothing(Chore(clips[0]))))},
    }
    for line in table(result):
        terminal.say(line)
    return result


def table(result: Mapping[str, Any]) -> list[str]:
    """Return the result as lines of text."""
    lines = [f"{'':<26}{'clips an hour':>14}{'first clip':>12}{'a task that does nothing':>28}"]
    for name, row in result["clips"].items():
        overhead = result["overhead"][name]
        lines.append(
            f"{name:<26}{row['clips_per_hour']:>14,.0f}{row['first_clip_seconds']:>10.1f} s"
            f"{1e3 * overhead['seconds_a_task']:>25.2f} ms"
        )
    lines.append(f"{'a record on disk':<26}{1e3 * result['overhead']['a record']['seconds_a_task']:>51.2f} ms")
    return lines


def _jobs(folder: Path, count: int, frames: int, bundle: Bundle) -> list[Job]:
    """List jobs: the shipped portraits by turns, with their own motions and different noise."""
    lines = []
    for number in range(count):
        inputs = shipped_bundles() / "demo" / FAMILIES[number % len(FAMILIES)]
        files = {"portrait": str(inputs / "portrait.png"), "motion": str(inputs / "landmarks")}
        lines.append(json.dumps(files | {"name": f"clip{number}", "seed": number}))
    (folder / "jobs.jsonl").write_text("\n".join(lines))
    jobs = read_jobs(folder / "jobs.jsonl", {"frames": frames}, bundle)
    return [job for job in jobs if isinstance(job, Job)]


def _clips(folder: Path, jobs: Sequence[Job], engine: AnimatorSpec, way: Way) -> dict[str, float]:
    """Make all clips. The rate counts from the first clip of the worker that begins last to the last clip."""
    start, times, active, warm = time.perf_counter(), [], set(), 0
    with Folder(folder) as records:
        workers = open_workers(lambda threads: partial(ClipWorker, replace(engine, threads=threads), folder), *way)
        for _, record in work(workers, jobs):
            records.keep(record["name"], record)
            times.append(time.perf_counter() - start)
            active.add(record["worker"])
            if len(active) == workers.size and not warm:
                warm = len(times)
    return {
        "workers": workers.size,
        "seconds": times[-1],
        "first_clip_seconds": times[0],
        "clips_per_hour": 3600 * (len(times) - warm) / (times[-1] - times[warm - 1]),
        "clips_in_the_rate": len(times) - warm,
    }


def _overhead(jobs: Sequence[Job], way: Way) -> dict[str, float]:
    """Time tasks that do nothing; the second half counts, when all workers have begun."""
    chores = [Chore(jobs[i % len(jobs)]) for i in range(CHORES)]
    start, times = time.perf_counter(), []
    for _ in work(open_workers(idle, *way), chores):
        times.append(time.perf_counter() - start)
    half = len(times) // 2
    return {"first_seconds": times[0], "seconds_a_task": (times[-1] - times[half]) / (len(times) - 1 - half)}


def _records(folder: Path, jobs: Sequence[Job]) -> float:
    times = []
    with Folder(folder) as records:
        for job in jobs:
            start = time.perf_counter()
            records.keep(job.name, _nothing(Chore(job)))
            times.append(time.perf_counter() - start)
    return statistics.median(times)
