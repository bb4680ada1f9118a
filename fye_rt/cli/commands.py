"""The short commands of `fye`; each imports its modules when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from fye_rt.cli import terminal
from fye_rt.cli.arguments import Backend, Quiet
from fye_rt.cli.optional import model_notes, optional, say_written
from fye_rt.errors import OptionError
from fye_rt.settings import DEFAULT_FORECAST

# by the word after `fye bench`; without one, latency runs
BENCHMARKS = {
    "forecast": "fye_bench.studies.forecasts",
    "windows": "fye_bench.studies.windows",
    "batch": "fye_bench.speed.batches",
}


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write into.")] = Path(
        "fye-demo"
    ),
    forecast: Annotated[
        str, typer.Option(help="Forecast, as for fye animate; off evaluates every step.")
    ] = DEFAULT_FORECAST,
    quiet: Quiet = False,
) -> None:
    """Animate the four shipped portraits.

    They are a person, a cartoon, a sculpture and an animal. The command writes demo.mp4, contact_sheet.png and
    timings.json into DIR.
    """
    from fye_rt.cli.demo import run

    with terminal.working(quiet) as bars:
        bundle, clips = run(output, bars, forecast)
    for family, clip in clips.items():
        say_written(family, clip)
    terminal.say(f"{output / 'demo.mp4'}: all of them")
    terminal.say(f"{output / 'contact_sheet.png'}: portraits, landmarks and frames")
    for note in model_notes(bundle):
        terminal.say(note)


def motions() -> None:
    """List the motions that need no video: `fye animate PORTRAIT builtin:NAME -o OUT.mp4`."""
    from fye_rt.landmarks.builtin import BUILTINS, PREFIX

    for name, motion in BUILTINS.items():
        terminal.show(f"{PREFIX + name:<20} {motion.seconds:3.1f} s  {motion.description}")


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle to check.")],
    backend: Backend = "auto",
    quiet: Quiet = False,
) -> None:
    """Check every hash of a bundle and run every graph once."""
    from fye_rt import Bundle
    from fye_rt.cli.verify import table
    from fye_rt.cli.verify import verify as run_graphs

    with terminal.working(quiet) as bars:
        bars("check the bundle", 0, 1)
        model = Bundle.load(bundle)
        bars("check the bundle", 1, 1)
        checks = run_graphs(model, backend, bars)
    for line in (*table(checks), *model_notes(model), "ok"):
        terminal.show(line)


def bench(context: typer.Context) -> None:
    """Time the runtime against the baseline, interleaved.

    `fye bench forecast` compares the forecasts that skip network evaluations, `fye bench windows` the kinds of windows
    on long clips, and `fye bench batch` one worker with several.
    """
    arguments = list(context.args)
    module = BENCHMARKS.get(arguments[0]) if arguments else None
    if module is not None:
        del arguments[0]
    raise typer.Exit(optional(module or "fye_bench.speed.latency", "bench").main(arguments) or 0)


def suite(context: typer.Context) -> None:
    """Make, check and show suites of portraits and driving motions.

    A suite also says which motion drives which portrait. `fye suite init` makes one from a folder's files, and
    `fye suite drawn` one of drawn portraits whose true frames are known. `fye suite check` compares all files with
    their hashes, and `fye suite show` lists the content of a suite.
    """
    raise typer.Exit(optional("fye_bench.suites.command", "bench").main(list(context.args)) or 0)


def evaluate(context: typer.Context) -> None:
    """Make and measure the clips of a suite, and compare runs.

    `fye eval SUITE -o RUN` evaluates a bundle, `fye eval compare RUN_A RUN_B` reports changes pair by pair, and
    `fye eval report RUN` rewrites a run's page.
    """
    raise typer.Exit(optional("fye_bench.evaluation.command", "bench").main(list(context.args)) or 0)


def doctor(
    get: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only download NAME: landmarker, which is MediaPipe's face model (4 MB)."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Mirror for --get to download from; the hash must match.")] = None,
    quiet: Quiet = False,
) -> None:
    """Test this installation and say how to get what it lacks.

    The exit code is 1 if the core does not work: its packages, pictures, videos, or the shipped bundle on ONNX Runtime.
    """
    if get is not None:
        return _get(get, url, quiet)
    if url is not None:
        raise OptionError("--url needs --get landmarker; add it, or leave --url out")
    from fye_rt.cli.doctor import examine

    with terminal.working(quiet):
        lines = list(examine())
    for line in lines:
        terminal.show(f"{line.part:<28} {line.state:<7} {line.how}")
    if any(line.broken for line in lines):
        raise typer.Exit(1)


def _get(model: str, url: str | None, quiet: bool) -> None:
    from fye_rt.landmarks.download import DOWNLOADS, get_landmarker

    if model not in DOWNLOADS:
        raise OptionError(f"--get {model!r} is not valid; allowed: {', '.join(DOWNLOADS)}")
    with terminal.working(quiet) as bars:
        path = get_landmarker(url, progress=bars)
    terminal.say(f"{path}: the hash matches")
