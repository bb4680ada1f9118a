"""A clip, finished or in the making, and how it is played."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fye_rt import media
from fye_rt.landmarks import LandmarkImages
from fye_rt.media.paste import Paste, over
from fye_rt.timings import Progress, Timings
from fye_rt.version import __version__

SYNTHETIC = f"a picture animated by fye-rt {__version__}"  # what every result says of itself

Image = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Playback:
    """When frames are shown, and with what sound.

    Attributes:
        fps: nominal frames per second of the motion.
        times: seconds of each frame since the driving video's first, or None for even spacing.
        seconds: end of the last frame, or None.
        audio_from: the file whose sound it has.
        audio_start: seconds of that sound to leave out.
        crf: constant rate factor of its mp4.
    """

    fps: float
    times: tuple[float, ...] | None = None
    seconds: float | None = None
    audio_from: Path | None = None
    audio_start: float = 0.0
    crf: int = media.CRF

    def writer(self, path: str | os.PathLike[str], times: Iterable[float] | None = None) -> media.FrameWriter:
        """Open a video for as many frames as the clip has, of any size, with the driving video's frame times and sound.

        A path without a suffix becomes a folder of PNGs.

        `times` replaces the clip's own times, for clips whose times are known only when the frames come.
        """
        times = self.times if times is None else times
        if not Path(path).suffix:
            return media.PictureSequence(path)
        return media.VideoWriter(
            path,
            self.fps,
            times=times,
            audio_from=self.audio_from,
            audio_start=self.audio_start,
            seconds=self.seconds,
            crf=self.crf,
            comment=f"synthetic: {SYNTHETIC}",
        )


@dataclass(frozen=True, kw_only=True)
class Clip(Playback):
    """An animated portrait.

    Attributes:
        frames: uint8 (F, H, W, 3) RGB; pasted ones have the picture's size, and with `Crop.alpha` four channels.
        portrait: uint8 (H, W, 3), the animated part of the picture.
        landmarks: uint8 (F, H, W, 3), the guider's input.
        timings: seconds spent, by stage.
        notices: messages for the user, about bridged gaps or several faces.
    """

    frames: Image
    portrait: Image
    landmarks: Image
    timings: Mapping[str, float]
    notices: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all frames."""
        return self.frames.shape

    def save(self, path: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Write an mp4 with the driving video's frame times and sound; the file appears whole or not at all.

        `progress` is called with ("write", finished, all) frames.
        """
        self.write(path, self.frames, progress)

    def write(self, path: str | os.PathLike[str], frames: Iterable[Image], progress: Progress | None = None) -> None:
        """Write an mp4 of other frames than the clip's own: as many, of any size; see `save`."""
        with self.writer(path) as video:
            for done, frame in enumerate(frames):
                if progress is not None:
                    progress("write", done, len(self))
                video.add(frame)
        if progress is not None:
            progress("write", len(self), len(self))

    def contact_sheet(self, columns: int = 8) -> Image:
        """Show the portrait, landmarks and evenly chosen frames in one picture, uint8 (H', W', 3)."""
        indices = evenly(len(self), columns)
        return contact_sheet(self.portrait, self.landmarks[indices], self.frames[indices])

    def rows(self, columns: int) -> tuple[list[Image], list[Image]]:
        """Return two rows of a sheet: the portrait and evenly chosen landmarks; below them a blank and their frames."""
        indices = evenly(len(self), columns)
        return [self.portrait, *self.landmarks[indices]], [np.zeros_like(self.portrait), *self.frames[indices]]


class Rendering(Playback):
    """A clip in the making: iterate over it once for its frames, which come as they are finished.

    Frames are uint8 (H, W, 3). Pasted ones have the picture's size, and with `alpha` four channels.

    Args:
        playback: how the clip is played.
        portrait: uint8 (H, W, 3), the animated part of the picture.
        landmarks: uint8 (F, H, W, 3), the guider's input, drawn on access.
        notices: messages for the user, about bridged gaps or several faces.
        pieces: frames uint8 (f, H, W, 3), piece by piece, as they are finished.
        timings: counts the seconds of each stage.
        paste: pastes frames into the picture.
        alpha: whether pasted frames have alpha instead of the picture around them.
    """

    def __init__(
        self,
        playback: Playback,
        portrait: Image,
        landmarks: LandmarkImages,
        notices: tuple[str, ...],
        pieces: Iterator[Image],
        timings: Timings,
        paste: Paste | None = None,
        alpha: bool = False,
    ) -> None:
        super().__init__(**asdict(playback))
        self.portrait, self.landmarks, self.notices = portrait, landmarks, notices
        self._pieces, self._timings, self._started = pieces, timings, False
        self.paste, self.alpha = paste, alpha
        self._canvases: deque[Image] = deque()

    def __len__(self) -> int:
        return len(self.landmarks)

    def __iter__(self) -> Iterator[Image]:
        return map(self.finished, self.unpasted())

    def unpasted(self) -> Iterator[Image]:
        """Iterate over the frames uint8 (H, W, 3) as the model makes them, before they are pasted."""
        if self._started:
            raise RuntimeError("the frames of this rendering were already read; render the clip again")
        self._started = True
        return (frame for piece in self._pieces for frame in piece)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all frames."""
        if self.paste is None:
            return self.landmarks.shape
        return len(self), *self.paste.picture.shape[:2], 4 if self.alpha else 3

    def finished(self, frame: Image, reuse: bool = False) -> Image:
        """Return a frame as the clip shows it: pasted into the picture, if that was asked for.

        With `reuse`, the call after the next one overwrites the result, which saves copies of a large picture.
        """
        if self.paste is None:
            return frame
        with self._timings.stage("paste"):
            if self.alpha:
                return self.paste.cut_out(frame)
            if not reuse:
                return self.paste(frame)
            canvas = self.paste.picture.copy() if len(self._canvases) < 2 else self._canvases.popleft()
            self._canvases.append(canvas)
            self.paste.clear(canvas)
            self.paste.onto(canvas, frame)
            return canvas

    def onto(self, canvas: Image, frame: Image) -> Image:
        """Return a finished frame of another face of the picture with this frame pasted over it, perhaps in place.

        Raises:
            ValueError: frames of this rendering are not pasted.
        """
        if self.paste is None:
            raise ValueError("frames of this rendering are not pasted")
        with self._timings.stage("paste"):
            if self.alpha:
                return over(canvas, self.paste.cut_out(frame))
            self.paste.onto(canvas, frame)
            return canvas

    @property
    def timings(self) -> Mapping[str, float]:
        """Seconds spent so far, by stage."""
        return dict(self._timings.seconds)

    def clip(self) -> Clip:
        """Make all frames now, and return the clip."""
        frames = np.empty(self.shape, np.uint8)
        for target, frame in zip(frames, self, strict=True):
            target[...] = frame
        return Clip(
            **asdict(self),
            frames=frames,
            portrait=self.portrait,
            landmarks=self.landmarks[:],
            timings=self.timings,
            notices=self.notices,
        )


def evenly(frames: int, count: int) -> NDArray[np.int64]:
    """Return the indices of `count` evenly spaced frames, or of all if there are fewer, from the first to the last."""
    return np.linspace(0, frames - 1, min(count, frames)).round().astype(np.int64)


def contact_sheet(portrait: Image, landmarks: Image, frames: Image) -> Image:
    """Show the portrait, landmarks and frames in three rows, uint8 (H', W', 3)."""
    return media.contact_sheet([[portrait], list(landmarks), list(frames)], ["portrait", "landmarks", "frames"])
