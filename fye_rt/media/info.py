"""Facts about a video, and which part of it is used."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Self

from fye_rt.errors import InputError
from fye_rt.media.checks import Limits

NEAR = Fraction(1, 1000)  # a frame this much before a part is in it: Matroska rounds times to 1/1000 s


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Facts about a video, or about the part of it that is used, known without decoding all of it.

    Attributes:
        width: width of a shown frame (square pixels, after rotation), pixels.
        height: height of a shown frame, pixels.
        fps: nominal frames per second, 0.1 to 1000; the mean rate if the rate varies.
        frames: number of shown frames, at most the number to be used.
        seconds: time from the first frame to the end of the last of them.
        rotation: degrees clockwise by which a player must turn the stored frames: 0, 90, 180 or 270.
        has_audio: True if the file has a sound track.
        variable_rate: True if frames are unevenly spaced in time.
        start: time of the first of the frames on the file's own clock, seconds.
        pixel_aspect: width of a stored pixel divided by its height, as stated; 1 if the file states none.
        times: seconds of each frame since the first if the times stated by the frames alone would not rise, else None.
        offset: seconds from the first frame that the file shows to the first of the frames; 0 unless a part is used.
        skipped: number of frames shown before the part, counted only if `times` are not None.
    """

    width: int
    height: int
    fps: Fraction
    frames: int
    seconds: float
    rotation: int
    has_audio: bool
    variable_rate: bool
    start: Fraction = Fraction(0)
    pixel_aspect: Fraction = Fraction(1)
    times: tuple[Fraction, ...] | None = field(default=None, repr=False)
    offset: Fraction = Fraction(0)
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a video that is used.

    Attributes:
        start: seconds from the first frame that the file shows.
        seconds: length; None means to the end.
        max_frames: number of frames after which it ends; None means no limit.
    """

    start: Fraction = Fraction(0)
    seconds: Fraction | None = None
    max_frames: int | None = None

    @classmethod
    def of(cls, start: float, seconds: float | None, max_frames: int | None) -> Self | None:
        """Return the part, or None if it would be empty or is not one: negative, infinite, NaN."""
        if not (0 <= start < math.inf) or not (seconds is None or 0 < seconds < math.inf):
            return None
        return cls(Fraction(start), None if seconds is None else Fraction(seconds), max_frames)

    @property
    def end(self) -> Fraction | None:
        """Seconds from the first frame that the file shows to the part's end; None means the file's end."""
        return None if self.seconds is None else self.start + self.seconds

    @property
    def is_timed(self) -> bool:
        """Whether times bound the part."""
        return bool(self.start) or self.seconds is not None

    def follows(self, time: Fraction) -> bool:
        """Return whether the part begins after `time`."""
        return time < self.start - NEAR

    def precedes(self, time: Fraction) -> bool:
        """Return whether the part has ended at `time`."""
        return self.end is not None and time >= self.end - NEAR

    def select(self, times: Sequence[Fraction]) -> tuple[int, int]:
        """Return the index of the first frame of the part, and of the first one behind it, for times that rise."""
        first = next((k for k, time in enumerate(times) if not self.follows(time)), len(times))
        behind = next((k for k in range(first, len(times)) if self.precedes(times[k])), len(times))
        return first, behind if self.max_frames is None else min(behind, first + self.max_frames)


def empty_part(path: Path, start: float, seconds: float | None, length: float) -> InputError:
    """Return the error for a part without a frame of a video of `length` seconds."""
    span = f"start={start:g}" if seconds is None else f"start={start:g} and seconds={seconds:g}"
    return InputError(f"{path} is {length:.2f} seconds long and shows no frame from {span}; choose a part within it")


def check_length(path: Path, since: Sequence[Fraction], whole: bool, limits: Limits) -> None:
    """Refuse frames, given by their seconds since the first, over the limits; the message says how many are allowed.

    Raises:
        InputError: more frames or seconds than `limits` allow; `whole` tells whether `since` has all frames.
    """
    allowed = sum(time <= limits.max_seconds for time in since[: limits.max_frames])
    remedy = f"pass frames={allowed}, or cut it"
    if len(since) > limits.max_frames:
        count = f"{len(since):,}" if whole else f"over {limits.max_frames:,}"
        raise InputError(f"{path} has {count} frames; the limit is {limits.max_frames:,}: {remedy}")
    if since[-1] > limits.max_seconds:
        raise InputError(
            f"{path} is {float(since[-1]):.0f} seconds long; the limit is {limits.max_seconds:.0f}: {remedy}"
        )
