"""Command lines of the benchmarks: typer reads them as it reads those of `fye`."""

import inspect
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from fye_rt import files
from fye_rt.bundle import Bundle
from fye_rt.cli import terminal
from fye_rt.cli.arguments import ClickException, keyword, signed, usage_error
from fye_rt.clips import write
from fye_rt.errors import FyeError, OptionError
from fye_rt.options import ClipRequest
from fye_rt.settings import parse_request

Main = Callable[[Sequence[str]], int]


def run(main: Main) -> NoReturn:
    """Run a benchmark with the process's arguments and end with its exit code; an error is one line and code 2."""
    try:
        sys.exit(main(sys.argv[1:]))
    except FyeError as error:
        terminal.note(str(error))
        sys.exit(2)
    except typer.Abort:  # Ctrl-C
        sys.exit(130)


def command(program: str) -> Callable[[Callable[..., int | None]], Main]:
    """Turn a typed function into a `main` that reads its command line with typer and returns the exit code.

    The function returns the exit code, or None for 0. Its parameter `context: typer.Context`, if any, holds the words
    of the whole command line in `context.obj`. A repeatable option also takes several values at once.

    Args:
        program: name of the command, for instance "fye eval".
    """

    def decorate(function: Callable[..., int | None]) -> Main:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command()(function)
        return lambda argv: call(app, program, argv)

    return decorate


def benchmark(program: str) -> Callable[[Callable[..., Mapping[str, Any]]], Main]:
    """Do as `command` does, for a function that returns its result; the option `--json` writes that to a file."""

    def decorate(function: Callable[..., Mapping[str, Any]]) -> Main:
        def measure(context: typer.Context, json: Path | None, **values: Any) -> None:
            result = function(**values)
            if json is not None:
                files.write_json(json, {"command": context.obj, **result})

        parameters = list(inspect.signature(function).parameters.values())
        context = keyword("context", typer.Context, inspect.Parameter.empty)
        return command(program)(signed(measure, function, [context, *parameters, keyword("json", Json)]))

    return decorate


def call(app: typer.Typer, program: str, argv: Sequence[str]) -> int:
    """Run a typer app and return its exit code.

    Raises:
        OptionError: an argument is wrong; the message is one line.
    """
    click_command: Any = typer.main.get_command(app)
    lists = {flag for each in click_command.params if getattr(each, "multiple", False) for flag in each.opts}
    words = [*program.split(), *argv]
    try:
        code = click_command.main(_repeated(argv, lists), prog_name=program, standalone_mode=False, obj=words)
    except ClickException as error:
        raise OptionError(usage_error(error, program)) from error
    return code or 0


def _repeated(argv: Sequence[str], lists: Collection[str]) -> list[str]:
    """Write `--flag A B` of a repeatable option as `--flag A --flag B`."""
    words, flag = [], ""
    for word in argv:
        if word in lists:
            flag = word
        elif flag and not word.startswith("-"):
            words += [flag, word]
        else:
            words, flag = [*words, word], ""
    return words


def one_of(names: Collection[str]) -> Callable[[str], str]:
    """Return a parser for `typer.Option` that accepts these names alone."""

    def parse(text: str) -> str:
        if text not in names:
            raise typer.BadParameter(f"{text!r} is not valid; allowed: {', '.join(map(repr, names))}")
        return text

    return parse


def option(metavar: str, text: str, *flags: str, **settings: Any) -> Any:
    """Return a `typer.Option` with a help text; its value is shown as `metavar`."""
    return typer.Option(*flags, metavar=metavar, help=text, **settings)


def writable(*suffixes: str) -> Callable[[Path | None], Path | None]:
    """Return a callback for `option` that refuses a file that could not be written, or has another suffix."""

    def check(path: Path | None) -> Path | None:
        if path is not None:
            write.check_output(path, suffixes)
        return path

    return check


Json = Annotated[Path | None, option("FILE", "Also write the result.", callback=writable(".json"))]
Rounds = Annotated[int, option("N", "Repetitions of every measurement.", min=1, max=1000)]
Size = Annotated[str, option("HxW", "Height and width of the clip.")]
EveryStep = Annotated[str, typer.Option(help="Forecast, as for animate; off evaluates every step.")]


def request(settings: Mapping[str, Any], bundle: Bundle) -> ClipRequest:
    """Parse a command's settings; options that they leave open are the bundle's. Portrait and motion stay empty.

    Raises:
        OptionError: a value outside its range.
        InputError: a size that no clip can have.
    """
    parsed = parse_request(settings)
    return replace(parsed, options=bundle.resolve(parsed.options))
