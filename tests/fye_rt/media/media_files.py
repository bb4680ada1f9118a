"""Films for the tests, made with PyAV: pictures of a known brightness, and sound that begins at a known time."""

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

RATE = 25


@dataclass(frozen=True)
class Track:
    """A sound track: silent until `begins` seconds, then a tone."""

    codec: str = "aac"
    begins: float = 0.0
    default: bool = True
    rate: int = 48000


@dataclass(frozen=True)
class Pictures:
    """A picture track: `frames`, uint8 (H, W, 3), at `times` in ticks of `tick` seconds, else evenly."""

    frames: Sequence[np.ndarray]
    codec: str = "libx264"
    options: Mapping[str, str] = field(default_factory=dict)
    pixels: str = "yuv420p"
    aspect: Fraction | None = None
    times: Sequence[int] | None = None
    tick: Fraction = Fraction(1, RATE)
    default: bool = True


def numbered(count: int, height: int = 64, width: int = 64) -> list[np.ndarray]:
    """Frames that show their numbers, 0 to 255, as eight bright or dark stripes; what a codec does leaves them."""
    stripes = np.arange(width) * 8 // width
    lines = [np.where(index >> stripes & 1, 200, 50).astype(np.uint8) for index in range(count)]
    return [np.broadcast_to(line[None, :, None], (height, width, 3)).copy() for line in lines]


def number(frame: np.ndarray) -> int:
    """The number that a frame of `numbered` shows."""
    stripes = frame.mean(axis=(0, 2)).reshape(8, -1).mean(axis=1)
    return int((stripes > 125) @ (1 << np.arange(8)))


def noise_frames(count: int, height: int = 64, width: int = 64) -> list[np.ndarray]:
    """A moving noise picture: nothing a codec could leave out."""
    base = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return [np.roll(base, 3 * index, 1) for index in range(count)]


def bar(index: int, height: int = 64, width: int = 64) -> np.ndarray:
    """A bright bar that moves eight pixels a frame on a dark ground."""
    image = np.full((height, width, 3), 40, np.uint8)
    image[:, (8 * index) % width :][:, :8] = 220
    return image


def woven(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Interlaced frames: the even lines of one frame and the odd ones of the next, half as many."""
    result = []
    for first, second in zip(frames[::2], frames[1::2], strict=True):
        image = first.copy()
        image[1::2] = second[1::2]
        result.append(image)
    return result


def write_film(
    path: Path,
    form: str,
    pictures: Pictures | Iterable[Pictures] = (),
    sounds: Sequence[Track] = (),
    seconds: float = 2.0,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a film whose sound lasts `seconds`."""
    pictures = [pictures] if isinstance(pictures, Pictures) else list(pictures)
    with av.open(str(path), "w", format=form) as container:
        container.metadata.update(metadata or {})
        streams: list[Any] = []
        for track in pictures:
            stream = container.add_stream(track.codec, rate=RATE, options=dict(track.options))
            stream.height, stream.width = track.frames[0].shape[:2]
            stream.pix_fmt = track.pixels
            stream.bit_rate = 2_000_000
            stream.codec_context.time_base = track.tick
            if track.aspect:
                stream.codec_context.sample_aspect_ratio = track.aspect
            streams.append(stream)
        streams += [container.add_stream(sound.codec, rate=sound.rate, layout="mono") for sound in sounds]
        for stream, track in zip(streams, [*pictures, *sounds], strict=True):
            stream.disposition = (Disposition.default if track.default else Disposition(0)).value
        packets = [
            packet
            for stream, track in zip(streams, [*pictures, *sounds], strict=True)
            for packet in (_coded(stream, track) if isinstance(track, Pictures) else _sounding(stream, track, seconds))
        ]
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            container.mux(packet)
    return path


def write_empty_film(path: Path) -> None:
    """Write a film whose picture track has no frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width = stream.height = 64
        container.start_encoding()


def patch_matrix(source: Path, target: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a, b, c, d into the display matrix of an mp4's first track."""
    data = bytearray(source.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # version, times, id, duration, layer, volume
    a, b, c, d = (value * 65536 for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(data)


def png_header(width: int, height: int) -> bytes:
    """A PNG that states its size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    packed = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def cut_stream(source: Path, target: Path, part: float) -> Path:
    """An MPEG transport stream without its first `part`, as a recorder that is switched on late has it."""
    data = source.read_bytes()
    target.write_bytes(data[188 * int(len(data) // 188 * part) :])
    return target


def onset(path: Path) -> float:
    """Seconds from the first frame that is shown to the beginning of the first sound track's tone."""
    with av.open(str(path)) as container:
        first = next(container.decode(container.streams.video[0])).time
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        for frame in container.decode(stream):
            samples = frame.to_ndarray().astype(np.float64)
            samples = np.abs(samples[0] if frame.format.is_planar else samples.ravel())
            if samples.max(initial=0) > 0.15 * (32768 if frame.format.name.startswith("s16") else 1):
                loud = int(np.flatnonzero(samples > 0.5 * samples.max())[0])
                return float(frame.time + loud / frame.sample_rate - first)
    raise AssertionError(f"{path} is silent")


def _coded(stream: Any, track: Pictures) -> list[Any]:
    packets = []
    for index, image in enumerate(track.frames):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=track.pixels)
        frame.pts, frame.time_base = index if track.times is None else track.times[index], track.tick
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _sounding(stream: Any, track: Track, seconds: float) -> list[Any]:
    time = np.arange(int(track.rate * seconds)) / track.rate
    wave = (np.where(time >= track.begins, np.sin(2 * np.pi * 1000 * time), 0) * 16000).astype(np.int16)
    packets = []
    for start in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = track.rate, start, Fraction(1, track.rate)
        packets += stream.encode(frame)
    return packets + stream.encode(None)
