"""`fye batch`: make many clips."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fye_rt.cli import terminal
from fye_rt.cli.arguments import Backend, BundleFolder, LowMemory, Quiet, Verbose, takes_request

Workers = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Processes, each with its share of cores or GPUs; by default 1."),
]
WorkerThreads = Annotated[int, typer.Option(min=0, help="CPU threads per worker; 0 means its share of the cores.")]
Ray = Annotated[
    str | None, typer.Option(metavar="ADDRESS|local", help="Run on the actors of a Ray cluster, one per GPU.")
]


@takes_request("portrait_landmarks")
def batch(
    jobs: Annotated[
        Path, typer.Argument(metavar="JOBS.jsonl", help="File with one clip per line; see docs/guide/batches.md.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write into.")],
    settings: dict[str, Any],
    bundle: BundleFolder = None,
    backend: Backend = "auto",
    threads: WorkerThreads = 0,
    low_memory: LowMemory = False,
    workers: Workers = None,
    ray: Ray = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the clips listed in JOBS.jsonl.

    The options below apply to jobs that do not set them. The same command resumes an interrupted run and retries
    failed jobs. The exit code is 1 if any job failed; DIR/results.jsonl has the reasons.
    """
    from fye_rt import Bundle
    from fye_rt.batch.jobs import read_jobs
    from fye_rt.batch.placement import open_workers
    from fye_rt.batch.run import RESULTS, Folder, run
    from fye_rt.batch.worker import AnimatorSpec, ClipWorker
    from fye_rt.bundle import shipped_bundle
    from fye_rt.settings import parse_request

    # a mistake ends the batch; jobs decide whether they paste
    compute = parse_request({**settings, "paste": True}).options.compute
    with terminal.working(quiet, verbose) as bars:
        model = Bundle.load(bundle or shipped_bundle())
        listed = read_jobs(jobs, settings, model)
        spec = AnimatorSpec(model.path.absolute(), backend, compute, threads, low_memory)
        with Folder(output.absolute()) as folder:

            def worker(threads: int) -> Callable[[], ClipWorker]:
                return partial(ClipWorker, replace(spec, threads=threads), folder.path)

            outcome = run(listed, folder, model.digest, spec, lambda: open_workers(worker, threads, workers, ray), bars)
    for record in outcome.failed:
        terminal.note(f"line {record['line']}, {record['name']}: {record['error']}")
    earlier = f", {outcome.kept} of them from earlier runs" if outcome.kept else ""
    terminal.say(f"{output}: {outcome.done} clips{earlier}")
    if outcome.failed:
        terminal.say(f"{output / RESULTS}: {len(outcome.failed)} failed of {len(listed)}")
        raise typer.Exit(1)
