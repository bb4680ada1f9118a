"""What the command line says while it works: results on stdout, everything else on stderr."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import UnsupportedOperation
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

STDERR = 2  # the file descriptor that C++ libraries write to


def say(text: str) -> None:
    """A result, on stdout."""
    print(text)


def note(text: str) -> None:
    """One line on stderr that starts with the program's name."""
    # file names and foreign messages may hold line breaks and escape sequences
    print("fye: " + "".join(c if c.isprintable() else " " for c in text), file=sys.stderr)


class Bars:
    """Progress bars, one for each stage of the work; called with (stage, finished, all)."""

    def __init__(self, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description:<20}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not shown,
        )
        self._tasks: dict[str, TaskID] = {}
        self.totals: dict[str, int] = {}

    def __call__(self, stage: str, finished: int, total: int, detail: str = "") -> None:
        """Move the bar of `stage`, which appears at its first call; `detail` stands behind its name."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage)
        self._progress.update(
            self._tasks[stage], completed=finished, total=total, description=f"{stage} {detail}".strip()
        )
        self.totals[stage] = total

    def start(self) -> None:
        """Show the bars."""
        self._progress.start()

    def stop(self) -> None:
        """Take them away."""
        self._progress.stop()


@contextmanager
def working(quiet: bool = False, verbose: bool = False) -> Iterator[Bars]:
    """Bars on stderr, unless `quiet` or stderr is no terminal; other libraries are silenced unless `verbose`."""
    bars = Bars(shown=not quiet and sys.stderr.isatty())
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
    """Warnings that fye-rt logs become notes."""
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
def _native_silence(wanted: bool) -> Iterator[None]:
    """Send file descriptor 2 nowhere; `sys.stderr` still reaches its reader.

    MediaPipe logs several lines before its logging can be configured, and has no option against it.
    """
    if not wanted or not _is_stderr(sys.stderr):
        yield
        return
    python = sys.stderr
    python.flush()
    kept, nowhere = os.dup(STDERR), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, STDERR)
        with os.fdopen(os.dup(kept), "w", buffering=1, encoding=python.encoding, errors=python.errors) as sys.stderr:
            yield
    finally:
        sys.stderr = python
        os.dup2(kept, STDERR)
        os.close(kept)
        os.close(nowhere)


def _is_stderr(stream: object) -> bool:
    """Whether a stream writes to file descriptor 2; a test's capture does not."""
    try:
        return stream.fileno() == STDERR  # type: ignore[attr-defined]
    except (AttributeError, UnsupportedOperation, ValueError):
        return False
