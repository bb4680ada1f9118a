"""Video out: H.264 in mp4, frames streamed, the driving video's times and sound kept."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError, OptionError, OutputError
from fye_rt.files import atomic_file
from fye_rt.media.checks import check_rgb
from fye_rt.media.sound import Sound

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

QUALITY = {"crf": "17", "bf": "0"}  # visually lossless; no B-frames, so that packets come in the order of time
CLOCK = Fraction(1, 90_000)  # a common multiple of the usual frame rates; 6 us is nothing beside a frame
MAX_TIME = 86_400  # a day, in seconds
BT709 = 1  # the number of this colour space in H.264; untagged files are guessed at by their size


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[NDArray[np.uint8]],
    fps: Fraction | float,
    *,
    times: Iterable[float] | None = None,
    audio_from: str | os.PathLike[str] | None = None,
    seconds: float | None = None,
) -> None:
    """Write an mp4 (H.264, yuv420p, index in front); the file appears whole or not at all.

    Args:
        path: ends in .mp4.
        frames: uint8 RGB, (H, W, 3), all of one size; taken one by one, never collected. H.264 needs even sides: an
            odd one grows by a copy of its last row or column.
        fps: frames per second, 0.1 to 1000; with `times`, the nominal rate.
        times: seconds at which each frame is shown, strictly rising from 0 or later, one for each frame; None
            means evenly by `fps`.
        audio_from: a video or sound file whose sound is laid under the clip, in step with that file's first frame,
            as far as the clip goes. Copied untouched if mp4 takes its codec, else as AAC. A file without sound is
            no error.
        seconds: when the last frame and the sound end; None means the last frame's time + 1 / fps.

    Raises:
        OptionError: a wrong suffix or rate.
        InputError: no frame, a frame of another shape or dtype, too few or falling times, an unreadable `audio_from`.
        OutputError: it could not be written.
    """
    import av

    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise OptionError(f"cannot write {path}: a video's name must end in .mp4")
    if not 0.1 <= fps <= 1000:
        raise OptionError(f"fps={fps} is not valid; allowed: 0.1 to 1000")
    rate = Fraction(fps).limit_denominator(1001)
    spans = _spans(frames, _even_times(rate) if times is None else iter(times), rate, seconds)
    with atomic_file(path) as temporary:
        try:
            _encode(temporary, spans, rate, audio_from)
        except av.FFmpegError as error:
            if isinstance(error, OSError):  # atomic_file words these
                raise
            raise OutputError(f"cannot write {path}: {error}; nothing was left under that name") from error


def _encode(
    file: Path,
    spans: Iterable[tuple[NDArray[np.uint8], int, int]],
    rate: Fraction,
    audio_from: str | os.PathLike[str] | None,
) -> None:
    import av
    from av.video.reformatter import Interpolation

    conversion = Interpolation.BICUBIC | Interpolation.ACCURATE_RND  # the fast path is one level too dark
    shape: tuple[int, ...] | None = None
    durations: deque[int] = deque()
    end = 0
    with av.open(str(file), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=QUALITY)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = CLOCK
        stream.colorspace = stream.color_primaries = stream.color_trc = BT709
        with closing(Sound(container, audio_from)) as sound:
            for image, start, duration in spans:
                check_rgb(image, "a frame")
                if shape is None:
                    shape = image.shape
                    stream.height, stream.width = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
                elif image.shape != shape:
                    raise InputError(f"a frame of {image.shape} follows frames of {shape}; all must have one size")
                frame = av.VideoFrame.from_ndarray(_even(image), format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", interpolation=conversion)
                frame.pts, frame.time_base = start, CLOCK
                durations.append(duration)
                container.mux(_packets(stream, frame, durations))
                container.mux(list(sound.until(start * CLOCK)))
                end = start + duration
            if shape is None:
                raise InputError("there are no frames to write")
            container.mux(_packets(stream, None, durations))
            container.mux(list(sound.until(end * CLOCK)))


def _packets(stream: "VideoStream", frame: "VideoFrame | None", durations: deque[int]) -> "list[Packet[Any]]":
    packets: list[Packet[Any]] = stream.encode(frame)
    for packet in packets:
        packet.duration = durations.popleft()  # the encoder would give every frame 1 / rate
    return packets


def _spans(
    frames: Iterable[NDArray[np.uint8]], times: Iterator[float], rate: Fraction, seconds: float | None
) -> Iterator[tuple[NDArray[np.uint8], int, int]]:
    """Each frame with its start and duration in ticks of CLOCK."""
    waiting: tuple[NDArray[np.uint8], int] | None = None
    for index, image in enumerate(frames):
        time = next(times, None)
        if time is None:
            raise InputError(f"frame {index} has no time; give one for each frame")
        if not 0 <= time < MAX_TIME:
            raise InputError(f"the time of frame {index}, {time} s, is not valid; allowed: 0 to {MAX_TIME}")
        tick = round(time / CLOCK)
        if waiting is not None:
            if tick <= waiting[1]:
                raise InputError(f"the time of frame {index}, {time} s, does not come after the frame before it")
            yield *waiting, tick - waiting[1]
        waiting = image, tick
    if waiting is not None:
        last = waiting[1]
        yield *waiting, max(round(1 / rate / CLOCK) if seconds is None else round(seconds / CLOCK) - last, 1)


def _even_times(rate: Fraction) -> Iterator[float]:
    index = 0
    while True:
        yield float(index / rate)
        index += 1


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    return np.ascontiguousarray(np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
