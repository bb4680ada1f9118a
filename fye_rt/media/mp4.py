"""Write video frame by frame with times and sound: H.264 in mp4, or VP9 with alpha in WebM."""

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from fractions import Fraction
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError, OptionError, OutputError
from fye_rt.files import atomic_file, atomic_folder
from fye_rt.media.checks import check_rgb
from fye_rt.media.sound import Sound
from fye_rt.media.streams import ACCURATE_ROUNDING, BICUBIC
from fye_rt.media.times import CLOCK, check_time, clock_tick

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

CRF = 17  # visually lossless
H264 = {"bf": "0"}  # no B-frames, so packets come in order of time
# constant quality; each frame's packet comes at once; alpha allows no hidden frames; a reasonable speed
VP9 = {"b": "0", "lag-in-frames": "0", "auto-alt-ref": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
BT709 = 1  # H.264's number for this colour space; players guess an untagged file's by its size


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[NDArray[np.uint8]],
    fps: Fraction | float,
    *,
    times: Iterable[float] | None = None,
    audio_from: str | os.PathLike[str] | None = None,
    audio_start: float = 0.0,
    seconds: float | None = None,
    crf: int = CRF,
) -> None:
    """Write an mp4 (H.264, yuv420p, index in front) or WebM (VP9, yuva420p); the file appears whole or not at all.

    Args:
        path: file to write; its name ends in .mp4 or .webm.
        frames: uint8 RGB, (H, W, 3), or, for WebM, RGBA, (H, W, 4), all of one size; one is in memory at a time. Both
            need even sides: an odd side grows by a copy of its last row or column.
        fps: frames per second, 0.1 to 1000; with `times`, the nominal rate.
        times: seconds at which each frame is shown, strictly rising from 0 or later; None spaces them by 1 / fps.
        audio_from: video or sound file whose sound is added, in step with that file's first frame, until the clip
            ends. The track is the default one of those that can be decoded, else the first. It is copied if the
            container takes its codec, else encoded as AAC, or as Opus for WebM. A file without sound is no error; one
            whose sound cannot be decoded makes a silent clip, with a warning on the logger "fye_rt".
        audio_start: seconds of that sound to leave out.
        crf: constant rate factor of the encoder, 0 (all that 4:2:0 holds: colours have half the resolution) to 51
            (worst).
        seconds: end of the last frame and the sound; None means the last frame's time + 1 / fps.

    Raises:
        OptionError: a wrong suffix or rate.
        InputError: no frame, a frame of another shape or dtype, too few or falling times, an unreadable `audio_from`.
        OutputError: the file could not be written.
    """
    with VideoWriter(
        path, fps, times=times, audio_from=audio_from, audio_start=audio_start, seconds=seconds, crf=crf
    ) as video:
        for image in frames:
            video.add(image)


class FrameWriter(ABC):
    """Context manager that writes frames; the result appears when the `with` block ends without an error."""

    _opened: ExitStack

    @abstractmethod
    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._opened.__exit__(kind, error, trace)
            return
        with self._opened:
            self._finish()

    @abstractmethod
    def _finish(self) -> None:
        """Write what is left; an error here leaves no result."""

    @abstractmethod
    def add(self, image: NDArray[np.uint8]) -> None:
        """Add the next frame."""


class VideoWriter(FrameWriter):
    """Context manager that writes a video frame by frame; the file appears when the `with` block ends without an error.

    Arguments and errors are those of `write_video`; `comment` stands among the metadata of the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: Fraction | float,
        *,
        times: Iterable[float] | None = None,
        audio_from: str | os.PathLike[str] | None = None,
        audio_start: float = 0.0,
        seconds: float | None = None,
        crf: int = CRF,
        comment: str = "",
    ) -> None:
        self._path = Path(path)
        self._container_name = self._path.suffix.lower()[1:]
        if self._container_name not in ("mp4", "webm"):
            raise OptionError(f"cannot write {path}: a video's name must end in .mp4, or in .webm with alpha")
        if not 0.1 <= fps <= 1000:
            raise OptionError(f"fps={fps} is not valid; allowed: 0.1 to 1000")
        self._rate = Fraction(fps).limit_denominator(1001)
        self._times = (float(index / self._rate) for index in count()) if times is None else iter(times)
        if not 0 <= crf <= 51:
            raise OptionError(f"crf={crf} is not valid; allowed: 0 to 51")
        self._audio_from, self._audio_start, self._seconds, self._crf = audio_from, audio_start, seconds, crf
        self._comment = comment
        self._durations: deque[int] = deque()
        self._waiting: tuple[NDArray[np.uint8], int] | None = None  # a frame lasts until the next one
        self._added = 0

    def __enter__(self) -> Self:
        import av

        with ExitStack() as opened:
            temporary = opened.enter_context(atomic_file(self._path))
            opened.enter_context(self._ffmpeg_errors())
            webm = self._container_name == "webm"
            flags = {} if webm else {"movflags": "+faststart"}
            self._container = opened.enter_context(
                av.open(str(temporary), "w", format=self._container_name, options=flags)
            )
            self._container.metadata["comment"] = self._comment
            rate, crf = self._rate, {"crf": str(self._crf)}
            if webm:
                self._stream = self._container.add_stream("libvpx-vp9", rate=rate, options=VP9 | crf)
            else:
                self._stream = self._container.add_stream("libx264", rate=rate, options=H264 | crf)
            self._stream.pix_fmt = "yuva420p" if webm else "yuv420p"
            self._stream.codec_context.time_base = CLOCK
            self._stream.colorspace = self._stream.color_primaries = self._stream.color_trc = BT709
            self._sound = opened.enter_context(closing(Sound(self._container, self._audio_from, self._audio_start)))
            self._opened = opened.pop_all()
        return self

    def _finish(self) -> None:
        if self._waiting is None:
            raise InputError("the video has no frames; add at least one")
        image, start = self._waiting
        rest = 1 / self._rate if self._seconds is None else self._seconds
        duration = max(clock_tick(rest) - (0 if self._seconds is None else start), 1)
        self._encode(image, start, duration)
        self._container.mux(_packets(self._stream, None, self._durations))
        self._sound.lay(self._container, (start + duration) * CLOCK)

    def add(self, image: NDArray[np.uint8]) -> None:
        """Add the next frame, uint8 RGB (H, W, 3) of the same size as the others."""
        check_rgb(image[..., :3] if self._container_name == "webm" and image.shape[2:] == (4,) else image, "a frame")
        if self._waiting is None:
            height, width = image.shape[:2]
            self._stream.height, self._stream.width = height + height % 2, width + width % 2
        elif image.shape != self._waiting[0].shape:
            size = self._waiting[0].shape
            raise InputError(f"a frame of {image.shape} follows frames of {size}; all must have one size")
        time = next(self._times, None)
        if time is None:
            raise InputError(f"frame {self._added} has no time; give one for each frame")
        tick = check_time(self._added, time, -1 if self._waiting is None else self._waiting[1])
        last, self._waiting = self._waiting, (image, tick)
        self._added += 1
        if last is not None:
            self._encode(*last, tick - last[1])

    def _encode(self, image: NDArray[np.uint8], start: int, duration: int) -> None:
        import av

        height, width = image.shape[:2]
        even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        form = "rgb24" if image.shape[2] == 3 else "rgba"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format=form)
        stored, filters = self._stream.pix_fmt, BICUBIC | ACCURATE_ROUNDING  # else it is one level too dark
        frame = frame.reformat(format=stored, dst_colorspace="ITU709", interpolation=filters)
        frame.pts, frame.time_base = start, CLOCK
        self._durations.append(duration)
        self._container.mux(_packets(self._stream, frame, self._durations))
        self._sound.lay(self._container, start * CLOCK)

    @contextmanager
    def _ffmpeg_errors(self) -> Iterator[None]:
        import av

        try:
            yield
        except av.FFmpegError as error:
            if isinstance(error, OSError):  # `atomic_file` turns these into an OutputError
                raise
            raise OutputError(f"cannot write {self._path}: {error}; nothing was left under that name") from error


def _packets(stream: "VideoStream", frame: "VideoFrame | None", durations: deque[int]) -> "list[Packet[Any]]":
    packets: list[Packet[Any]] = stream.encode(frame)
    for packet in packets:
        packet.duration = durations.popleft()  # the encoder would give every frame 1 / rate
    return packets


class PictureSequence(FrameWriter):
    """Context manager that writes a folder of PNGs, 00000.png and so on; it appears when the block ends without error.

    Args:
        path: the folder; an older one of this name is replaced.

    Raises:
        InputError: no frame, or one that is not uint8 (H, W, 3) or (H, W, 4).
        OutputError: the folder could not be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path, self._added = Path(path), 0

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._folder = opened.enter_context(atomic_folder(self._path))
            self._opened = opened.pop_all()
        return self

    def add(self, image: NDArray[np.uint8]) -> None:
        """Add the next frame, uint8 RGB (H, W, 3) or RGBA (H, W, 4)."""
        from PIL import Image

        check_rgb(image[..., :3] if image.shape[2:] == (4,) else image, "a frame")
        Image.fromarray(image).save(self._folder / f"{self._added:05}.png", compress_level=4)
        self._added += 1

    def _finish(self) -> None:
        if not self._added:
            raise InputError("the sequence has no frames; add at least one")
