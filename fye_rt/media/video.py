"""Video in: probed first, then decoded frame by frame, the right way up, with the time of every frame."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError
from fye_rt.media.checks import LIMITS, Limits, check_file, check_size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# FFmpeg also reads playlists, which name further files and addresses; a stranger's file must not
READABLE = "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,gif,ogg,wav,mp3,aac,flac"


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video holds, known without decoding it.

    Attributes:
        width: of a frame after rotation, pixels.
        height: of a frame after rotation, pixels.
        fps: nominal frames per second; the mean rate if the rate varies.
        frames: number of coded frames.
        seconds: from the first frame to the end of the last.
        rotation: degrees clockwise that the file asks a player to turn its frames: 0, 90, 180 or 270.
        has_audio: there is a sound track.
        variable_rate: frames are not evenly spaced in time.
    """

    width: int
    height: int
    fps: Fraction
    frames: int
    seconds: float
    rotation: int
    has_audio: bool
    variable_rate: bool


def probe_video(path: str | os.PathLike[str], limits: Limits = LIMITS, max_frames: int | None = None) -> VideoInfo:
    """Read a video's packets and decode its first frame.

    Args:
        path: the file.
        limits: `max_frames` and `max_seconds` hold for the part that is used.
        max_frames: only that many first frames are going to be used; None means all.

    Raises:
        InputError: missing, not a video, without a picture or a frame, cut short within the part that is used,
            or outside `limits`.
    """
    import av

    path = check_file(path, limits)
    ticks: list[int] = []
    end = 0
    whole = True
    with open_media(path) as container:
        stream = picture_stream(container)
        if stream is None:
            held = "sound but no picture" if container.streams.audio else "no frames"
            raise InputError(f"{path} has {held}; give a video")
        check_size(path, stream.codec_context.width, stream.codec_context.height, limits)
        is_mov = container.format.name.startswith("mov")
        rate, tick = stream.average_rate, stream.time_base or Fraction(1, 1000)
        has_audio = bool(container.streams.audio)
        try:
            for packet in container.demux(stream):
                if is_mov and packet.is_corrupt:  # shorter than the index says; elsewhere the flag means less
                    whole = False
                    break
                if packet.size and not packet.is_discard:
                    time = packet.pts if packet.pts is not None else packet.dts
                    ticks.append(len(ticks) if time is None else time)
                    end = max(end, ticks[-1] + (packet.duration or 0))
        except av.FFmpegError:
            whole = False
    if not ticks:
        raise InputError(f"{path} has no frames; give a video")
    if not whole and (max_frames is None or max_frames > len(ticks)):
        raise InputError(f"{path} is cut short or damaged after frame {len(ticks)}; copy or record it again")
    ticks.sort()
    fps = _nominal_rate(rate, ticks, tick)
    seconds = float((end - ticks[0]) * tick if end > ticks[-1] else (ticks[-1] - ticks[0]) * tick + 1 / fps)
    used = min(len(ticks), max_frames or len(ticks))
    if used > limits.max_frames:
        raise InputError(f"{path} has {used} frames; the limit is {limits.max_frames}: cut it")
    if (used_seconds := float((ticks[used - 1] - ticks[0]) * tick)) > limits.max_seconds:
        raise InputError(f"{path} is {used_seconds:.0f} seconds long; the limit is {limits.max_seconds:.0f}: cut it")
    first = next(_frames(path, limits))
    matrix = _display_matrix(first)
    height, width = _turn(_rgb(first), matrix).shape[:2]
    return VideoInfo(width, height, fps, len(ticks), seconds, _degrees(matrix), has_audio, _varies(ticks))


def read_video(
    path: str | os.PathLike[str], limits: Limits = LIMITS, max_frames: int | None = None
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Decode a video.

    Args:
        path: the file; it is probed before this function returns.
        limits: as in `probe_video`; checked again on what is decoded.
        max_frames: stop after that many frames.

    Returns:
        Pairs (seconds since the first frame, strictly rising; uint8 RGB (H, W, 3), rotation applied).

    Raises:
        InputError: as `probe_video`; while iterating: a frame that cannot be decoded (the message names it), or one
            of another size than the first.
    """
    info = probe_video(path, limits, max_frames)
    return _read(Path(path), limits, info, max_frames)


def open_media(path: Path) -> "InputContainer":
    """Open a file that `check_file` has passed.

    Raises:
        InputError: it is in no known container format, or its index is missing.
    """
    import av

    try:
        # without "file:", a name with a colon in it would be taken for an address
        return av.open(
            f"file:{path}",
            mode="r",
            options={"format_whitelist": READABLE, "protocol_whitelist": "file"},
            metadata_errors="ignore",
        )
    except (av.FFmpegError, ValueError) as error:
        with path.open("rb") as file:
            is_mp4 = file.read(12)[4:8] == b"ftyp"
        reason = "its index is missing, so it was cut short: copy or record it again" if is_mp4 else "give an mp4"
        raise InputError(f"{path} is not a video that can be read; {reason}") from error


def picture_stream(container: "InputContainer") -> "VideoStream | None":
    """The first stream of moving pictures; a cover image of a sound file is none."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def _read(
    path: Path, limits: Limits, info: VideoInfo, max_frames: int | None
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    start, time = 0.0, 0.0
    for index, frame in enumerate(_frames(path, limits)):
        if index == max_frames:
            return
        image = _turn(_rgb(frame), _display_matrix(frame))
        if image.shape != (info.height, info.width, 3):
            size = f"{image.shape[1]}x{image.shape[0]}"
            raise InputError(f"{path}: frame {index} is {size}, the first is {info.width}x{info.height}; convert it")
        if index == 0:
            start = frame.time or 0.0
        else:
            stated = time if frame.time is None else frame.time - start
            time = stated if stated > time else time + 1 / float(info.fps)
        if index >= limits.max_frames or time > limits.max_seconds:
            raise InputError(
                f"{path}: over the limit of {limits.max_frames} frames or {limits.max_seconds:.0f} seconds at frame "
                f"{index}: cut it"
            )
        yield time, image


def _frames(path: Path, limits: Limits) -> Iterator["VideoFrame"]:
    import av

    count = 0
    with open_media(path) as container:
        stream = picture_stream(container)
        assert stream is not None  # probe_video has found it
        stream.thread_type = "AUTO"
        stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}  # a frame may state another size
        try:
            for frame in container.decode(stream):
                yield frame
                count += 1
        except av.FFmpegError as error:
            raise InputError(
                f"{path} cannot be decoded from frame {count} on ({error.strerror}); copy or record it again"
            ) from error
    if count == 0:
        raise InputError(f"{path} has no frame that can be decoded")


def _rgb(frame: "VideoFrame") -> NDArray[np.uint8]:
    from av.video.reformatter import Interpolation

    # the fast path is one level too dark and doubles chroma pixels
    accurate = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    return frame.to_ndarray(format="rgb24", interpolation=accurate).astype(np.uint8, copy=False)


def _nominal_rate(stated: Fraction | None, ticks: list[int], tick: Fraction) -> Fraction:
    """The rate the file states if its timestamps bear it out within 1 %, else what they say."""
    span = (ticks[-1] - ticks[0]) * tick
    measured = (len(ticks) - 1) / span if span > 0 else None
    if stated and (measured is None or abs(stated / measured - 1) < Fraction(1, 100)):
        return stated
    return (measured or Fraction(25)).limit_denominator(1001)


def _varies(ticks: list[int]) -> bool:
    steps = np.diff(np.array(ticks, np.float64))
    if len(steps) == 0:
        return False
    # a coarse clock (1 ms in Matroska) rounds even spacing to neighbouring ticks
    return bool(np.abs(steps - np.median(steps)).max() > max(1.5, 0.05 * float(np.median(steps))))


def _display_matrix(frame: "VideoFrame") -> tuple[int, int, int, int]:
    """The signs (a, b, c, d) of (x, y) -> (a x + c y, b x + d y): the nearest right-angled turn or mirroring."""
    side_data: Any = frame.side_data  # PyAV's annotation leaves this kind out
    for data in side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
            if abs(b) + abs(c) > abs(a) + abs(d):
                return 0, 1 if b > 0 else -1, 1 if c > 0 else -1, 0
            return 1 if a >= 0 else -1, 0, 0, 1 if d >= 0 else -1
    return 1, 0, 0, 1


def _turn(image: NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    a, b, c, d = matrix
    if b:
        image = image.transpose(1, 0, 2)
    return np.ascontiguousarray(image[:: b + d, :: a + c])


def _degrees(matrix: tuple[int, int, int, int]) -> int:
    return {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[matrix[:2]]
