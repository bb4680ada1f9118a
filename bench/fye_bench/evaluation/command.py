"""`fye eval`: the command."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fye_bench import arguments
from fye_bench.evaluation.compare_command import main_compare, main_report
from fye_bench.evaluation.evaluator import Evaluator, Settings
from fye_bench.evaluation.report import write_report
from fye_bench.evaluation.run import Folder, evaluate
from fye_bench.evaluation.saved import SavedRun
from fye_bench.metrics.measures import ToolFiles
from fye_bench.suites.suite import Suite
from fye_rt import backends
from fye_rt.batch.placement import open_workers
from fye_rt.batch.worker import AnimatorSpec
from fye_rt.bundle import Bundle, shipped_bundle
from fye_rt.cli import terminal
from fye_rt.landmarks import MAX_FRAMES
from fye_rt.options import DEFAULT_WINDOWS, WINDOWS, Options

WORDS: Mapping[str, Callable[[Sequence[str]], int]] = {"compare": main_compare, "report": main_report}


def main(argv: Sequence[str]) -> int:
    """Run `fye eval` with its arguments; returns the exit code: 1 if a pair failed.

    Raises:
        FyeError: an option, the suite, a file or a backend is at fault.
    """
    if argv and argv[0] in WORDS:
        return WORDS[argv[0]](argv[1:])
    given = _parse(argv)
    with terminal.working(given.quiet) as bars:
        suite = Suite.load(given.suite)
        if given.pairs is not None:
            suite = suite.first(given.pairs)
        bundle = Bundle.load(given.bundle or shipped_bundle())
        request = arguments.request(given, bundle)
        backend = backends.choose(given.backend, bundle)
        options = replace(request.options, compute=backends.resolve_compute(backend, given.compute))
        engine = AnimatorSpec(bundle.path.absolute(), backend, options.compute, given.threads, given.low_memory)
        tools = ToolFiles(given.landmarker, given.identity_model, given.lpips, given.fvd)
        settings = Settings(engine, options, request.frames, request.size, tools)
        folder = Folder(given.output.absolute(), _header(suite, bundle, settings))

        def crew(threads: int) -> Callable[[], Evaluator]:
            own = replace(settings, engine=replace(engine, threads=threads))
            return partial(Evaluator, own, folder.path)

        make_crew = partial(open_workers, crew, given.threads, given.workers, given.ray)
        with folder.open():
            _, failed = evaluate(suite, folder, make_crew, given.threads, bars)
        page = write_report(folder.path) if len(failed) < len(suite.pairs) else None
    for record in failed:
        terminal.note(f"{record['pair']}: {record['error']}")
    for line in table(SavedRun.load(folder.path)):
        terminal.say(line)
    if page is not None:
        terminal.say(f"{given.output / page.name}: the report")
    if failed:
        terminal.say(f"{len(failed)} of {len(suite.pairs)} pairs failed")
    return 1 if failed else 0


def table(run: SavedRun) -> list[str]:
    """All metrics over all pairs, with their intervals, as lines of text."""
    from fye_bench.metrics.table import METRICS

    everyone = run.summary.get("all", {})
    lines = [f"{run.named('suite')}: {len(run.made)} of {len(run.pairs)} pairs; {run.label}"]
    for name in run.metrics:
        if (estimate := everyone.get(name)) is not None:
            metric = METRICS[name]
            low, middle, high = (metric.text(estimate[bound]) for bound in ("low", "mean", "high"))
            between = f" ({low} to {high})" if estimate["n"] > 1 else ""
            lines.append(f"  {metric.title:<28}{middle}{between}")
    return lines


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = arguments.Parser(
        prog="fye eval",
        description="Make and measure the clips of a suite. See also: fye eval compare RUN RUN, fye eval report RUN.",
    )
    parser.add_argument("suite", type=Path, metavar="SUITE", help="a folder with suite.json; see fye suite --help")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="RUN", required=True, help="a folder; the same command goes on there"
    )
    parser.add_argument("--pairs", type=int, metavar="N", help="the first N, which are spread evenly; by default all")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="by default the shipped one")
    frames: dict[str, Any] = {"type": int, "metavar": "N", "choices": arguments.Between(1, MAX_FRAMES)}
    parser.add_argument("--frames", **frames, help="that many first frames of a motion; by default all")
    parser.add_argument("--size", metavar="HxW", help="of the clips; by default the bundle's")
    arguments.add_options(parser)
    default = Options()
    parser.add_argument("--windows", choices=WINDOWS, help=DEFAULT_WINDOWS)
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument("--window-size", **number, default=default.window_size, help="frames per network evaluation")
    parser.add_argument("--window-overlap", **number, default=default.window_overlap, help="frames neighbours share")
    parser.add_argument("--backend", choices=("auto", *backends.BACKENDS), default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of a worker; 0: its share of the cores")
    parser.add_argument("--low-memory", action="store_true", help="release graphs after their last use")
    parser.add_argument(
        "--workers",
        **number,
        choices=arguments.Between(1, 1024),
        help="processes, each with its share of cores or GPUs; by default 1",
    )
    parser.add_argument("--ray", metavar="ADDRESS|local", help="have the actors of a Ray cluster work")
    parser.add_argument("--landmarker", type=Path, metavar="FILE", help="MediaPipe's face_landmarker.task")
    arguments.add_networks(parser)
    parser.add_argument("--fvd", type=Path, metavar="ONNX", help="a network of video features")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(argv)


def _header(suite: Suite, bundle: Bundle, settings: Settings) -> dict[str, Any]:
    """All that the results depend on."""
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
