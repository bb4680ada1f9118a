"""Arguments of the benchmarks, and how those that are no words of `fye` are run."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from fye_rt.bundle import Bundle
from fye_rt.errors import FyeError, OptionError
from fye_rt.options import COMPUTES, FORECASTS, QUANTITIES, SETTINGS, SOLVERS, ClipRequest, Options, parse_request

EVERY_STEP = {"forecast": "off", "windows": "context"}  # of `parse_request`: for what measures the network itself


def run(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a benchmark with the process's arguments and end with its exit code; an error is one line and code 2."""
    try:
        sys.exit(main(sys.argv[1:]))
    except FyeError as error:
        from fye_rt.cli import terminal  # what GPUs are measured with needs no package of the command line

        terminal.note(str(error))
        sys.exit(2)


class Parser(argparse.ArgumentParser):
    """A wrong argument is one line, as of every command of `fye`, and no usage block."""

    def error(self, message: str) -> NoReturn:
        """Raise OptionError."""
        raise OptionError(f"{message}; see: {self.prog} --help")


class Between:
    """Whole numbers from `low` to `high`, as argparse's `choices`: its error names the two ends alone."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def __contains__(self, number: int) -> bool:
        return self.low <= number <= self.high

    def __iter__(self) -> Iterator["Between"]:
        yield self

    def __repr__(self) -> str:
        return f"{self.low} to {self.high}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of one clip, as `fye animate` has them."""
    default = Options()
    parser.add_argument("--steps", type=int, default=default.steps, help="of the solver (%(default)s)")
    parser.add_argument("--solver", choices=SOLVERS, default=default.solver)
    parser.add_argument("--guidance", type=float, help="by default what suits the model")
    parser.add_argument("--shared-noise", type=float, help="by default what suits the model")
    parser.add_argument("--seed", type=int, default=default.seed, help="of the noise (%(default)s)")
    parser.add_argument("--compute", choices=COMPUTES, default=default.compute)
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    group = parser.add_argument_group("forecast")
    group.add_argument("--forecast", choices=FORECASTS)
    group.add_argument("--evaluations", **number, help="of the network, evenly spread")
    group.add_argument("--interval", **number, help="evaluate every N-th step instead")
    group.add_argument("--warm-up", **number, help="first steps that are all evaluated")
    group.add_argument("--last-step", action=argparse.BooleanOptionalAction, help="evaluate the last step")
    group.add_argument("--quantity", choices=QUANTITIES, help="what is forecast")
    group.add_argument("--order", **number, help="of the polynomial")
    group.add_argument("--face-mask", action="store_true", default=None, help="reuse outside of the face")
    group.add_argument("--tolerance", type=float, help="accepted error of a jump (adaptive)")
    group.add_argument("--max-evaluations", **number, help="at most that many (adaptive)")


def add_networks(parser: argparse.ArgumentParser) -> None:
    """Those that measure a clip and do not come with fye-rt."""
    parser.add_argument("--identity-model", type=Path, metavar="ONNX", help="a face-recognition network")
    parser.add_argument("--lpips", type=Path, metavar="WEIGHTS", help='state dict of lpips.LPIPS(net="alex")')


def request(given: argparse.Namespace, bundle: Bundle, **defaults: Any) -> ClipRequest:
    """The clip that the arguments of a command ask for, by their names; its sources are left open.

    Args:
        given: its arguments.
        bundle: which says what is left open of the options.
        defaults: settings of `fye_rt.options.parse_request`, where the arguments have none.

    Raises:
        OptionError: a value outside its range.
        InputError: a size that no clip can have.
    """
    named = {name: getattr(given, name, None) for name in SETTINGS}
    parsed = parse_request(defaults | {name: value for name, value in named.items() if value is not None})
    return replace(parsed, options=bundle.resolve(parsed.options))
