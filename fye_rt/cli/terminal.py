"""Output of the command line: results on stdout, everything else on stderr."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import UnsupportedOperation
from typing import TYPE_CHECKING, Any, TextIO, cast

from fye_rt.cli.arguments import as_flags
from fye_rt.errors import OutputError, one_line

if TYPE_CHECKING:
    from rich.progress import TaskID

STDERR = 2  # the file descriptor that C++ libraries write to


def say(text: str) -> None:
    """Print a line about a result that is saved elsewhere; if stdout cannot be written, print it as a note."""
    try:
        show(text)
    except OutputError as error:
        note(f"{error}: {text}")


def show(text: str) -> None:
    """Print the result that a command is run for; do nothing if stdout is closed or its reader is gone.

    Raises:
        OutputError: stdout cannot be written.
    """
    try:
        _print(text, sys.stdout)
    except BrokenPipeError:
        pass  # for instance `| head`, which has all it needs
    except OSError as error:
        raise OutputError(f"cannot write to stdout ({error.strerror})") from error


def note(text: str) -> None:
    """Print one line on stderr that starts with the program's name."""
    with suppress(OSError):
        _print("fye: " + one_line(as_flags(text)), sys.stderr)


def _print(text: str, stream: TextIO | None) -> None:
    target: TextIO | None = getattr(stream, "rich_proxied_file", stream)
    if not _is_terminal(target):
        stream = target  # while bars are shown, rich would print on stderr
    if stream is None or target is None or target.closed:
        return
    try:
        text.encode(stream.encoding or "utf-8", stream.errors or "strict")
    except UnicodeEncodeError:  # a file name may have letters that the terminal lacks, or bytes that are not text
        text = text.encode(stream.encoding or "utf-8", "backslashreplace").decode(stream.encoding or "utf-8")
    print(text, file=stream, flush=True)


def open_streams() -> None:
    """Open those of file descriptors 0 to 2 that the process lacks: no result file may get their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # `open` takes the lowest free number


def settle() -> None:
    """Drop what stdout and stderr cannot write, because it would end the process with an error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Stderr:
    """Proxy for the current `sys.stderr`; text that cannot be written there is lost."""

    encoding = property(lambda self: getattr(sys.stderr, "encoding", "utf-8"))

    def write(self, text: str) -> int:
        with suppress(AttributeError, OSError, ValueError):
            self._stream().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(AttributeError, OSError, ValueError):
            self._stream().flush()

    def isatty(self) -> bool:
        return _is_terminal(self._stream())

    def fileno(self) -> int:
        return int(self._stream().fileno())

    def _stream(self) -> Any:
        return getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # rich replaces it while bars are shown


class Bars:
    """Progress bars, one for each stage of the work; called with (stage, finished, total)."""

    def __init__(self, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description:<20}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(file=cast(TextIO, _Stderr())),
            transient=True,
            disable=not shown,
        )
        self._tasks: dict[str, TaskID] = {}
        self.totals: dict[str, int] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Move the bar of `stage`, which appears at its first call."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage)
        self._progress.update(self._tasks[stage], completed=done, total=total)
        self.totals[stage] = total

    def start(self) -> None:
        """Show the bars."""
        self._progress.start()

    def stop(self) -> None:
        """Remove the bars."""
        self._progress.stop()


@contextmanager
def working(quiet: bool = False, verbose: bool = False) -> Iterator[Bars]:
    """Show bars on stderr, unless `quiet` or stderr is not a terminal; silence other libraries unless `verbose`."""
    bars = Bars(shown=not quiet and _is_terminal(sys.stderr))
    with _native_silence(not verbose), warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore")  # fye-rt logs what a user should know
        bars.start()
        try:
            yield bars
        finally:
            bars.stop()


@contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Print the warnings that fye-rt logs as notes."""
    logger, handler = logging.getLogger("fye_rt"), _Notes(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


@contextmanager
def _native_silence(enabled: bool) -> Iterator[None]:
    """Send file descriptor 2 nowhere; `sys.stderr` still reaches its reader.

    MediaPipe logs several lines before its logging can be configured, and has no option against it.
    """
    if not enabled or not _is_stderr(sys.stderr):
        yield
        return
    stderr = sys.stderr
    stderr.flush()
    copy, nowhere = os.dup(STDERR), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, STDERR)
        with os.fdopen(os.dup(copy), "w", buffering=1, encoding=stderr.encoding, errors=stderr.errors) as sys.stderr:
            yield
    finally:
        sys.stderr = stderr
        os.dup2(copy, STDERR)
        os.close(copy)
        os.close(nowhere)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # the stream is closed
        return False


def _is_stderr(stream: object) -> bool:
    """Return whether a stream writes to file descriptor 2; a test's capture does not."""
    try:
        return stream.fileno() == STDERR  # type: ignore[attr-defined]
    except (AttributeError, UnsupportedOperation, ValueError):
        return False
