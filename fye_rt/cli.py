"""The command line, `fye`: which commands there are, and what becomes of errors."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from fye_rt import __version__, commands, terminal
from fye_rt.batch.command import batch
from fye_rt.errors import FyeError

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Portrait animation with Follow-Your-Emoji-Faster.")
for command in (
    commands.demo,
    commands.animate,
    batch,
    commands.landmarks,
    commands.export,
    commands.build,
    commands.calibrate,
    commands.verify,
):
    app.command()(command)
READS_ITS_OWN: Any = {"allow_extra_args": True, "ignore_unknown_options": True}  # options
for name, own in (("suite", commands.suite), ("eval", commands.evaluate), ("bench", commands.bench)):
    app.command(name, add_help_option=False, context_settings=READS_ITS_OWN)(own)
app.command()(commands.doctor)
# typer has its own copy of click in some versions and depends on it in others
ClickException: Any = typer.BadParameter.__mro__[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fye` with `arguments`, by default the process's own.

    Returns:
        The exit code: 0; 2 after one line on stderr for a user's mistake; 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    with terminal.warnings_as_notes():
        try:
            code = typer.main.get_command(app).main(arguments, prog_name="fye", standalone_mode=False)
        except (KeyboardInterrupt, typer.Abort):
            return 130
        except FyeError as error:
            terminal.note(str(error))
            return 2
        except ClickException as error:
            context = getattr(error, "ctx", None)
            path = context.command_path if context else "fye"
            terminal.note(f"{error.format_message().rstrip('.')}; see: {path} --help")
            return 2
        except OSError as error:
            if error.filename is None:  # a bug of ours
                raise
            terminal.note(f"{error.filename}: {error.strerror}")
            return 2
    return code or 0


def _print_version(wanted: bool) -> None:
    if wanted:
        terminal.say(f"fye-rt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
