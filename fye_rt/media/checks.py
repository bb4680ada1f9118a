"""Check inputs against limits before anything is decoded."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError
from fye_rt.files import refuse_pointer


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on what is read. Inputs come from strangers, and decoding costs memory and time.

    Attributes:
        min_side: shortest width or height, pixels.
        max_side: longest width or height, pixels.
        max_pixels: width times height of one image or frame.
        max_frames: frames used of a video.
        max_seconds: length of the used part of a video.
        max_file: size of a file, bytes.
    """

    min_side: int = 16
    max_side: int = 8192
    max_pixels: int = 50_000_000
    max_frames: int = 1_000_000
    max_seconds: float = 86_400.0
    max_file: int = 64 * 1024**3


LIMITS = Limits()


def check_file(path: str | os.PathLike[str], limits: Limits, remedy: str = "make it smaller") -> Path:
    """Return `path` as a Path if it is a readable, regular, non-empty file within the size limit.

    Raises:
        InputError: it is not; for a file that is too large, the message ends in `remedy`.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file")
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; copy its content into one")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} cannot be read; give yourself permission to read it")
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path} is empty")
    if size > limits.max_file:
        raise InputError(f"{path} has {size:,} bytes; the limit is {limits.max_file:,}: {remedy}")
    refuse_pointer(path, InputError)
    return path


def check_size(name: object, width: int, height: int, limits: Limits) -> None:
    """Refuse a picture of `width` x `height` pixels that is too small or too large.

    Raises:
        InputError: a side or the area is outside `limits`; the message names the limit.
    """
    if min(width, height) < limits.min_side:
        raise InputError(f"{name} is {width}x{height} pixels; each side needs at least {limits.min_side}")
    if max(width, height) > limits.max_side:
        raise InputError(f"{name} is {width}x{height} pixels; the limit is {limits.max_side} a side: make it smaller")
    if width * height > limits.max_pixels:
        raise InputError(
            f"{name} is {width}x{height} pixels; the limit is {limits.max_pixels:,} in all: make it smaller"
        )


def check_rgb(image: NDArray[np.uint8], name: object = "the image") -> None:
    """Raise InputError unless `image` is uint8 (H, W, 3) with H and W at least 1."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"{name} must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
