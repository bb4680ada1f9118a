"""`fye eval compare` and `fye eval report`: the commands."""

from collections.abc import Sequence
from pathlib import Path

from fye_bench.arguments import Parser
from fye_bench.evaluation.compare import compare_runs
from fye_bench.evaluation.comparison import table, write_comparison
from fye_bench.evaluation.overview import lines, overview, write_overview_of
from fye_bench.evaluation.ranking import COMBINED
from fye_bench.evaluation.report import write_report
from fye_bench.evaluation.saved import SavedRun
from fye_bench.metrics.table import METRICS
from fye_rt import files
from fye_rt.cli import terminal
from fye_rt.clips import write
from fye_rt.errors import OptionError


def main_compare(argv: Sequence[str]) -> int:
    """Run `fye eval compare` with its arguments; returns the exit code.

    Raises:
        FyeError: an option or a run is at fault.
    """
    parser = Parser(prog="fye eval compare", description="Compare runs of one suite, pair by pair, with the first one.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs, two or more")
    parser.add_argument(
        "--by",
        choices=(COMBINED, *METRICS),
        default=COMBINED,
        metavar="METRIC",
        help="what the worst pairs of two runs are chosen by (%(default)s: all metrics)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the comparison")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    given = parser.parse_args(argv)
    if len(given.runs) < 2:
        raise OptionError("one run cannot be compared; give two or more")
    for path, suffix in ((given.json, ".json"), (given.html, ".html")):
        if path is not None:
            write.check_output(path, (suffix,))
    if len(given.runs) > 2:
        if given.by != COMBINED:
            raise OptionError(f"--by {given.by} chooses pairs of two runs; give two, or leave it out")
        found = overview(given.runs)
        if given.html is not None:
            write_overview_of(found, given.html)
        text = lines(found)
    else:
        a, b = map(SavedRun.load, given.runs)
        with terminal.working(given.quiet) as bars:
            found = compare_runs(a, b, given.by, lambda done, total: bars("compare", done, total))
        if given.html is not None:
            write_comparison(found, a, b, given.html)
        text = table(found)
    if given.json is not None:
        files.write_json(given.json, found)
    tell = terminal.show if given.html is None and given.json is None else terminal.say
    for line in text:
        tell(line)
    return 0


def main_report(argv: Sequence[str]) -> int:
    """Run `fye eval report` with its arguments; returns the exit code.

    Raises:
        FyeError: an option or a run is at fault.
    """
    parser = Parser(prog="fye eval report", description="Write report.html into the folder of a run.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of runs")
    for run in parser.parse_args(argv).runs:
        terminal.say(str(write_report(run)))
    return 0
