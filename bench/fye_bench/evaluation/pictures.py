"""Embed small pictures in a page."""

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fye_bench.evaluation.clips import read_clip
from fye_bench.evaluation.saved import SavedPair, SavedRun
from fye_rt import media
from fye_rt.clips.clip import evenly
from fye_rt.errors import InputError

if TYPE_CHECKING:
    from PIL import Image as Pillow

MAX_BYTES = 40_000  # of one picture
MAX_WIDTH = 1280  # pixels
STRIP_FRAMES, STRIP_SIDE = 6, 176  # frames of a strip, and the longest side of each
_QUALITIES = (84, 72, 60, 45, 30)

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture embedded in a page.

    Attributes:
        uri: data URI of a WebP picture.
        width: in pixels.
        height: in pixels.
    """

    uri: str
    width: int
    height: int


def embed(image: Image) -> Picture:
    """Encode a picture, at most `MAX_WIDTH` wide and in the best quality that fits into `MAX_BYTES`.

    Args:
        image: uint8 (H, W, 3).
    """
    from PIL import Image as Pillow

    picture = Pillow.fromarray(image)
    if picture.width > MAX_WIDTH:
        picture = _scaled(picture, MAX_WIDTH / picture.width)
    while True:
        for quality in _QUALITIES:
            data = io.BytesIO()
            picture.save(data, format="WEBP", quality=quality, method=4)
            if data.tell() <= MAX_BYTES:
                uri = "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode("ascii")
                return Picture(uri, *picture.size)
        picture = _scaled(picture, 0.75)


def sheet(run: SavedRun, pair: SavedPair) -> Picture | None:
    """Embed a pair's sheet; None without one.

    Raises:
        InputError: the sheet is damaged.
    """
    path = run.sheet(pair.name)
    return embed(media.read_image(path)) if path.is_file() else None


def strip(a: SavedRun, b: SavedRun, pair: SavedPair) -> Picture | None:
    """Embed a pair's portrait and some frames of both runs, A's above B's; None without one of the clips.

    Raises:
        InputError: a clip or a sheet is damaged, or the clips differ in shape.
    """
    paths = [run.clip(pair.name) for run in (a, b)]
    if not all(path.is_file() for path in paths):
        return None
    clips = [read_clip(path) for path in paths]
    if clips[0].shape != clips[1].shape:
        raise InputError(f"{paths[0]} and {paths[1]} have frames of shapes {clips[0].shape} and {clips[1].shape}")
    frames, height, width = clips[0].shape[:3]
    scale = min(1.0, STRIP_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    rows = [np.concatenate([_resized(clip[k], size) for k in evenly(frames, STRIP_FRAMES)], axis=1) for clip in clips]
    both = np.concatenate(rows)
    path = a.sheet(pair.name)
    if path.is_file():
        portrait = media.read_image(path)[:height, :width]  # the first cell of the sheet
        beside = np.full((len(both), size[0], 3), 24, np.uint8)
        top = (len(both) - size[1]) // 2
        beside[top : top + size[1]] = _resized(portrait, size)
        both = np.concatenate((beside, both), axis=1)
    return embed(both)


def _resized(image: Image, size: tuple[int, int]) -> Image:
    from PIL import Image as Pillow

    return np.asarray(Pillow.fromarray(image).resize(size, Pillow.Resampling.LANCZOS))


def _scaled(picture: "Pillow.Image", scale: float) -> "Pillow.Image":
    from PIL import Image as Pillow

    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Pillow.Resampling.LANCZOS)
