"""`fye bench forecast`: compare all ways to fewer network evaluations, on drawn clips whose true frames are known.

Each way makes every case with every seed, and so does the full run, which evaluates every step. A log records each
measurement, and the same command continues it.
"""

import json
import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from fye_bench.arguments import EveryStep, benchmark, one_of, option, request, writable
from fye_bench.environment import environment
from fye_bench.metrics import truth
from fye_bench.metrics.images import psnr
from fye_bench.metrics.judge import Judge
from fye_bench.speed.workload import describe_bundle
from fye_bench.studies.forecasts_plot import draw_front
from fye_bench.studies.lossless import CONTROLS, FULL, Measured, summarise, table
from fye_bench.studies.making import make
from fye_rt.animator import Animator
from fye_rt.bundle import Bundle, shipped_bundle
from fye_rt.cli import terminal
from fye_rt.cli.arguments import OF_DENOISING, Backend, BundleFolder, Quiet, Threads, takes_request
from fye_rt.errors import InputError
from fye_rt.options import MAX_WINDOW, Forecast, Options

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
        method: name of its line in the plot.
        budget: number of network evaluations, or tolerance.
        options: steps, solver and forecast.
    """

    method: str
    budget: float
    options: Options

    def __str__(self) -> str:
        return f"{self.method} @ {self.budget:g}"


def ways(options: Options, budgets: Sequence[int] = BUDGETS) -> Iterator[Way]:
    """Yield all ways to compare with a full run of `options`, the controls of each budget first."""
    for budget in budgets:
        for name, solver in CONTROLS.items():
            yield Way(name, budget, replace(options, steps=budget, solver=solver))
        for name, settings in FORECAST_WAYS.items():
            yield Way(name, budget, replace(options, forecast=Forecast(evaluations=budget, **settings)))
    for tolerance in TOLERANCES:
        yield Way("adaptive", tolerance, replace(options, forecast=Forecast(method="adaptive", tolerance=tolerance)))


@benchmark("fye bench forecast")
@takes_request("windows", "forecast", only=OF_DENOISING)
def main(
    log: Annotated[Path, option("FILE", "Log, .jsonl; the same command continues it.", callback=writable(".jsonl"))],
    settings: dict[str, Any],
    bundle: BundleFolder = None,
    cases: Annotated[int, option("N", "Number of clips.", min=1, max=1000)] = 12,
    seeds: Annotated[int, option("N", "Number of noise seeds.", min=1, max=100)] = 3,
    frames: Annotated[int, option("N", "Frames of a clip.", min=1, max=MAX_WINDOW)] = 16,
    forecast: EveryStep = "off",
    budgets: Annotated[list[int] | None, option("N", "Network evaluations; by default 4 to 20.")] = None,
    methods: Annotated[
        list[str] | None, option("NAME", f"Methods; by default {'; '.join(METHODS)}.", parser=one_of(METHODS))
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Time limit; the same command continues the log.")] = None,
    backend: Backend = "auto",
    threads: Threads = 0,
    plot: Annotated[Path | None, option("FILE", "Also draw a .png or .svg.", callback=writable(".png", ".svg"))] = None,
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Compare all ways to fewer network evaluations, on drawn clips."""
    model = Bundle.load(bundle or shipped_bundle())
    options = request({**settings, "windows": "context", "forecast": forecast}, model).options
    compared = [way for way in ways(options, budgets or BUDGETS) if way.method in (methods or METHODS)]
    header = {"bundle": model.digest, "frames": frames, "backend": backend, "options": options.as_dict()}
    with (
        terminal.working(quiet) as bars,
        Animator(model, backend, compute=options.compute, threads=threads) as animator,
    ):
        measured = _resume(log, header)
        chosen = animator.backend
        ends = math.inf if minutes is None else time.monotonic() + 60 * minutes
        total = cases * seeds * (1 + len(compared))
        done = {measurement.key for measurement in measured}
        with log.open("a") as file:
            for measurement in _measure(animator, options, compared, range(seeds), cases, frames, done):
                measured.append(measurement)
                file.write(measurement.line())
                file.flush()
                bars("measure", len(measured), total)
                if time.monotonic() > ends:
                    break
    summary = summarise(measured)
    rows = {name: summary[name] for name in METHODS if name in summary}
    if plot is not None:
        draw_front(plot, rows)
    for line in table(rows):
        terminal.say(line)
    return {
        "environment": environment(threads),
        "workload": header | {"model": describe_bundle(model), "backend": chosen},
        "clips": len({measurement.key[:2] for measurement in measured}),
        "methods": rows,
    }


def _resume(path: Path, header: Mapping[str, Any]) -> list[Measured]:
    """Return the measurements in a log; a new log begins with its header."""
    if not path.exists():
        path.write_text(json.dumps(header) + "\n")
        return []
    first, *lines = path.read_text().splitlines()
    if json.loads(first) != json.loads(json.dumps(header)):
        raise InputError(f"{path} is of another run ({first}); give another --log")
    return [Measured.parse(line) for line in lines]


def _measure(
    animator: Animator,
    options: Options,
    compared: Sequence[Way],
    seeds: Iterable[int],
    cases: int,
    frames: int,
    done: Collection[Any],
) -> Iterator[Measured]:
    """Measure the full run, then all ways in random order, for every seed and case; skip the keys in `done`."""
    judge = Judge()
    for seed in seeds:
        for case in truth.cases(cases):
            todo = [way for way in compared if (case.number, seed, str(way)) not in done]
            if not todo:
                continue
            drawn = truth.draw(case, animator.bundle.size, frames)
            states = animator.encode_portrait(drawn.portrait), animator.encode_motion(drawn.landmarks)
            full = make(animator, *states, replace(options, seed=seed))
            order = np.random.default_rng((case.number, seed)).permutation(len(todo)).tolist()
            for way in (None, *(todo[i] for i in order)):
                key = case.number, seed, FULL if way is None else str(way)
                if key in done:
                    continue
                clip = full if way is None else make(animator, *states, replace(way.options, seed=seed))
                distance, scores = psnr(clip.frames, full.frames), judge.compare(drawn, clip.frames)
                yield Measured(*key, clip.evaluations, clip.seconds, full.seconds, distance, scores)
