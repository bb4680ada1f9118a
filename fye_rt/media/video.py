"""Read video: probe it, then decode it frame by frame as a player shows it, with the time of every frame."""

import logging
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain, dropwhile, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError, lacking
from fye_rt.media import times
from fye_rt.media.animations import is_animation, probe_animation, read_animation
from fye_rt.media.checks import LIMITS, Limits, check_file
from fye_rt.media.frames import (
    believed,
    converting,
    degrees,
    deinterlaced,
    display_matrix,
    displayed,
    hdr_transfer,
    to_rgb,
    turn,
)
from fye_rt.media.info import Part, VideoInfo, check_length, empty_part
from fye_rt.media.packets import read_packets
from fye_rt.media.streams import open_media, packets_at, picture_stream, time_base

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

SETTLED = 33  # frames after which it is known whether their times hold

logger = logging.getLogger("fye_rt")


def probe_video(
    path: str | os.PathLike[str],
    limits: Limits = LIMITS,
    max_frames: int | None = None,
    start: float = 0.0,
    seconds: float | None = None,
) -> VideoInfo:
    """Read a video's packets and decode its first frame, or all frames if the packets do not tell which are shown.

    All are decoded for files cut out of a broadcast, interlaced ones, and containers without times of their own (AVI).

    Args:
        path: the file.
        limits: `max_frames` and `max_seconds` apply to the used part; `max_file` applies if neither `max_frames` nor
            `seconds` ends it.
        max_frames: number of frames to be used; None means all.
        start: first second to be used, from the first frame that the video shows.
        seconds: number of seconds to be used; None means all.

    Raises:
        InputError: the file is missing, not a video, without a picture or a frame, in a codec without a decoder, cut
            short within the used part, or outside `limits`; or the part is negative or shows no frame.
    """
    bounded = max_frames is not None or seconds is not None
    file_limits = replace(limits, max_file=sys.maxsize) if bounded else limits
    path = check_file(path, file_limits, "pass frames=N or seconds=S for a part of it, or cut it")
    part = Part.of(start, seconds, max_frames)
    if part is None:
        raise empty_part(path, start, seconds, _length(path, file_limits))
    if is_animation(path, file_limits):
        return probe_animation(path, file_limits, part)
    packets = read_packets(path, limits, part)
    first = next(_frames(path, limits))
    ticks, origin, end, whole = packets.ticks, packets.origin, packets.end, packets.whole
    mended = None
    if not packets.plain or first.interlaced_frame or _time(first) != origin * packets.tick:
        stated, duration, whole = _decode_times(path, limits, part)
        ticks = mended = _from_shown(times.mended(stated), stated[0][0])
        origin, end = ticks[0], ticks[-1] + duration
    begin, behind = part.select([(tick - origin) * packets.tick for tick in ticks])
    if begin == behind:
        raise empty_part(path, start, seconds, _length(path, limits))
    near = ticks[begin : behind + 1] if part.is_timed else ticks
    fps = times.nominal_rate(packets.rate, near, packets.tick)
    if behind < len(ticks):
        end = ticks[behind]
    elif end <= ticks[-1]:
        end = ticks[-1] + max(round(1 / fps / packets.tick), 1)
    offset, length = (ticks[begin] - origin) * packets.tick, (end - ticks[begin]) * packets.tick
    if part.end is not None:
        length = min(length, part.end - offset)
    since = tuple((tick - ticks[begin]) * packets.tick for tick in ticks[begin:behind])
    check_length(path, since, whole, limits)
    matrix = display_matrix(first)
    width, height = displayed(first.width, first.height, packets.aspect)
    return VideoInfo(
        width=height if matrix[1] else width,
        height=width if matrix[1] else height,
        fps=fps,
        frames=len(since),
        seconds=float(length),
        rotation=degrees(matrix),
        has_audio=packets.has_audio,
        variable_rate=times.varies(near),
        start=ticks[begin] * packets.tick,
        pixel_aspect=packets.aspect,
        times=since if mended else None,
        offset=offset,
        skipped=begin if mended else 0,
    )


def read_video(
    path: str | os.PathLike[str],
    limits: Limits = LIMITS,
    max_frames: int | None = None,
    info: VideoInfo | None = None,
    start: float = 0.0,
    seconds: float | None = None,
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Decode a video, or a part of it, into frames as a player shows them: rotated, deinterlaced, with square pixels.

    A picture with pixels that are not square is enlarged along their longer side. HDR is mapped to SDR. The logger
    "fye_rt" warns of HDR and of interlaced frames. Decoding begins at the key frame before the part if the container
    can be searched and states the times of its frames.

    Args:
        path: the file; it is probed before this function returns.
        limits: as in `probe_video`; checked again while decoding.
        max_frames: number of frames after which to stop.
        info: result of `probe_video` for the same file, limits and part; None probes the file.
        start: as in `probe_video`.
        seconds: as in `probe_video`.

    Returns:
        Pairs (seconds since the first frame of the part, rising by at least 1/90000 s; uint8 RGB (H, W, 3)).

    Raises:
        InputError: as `probe_video`; while iterating, a frame cannot be decoded (the message names it, counted in the
            part) or differs in size from the first.
    """
    info = info or probe_video(path, limits, max_frames, start, seconds)
    path = Path(path)
    file_limits = replace(limits, max_file=sys.maxsize)
    if is_animation(path, file_limits):
        return read_animation(path, file_limits, info)
    return _read(path, limits, info, max_frames if seconds is None else info.frames)


def _length(path: Path, limits: Limits) -> float:
    """Return the seconds from the first frame of a video to the end of the last."""
    if is_animation(path, limits):
        return probe_animation(path, replace(limits, max_frames=sys.maxsize, max_seconds=math.inf), Part()).seconds
    packets = read_packets(path, limits, Part(Fraction(times.MAX_TIME)))
    return float((max(packets.end, packets.ticks[-1]) - packets.origin) * packets.tick)


def _from_shown(ticks: list[int], shown: int | None) -> list[int]:
    """Let ticks that are a decoder's, which holds frames back, begin when the first frame is shown."""
    late = 0 if shown is None else max(ticks[0] - shown, 0)
    return [tick - late for tick in ticks]


def _decode_times(path: Path, limits: Limits, part: Part) -> tuple[list[times.Stated], int, bool]:
    """Decode frames to the end of a part.

    Returns:
        The stated times of all frames, the last one's duration in ticks, and whether they are all.
    """
    needed = limits.max_frames if part.max_frames is None else part.max_frames
    stated: list[times.Stated] = []
    duration = used = behind = 0
    first = None
    try:
        for frame in _frames(path, limits):
            stated.append((frame.pts, frame.dts))
            duration = int(frame.duration or 0)
            tick = frame.dts if frame.pts is None else frame.pts
            if first is None:
                first = tick
            time = Fraction(0) if tick is None or first is None else (tick - first) * time_base(frame)
            used += not part.follows(time)
            behind += part.precedes(time)
            if used == max(needed + 1, SETTLED) or behind == SETTLED:
                break
    except InputError as error:
        if lacking(error) or not (behind or (part.max_frames is not None and used >= part.max_frames)):
            raise
    return stated, duration, used <= needed and not behind


def _read(
    path: Path, limits: Limits, info: VideoInfo, max_frames: int | None
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    if info.pixel_aspect != 1 and believed(info.pixel_aspect) is None:
        logger.warning(
            "%s states pixels of %s to 1, which no picture has; they are taken as square", path, info.pixel_aspect
        )
    stop = None if max_frames is None else info.skipped + max_frames
    frames = deinterlaced(islice(_part(path, limits, info), stop), path)
    time, tick = Fraction(0), -1
    transfer = None
    for index, frame in enumerate(islice(frames, info.skipped, None)):
        if transfer is None and (transfer := hdr_transfer(frame)):
            logger.warning("%s is HDR (%s); its colours are mapped to SDR", path, transfer)
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


def _part(path: Path, limits: Limits, info: VideoInfo) -> Iterator["VideoFrame"]:
    """Yield the frames of a part and, before them, `info.skipped` others."""
    if not info.offset or info.times is not None:
        return _frames(path, limits)

    def is_before(frame: "VideoFrame") -> bool:
        time = _time(frame)
        return time is None or time < info.start

    frames = dropwhile(is_before, _frames(path, limits, info.start))
    try:
        first = next(frames, None)
    except InputError as error:
        if lacking(error):
            raise
        first = None
    if first is not None and _time(first) == info.start:
        return chain([first], frames)
    return dropwhile(is_before, _frames(path, limits))  # the place that was found does not decode to the part's start


def _frames(path: Path, limits: Limits, start: Fraction | None = None) -> Iterator["VideoFrame"]:
    """Decode a file: all of it or, from a key frame at or before `start` on the file's clock on, what can be found."""
    import av

    count = 0
    with open_media(path) as container:
        stream = picture_stream(container, path)
        stream.thread_type = "AUTO"
        stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}  # a frame may have another size
        try:
            if start is None:
                decoded = container.decode(stream)
            else:
                packets = packets_at(container, stream, int(start / time_base(stream)))
                if packets is None:
                    return
                decoded = (frame for packet in packets for frame in packet.decode())
            for frame in decoded:
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
