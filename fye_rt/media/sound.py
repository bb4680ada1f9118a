"""Add the driving video's sound to a clip."""

import io
import logging
import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fye_rt.errors import InputError, OutOfMemoryError, lacking
from fye_rt.media.animations import is_animation
from fye_rt.media.checks import Limits, check_file
from fye_rt.media.streams import (
    codec_tag,
    has_decoder,
    open_media,
    packets_at,
    picture_streams,
    sound_streams,
    time_base,
)
from fye_rt.media.video import probe_video

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet

# codecs that players expect in a container
COPIED = {"mp4": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus"}), "webm": frozenset({"opus"})}
TRIED = 256  # packets of a track, one of which must decode; five seconds of AAC at 48 kHz
ANY = Limits(min_side=1, max_file=sys.maxsize)
LEAD = 1  # second of sound that is read before the place that is searched, for the decoder
PARSED = frozenset({"ac3", "eac3"})  # the mp4 writer parses their packets, and one damaged packet breaks the file
AAC_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000})

logger = logging.getLogger("fye_rt")


class Sound:
    """One sound track, written as the clip's time advances, so that the result is interleaved.

    The track is the default one of those that can be decoded, else the first. Time 0 is the first frame that the
    source shows, or `start` seconds later; a source without a picture that can be shown starts at its own beginning.

    Args:
        output: gets a sound stream if the source has sound; must not have been started.
        path: the source; None for silence.
        start: seconds of the source to leave out, as `VideoInfo.offset` gives them for a part of a video; 0 or more.

    Raises:
        InputError: the source is missing or is not a media file.
    """

    def __init__(
        self, output: "OutputContainer", path: str | os.PathLike[str] | None, start: Fraction | float = 0
    ) -> None:
        self._packets: Iterator[Packet[Any]] = iter(())
        self._waiting: Packet[Any] | None = None
        self._source = None
        self._name = path
        if path is None:
            return
        path = check_file(path, ANY)  # no limit: it is read only until the clip ends
        if is_animation(path, ANY):
            return
        self._source = open_media(path)
        for stream in sound_streams(self._source):
            decodes, fits = _try(path, stream.index, output.format.name) if has_decoder(stream) else (False, False)
            if decodes:
                break
            tag = codec_tag(self._source, stream)
            logger.warning(
                "track %d of %s, sound, cannot be decoded (codec %s); it is left out", stream.index, path, tag
            )
        else:
            return
        origin = _start(path, self._source, stream) + Fraction(start)
        packets: Iterator[Packet[AudioStream]] | None = None
        if start:
            packets = packets_at(self._source, stream, int((origin - LEAD) / time_base(stream)))
            if packets is None:  # the search may have moved the source
                index = stream.index
                self._source.close()
                self._source = open_media(path)
                stream = next(other for other in sound_streams(self._source) if other.index == index)
        packets = packets or self._source.demux(stream)
        if fits:
            self._packets = _copied(packets, stream, output.add_stream_from_template(stream), origin)
        else:
            self._packets = _encoded(packets, stream, output, origin)

    def lay(self, output: "OutputContainer", seconds: Fraction) -> None:
        """Write all further packets that end by `seconds`; damaged sound ends with a warning."""
        import av

        try:
            while packet := self._waiting or next(self._packets, None):
                self._waiting = packet
                if ((packet.pts or 0) + (packet.duration or 0)) * time_base(packet) > seconds:
                    return
                self._waiting = None
                output.mux(packet)
        except (av.FFmpegError, ValueError) as error:  # ValueError: the sound's format changes midway
            if lack := lacking(error):
                raise OutOfMemoryError(f"{lack} for the sound of {self._name}; use another sound file") from error
            if isinstance(error, OSError):  # from the disk
                raise
            logger.warning("the sound of %s is damaged (%s); the clip is silent from there on", self._name, error)
            self._packets, self._waiting = iter(()), None

    def close(self) -> None:
        """Close the source."""
        if self._source is not None:
            self._source.close()


def _try(path: Path, index: int, container: str) -> tuple[bool, bool]:
    """Return whether any of a sound track's first packets decodes, and whether a container takes it unchanged."""
    import av

    with open_media(path) as source:
        stream = source.streams[index]
        packets = source.demux(stream)
        for _ in range(TRIED):
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                if packet.decode():
                    copied = stream.codec_context.codec.canonical_name in COPIED[container]
                    return True, copied and _fits(stream, container, bytes(packet))
            except (av.FFmpegError, ValueError):  # a failed read ends `packets`, a failed decode does not
                continue
    return False, False


def _fits(stream: Any, container: str, *packets: bytes) -> bool:
    """Return whether a file of these packets can be finished, which is when damage to a track's header shows."""
    import av

    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            target = trial.add_stream_from_template(stream)
            for index, data in enumerate(packets):
                packet = av.Packet(data)
                packet.stream, packet.time_base = target, Fraction(1, 10)
                packet.pts = packet.dts = index
                trial.mux(packet)
    except (av.FFmpegError, ValueError):
        return False
    return True


def _start(path: Path, source: "InputContainer", stream: "AudioStream") -> Fraction:
    """Return the time of the first frame that is shown, on the file's own clock."""
    pictures = picture_streams(source)
    if pictures:
        try:
            return probe_video(path, ANY, max_frames=1).start
        except InputError:  # the picture cannot be shown, but the sound can be used
            pass
    clock: Any = pictures[0] if pictures else stream
    return (clock.start_time or 0) * time_base(clock)


def _copied(
    packets: "Iterator[Packet[Any]]", stream: "AudioStream", target: "AudioStream", start: Fraction
) -> "Iterator[Packet[Any]]":
    last: int | None = None
    first = b""
    parsed = stream.codec_context.codec.canonical_name in PARSED
    for packet in packets:
        if packet.pts is None or not packet.size:
            continue
        packet.pts -= round(start / time_base(packet))
        packet.dts = packet.pts  # sound is never reordered
        # the packet that ends at 0 primes the decoder; mp4 takes no time twice
        if packet.pts + (packet.duration or 0) >= 0 and (last is None or packet.pts > last):
            if parsed:
                first = first or bytes(packet)
                if not _fits(stream, "mp4", first, bytes(packet)):  # WebM takes none of these
                    raise ValueError("a packet without its header")
            last = packet.pts
            packet.stream = target
            yield packet


def _encoded(
    packets: "Iterator[Packet[AudioStream]]", stream: "AudioStream", output: "OutputContainer", start: Fraction
) -> "Iterator[Packet[Any]]":
    layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    if output.format.name == "webm":
        target: AudioStream = output.add_stream("libopus", rate=48000, layout=layout)
    else:
        target = output.add_stream("aac", rate=stream.rate if stream.rate in AAC_RATES else 48000, layout=layout)

    def coded() -> "Iterator[Packet[Any]]":
        for frame in (frame for packet in packets for frame in packet.decode()):
            if frame.pts is not None:
                tick = time_base(frame)
                frame.pts -= round(start / tick)
                if frame.pts * tick + Fraction(frame.samples, frame.sample_rate) <= 0:
                    continue
            yield from target.encode(frame)  # PyAV resamples and regroups as the encoder needs
        yield from target.encode(None)

    return coded()


def check_sound(path: str | os.PathLike[str]) -> None:
    """Raise InputError unless a file has a sound track that can be decoded."""
    path = check_file(path, ANY)
    try:
        source = open_media(path)
    except InputError as error:
        raise InputError(f"audio={path} is no sound or video that can be read; give a wav, mp3 or mp4") from error
    with source:
        streams = sound_streams(source)
        if not streams:
            raise InputError(f"audio={path} has no sound; give a file with a sound track, or 'none'")
        if not any(map(has_decoder, streams)):
            raise InputError(f"audio={path} has sound in a codec without a decoder here; convert it to AAC")
