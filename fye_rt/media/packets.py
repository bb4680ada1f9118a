"""Read what a file's packets state about its pictures, without decoding them."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fye_rt.errors import InputError, OutOfMemoryError, lacking
from fye_rt.media.checks import Limits, check_size
from fye_rt.media.frames import displayed
from fye_rt.media.info import Part
from fye_rt.media.streams import fraction, open_media, packets_at, picture_stream, time_base

if TYPE_CHECKING:
    from av.packet import Packet

UNEVEN_PACKETS = frozenset({"vp8", "mpeg4"})  # codecs whose packets may show no frame
MARGIN = 256  # packets read beyond the used frames, because packets are not in display order
HEAD = 33  # packets after which the first time is known, and whether packets tell the times of frames


@dataclass(frozen=True, slots=True)
class Packets:
    """Facts that a file's packets state about its pictures.

    Attributes:
        ticks: times of the packets, sorted; of a part, from the key frame before it on.
        origin: time of the file's first frame, in ticks.
        tick: seconds per tick.
        end: end of the last packet, in ticks.
        whole: True if these are all packets up to the file's end.
        plain: True if each packet is a frame shown at the packet's time, as far as the packets tell.
        rate: frames per second, as stated.
        aspect: width of a pixel divided by its height.
        has_audio: True if the file has a sound track.
    """

    ticks: list[int]
    origin: int
    tick: Fraction
    end: int
    whole: bool
    plain: bool
    rate: Fraction | None
    aspect: Fraction
    has_audio: bool


def read_packets(path: Path, limits: Limits, part: Part, search: bool = True) -> Packets:
    """Read the packets of a part of a video.

    Args:
        path: the file.
        limits: limits on the size of frames.
        part: the part; packets behind it are read, too, as packets are not in the order of their times.
        search: whether to skip packets before the part's key frame where the container allows it.

    Raises:
        InputError: the file is not a video, has no frame, is cut short within the part, or has too large frames.
        OutOfMemoryError: memory ran out.
    """
    import av

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
        scan = _Scan(part, tick)
        sought = False
        try:
            packets: Iterator[Packet[Any]] = container.demux(stream)
            if part.start and plain and search:
                scan.read(islice(packets, HEAD), is_mov)
                if scan.is_before_part and scan.origin is not None:
                    later = packets_at(container, stream, scan.origin + int(part.start / tick))
                    if later is None:
                        return read_packets(path, limits, part, search=False)
                    packets, scan, sought = later, _Scan(part, tick, scan.origin), True
            scan.read(packets, is_mov)
        except av.FFmpegError as error:
            if lack := lacking(error):
                raise OutOfMemoryError(f"{lack} for {path}; use a smaller video") from error
            scan.cut = True
    ticks = scan.ticks
    if scan.origin is None or not ticks:
        raise InputError(f"{path} has no frames; give a video")
    if scan.cut and not scan.complete:
        place = f"{float((scan.end - scan.origin) * tick):.2f} seconds" if sought else f"frame {len(ticks)}"
        raise InputError(f"{path} is cut short or damaged after {place}; copy or record it again")
    # B-frames, yet packets with times in order
    plain = plain and scan.plain and len(set(ticks)) == len(ticks) and not (reordered and scan.in_order)
    whole = not scan.stopped and not scan.cut
    return Packets(sorted(ticks), scan.origin, tick, scan.end, whole, plain, rate, aspect, has_audio)


class _Scan:
    """Packets of one reading, until the part has ended.

    Args:
        part: what is used.
        tick: seconds per tick.
        origin: tick of the file's first frame; None if the reading begins there.
    """

    def __init__(self, part: Part, tick: Fraction, origin: int | None = None) -> None:
        self.ticks: list[int] = []
        self.end = 0
        self.plain = self.in_order = True
        self.cut = self.stopped = False
        self.used = self.behind = 0  # packets in the part or behind it, and behind it
        self.origin = origin  # the lowest tick so far, if none is given
        self._part, self._tick = part, tick
        self._last_dts: int | None = None

    @property
    def is_before_part(self) -> bool:
        """Whether it is known by now that the part comes later, and when the file's first frame is shown."""
        return len(self.ticks) > HEAD // 2 and self.plain and not self.used and not self.cut

    @property
    def complete(self) -> bool:
        """Whether the packets reach the end of the part."""
        most = self._part.max_frames
        return self.behind > 0 or (most is not None and self.used >= most)

    def read(self, packets: "Iterable[Packet[Any]]", is_mov: bool) -> None:
        most = sys.maxsize if self._part.max_frames is None else self._part.max_frames + MARGIN
        for packet in packets:
            if is_mov and packet.is_corrupt:  # shorter than in the index; elsewhere the flag means less
                self.cut = True
                return
            if not packet.size or packet.is_discard:
                continue
            if self.used == most or self.behind == MARGIN:
                self.stopped = True
                return
            tick = self._add(packet)
            self.origin = tick if self.origin is None else min(self.origin, tick)
            time = (tick - self.origin) * self._tick
            self.used += not self._part.follows(time)
            self.behind += self._part.precedes(time)

    def _add(self, packet: "Packet[Any]") -> int:
        time = packet.pts if packet.pts is not None else packet.dts
        if (
            packet.pts is None
            or packet.is_corrupt
            or (packet.dts is not None and self._last_dts is not None and packet.dts <= self._last_dts)
        ):
            self.plain = False
        self._last_dts = packet.dts
        if self.ticks and time is not None and time < self.ticks[-1]:
            self.in_order = False
        self.ticks.append(len(self.ticks) if time is None else time)
        self.end = max(self.end, self.ticks[-1] + (packet.duration or 0))
        return self.ticks[-1]
