"""The driving video's sound, laid under a clip."""

import logging
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from fye_rt.media.checks import LIMITS, check_file
from fye_rt.media.video import open_media, picture_stream

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet

COPIED = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus"})  # what players expect in an mp4
AAC_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000})

logger = logging.getLogger("fye_rt")


class Sound:
    """Packets of one sound track, handed out as the clip's time moves on, so that the result is interleaved.

    Time 0 is the first frame of the source's picture; a source without a picture starts at its own beginning.

    Args:
        output: gets a sound stream if the source has sound; must not have been started.
        path: the source; None for silence.

    Raises:
        InputError: the source is missing or is no media file.
    """

    def __init__(self, output: "OutputContainer", path: str | os.PathLike[str] | None) -> None:
        self._packets: Iterator[Packet[Any]] = iter(())
        self._waiting: Packet[Any] | None = None
        self._source = None
        self._name = path
        if path is None:
            return
        self._source = open_media(check_file(path, LIMITS))
        if not self._source.streams.audio:
            return
        stream = self._source.streams.audio[0]
        clock = picture_stream(self._source) or stream
        start = (clock.start_time or 0) * (clock.time_base or Fraction(1))
        if stream.codec_context.codec.canonical_name in COPIED:
            self._packets = _copied(self._source, stream, output.add_stream_from_template(stream), start)
        else:
            self._packets = _encoded(self._source, stream, output, start)

    def until(self, seconds: Fraction) -> "Iterator[Packet[Any]]":
        """The packets not yet handed out that end at `seconds` or before; damaged sound ends with a warning."""
        import av

        while True:
            try:
                packet = self._waiting or next(self._packets, None)
            except (av.FFmpegError, ValueError) as error:  # ValueError: its format changes on the way
                logger.warning("the sound of %s is damaged (%s); the clip is silent from there on", self._name, error)
                return
            self._waiting = packet
            if packet is None or ((packet.pts or 0) + (packet.duration or 0)) * packet.time_base > seconds:
                return
            self._waiting = None
            yield packet

    def close(self) -> None:
        """Close the source."""
        if self._source is not None:
            self._source.close()


def _copied(
    source: "InputContainer", stream: "AudioStream", target: "AudioStream", start: Fraction
) -> "Iterator[Packet[Any]]":
    last: int | None = None
    for packet in source.demux(stream):
        if packet.pts is None or not packet.size:
            continue
        packet.pts -= round(start / packet.time_base)
        packet.dts = packet.pts  # sound is never reordered
        # the packet that ends at 0 primes the decoder; mp4 takes no time twice
        if packet.pts + (packet.duration or 0) >= 0 and (last is None or packet.pts > last):
            last = packet.pts
            packet.stream = target
            yield packet


def _encoded(
    source: "InputContainer", stream: "AudioStream", output: "OutputContainer", start: Fraction
) -> "Iterator[Packet[Any]]":
    rate = stream.rate if stream.rate in AAC_RATES else 48000
    layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    target = output.add_stream("aac", rate=rate, layout=layout)

    def packets() -> "Iterator[Packet[Any]]":
        for frame in source.decode(stream):
            if frame.pts is not None and frame.time_base is not None:
                frame.pts -= round(start / frame.time_base)
                if frame.pts * frame.time_base + Fraction(frame.samples, frame.sample_rate) <= 0:
                    continue
            yield from target.encode(frame)  # PyAV resamples and regroups as the encoder needs
        yield from target.encode(None)

    return packets()
