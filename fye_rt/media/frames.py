"""Convert decoded frames: deinterlace, make pixels square, convert to RGB and turn upright."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError
from fye_rt.media.hdr import TRANSFERS, to_sdr
from fye_rt.media.streams import ACCURATE_ROUNDING, BICUBIC, BT709, BT2020, FULL_CHROMA, time_base

if TYPE_CHECKING:
    from av import VideoFrame

SQUARE = Fraction(1, 100)  # pixels within 1 % of square are taken as square: scaling would only blur
HD_WIDTH, SD_HEIGHT = 1280, 576  # pixels: where players expect another matrix if none is stated
UNSPECIFIED = 2  # in H.273
STATED_MATRICES = frozenset({1, 4, 5, 6, 7, 9, 10})  # by their numbers in H.273; FFmpeg's scaler knows these
WIDEST = 4  # a larger ratio of a pixel's sides is ignored; television has 0.75 to 2.2

logger = logging.getLogger("fye_rt")


@contextmanager
def converting(path: Path, index: int) -> Iterator[None]:
    """Turn FFmpeg's errors about a decoded frame into an InputError."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise InputError(
            f"{path}: frame {index} cannot be converted ({error.strerror}); copy or record the video again"
        ) from error


def deinterlaced(frames: Iterable["VideoFrame"], path: Path) -> Iterator["VideoFrame"]:
    """Yield the frames, interlaced ones deinterlaced and progressive ones untouched."""
    deinterlacer: _Deinterlacer | None = None
    index = 0
    for index, frame in enumerate(frames):
        with converting(path, index):
            if deinterlacer is not None and not deinterlacer.takes(frame):
                yield from deinterlacer.rest()
                deinterlacer = None
            if deinterlacer is None and frame.interlaced_frame:
                logger.warning("%s is interlaced; its frames are deinterlaced", path)
                deinterlacer = _Deinterlacer(frame)
            if deinterlacer is None:
                yield frame
            else:
                yield from deinterlacer.add(frame)
    if deinterlacer is not None:
        with converting(path, index):
            yield from deinterlacer.rest()


class _Deinterlacer:
    """FFmpeg's bwdif filter: one frame out per frame in, one frame late, because it looks ahead."""

    def __init__(self, frame: "VideoFrame") -> None:
        from av.filter import Graph

        self._layout = _layout(frame)
        self._graph = Graph()
        size, tick = f"{frame.width}x{frame.height}", time_base(frame)
        form = f"video_size={size}:pix_fmt={frame.format.name}:time_base={tick.numerator}/{tick.denominator}"
        source, sink = self._graph.add("buffer", form), self._graph.add("buffersink")
        deinterlace = self._graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        source.link_to(deinterlace)
        deinterlace.link_to(sink)
        self._graph.configure()
        self._times: deque[tuple[int | None, Any]] = deque()

    def takes(self, frame: "VideoFrame") -> bool:
        return _layout(frame) == self._layout

    def add(self, frame: "VideoFrame") -> Iterator["VideoFrame"]:
        self._times.append((frame.pts, frame.time_base))
        self._graph.vpush(frame)
        return self._finished()

    def rest(self) -> Iterator["VideoFrame"]:
        self._graph.vpush(None)
        return self._finished()

    def _finished(self) -> Iterator["VideoFrame"]:
        import av

        while self._times:
            try:
                frame = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            frame.pts, frame.time_base = self._times.popleft()  # the filter counts in half ticks
            yield frame


def _layout(frame: "VideoFrame") -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


def believed(aspect: Fraction) -> Fraction | None:
    """Return the ratio of a pixel's sides, or None if no picture has such a ratio."""
    return aspect if Fraction(1, WIDEST) <= aspect <= WIDEST else None


def displayed(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Return width and height in square pixels: the side along which pixels are longer grows, to an even number."""
    aspect = believed(aspect) or Fraction(1)
    if abs(aspect - 1) < SQUARE:
        return width, height
    return (2 * round(width * aspect / 2), height) if aspect > 1 else (width, 2 * round(height / aspect / 2))


def hdr_transfer(frame: "VideoFrame") -> str | None:
    """Return "PQ" or "HLG" for a frame in HDR, else None."""
    return TRANSFERS.get(int(frame.color_trc))


def to_rgb(frame: "VideoFrame", aspect: Fraction) -> NDArray[np.uint8]:
    """Convert a frame to RGB in square pixels, uint8 (H, W, 3); transparent pixels are laid over white, HDR is mapped.

    YCbCr without a stated matrix has, as in players, that of BT.2020 in HDR, BT.709 in HD, and BT.601 otherwise.
    """
    width, height = displayed(frame.width, frame.height, aspect)
    # FFmpeg's fast path is one level too dark and doubles chroma pixels
    accurate = BICUBIC | ACCURATE_ROUNDING | FULL_CHROMA
    transfer, primaries = hdr_transfer(frame), int(frame.color_primaries)
    frame.color_trc = frame.color_primaries = UNSPECIFIED  # PyAV 17 refuses some that its scaler would not convert
    matrix = None
    if frame.colorspace not in STATED_MATRICES and not frame.format.is_rgb:
        is_hd = frame.width >= HD_WIDTH or frame.height > SD_HEIGHT
        matrix = BT2020 if transfer else BT709 if is_hd else None  # BT.601 is FFmpeg's default
    transparent = frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components)
    form = "rgb48le" if transfer else "rgba" if transparent else "rgb24"
    image: NDArray[Any] = frame.to_ndarray(
        format=form, width=width, height=height, src_colorspace=matrix, dst_colorspace=matrix, interpolation=accurate
    )
    if transfer:
        return to_sdr(image.astype(np.uint16, copy=False), transfer, primaries)
    image = image.astype(np.uint8, copy=False)
    return over_white(image) if transparent else image


def over_white(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay uint8 RGBA (H, W, 4) over white; return uint8 RGB (H, W, 3)."""
    alpha = image[..., 3:].astype(np.uint16)
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(image[..., :3])
    mixed = image[..., :3] * alpha + 255 * (255 - alpha)  # at most 255 * 255
    return ((mixed + 127) // 255).astype(np.uint8)


def display_matrix(frame: "VideoFrame") -> tuple[int, int, int, int]:
    """Return the nearest right-angled turn or mirroring, as signs (a, b, c, d) of (x, y) -> (a x + c y, b x + d y)."""
    side_data: Any = frame.side_data
    data = side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return 0, 1 if b > 0 else -1, 1 if c > 0 else -1, 0
    return 1 if a >= 0 else -1, 0, 0, 1 if d >= 0 else -1


def turn(image: NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Turn and mirror an image by its `display_matrix`."""
    a, b, c, d = matrix
    if b:
        image = image.transpose(1, 0, 2)
    return np.ascontiguousarray(image[:: b + d, :: a + c])


def degrees(matrix: tuple[int, int, int, int]) -> int:
    """Return by how many degrees a display matrix turns, clockwise."""
    return {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[matrix[:2]]
