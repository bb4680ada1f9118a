"""Output files of the command line, and the checks before hours of work go into them."""

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from fye_rt import media
from fye_rt.clips.clip import Image, Rendering, contact_sheet, evenly
from fye_rt.clips.live import Stream
from fye_rt.errors import InputError, OptionError, OutputError
from fye_rt.files import followed, remove_left_over
from fye_rt.timings import Progress, no_progress

logger = logging.getLogger("fye_rt")


def check_output(path: Path, suffixes: Sequence[str], sources: Sequence[Path] = ()) -> None:
    """Refuse an output path that could not be written, or that would overwrite a source of the result.

    Removes what killed runs left beside it.

    Raises:
        OptionError: the path has another suffix, or is one of `sources`.
        OutputError: its folder is missing or read-only, or the path is itself a folder.
    """
    if path.suffix.lower() not in suffixes:
        ending = " or ".join(suffix or "no suffix, for a folder of PNGs" for suffix in suffixes)
        raise OptionError(f"cannot write {path}: its name must end in {ending}")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder")
    folder = followed(path).parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise OutputError(f"cannot write {path}: choose a folder that exists and is writable")
    if any(path.exists() and source.exists() and path.samefile(source) for source in sources):
        raise OptionError(f"cannot write {path}: the result is made from it; choose another name")
    remove_left_over(folder)


@contextmanager
def extra(result: Path) -> Iterator[None]:
    """Turn an OutputError into a warning on the logger "fye_rt"; the main `result` stays."""
    try:
        yield
    except OutputError as error:
        logger.warning("%s; %s is complete", error, result)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Defer signals that Python handles until the `with` block ends."""
    waiting: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows lacks one
            if number is not None and callable(signal.getsignal(number)):
                before[number] = signal.signal(number, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in waiting:
            before[number](number, None)


def write_clip(rendering: Rendering, path: Path, comparison: Path | None, sheet: Path | None, columns: int = 8) -> None:
    """Make a clip and write it frame by frame; files appear whole or not at all.

    Args:
        rendering: the clip in the making.
        path: path of its mp4.
        comparison: path of an mp4 with portrait, landmarks and result side by side.
        sheet: path of a picture of the portrait, landmarks and some frames.
        columns: number of those frames.

    Raises:
        FyeError: making or writing failed.
    """
    indices = evenly(len(rendering), columns)
    sheet_frames: list[Image] = []
    side_by_side = nullcontext() if comparison is None else _Comparison(rendering.writer(comparison), path)
    with side_by_side as second, rendering.writer(path) as video:
        for k, frame in enumerate(rendering.unpasted()):
            video.add(rendering.finished(frame, reuse=True))  # a writer keeps the frame before, and none before that
            if second is not None:
                second.add(np.concatenate([rendering.portrait, rendering.landmarks[k : k + 1][0], frame], axis=1))
            if k in indices:
                sheet_frames.append(frame)
    if sheet is not None:
        with extra(path):
            picture = contact_sheet(rendering.portrait, rendering.landmarks[indices], np.stack(sheet_frames))
            media.write_image(sheet, picture)


class _Comparison:
    """A second mp4 that may fail without costing the first, `result`, which is finished before it."""

    def __init__(self, writer: media.FrameWriter, result: Path) -> None:
        self._writer, self._result = writer, result
        self._opened = ExitStack()
        self._video: media.FrameWriter | None = None

    def __enter__(self) -> Self:
        with extra(self._result):
            self._video = self._opened.enter_context(self._writer)
        return self

    def add(self, image: Image) -> None:
        """Write the next frame, unless an earlier one failed."""
        if self._video is None:
            return
        try:
            self._video.add(image)
        except OSError:
            self._video = None
            with extra(self._result), self._opened:  # which words the error
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._opened.__exit__(kind, error, trace)
            return
        with extra(self._result):
            self._opened.close()


def write_stream(path: Path, stream: Stream, frames: int | None = None, progress: Progress = no_progress) -> int:
    """Write frames as they are finished, and return their number. Ctrl-C ends the clip and keeps the finished frames.

    Args:
        path: path of the mp4.
        stream: the frames.
        frames: number of expected frames, if known.
        progress: called with ("stream", done, total) frames.

    Raises:
        KeyboardInterrupt: no frame was finished yet.
        FyeError: making or writing failed.
    """
    written = 0
    with closing(stream), ExitStack() as opened:
        video = opened.enter_context(stream.writer(path, stream.frame_times))
        try:
            for piece in stream:
                with uninterrupted():  # a half-encoded frame would spoil those after it
                    for frame in piece:
                        video.add(frame)
                        written += 1
                progress("stream", written, max(written, frames or 0))
        except KeyboardInterrupt:
            if not written:
                raise
        if not written:
            raise InputError("no frame showed a face, so nothing was made; give a motion that shows one")
        with uninterrupted():
            opened.close()
    return written
