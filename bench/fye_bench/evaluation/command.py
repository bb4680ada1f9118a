"""`fye eval`, `fye eval compare` and `fye eval report`: the commands."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fye_bench.arguments import Json, command, one_of, option, request, writable
from fye_bench.evaluation.compare import compare, overview
from fye_bench.evaluation.comparison import comparison_lines, overview_lines, write_comparison, write_overview
from fye_bench.evaluation.evaluator import Evaluator, Settings
from fye_bench.evaluation.ranking import COMBINED
from fye_bench.evaluation.report import write_report
from fye_bench.evaluation.run import Folder, evaluate
from fye_bench.evaluation.saved import SavedRun
from fye_bench.metrics.measures import ToolFiles
from fye_bench.metrics.table import METRICS
from fye_bench.suites.suite import Suite
from fye_rt import backends, files
from fye_rt.batch.placement import open_workers
from fye_rt.batch.worker import AnimatorSpec
from fye_rt.bundle import Bundle, shipped_bundle
from fye_rt.cli import terminal
from fye_rt.cli.arguments import OF_DENOISING, Backend, BundleFolder, LowMemory, Quiet, takes_request
from fye_rt.cli.batch import Ray, Workers, WorkerThreads
from fye_rt.errors import OptionError


def main(argv: Sequence[str]) -> int:
    """Run `fye eval` with its arguments; returns the exit code: 1 if a pair failed.

    Raises:
        FyeError: an option, the suite, a file or a backend is at fault.
    """
    words: Mapping[str, Callable[[Sequence[str]], int]] = {"compare": main_compare, "report": main_report}
    if argv and argv[0] in words:
        return words[argv[0]](argv[1:])
    return _evaluate(argv)


@command("fye eval")
@takes_request(only=("size", "frames", "landmarker", *OF_DENOISING))
def _evaluate(
    suite: Annotated[Path, typer.Argument(metavar="SUITE", help="Folder with suite.json; see fye suite --help.")],
    output: Annotated[Path, option("RUN", "Folder to write into; the same command goes on.", "-o", "--output")],
    settings: dict[str, Any],
    pairs: Annotated[int | None, option("N", "Evaluate the first N pairs, which are spread evenly.")] = None,
    bundle: BundleFolder = None,
    backend: Backend = "auto",
    threads: WorkerThreads = 0,
    low_memory: LowMemory = False,
    workers: Workers = None,
    ray: Ray = None,
    identity_model: Annotated[Path | None, option("ONNX", "Face-recognition network.")] = None,
    lpips: Annotated[Path | None, option("WEIGHTS", 'State dict of lpips.LPIPS(net="alex").')] = None,
    fvd: Annotated[Path | None, option("ONNX", "Network of video features.")] = None,
    quiet: Quiet = False,
) -> int:
    """Make and measure the clips of a suite.

    See also: fye eval compare RUN RUN, fye eval report RUN.
    """
    with terminal.working(quiet) as bars:
        chosen = Suite.load(suite) if pairs is None else Suite.load(suite).first(pairs)
        model = Bundle.load(bundle or shipped_bundle())
        clip = request(settings, model)
        backend = backends.choose(backend, model)
        options = replace(clip.options, compute=backends.resolve_compute(backend, clip.options.compute))
        engine = AnimatorSpec(model.path.absolute(), backend, options.compute, threads, low_memory)
        tools = ToolFiles(settings["landmarker"], identity_model, lpips, fvd)
        evaluation = Settings(engine, options, clip.frames, clip.size, tools)
        folder = Folder(output.absolute(), _header(chosen, model, evaluation))

        def evaluator(threads: int) -> Callable[[], Evaluator]:
            return partial(Evaluator, replace(evaluation, engine=replace(engine, threads=threads)), folder.path)

        open_pool = partial(open_workers, evaluator, threads, workers, ray)
        with folder:
            failed = evaluate(chosen, folder, open_pool, threads, bars)
        page = write_report(folder.path) if len(failed) < len(chosen.pairs) else None
    for record in failed:
        terminal.note(f"{record['pair']}: {record['error']}")
    for line in table(SavedRun.load(folder.path)):
        terminal.say(line)
    if page is not None:
        terminal.say(f"{output / page.name}: the report")
    if failed:
        terminal.say(f"{len(failed)} of {len(chosen.pairs)} pairs failed")
    return 1 if failed else 0


def table(run: SavedRun) -> list[str]:
    """Return lines with all metrics over all pairs, and their intervals."""
    estimates = run.summary.get("all", {})
    lines = [f"{run.text('suite', 'name')}: {len(run.succeeded)} of {len(run.pairs)} pairs; {run.label}"]
    for name in run.metrics:
        if (estimate := estimates.get(name)) is not None:
            metric = METRICS[name]
            low, middle, high = (metric.text(estimate[bound]) for bound in ("low", "mean", "high"))
            between = f" ({low} to {high})" if estimate["n"] > 1 else ""
            lines.append(f"  {metric.title:<28}{middle}{between}")
    return lines


@command("fye eval compare")
def main_compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of two or more runs.")],
    by: Annotated[
        str, option("METRIC", "Metric that chooses the worst pairs of two runs.", parser=one_of((COMBINED, *METRICS)))
    ] = COMBINED,
    json: Json = None,
    html: Annotated[Path | None, option("FILE", "Also write a page.", callback=writable(".html"))] = None,
    quiet: Quiet = False,
) -> None:
    """Compare runs of one suite, pair by pair, with the first one."""
    if len(runs) < 2:
        raise OptionError("one run cannot be compared; give two or more")
    if len(runs) > 2:
        if by != COMBINED:
            raise OptionError(f"--by {by} chooses pairs of two runs; give two, or leave it out")
        result = overview([SavedRun.load(run) for run in runs])
        if html is not None:
            write_overview(result, html)
        text = overview_lines(result)
    else:
        a, b = map(SavedRun.load, runs)
        with terminal.working(quiet) as bars:
            result = compare(a, b, by, bars)
        if html is not None:
            write_comparison(result, a, b, html)
        text = comparison_lines(result)
    if json is not None:
        files.write_json(json, result)
    write = terminal.show if html is None and json is None else terminal.say
    for line in text:
        write(line)


@command("fye eval report")
def main_report(runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs.")]) -> None:
    """Write report.html into the folder of a run."""
    for folder in runs:
        terminal.say(str(write_report(folder)))


def _header(suite: Suite, bundle: Bundle, settings: Settings) -> dict[str, Any]:
    engine = settings.engine
    return {
        "suite": {"name": suite.name, "digest": suite.digest},
        "bundle": {"name": bundle.path.name, "digest": bundle.digest, "precision": bundle.precision},
        "backend": engine.backend,
        "options": settings.options.as_dict(),
        "frames": settings.frames,
        "size": list(settings.size or bundle.size),
        "metrics": settings.tools.digests(),
    }
