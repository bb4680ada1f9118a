"""The command line, `fye`: its commands, exit codes and handling of errors."""

import errno
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from fye_rt.cli import commands, terminal
from fye_rt.cli.animate import animate
from fye_rt.cli.arguments import ClickException, usage_error
from fye_rt.cli.batch import batch
from fye_rt.cli.build import build
from fye_rt.cli.calibrate import calibrate
from fye_rt.cli.export import export
from fye_rt.cli.landmarks import landmarks
from fye_rt.errors import FyeError, memory_for
from fye_rt.version import __version__

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Animate portraits with Follow-Your-Emoji-Faster.")
for command in (commands.demo, animate, batch, landmarks, commands.motions, export, build, calibrate, commands.verify):
    app.command()(command)
PASSES_OPTIONS_ON: Any = {"allow_extra_args": True, "ignore_unknown_options": True}
for name, command in (("suite", commands.suite), ("eval", commands.evaluate), ("bench", commands.bench)):
    app.command(name, add_help_option=False, context_settings=PASSES_OPTIONS_ON)(command)
app.command()(commands.doctor)
LESS = "smaller inputs, or less --size, --frames or --workers if the command has these options"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fye` with `arguments`, by default the process's own.

    With the process's own, SIGTERM and SIGHUP stop the command as Ctrl-C does, unless they are ignored (nohup).

    Returns:
        The exit code. 0: the result exists; a note on stderr names anything else that was asked for and failed. 1: some
        jobs of a batch, or pairs of a suite, failed. 2: a user's mistake, explained in one line on stderr. 130, 143,
        129: stopped by Ctrl-C, SIGTERM, SIGHUP; finished parts of a stream, a batch or a resumed clip are kept, all
        else is removed.
    """
    if arguments is not None:
        return _run(arguments)
    terminal.open_streams()
    received: list[int] = []
    try:
        with _stopped_by_signals(received):
            code = _run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    terminal.settle()
    return 128 + received[0] if received else code


def _run(arguments: Sequence[str]) -> int:
    with terminal.warnings_as_notes():
        try:
            with memory_for(f"fye {' '.join(arguments[:1])}".strip(), LESS):
                command = typer.main.get_command(app)
                code = command.main(list(arguments) or ["--help"], prog_name="fye", standalone_mode=False)
        except (KeyboardInterrupt, typer.Abort):
            return 130
        except FyeError as error:
            terminal.note(str(error))
            return 2
        except ClickException as error:
            terminal.note(usage_error(error, "fye"))
            return 2
        except OSError as error:
            if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):  # a bug in fye-rt
                raise
            terminal.note(f"{error.filename or 'a file, or stdout'}: {error.strerror}")
            return 2
    return code or 0


@contextmanager
def _stopped_by_signals(received: list[int]) -> Iterator[None]:
    """Collect received signals; the first one and every Ctrl-C raise KeyboardInterrupt.

    A closing terminal sends SIGHUP twice, and the second one must not interrupt the cleaning up.
    """

    def stop(number: int, frame: object) -> None:
        received.append(number)
        if len(received) == 1 or number == signal.SIGINT:
            raise KeyboardInterrupt

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows lacks one
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_version(wanted: bool) -> None:
    if wanted:
        terminal.show(f"fye-rt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
