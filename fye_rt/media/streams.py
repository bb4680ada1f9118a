"""Open a media file and choose among its tracks, in the same way with every PyAV that the package allows."""

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fye_rt.errors import InputError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

# FFmpeg also reads playlists, which name further files and addresses: an untrusted file must not
READABLE = "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,gif,apng,ogg,wav,mp3,aac,flac"
# whose times lead to a place in the file; each picture of a GIF or an APNG builds on those before it
SEARCHABLE = frozenset({"mov", "matroska", "webm", "mpegts", "mpeg", "avi", "flv", "asf", "ogg"})

# flags of FFmpeg's scaler; PyAV before 18 takes their numbers and has no names for the last two
BICUBIC, ACCURATE_ROUNDING, FULL_CHROMA = 0x4, 0x40000, 0x2000
BT709, BT2020 = 1, 9  # its numbers of matrices


def open_media(path: Path) -> "InputContainer":
    """Open a file that `check_file` has passed.

    Raises:
        InputError: the container format is unknown, or the index is missing.
    """
    import av

    # without "file:", a name with a colon in it would be taken for an address
    name, options = f"file:{path}", {"format_whitelist": READABLE, "protocol_whitelist": "file"}
    try:
        try:
            return av.open(name, mode="r", options=options, metadata_errors="ignore")
        except TypeError:  # PyAV 19 has no such argument and never raises for metadata
            return av.open(name, mode="r", options=options)
    except (av.FFmpegError, ValueError) as error:
        with path.open("rb") as file:
            is_mp4 = file.read(12)[4:8] == b"ftyp"
        reason = "its index is missing, so it was cut short: copy or record it again" if is_mp4 else "give an mp4"
        raise InputError(f"{path} is not a video that can be read; {reason}") from error


def packets_at(container: "InputContainer", stream: Any, tick: int) -> "Iterator[Packet[Any]] | None":
    """Return the packets of a stream from a key frame at or before `tick` on.

    Returns:
        None if the container cannot be searched; it then has to be opened again.
    """
    import av

    if not SEARCHABLE & set(container.format.name.split(",")):
        return None
    start, step = stream.start_time or 0, int(1 / time_base(stream)) or 1
    target = tick
    while target > start:
        try:
            container.seek(target, stream=stream)
            packets: Iterator[Packet[Any]] = container.demux(stream)
            key = next((packet for packet in packets if packet.size and packet.is_keyframe), None)
        except av.FFmpegError:
            return None
        if key is not None and key.pts is not None and key.pts <= tick:
            return chain([key], packets)
        target, step = tick - step, step * 4  # the place that was found has no key frame soon enough
    return None


def picture_streams(container: "InputContainer") -> "list[VideoStream]":
    """List the streams of moving pictures, default ones first; a sound file's cover image is not one."""
    from av.stream import Disposition

    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    return sorted(streams, key=_is_secondary)


def picture_stream(container: "InputContainer", path: Path) -> "VideoStream":
    """Choose the stream to show: the default one of those that can be decoded, else the first.

    Raises:
        InputError: `container`, opened from `path`, has none.
    """
    streams = picture_streams(container)
    if not streams:
        content = "sound but no picture" if container.streams.audio else "no frames"
        raise InputError(f"{path} has {content}; give a video")
    for stream in streams:
        if has_decoder(stream):
            return stream
    tag = codec_tag(container, streams[0])
    raise InputError(f"{path} has pictures in a codec that cannot be decoded ({tag}); convert it to H.264")


def sound_streams(container: "InputContainer") -> "list[AudioStream]":
    """List the streams of sound, default ones first."""
    return sorted(container.streams.audio, key=_is_secondary)


def has_decoder(stream: Any) -> bool:
    """Return whether FFmpeg has a decoder for a stream; without one, decoding crashes PyAV before 18."""
    return stream.codec_context is not None


def codec_tag(container: Any, stream: Any) -> str:
    """Return the name of a stream's codec, else the file's tag for it, such as "xvc9", else "unknown"."""
    from av import logging

    if has_decoder(stream):
        return str(stream.codec_context.codec.canonical_name)
    level = logging.get_level()
    logging.set_level(logging.INFO)  # without a decoder, PyAV has the tag only in FFmpeg's log
    try:
        text = container.dumps_format()
    finally:
        logging.set_level(level)
    tag = re.search(rf"^ *Stream #0:{stream.index}\b[^\n]*?: (?:Video|Audio): [^\n]*?\((\S+) / 0x", text, re.MULTILINE)
    return tag[1] if tag else "unknown"


def fraction(ratio: Any) -> Fraction | None:
    """Convert a ratio to a Fraction, or to None if it is not stated. PyAV 19 has its own class for ratios."""
    try:
        return Fraction(ratio) if ratio else None
    except (ValueError, ZeroDivisionError, OverflowError):  # 1/0
        return None


def time_base(stream: Any) -> Fraction:
    """Return the seconds per tick of a stream, a packet or a frame."""
    return fraction(stream.time_base) or Fraction(1, 1000)


def _is_secondary(stream: Any) -> bool:
    from av.stream import Disposition

    return not stream.disposition & Disposition.default
