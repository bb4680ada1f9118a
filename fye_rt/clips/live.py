"""Clips that are made while their motion is still arriving."""

import logging
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt import media
from fye_rt.clips.cache import ClipCache
from fye_rt.clips.clip import Image, Playback
from fye_rt.clips.driving import FOLDER_FPS, check_audio, part_of, read_motion, sounding
from fye_rt.clips.place import pasting, place, small_face
from fye_rt.clips.prepare import encode, read_picture
from fye_rt.clips.read_ahead import ReadAhead, closing_source
from fye_rt.errors import InputError, OptionError
from fye_rt.landmarks import Drawn, Motion, Retargeter, detect_live, draw, find_landmarker
from fye_rt.landmarks.builtin import is_builtin
from fye_rt.landmarks.control import Control
from fye_rt.landmarks.mirror import mirrored
from fye_rt.landmarks.smooth import OneEuro
from fye_rt.media.paste import Paste
from fye_rt.network import PortraitState
from fye_rt.options import ClipRequest, Options
from fye_rt.pieces import live_pieces
from fye_rt.stages import Stages

logger = logging.getLogger("fye_rt")


class Stream(Playback):
    """A clip that is made while its motion arrives: iterate over it once for its frames uint8 (f, H, W, 3).

    Args:
        playback: how the clip is played, except for the times of its frames.
        times: seconds of each frame, available before the frame is.
        pieces: the frames.
        moved: the landmark images that the frames are made from.
    """

    def __init__(
        self, playback: Playback, times: Iterator[float] | None, pieces: Generator[Image], moved: "Retargeted"
    ) -> None:
        super().__init__(**asdict(playback))
        self.frame_times, self._pieces, self._moved = times, pieces, moved

    @property
    def control(self) -> Control:
        """Changes to the motion. It may be set from any thread, and counts from the next frame that is read on."""
        return self._moved.control

    @control.setter
    def control(self, control: Control) -> None:
        self._moved.control = control

    def __iter__(self) -> Generator[Image]:
        return self._pieces

    def close(self) -> None:
        """Stop the stream."""
        self._pieces.close()


def stream(stages: Stages, request: ClipRequest, patience: float | None = None) -> Stream:
    """Animate a portrait while its motion is still arriving.

    Args:
        stages: stages that hold the model.
        request: the requested clip; the windows of its options do not count. The motion is a driving video, a Motion
            or its .npz, a legacy template .npy, or an iterable of Motions as from `fye_rt.landmarks.detect_live`, with
            None for a frame without a face. The first Motion anchors the head's position, and the least expression
            among its frames is the face at rest: it should show a calm face.
        patience: see `live_frames`.

    Returns:
        Frames uint8 (f, H, W, 3) as they are finished, one for each frame since the first face.

    Raises:
        InputError: a source is missing, damaged, or holds no motion, or the portrait shows no face.
        FyeError: any error of `encode_portrait` and `live_frames`.
    """
    if request.crop.alpha:
        raise OptionError("Crop.alpha=True needs a whole clip; leave it out of a stream")
    if request.gaps != "refuse":
        raise OptionError(f"gaps={request.gaps!r} needs a whole clip; leave it out: a stream holds the last face")
    check_audio(request)
    playback, times, motions = _source(request)
    picture = read_picture(request)
    size = request.size or stages.bundle.size
    placed = place(request, picture, size, stages.bundle.face_share, ClipCache())
    landmarks = placed.landmarks()
    notices = (*placed.notices, *small_face(landmarks, size, request))
    state = encode(stages, placed.portrait)
    moved = Retargeted(motions, landmarks, size, request.control)
    pieces = live_frames(stages, state, moved, request.options, patience)
    if request.crop.paste:
        still = Drawn(landmarks.points[..., :2] * (size[1], size[0]), size)
        paste, scaled = pasting(placed, request.crop, still)
        notices += scaled
        pieces = _pasted(pieces, paste)
    for notice in notices:
        logger.warning("%s", notice)
    return Stream(playback, times, pieces, moved)


def _pasted(pieces: Generator[Image], paste: Paste) -> Generator[Image]:
    """Paste frames into the picture, one by one, as each may be large."""
    with closing(pieces):
        for piece in pieces:
            yield from (paste(frame)[None] for frame in piece)


def live_frames(
    stages: Stages,
    portrait: PortraitState,
    landmark_images: Iterable[Image | None],
    options: Options,
    patience: float | None = None,
) -> Generator[Image]:
    """Make frames while landmark images are still arriving.

    Every window of `options.window_size` frames begins with the last `options.window_overlap` ones of the window
    before, as they were at every step; the first frames come after the first window. A thread reads at most one window
    ahead: if the source is faster than the network, it has to wait. Close the generator to stop; between two windows
    the stages serve other calls.

    Args:
        stages: stages that hold the model.
        portrait: from `encode_portrait`.
        landmark_images: uint8 (H, W, 3) of the portrait's size, frame by frame. None, for a frame without a face,
            repeats the landmarks before; before the first face it yields no frame.
        options: how to denoise; its windows do not count.
        patience: seconds to wait for a new frame before the frames so far are made, in a shorter window; by default a
            window waits until it is full or the source ends.

    Yields:
        uint8 (f, H, W, 3), as many frames as came in, window by window.

    Raises:
        InputError: an image has another dtype or shape than the portrait; the frames before it are made first.
        OptionError: a window longer than the bundle allows.
        FyeError: any error of `denoise`; an error of the source is raised after all frames before it are made.
    """
    source = ReadAhead(_faces(landmark_images, portrait.size), options.window_size)
    images: dict[int, Image] = {}  # landmark images of the window and of what it is pinned to
    counts: deque[int] = deque()
    pieces = live_pieces(iter(counts.popleft, None), options.window_overlap)

    def images_of(frames: NDArray[np.int64]) -> Image:
        return np.stack([images[int(frame)] for frame in frames])

    latents = stages.latents(portrait, images_of, pieces, options)
    end = 0
    try:
        while new := source.take(options.window_size - min(end, options.window_overlap), patience):
            images = {frame: image for frame, image in images.items() if frame >= end - options.window_overlap}
            images.update(enumerate(new, end))
            end += len(new)
            counts.append(len(new))
            with stages.graphs.serving("denoiser", portrait.size, options):
                frames = stages.decode_pixels(next(latents))
            yield frames
    finally:
        source.close()


def _faces(images: Iterable[Image | None], size: tuple[int, int]) -> Iterator[Image]:
    """Check landmark images as they arrive; where no face was seen, repeat the ones before."""
    last: Image | None = None
    with closing_source(images):
        for image in images:
            if image is not None:
                if image.shape != (*size, 3) or image.dtype != np.uint8:
                    raise InputError(f"a landmark image is {image.dtype} {image.shape}; give uint8 {(*size, 3)}")
                last = image
            if last is not None:
                yield last


class Retargeted:
    """Landmark images of a portrait, drawn frame by frame as motions arrive; None for a frame without a face.

    Attributes:
        control: changes to the motion; may be set to another one at any time.
    """

    def __init__(
        self, motions: Iterable[Motion | None], portrait: Motion, size: tuple[int, int], control: Control
    ) -> None:
        self._motions, self._portrait, self._size, self.control = motions, portrait, size, control

    def __iter__(self) -> Iterator[Image | None]:
        retargeter: Retargeter | None = None
        smooth = OneEuro(self.control.smooth)
        with closing_source(self._motions):
            for motion in self._motions:
                if motion is None:
                    yield None
                    continue
                motion = smooth(motion)
                retargeter = retargeter or Retargeter(self._portrait, motion, self._size, self.control)
                retargeter.editor.control = self.control
                yield from draw(retargeter.points(motion), self._size)


def _source(request: ClipRequest) -> tuple[Playback, Iterator[float] | None, Iterable[Motion | None]]:
    """Open a live source: how it is played, except for its times; the seconds of its frames; its landmarks."""
    source: Any = request.motion
    times: deque[float] = deque()
    if isinstance(source, Motion):
        motion = part_of(source, request, "the motion")
    elif not isinstance(source, str | os.PathLike):
        if request.start or request.seconds is not None:
            raise OptionError("start and seconds need a file or a Motion; leave out what the source itself begins with")
        moved = (_mirrored(motion, request) for motion in islice(source, request.frames))
        return sounding(Playback(fps=request.fps or FOLDER_FPS, crf=request.crf), request), None, moved
    else:
        path = Path(source)
        kind = "motion" if is_builtin(source) else "folder" if path.is_dir() else media.kind_of(path)
        if kind in ("folder", "picture"):
            raise InputError(f"{path} is no video and no motion; a stream needs one")
        if kind == "video":
            return _live_video(path, request, times)
        motion = read_motion(request)
        request = replace(request, mirror=False)  # `read_motion` did that
    frames = (_mirrored(motion[k : k + 1], request) for k in range(len(motion)))
    timed = _timed(zip(motion.times.tolist(), frames, strict=True), times)
    playback = sounding(Playback(fps=request.fps or motion.fps, crf=request.crf), request)
    return playback, None if request.fps else iter(times.popleft, None), timed


def _mirrored(motion: Motion | None, request: ClipRequest) -> Motion | None:
    return mirrored(motion) if motion is not None and request.mirror else motion


def _live_video(
    path: Path, request: ClipRequest, times: deque[float]
) -> tuple[Playback, Iterator[float] | None, Iterator[Motion | None]]:
    part: dict[str, Any] = {"max_frames": request.frames, "start": request.start, "seconds": request.seconds}
    info = media.probe_video(path, **part)
    fps = float(info.fps)
    read_times: deque[float] = deque()

    def pictures() -> Iterator[tuple[float, Image]]:
        for time, image in media.read_video(path, **part, info=info):
            read_times.append(time)
            yield time, image

    detected = detect_live(pictures(), fps, find_landmarker(request.landmarker), str(path), face=request.driving_face)
    sound = path if info.has_audio and not request.fps else None
    playback = Playback(fps=request.fps or fps, audio_from=sound, audio_start=float(info.offset), crf=request.crf)
    timed = _timed(((read_times.popleft(), _mirrored(motion, request)) for motion in detected), times)
    return sounding(playback, request), None if request.fps else iter(times.popleft, None), timed


def _timed(motions: Iterable[tuple[float, Motion | None]], times: deque[float]) -> Iterator[Motion | None]:
    """Pass motions on, and record the times of all frames since the first face."""
    for time, motion in motions:
        if motion is not None or times:
            times.append(time)
        yield motion
