"""`fye eval compare` and `fye eval report`: the commands."""

from pathlib import Path
from typing import Annotated

import typer

from fye_bench.arguments import Json, command, one_of, option, writable
from fye_bench.evaluation.compare import compare, overview
from fye_bench.evaluation.comparison import comparison_lines, overview_lines, write_comparison, write_overview
from fye_bench.evaluation.ranking import COMBINED
from fye_bench.evaluation.report import write_report
from fye_bench.evaluation.saved import SavedRun
from fye_bench.metrics.table import METRICS
from fye_rt import files
from fye_rt.cli import terminal
from fye_rt.cli.arguments import Quiet
from fye_rt.errors import OptionError


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
    tell = terminal.show if html is None and json is None else terminal.say
    for line in text:
        tell(line)


@command("fye eval report")
def main_report(runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs.")]) -> None:
    """Write report.html into the folder of a run."""
    for folder in runs:
        terminal.say(str(write_report(folder)))
