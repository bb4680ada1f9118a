"""Read video: probe it, then decode it frame by frame as a player shows it, with the time of every frame."""

import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError, OutOfMemoryError, lacking
from fye_rt.media import times
from fye_rt.media.checks import LIMITS, Limits, check_file, check_size
from fye_rt.media.frames import believed, converting, degrees, deinterlaced, display_matrix, displayed, to_rgb, turn
from fye_rt.media.streams import fraction, open_media, picture_stream, time_base

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

UNEVEN_PACKETS = frozenset({"vp8", "mpeg4"})  # codecs whose packets may show no frame
MARGIN = 256  # packets read beyond the used frames, because packets are not in display order
SETTLED = 33  # frames after which it is known whether their times hold

logger = logging.getLogger("fye_rt")


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Facts about a video, known without decoding all of it.

    Attributes:
        width: width of a shown frame (square pixels, after rotation), pixels.
        height: height of a shown frame, pixels.
        fps: nominal frames per second, 0.1 to 1000; the mean rate if the rate varies.
        frames: number of shown frames, at most the number to be used.
        seconds: time from the first frame to the end of the last of them.
        rotation: degrees clockwise by which a player must turn the stored frames: 0, 90, 180 or 270.
        has_audio: True if the file has a sound track.
        variable_rate: True if frames are unevenly spaced in time.
        start: time of the first shown frame on the file's own clock, seconds.
        pixel_aspect: width of a stored pixel divided by its height, as stated; 1 if the file states none.
        times: seconds of each frame since the first if the times stated by the frames alone would not rise, else None.
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


def probe_video(path: str | os.PathLike[str], limits: Limits = LIMITS, max_frames: int | None = None) -> VideoInfo:
    """Read a video's packets and decode its first frame, or all frames if the packets do not tell which are shown.

    All are decoded for files cut out of a broadcast, interlaced ones, and containers without times of their own (AVI).

    Args:
        path: the file.
        limits: `max_frames` and `max_seconds` apply to the used part; `max_file` applies if `max_frames` is None.
        max_frames: number of first frames to be used; None means all.

    Raises:
        InputError: the file is missing, not a video, without a picture or a frame, in a codec without a decoder, cut
            short within the used part, or outside `limits`.
    """
    file_limits = limits if max_frames is None else replace(limits, max_file=sys.maxsize)
    path = check_file(path, file_limits, "pass frames=N for its first frames alone, or cut it")
    packets = _read_packets(path, limits, max_frames)
    first = next(_frames(path, limits))
    ticks, end, whole = packets.ticks, packets.end, packets.whole
    mended = None
    if not packets.plain or first.interlaced_frame or _time(first) != ticks[0] * packets.tick:
        stated, duration, whole = _decode_times(path, limits, max_frames)
        ticks = mended = times.mended(stated)
        end = ticks[-1] + duration
    fps = times.nominal_rate(packets.rate, ticks, packets.tick)
    used = min(len(ticks), max_frames or len(ticks))
    if used < len(ticks):
        end = ticks[used]
    elif end <= ticks[-1]:
        end = ticks[-1] + max(round(1 / fps / packets.tick), 1)
    since = tuple((tick - ticks[0]) * packets.tick for tick in ticks[:used])
    _check_length(path, since, whole, limits)
    matrix = display_matrix(first)
    width, height = displayed(first.width, first.height, packets.aspect)
    return VideoInfo(
        width=height if matrix[1] else width,
        height=width if matrix[1] else height,
        fps=fps,
        frames=used,
        seconds=float((end - ticks[0]) * packets.tick),
        rotation=degrees(matrix),
        has_audio=packets.has_audio,
        variable_rate=times.varies(ticks),
        start=ticks[0] * packets.tick,
        pixel_aspect=packets.aspect,
        times=since if mended else None,
    )


def read_video(
    path: str | os.PathLike[str], limits: Limits = LIMITS, max_frames: int | None = None, info: VideoInfo | None = None
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Decode a video into frames as a player shows them: rotated, deinterlaced, with square pixels.

    The side along which pixels are longer grows. The logger "fye_rt" warns of interlaced frames.

    Args:
        path: the file; it is probed before this function returns.
        limits: as in `probe_video`; checked again while decoding.
        max_frames: number of frames after which to stop.
        info: result of `probe_video` for the same file, limits and frames; None probes the file.

    Returns:
        Pairs (seconds since the first frame, rising by at least 1/90000 s; uint8 RGB (H, W, 3)).

    Raises:
        InputError: as `probe_video`; while iterating, a frame cannot be decoded (the message names it) or differs in
            size from the first.
    """
    info = info or probe_video(path, limits, max_frames)
    return _read(Path(path), limits, info, max_frames)


@dataclass(frozen=True, slots=True)
class _Packets:
    """Facts that a file's packets state about its pictures."""

    ticks: list[int]  # times of the packets, sorted
    tick: Fraction  # seconds per tick
    end: int  # end of the last packet, in ticks
    whole: bool  # these are all packets
    plain: bool  # each packet is a frame shown at the packet's time, as far as the packets tell
    rate: Fraction | None  # frames per second, as stated
    aspect: Fraction  # width of a pixel divided by its height
    has_audio: bool


def _read_packets(path: Path, limits: Limits, max_frames: int | None) -> _Packets:
    import av

    ticks: list[int] = []
    end, last_dts = 0, None
    cut, all_read, plain, in_order = False, True, True, True
    most = sys.maxsize if max_frames is None else max_frames + MARGIN
    with open_media(path) as container:
        stream = picture_stream(container, path)
        aspect = fraction(stream.sample_aspect_ratio) or Fraction(1)
        context = stream.codec_context
        check_size(path, *displayed(context.width, context.height, aspect), limits)
        is_mov = container.format.name.startswith("mov")
        plain = context.codec.canonical_name not in UNEVEN_PACKETS
        reordered = bool(context.has_b_frames)
        rate, tick = fraction(stream.average_rate), time_base(stream)
        has_audio = bool(container.streams.audio)
        try:
            for packet in container.demux(stream):
                if is_mov and packet.is_corrupt:  # shorter than in the index; elsewhere the flag means less
                    cut = True
                    break
                if not packet.size or packet.is_discard:
                    continue
                if len(ticks) == most:
                    all_read = False
                    break
                time = packet.pts if packet.pts is not None else packet.dts
                if (
                    packet.pts is None
                    or packet.is_corrupt
                    or (packet.dts is not None and last_dts is not None and packet.dts <= last_dts)
                ):
                    plain = False
                last_dts = packet.dts
                if ticks and time is not None and time < ticks[-1]:
                    in_order = False
                ticks.append(len(ticks) if time is None else time)
                end = max(end, ticks[-1] + (packet.duration or 0))
        except av.FFmpegError as error:
            if lack := lacking(error):
                raise OutOfMemoryError(f"{lack} for {path}; use a smaller video") from error
            cut = True
    if not ticks:
        raise InputError(f"{path} has no frames; give a video")
    if cut and (max_frames is None or max_frames > len(ticks)):
        raise InputError(f"{path} is cut short or damaged after frame {len(ticks)}; copy or record it again")
    if len(set(ticks)) != len(ticks) or (reordered and in_order):  # B-frames, yet packets with times in order
        plain = False
    return _Packets(sorted(ticks), tick, end, all_read and not cut, plain, rate, aspect, has_audio)


def _decode_times(path: Path, limits: Limits, max_frames: int | None) -> tuple[list[times.Stated], int, bool]:
    """Decode frames for their stated times, the last one's duration in ticks, and whether they are all."""
    needed = limits.max_frames if max_frames is None else max_frames
    stated: list[times.Stated] = []
    duration = 0
    try:
        for frame in islice(_frames(path, limits), max(needed + 1, SETTLED)):
            stated.append((frame.pts, frame.dts))
            duration = int(frame.duration or 0)
    except InputError as error:
        if max_frames is None or len(stated) < max_frames or lacking(error):
            raise
    return stated, duration, len(stated) <= needed


def _check_length(path: Path, since: tuple[Fraction, ...], whole: bool, limits: Limits) -> None:
    """Refuse frames, given by their seconds since the first, over the limits; the message says how many are allowed."""
    allowed = sum(time <= limits.max_seconds for time in since[: limits.max_frames])
    remedy = f"pass frames={allowed}, or cut it"
    if len(since) > limits.max_frames:
        count = f"{len(since):,}" if whole else f"over {limits.max_frames:,}"
        raise InputError(f"{path} has {count} frames; the limit is {limits.max_frames:,}: {remedy}")
    if since[-1] > limits.max_seconds:
        raise InputError(
            f"{path} is {float(since[-1]):.0f} seconds long; the limit is {limits.max_seconds:.0f}: {remedy}"
        )


def _read(
    path: Path, limits: Limits, info: VideoInfo, max_frames: int | None
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    if info.pixel_aspect != 1 and believed(info.pixel_aspect) is None:
        logger.warning(
            "%s states pixels of %s to 1, which no picture has; they are taken as square", path, info.pixel_aspect
        )
    time, tick = Fraction(0), -1
    for index, frame in enumerate(deinterlaced(islice(_frames(path, limits), max_frames), path)):
        with converting(path, index):
            image = turn(to_rgb(frame, info.pixel_aspect), display_matrix(frame))
        if image.shape != (info.height, info.width, 3):
            size = f"{image.shape[1]}x{image.shape[0]}"
            raise InputError(f"{path}: frame {index} is {size}, the first is {info.width}x{info.height}; convert it")
        if info.times is not None and index < len(info.times):
            stated: Fraction | None = info.times[index]
        else:
            time_in_file = _time(frame)
            stated = None if time_in_file is None else time_in_file - info.start
        if index == 0:
            stated = Fraction(0)
        elif stated is None or time - stated > 1 / info.fps:
            stated = time + 1 / info.fps
        time, tick = _later(stated, tick)
        if index >= limits.max_frames or time > limits.max_seconds:
            raise InputError(
                f"{path}: over the limit of {limits.max_frames} frames or {limits.max_seconds:.0f} seconds at frame "
                f"{index}: pass frames={index}, or cut it"
            )
        yield float(time), image


def _later(time: Fraction, last: int) -> tuple[Fraction, int]:
    """Return a time and its tick in a written clip, delayed until the tick is after `last`."""
    tick = times.clock_tick(time)
    return (time, tick) if tick > last else ((last + 1) * times.CLOCK, last + 1)


def _frames(path: Path, limits: Limits) -> Iterator["VideoFrame"]:
    import av

    count = 0
    with open_media(path) as container:
        stream = picture_stream(container, path)
        stream.thread_type = "AUTO"
        stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}  # a frame may have another size
        try:
            for frame in container.decode(stream):
                yield frame
                count += 1
        except av.FFmpegError as error:
            raise InputError(
                f"{path} cannot be decoded from frame {count} on ({error.strerror}); copy or record it again"
            ) from (_lack_of_memory(stream) or error)
    if count == 0:
        raise InputError(f"{path} has no frame that can be decoded")


def _lack_of_memory(stream: "VideoStream") -> MemoryError | None:
    """Tell whether there is no room for a few frames: libavcodec calls that "invalid data" too."""
    try:
        np.empty((2, stream.codec_context.height, stream.codec_context.width, 4), np.uint8)
    except MemoryError as error:
        return error
    return None


def _time(frame: "VideoFrame") -> Fraction | None:
    return None if frame.pts is None else frame.pts * time_base(frame)
