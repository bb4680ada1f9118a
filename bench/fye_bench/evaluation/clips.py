"""Store the frames of clips without loss: FFV1 in RGB, in Matroska."""

import hashlib
import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fye_rt import media
from fye_rt.errors import InputError, OptionError
from fye_rt.files import atomic_file
from fye_rt.media import LIMITS, Limits
from fye_rt.media.streams import open_media, picture_stream

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

PIXELS = "bgr0"  # the only 8-bit RGB format of the FFV1 encoder
MAX_BYTES = 2 * 1024**3  # of a clip in memory: 2730 frames of 512x512
CODING = {"level": "3", "g": "1", "coder": "1", "context": "0"}  # version 3; every frame is a key frame
# a tag of the file, since FFmpeg conceals damage and reads a truncated file as a shorter clip
DIGEST = "PIXELS_SHA256"

Image = NDArray[np.uint8]


def write_clip(path: str | os.PathLike[str], frames: Image, fps: Fraction | float) -> None:
    """Store frames bit-exactly. The file appears whole or not at all; equal frames make equal files.

    Args:
        path: a name that ends in .mkv.
        frames: uint8 RGB (F, H, W, 3), F at least 1.
        fps: frames per second, 0.1 to 1000.

    Raises:
        OptionError: a wrong suffix or rate.
        InputError: frames of another shape or type.
        OutputError: the file could not be written.
    """
    import av

    if Path(path).suffix != ".mkv":
        raise OptionError(f"cannot write {path}: a lossless clip's name must end in .mkv")
    if not 0.1 <= fps <= 1000:
        raise OptionError(f"fps={fps} is not valid; allowed: 0.1 to 1000")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise InputError(f"a clip's frames must be uint8 (F, H, W, 3), not {frames.dtype} {frames.shape}")
    rate = Fraction(fps).limit_denominator(1001)
    # bitexact: no random identifier and no version in the file
    options = {"fflags": "+bitexact"}
    with atomic_file(path) as temporary, av.open(str(temporary), "w", format="matroska", options=options) as container:
        container.metadata[DIGEST] = _digest(frames)
        stream = container.add_stream("ffv1", rate=rate, options=CODING | {"flags": "+bitexact"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = PIXELS
        stream.codec_context.time_base = 1 / rate
        stream.codec_context.thread_count = 1  # the same number of slices on every machine
        for k, image in enumerate(frames):
            picture = av.VideoFrame(image.shape[1], image.shape[0], PIXELS)
            _pixels(picture)[...] = image
            picture.pts, picture.time_base = k, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def read_clip(path: str | os.PathLike[str], limits: Limits = LIMITS) -> Image:
    """Read the frames of `write_clip`, uint8 RGB (F, H, W, 3).

    Args:
        path: the file.
        limits: checked, like the memory that all frames need, before more than one frame is decoded.

    Raises:
        InputError: the file is missing, damaged, cut short, not FFV1 in RGB, or over a limit.
    """
    import av

    path = Path(path)
    info = media.probe_video(path, limits)
    needed = info.frames * info.height * info.width * 3
    if needed > MAX_BYTES:
        raise InputError(f"{path} would take {needed:,} bytes of memory; the limit is {MAX_BYTES:,}: cut it")
    frames = np.empty((info.frames, info.height, info.width, 3), np.uint8)
    count = 0
    with open_media(path) as container:
        stream = picture_stream(container, path)
        context = stream.codec_context
        if (context.name, context.pix_fmt) != ("ffv1", PIXELS):
            raise InputError(f"{path} is {context.name} in {context.pix_fmt}, not a lossless clip; make the run again")
        context.options = {"max_pixels": str(limits.max_pixels)}  # a frame may state another size
        stated = container.metadata.get(DIGEST)
        try:
            for picture in container.decode(stream):
                if count == info.frames or (picture.height, picture.width) != (info.height, info.width):
                    raise InputError(f"{path} has other frames than it says; make the run again")
                frames[count] = _pixels(picture)
                count += 1
        except av.FFmpegError as error:
            raise InputError(f"{path} is damaged at frame {count} ({error.strerror}); make the run again") from error
    if count != info.frames or _digest(frames) != stated:
        raise InputError(f"{path} is damaged or cut short: its frames are not those that were kept; make the run again")
    return frames


def _digest(frames: Image) -> str:
    return hashlib.sha256(str(frames.shape).encode() + np.ascontiguousarray(frames).tobytes()).hexdigest()


def _pixels(picture: "VideoFrame") -> Image:
    """View a frame's memory, rows of blue, green, red and an unused byte, as RGB (H, W, 3)."""
    plane = picture.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: picture.height]
    return rows[:, : 4 * picture.width].reshape(picture.height, picture.width, 4)[..., 2::-1]
