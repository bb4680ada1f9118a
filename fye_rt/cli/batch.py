"""`fye batch`: many clips."""

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
WorkerThreads = Annotated[int, typer.Option(min=0, help="CPU threads of a worker; 0 means its share of the cores.")]
Ray = Annotated[
    str | None, typer.Option(metavar="ADDRESS|local", help="Work with the actors of a Ray cluster, one for each GPU.")
]


@takes_request("portrait_landmarks")
def batch(
    jobs: Annotated[
        Path, typer.Argument(metavar="JOBS.jsonl", help="File with one clip a line; see docs/guide/batches.md.")
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
    """Make the clips that JOBS.jsonl lists. Options hold for jobs that do not set them.

    The same command goes on where it was cut short, and tries again what failed.
    Exit code 1 if any job failed; DIR/results.jsonl has the reasons.
    """
    from fye_rt import Bundle
    from fye_rt.batch.jobs import read_jobs
    from fye_rt.batch.placement import open_workers
    from fye_rt.batch.run import RESULTS, Folder, run
    from fye_rt.batch.worker import AnimatorSpec, ClipWorker
    from fye_rt.bundle import shipped_bundle
    from fye_rt.options import parse_request

    compute = parse_request({**settings, "portrait": "", "motion": ""}).options.compute  # and a mistake ends it all
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
    again = f", {outcome.kept} of them there already" if outcome.kept else ""
    terminal.say(f"{output}: {outcome.done} clips{again}")
    if outcome.failed:
        terminal.say(f"{output / RESULTS}: {len(outcome.failed)} failed of {len(listed)}")
        raise typer.Exit(1)
