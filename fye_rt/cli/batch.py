"""`fye batch`: the command."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fye_rt.cli import terminal
from fye_rt.cli.commands import DEFAULTS, Backend, Frames, Landmarker, Quiet, Verbose
from fye_rt.options import COMPUTES, DEFAULT_FORECAST, DEFAULT_WINDOWS, FORECASTS, SOLVERS, WINDOWS, Forecast, Options

Workers = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Processes, each with its share of cores or GPUs; by default 1.")
]
Ray = Annotated[
    str | None, typer.Option(metavar="ADDRESS|local", help="Have the actors of a Ray cluster work, one for each GPU.")
]


def batch(
    jobs: Annotated[Path, typer.Argument(metavar="JOBS.jsonl", help="A line a clip; see docs/batches.md.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR")],
    bundle: Annotated[Path | None, typer.Option(metavar="DIR", help="The model; by default the shipped one.")] = None,
    backend: Backend = "auto",
    steps: Annotated[int, typer.Option(help="Steps of the solver.")] = DEFAULTS.steps,
    guidance: Annotated[
        float | None, typer.Option(help="Classifier-free guidance scale; by default what suits the model.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = DEFAULTS.seed,
    shared_noise: Annotated[
        float | None, typer.Option(help="Part of the noise that all frames share; by default what suits the model.")
    ] = None,
    forecast: Annotated[
        str | None, typer.Option(help=f"{', '.join(FORECASTS)}; by default {DEFAULT_FORECAST}, or off with --solver.")
    ] = None,
    solver: Annotated[str, typer.Option(help=", ".join(SOLVERS))] = DEFAULTS.solver,
    windows: Annotated[str, typer.Option(help=", ".join(WINDOWS))] = DEFAULT_WINDOWS,
    window_size: Annotated[int, typer.Option(help="Frames per network evaluation.")] = DEFAULTS.window_size,
    window_overlap: Annotated[int, typer.Option(help="Frames neighbours share.")] = DEFAULTS.window_overlap,
    compute: Annotated[str, typer.Option(help=", ".join(COMPUTES))] = DEFAULTS.compute,
    threads: Annotated[int, typer.Option(min=0, help="Of a worker; 0: its share of the cores.")] = 0,
    low_memory: Annotated[bool, typer.Option("--low-memory", help="Release graphs after their last use.")] = False,
    frames: Frames = None,
    size: Annotated[str | None, typer.Option(metavar="HxW", help="Of the clips, multiples of 8.")] = None,
    landmarker: Landmarker = None,
    workers: Workers = None,
    ray: Ray = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the clips that JOBS.jsonl lists. Options are those of jobs that say nothing else.

    The same command goes on where it was cut short, and tries again what failed.
    Exit code 1 if any job failed; DIR/results.jsonl has the reasons.
    """
    from fye_rt import Bundle
    from fye_rt.batch.jobs import Defaults, read_jobs
    from fye_rt.batch.placement import crew_of
    from fye_rt.batch.run import RESULTS, Folder, run
    from fye_rt.batch.worker import Engine, Maker
    from fye_rt.cli.demo import shipped_bundle
    from fye_rt.clips import write

    method = forecast or (DEFAULT_FORECAST if solver == DEFAULTS.solver else "off")
    options = Options(
        steps=steps,
        guidance=DEFAULTS.guidance if guidance is None else guidance,
        seed=seed,
        shared_noise=DEFAULTS.shared_noise if shared_noise is None else shared_noise,
        forecast=Forecast(method=method),
        solver=solver,
        windows=windows,
        window_size=window_size,
        window_overlap=window_overlap,
        compute=compute,
    )
    height_width = None if size is None else write.parse_size(size)
    with terminal.working(quiet, verbose) as bars:
        model = Bundle.load(bundle or shipped_bundle())
        options = model.suited(options, guidance=guidance, shared_noise=shared_noise)
        listed = read_jobs(jobs, Defaults(options, frames, height_width))
        engine = Engine(model.path.absolute(), backend, compute, threads, low_memory, landmarker)
        with Folder(output.absolute()) as folder:

            def maker(threads: int) -> Callable[[], Maker]:
                return partial(Maker, replace(engine, threads=threads), folder.path)

            outcome = run(listed, folder, model.digest, engine, lambda: crew_of(maker, threads, workers, ray), bars)
    for record in outcome.failed:
        terminal.note(f"line {record['line']}, {record['name']}: {record['error']}")
    again = f", {outcome.kept} of them there already" if outcome.kept else ""
    terminal.say(f"{output}: {outcome.done} clips{again}")
    if outcome.failed:
        terminal.say(f"{output / RESULTS}: {len(outcome.failed)} failed of {len(listed)}")
        raise typer.Exit(1)
