"""Read animated pictures that FFmpeg cannot (WebP, AVIF) as videos, one picture in memory at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import FyeError, InputError, OutOfMemoryError
from fye_rt.media import times
from fye_rt.media.checks import Limits
from fye_rt.media.images import image_errors, opened_image
from fye_rt.media.info import Part, VideoInfo, check_length, empty_part
from fye_rt.media.kinds import named
from fye_rt.media.profiles import Colours

if TYPE_CHECKING:
    from PIL import Image

TICK = Fraction(1, 1000)  # s; WebP's clock, to which Pillow rounds AVIF's times
SHORTEST = {"WEBP": 10, "AVIF": 0}  # ms; a picture that is stated to last no longer is shown as long...
USUAL = 100  # ms; ...as browsers show it


def is_animation(path: Path, limits: Limits) -> bool:
    """Return whether a file is an animation that `probe_animation` reads.

    Raises:
        InputError: it is WebP or AVIF, but damaged or outside `limits`.
    """
    with path.open("rb") as file:
        head = file.read(64)
    if (head[:4], head[8:12]) != (b"RIFF", b"WEBP") and (named(head) or ("",))[0] != "AVIF":
        return False
    with image_errors(path), opened_image(path, limits) as image:
        return image.format in SHORTEST and bool(getattr(image, "is_animated", False))


def probe_animation(path: Path, limits: Limits, part: Part) -> VideoInfo:
    """Decode an animation to the end of a part; its size, its rate and its times are those of `read_animation`.

    Raises:
        InputError: it is damaged, shows nothing in the part, or is outside `limits`.
        OutOfMemoryError: memory ran out.
    """
    from PIL import ImageOps

    most = limits.max_frames + 1 if part.max_frames is None else part.max_frames
    ticks: list[int] = []
    skipped = end = 0
    whole = True
    with opened_image(path, limits) as image:
        for picture in _pictures(image, path):
            end = picture.tick
            if part.precedes(end * TICK) or len(ticks) == most:
                whole = False
                break
            end += picture.duration
            if part.follows(picture.tick * TICK):
                skipped += 1
            else:
                ticks.append(picture.tick)
        if not ticks:
            for picture in _pictures(image, path):
                end = picture.tick + picture.duration
            raise empty_part(
                path, float(part.start), None if part.seconds is None else float(part.seconds), float(end * TICK)
            )
        with _errors(path, 0):
            width, height = ImageOps.exif_transpose(image).size
    since = tuple((tick - ticks[0]) * TICK for tick in ticks)
    check_length(path, since, whole, limits)
    offset = ticks[0] * TICK
    length = (end - ticks[0]) * TICK
    return VideoInfo(
        width=width,
        height=height,
        fps=times.nominal_rate(None, [*ticks, end], TICK),
        frames=len(ticks),
        seconds=float(length if part.end is None else min(length, part.end - offset)),
        rotation=0,
        has_audio=False,
        variable_rate=times.varies([*ticks, end]),
        start=offset,
        offset=offset,
    )


def read_animation(path: Path, limits: Limits, info: VideoInfo) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Decode a part of an animation, as `read_video` does a video's.

    Args:
        path: the file.
        limits: limits on its size.
        info: result of `probe_animation`.
    """
    with opened_image(path, limits) as image:
        colours = Colours(image, path)
        count = 0
        for picture in _pictures(image, path):
            if (since := picture.tick * TICK - info.start) < 0:
                continue
            if count == info.frames:
                return
            with _errors(path, count):
                rgb = colours.upright_rgb(image)
            yield float(since), rgb
            count += 1


@dataclass(frozen=True, slots=True)
class _Picture:
    """When a picture is shown, and for how long, in ticks."""

    tick: int
    duration: int


def _pictures(image: "Image.Image", path: Path) -> Iterator[_Picture]:
    """Decode the pictures of an animation one after another; `image` is the last one."""
    stated = begin = duration = 0
    for index in range(getattr(image, "n_frames", 1)):
        with _errors(path, index):
            image.seek(index)
            image.load()
            time = int(image.info.get("timestamp", stated + duration))
            if index:  # Pillow rounds both, but only times do not add up errors
                begin += _shown(time - stated, image.format)
            stated, duration = time, int(image.info.get("duration", 0))
        yield _Picture(begin, _shown(duration, image.format))


def _shown(duration: int, form: str | None) -> int:
    return duration if duration > SHORTEST[form or ""] else USUAL


@contextmanager
def _errors(path: Path, index: int) -> Iterator[None]:
    try:
        with image_errors(path):
            yield
    except OutOfMemoryError:
        raise
    except FyeError as error:
        raise InputError(f"{path} cannot be decoded from frame {index} on; save or download it again") from error
