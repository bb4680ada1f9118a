"""Arguments of the benchmarks that are words of `fye`."""

import argparse
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from fye_rt.bundle import Bundle
from fye_rt.errors import OptionError
from fye_rt.options import COMPUTES, FORECASTS, QUANTITIES, SOLVERS, Forecast, Options


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
    group.add_argument("--forecast", dest="method", choices=FORECASTS, default="off")
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


def options(given: argparse.Namespace, bundle: Bundle) -> Options:
    """What `add_options` was given, for a bundle.

    Raises:
        OptionError: a value outside its range.
    """
    forecast = Forecast(**{field.name: getattr(given, field.name) for field in fields(Forecast)})
    options = Options(steps=given.steps, solver=given.solver, seed=given.seed, compute=given.compute, forecast=forecast)
    return bundle.suited(options, guidance=given.guidance, shared_noise=given.shared_noise)
