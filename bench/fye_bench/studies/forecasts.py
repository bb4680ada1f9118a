"""`fye bench forecast`: every way to fewer evaluations of the network, on drawn clips with known truth.

Each way makes every case with every seed, and so does the full run, which evaluates every step. What was measured is
appended to a log, line by line; the same command goes on where it stopped.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fye_bench import arguments
from fye_bench.environment import environment
from fye_bench.metrics.images import psnr
from fye_bench.metrics.judge import Judge
from fye_bench.metrics.truth import cases, draw
from fye_bench.speed.workload import describe_bundle
from fye_bench.studies.forecasts_plot import draw_front
from fye_bench.studies.lossless import CONTROLS, FULL, Measured, summarise, table
from fye_bench.studies.making import make
from fye_rt import backends, files
from fye_rt.animator import Animator
from fye_rt.bundle import Bundle, shipped_bundle
from fye_rt.cli import terminal
from fye_rt.clips import write
from fye_rt.errors import InputError
from fye_rt.options import Forecast, Options

BUDGETS = (4, 5, 6, 8, 10, 12, 15, 20)
TOLERANCES = (0.3, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
FORECAST_WAYS: Mapping[str, dict[str, Any]] = {
    "reuse v": {"method": "reuse", "quantity": "v"},
    "reuse x0": {"method": "reuse", "quantity": "x0"},
    "reuse epsilon": {"method": "reuse", "quantity": "epsilon"},
    "order 1, v": {"method": "newton", "order": 1, "quantity": "v"},
    "order 1, x0": {"method": "newton", "order": 1, "quantity": "x0"},
    "order 1, epsilon": {"method": "newton", "order": 1, "quantity": "epsilon"},
    "order 2, epsilon": {"method": "newton", "order": 2, "quantity": "epsilon"},
    "Taylor 2, epsilon": {"method": "taylor", "order": 2, "quantity": "epsilon"},
    "published rules": {"method": "paper"},
    "calibrated": {"method": "calibrated"},
}
METHODS = (*CONTROLS, *FORECAST_WAYS, "adaptive")


@dataclass(frozen=True, slots=True)
class Way:
    """One way to make a clip.

    Attributes:
        method: what a line of the plot shows.
        budget: evaluations it aims at, or a tolerance.
        options: steps, solver and forecast.
    """

    method: str
    budget: float
    options: Options

    def __str__(self) -> str:
        return f"{self.method} @ {self.budget:g}"


def ways(options: Options, budgets: Sequence[int] = BUDGETS) -> Iterator[Way]:
    """All that are compared, for a full run with `options`; the controls first."""
    for budget in budgets:
        for name, solver in CONTROLS.items():
            yield Way(name, budget, replace(options, steps=budget, solver=solver))
        for name, settings in FORECAST_WAYS.items():
            yield Way(name, budget, replace(options, forecast=Forecast(evaluations=budget, **settings)))
    for tolerance in TOLERANCES:
        yield Way("adaptive", tolerance, replace(options, forecast=Forecast(method="adaptive", tolerance=tolerance)))


def main(argv: Sequence[str]) -> int:
    """Run `fye bench forecast` with its arguments; returns the exit code.

    Raises:
        FyeError: an option, a file or a backend is at fault.
    """
    given = _parse(argv)
    for path, suffixes in ((given.json, (".json",)), (given.plot, (".png", ".svg")), (given.log, (".jsonl",))):
        if path is not None:
            write.check_output(path, suffixes)
    bundle = Bundle.load(given.bundle or shipped_bundle())
    options = arguments.request(given, bundle, **arguments.EVERY_STEP).options
    compared = [way for way in ways(options, given.budgets or BUDGETS) if way.method in (given.methods or METHODS)]
    header = {"bundle": bundle.digest, "frames": given.frames, "backend": given.backend, "options": options.as_dict()}
    found = _resume(given.log, header)
    with (
        terminal.working(given.quiet) as bars,
        Animator(bundle, given.backend, compute=given.compute, threads=given.threads) as animator,
        given.log.open("a") as log,
    ):
        ends = math.inf if given.minutes is None else time.monotonic() + 60 * given.minutes
        wanted = given.cases * given.seeds * (1 + len(compared))
        for one in _measure(animator, options, compared, given, {one.key for one in found}):
            found.append(one)
            log.write(one.line())
            log.flush()
            bars("measure", len(found), wanted, one.way)
            if time.monotonic() > ends:
                break
        backend = animator.backend
    methods = summarise(found)
    result: dict[str, Any] = {
        "command": ["fye", "bench", "forecast", *argv],
        "environment": environment(given.threads),
        "workload": header | {"model": describe_bundle(bundle), "backend": backend},
        "clips": len({one.key[:2] for one in found}),
        "methods": {name: methods[name] for name in METHODS if name in methods},
    }
    if given.json is not None:
        files.write_json(given.json, result)
    if given.plot is not None:
        draw_front(given.plot, result["methods"])
    for line in table(result["methods"]):
        terminal.say(line)
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = arguments.Parser(
        prog="fye bench forecast", description="Compare all ways to fewer evaluations of the network."
    )
    parser.add_argument("--log", type=Path, metavar="FILE", required=True, help=".jsonl; goes on with what is in it")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="by default the shipped one")
    numbers: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument(
        "--cases", **numbers, default=12, choices=arguments.Between(1, 1000), help="clips (%(default)s)"
    )
    parser.add_argument(
        "--seeds", **numbers, default=3, choices=arguments.Between(1, 100), help="of the noise (%(default)s)"
    )
    parser.add_argument(
        "--frames", **numbers, default=16, choices=arguments.Between(1, 32), help="of a clip (%(default)s)"
    )
    parser.add_argument("--budgets", **numbers, nargs="*", help="evaluations; by default 4 to 20")
    parser.add_argument("--methods", nargs="*", choices=METHODS, metavar="NAME", help=", ".join(METHODS))
    parser.add_argument("--minutes", type=float, help="stop after that long; the same command goes on")
    arguments.add_options(parser)
    parser.add_argument("--backend", choices=("auto", *backends.BACKENDS), default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: one per core")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it: .png or .svg")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(argv)


def _resume(path: Path, header: Mapping[str, Any]) -> list[Measured]:
    """What a log holds; a new one begins with what was asked for."""
    if not path.exists():
        path.write_text(json.dumps(header) + "\n")
        return []
    first, *lines = path.read_text().splitlines()
    if json.loads(first) != json.loads(json.dumps(header)):
        raise InputError(f"{path} is of another run ({first}); give another --log")
    return [Measured.parse(line) for line in lines]


def _measure(
    animator: Animator, options: Options, compared: Sequence[Way], given: argparse.Namespace, done: set[Any]
) -> Iterator[Measured]:
    """Case by case, seed by seed: the full run, then all ways in an order of their own."""
    judge = Judge()
    for seed in range(given.seeds):
        for case in cases(given.cases):
            todo = [way for way in compared if (case.number, seed, str(way)) not in done]
            if not todo:
                continue
            drawn = draw(case, animator.bundle.size, given.frames)
            states = animator.encode_portrait(drawn.portrait), animator.encode_motion(drawn.landmarks)
            full = make(animator, *states, replace(options, seed=seed))
            pace, frames = full.seconds, full.frames
            if (case.number, seed, FULL) not in done:
                scores = judge.compare(drawn, frames)
                yield Measured(case.number, seed, FULL, full.evaluations, pace, pace, psnr(frames, frames), scores)
            for i in np.random.default_rng((case.number, seed)).permutation(len(todo)):
                way = todo[int(i)]
                made = make(animator, *states, replace(way.options, seed=seed))
                distance, scores = psnr(made.frames, full.frames), judge.compare(drawn, made.frames)
                yield Measured(case.number, seed, str(way), made.evaluations, made.seconds, pace, distance, scores)
