"""A whole clip: from a portrait and any kind of motion to frames with their timing and sound."""

import logging
import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fye_rt import media
from fye_rt.animator import MAX_FRAMES, Animator, PortraitState, check_sides
from fye_rt.clips.cache import Recent
from fye_rt.clips.read_ahead import let_go
from fye_rt.clips.resume import digest
from fye_rt.errors import FaceNotFoundError, InputError
from fye_rt.landmarks import MAX_FRAMES as MOTION_FRAMES
from fye_rt.landmarks import (
    Drawn,
    LandmarkImages,
    Motion,
    Pictures,
    Retargeter,
    cut_notices,
    detect_frames,
    detect_image,
    detect_live,
    draw,
    find_landmarker,
    load_template,
    retarget,
)
from fye_rt.landmarks.detect import SMALLEST_FACE
from fye_rt.options import Options
from fye_rt.timings import Timings

logger = logging.getLogger("fye_rt")

Image = NDArray[np.uint8]
MotionSource = str | os.PathLike[str] | Motion | Image
Tell = Callable[[str, int, int], None]  # (stage, finished, all)

SMALL_FACE = 0.2  # of the clip's shorter side: a face of 38 pixels, in a clip of 192, is 5 latents wide
FOLDER_FPS = 7.0  # the public code's output rate, for landmark images and templates that carry none


def _silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Playback:
    """When frames are shown, and with what sound.

    Attributes:
        fps: nominal frames per second, the motion's.
        times: seconds of each frame since the driving video's first, or None for even spacing.
        seconds: when the last frame ends, or None.
        audio_from: the driving video, if it has sound.
    """

    fps: float
    times: tuple[float, ...] | None = None
    seconds: float | None = None
    audio_from: Path | None = None

    def writer(self, path: str | os.PathLike[str], times: Iterable[float] | None = None) -> media.VideoWriter:
        """An mp4 for as many frames as the clip has, of any size, with the driving video's frame times and sound.

        `times` are in place of the clip's own, where those are known only when the frames come.
        """
        times = self.times if times is None else times
        return media.VideoWriter(path, self.fps, times=times, audio_from=self.audio_from, seconds=self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip(Playback):
    """An animated portrait.

    Attributes:
        frames: uint8 (F, H, W, 3) RGB.
        portrait: uint8 (H, W, 3), as it was fitted.
        landmarks: uint8 (F, H, W, 3), what the guider saw.
        timings: seconds spent, by stage.
        notices: what a user should know: bridged gaps, several faces.
    """

    frames: Image
    portrait: Image
    landmarks: Image
    timings: Mapping[str, float]
    notices: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.frames)

    def save(self, path: str | os.PathLike[str], tell: Tell | None = None) -> None:
        """Write an mp4 with the driving video's frame times and sound; it appears whole or not at all.

        `tell` is called with ("write", finished, all) frames.
        """
        self.write(path, self.frames, tell)

    def write(self, path: str | os.PathLike[str], frames: Iterable[Image], tell: Tell | None = None) -> None:
        """As `save`, but with other frames than the clip's own: as many, of any size."""
        with self.writer(path) as video:
            for done, frame in enumerate(frames):
                if tell is not None:
                    tell("write", done, len(self))
                video.add(frame)
        if tell is not None:
            tell("write", len(self), len(self))

    def contact_sheet(self, columns: int = 8) -> Image:
        """Portrait, landmarks and evenly chosen frames in one picture, uint8 (H', W', 3)."""
        chosen = evenly(len(self), columns)
        return contact_sheet(self.portrait, self.landmarks[chosen], self.frames[chosen])

    def rows(self, columns: int) -> tuple[list[Image], list[Image]]:
        """The portrait and evenly chosen landmarks, and their frames with nothing below the portrait: for a sheet."""
        chosen = evenly(len(self), columns)
        return [self.portrait, *self.landmarks[chosen]], [np.zeros_like(self.portrait), *self.frames[chosen]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering(Playback):
    """A clip in the making: iterate over it, once, for its frames uint8 (H, W, 3), which come as they are finished.

    Attributes:
        portrait: uint8 (H, W, 3), as it was fitted.
        landmarks: uint8 (F, H, W, 3), what the guider sees, drawn when they are asked for.
        notices: what a user should know: bridged gaps, several faces.
    """

    portrait: Image
    landmarks: LandmarkImages
    notices: tuple[str, ...]
    _pieces: Iterator[Image] = field(repr=False)
    _timings: Timings = field(repr=False)

    def __len__(self) -> int:
        return len(self.landmarks)

    def __iter__(self) -> Iterator[Image]:
        for piece in self._pieces:
            yield from piece

    @property
    def timings(self) -> Mapping[str, float]:
        """Seconds spent so far, by stage."""
        return dict(self._timings.seconds)

    def clip(self) -> Clip:
        """All of it, made now."""
        frames = np.empty(self.landmarks.shape, np.uint8)
        for frame, made in zip(frames, self, strict=True):
            frame[...] = made
        return Clip(
            fps=self.fps,
            times=self.times,
            seconds=self.seconds,
            audio_from=self.audio_from,
            frames=frames,
            portrait=self.portrait,
            landmarks=self.landmarks[:],
            timings=self.timings,
            notices=self.notices,
        )


def evenly(frames: int, count: int) -> NDArray[np.int64]:
    """Numbers of `count` of so many frames, or of all if they are fewer, from the first to the last."""
    return np.linspace(0, frames - 1, min(count, frames)).round().astype(np.int64)


def contact_sheet(portrait: Image, landmarks: Image, frames: Image) -> Image:
    """Portrait, landmarks and frames in three rows, uint8 (H', W', 3)."""
    return media.contact_sheet([[portrait], list(landmarks), list(frames)], ["portrait", "landmarks", "frames"])


@dataclass(frozen=True, slots=True)
class _Driving:
    """A motion source, read: a motion still to be moved onto the portrait, or landmark images as they are."""

    motion: Motion | LandmarkImages
    fps: float
    times: tuple[float, ...] | None = None
    seconds: float | None = None
    audio_from: Path | None = None
    notices: tuple[str, ...] = ()


def animate(
    animator: Animator,
    image: str | os.PathLike[str] | Image,
    motion_source: MotionSource,
    options: Options,
    *,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
    landmarker: str | os.PathLike[str] | None = None,
    portrait_landmarks: str | os.PathLike[str] | Motion | None = None,
    tell: Tell | None = None,
) -> Clip:
    """Animate a portrait.

    With `windows="reference"` the public code's habits are kept: the first frame of a motion only anchors it and is
    dropped, the portrait's darkest 63 levels are one lower, and a portrait without a face that MediaPipe finds gets
    the driving face's landmarks where they are (all frames, and a notice).

    Args:
        animator: with the model.
        image: the portrait, a file or uint8 (H, W, 3) RGB; it is fitted to `size`, black outside.
        motion_source: a driving video, a Motion or its .npz, a legacy template .npy, or landmark images that are
            already the portrait's: a folder of pictures in the order of the numbers in their names, or uint8
            (F, H, W, 3). A file's content says what it is, not its name.
        options: how to denoise.
        size: (height, width) of the clip, multiples of 8; by default the bundle's, or that of landmark images.
        frames: use that many first frames of the motion.
        landmarker: MediaPipe's model file, needed for a video and for a portrait without `portrait_landmarks`.
        portrait_landmarks: the portrait's landmarks, a Motion of one frame or its file (.npz, .npy), in place of
            detection. They belong to the fitted portrait.
        tell: called with (stage, finished, all) as work goes on.

    Raises:
        InputError: a source that is missing, damaged, empty, too long, or without a face.
        FyeError: see `Animator`.
    """
    made = render(
        animator,
        image,
        motion_source,
        options,
        size=size,
        frames=frames,
        landmarker=landmarker,
        portrait_landmarks=portrait_landmarks,
        tell=tell,
    )
    return made.clip()


def render(
    animator: Animator,
    image: str | os.PathLike[str] | Image,
    motion_source: MotionSource,
    options: Options,
    *,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
    landmarker: str | os.PathLike[str] | None = None,
    portrait_landmarks: str | os.PathLike[str] | Motion | None = None,
    tell: Tell | None = None,
    resume: str | os.PathLike[str] | None = None,
    recent: Recent | None = None,
) -> Rendering:
    """As `animate`, but the frames are made as they are asked for, and none is kept.

    `resume` is a folder for what is finished, as for `Animator.frames`; `recent` spares clips that are made one after
    another what they share.
    """
    timings = Timings()
    tell = tell or _silent
    prepared = prepare(
        animator,
        image,
        motion_source,
        options,
        size=size,
        frames=frames,
        landmarker=landmarker,
        portrait_landmarks=portrait_landmarks,
        tell=tell,
        timings=timings,
        recent=recent,
    )
    tell("denoise", 0, options.steps)  # its graph may take a minute to open
    driving, shown = prepared.driving, len(prepared.landmarks)
    return Rendering(
        fps=driving.fps,
        times=driving.times[-shown:] if driving.times else None,
        seconds=driving.seconds,
        audio_from=driving.audio_from,
        portrait=prepared.portrait,
        landmarks=prepared.landmarks,
        notices=driving.notices + prepared.notices,
        _pieces=animator.frames(prepared.portrait_state, prepared.landmarks, options, tell, timings, resume),
        _timings=timings,
    )


def stream(
    animator: Animator,
    image: str | os.PathLike[str] | Image,
    motions: Iterable[Motion | None],
    options: Options,
    *,
    size: tuple[int, int] | None = None,
    landmarker: str | os.PathLike[str] | None = None,
    portrait_landmarks: str | os.PathLike[str] | Motion | None = None,
    patience: float | None = None,
) -> Generator[Image]:
    """Animate a portrait while its motion still comes in.

    Args:
        animator: with the model.
        image: the portrait, as for `animate`.
        motions: landmarks as `fye_rt.landmarks.detect_live` gives them, bit by bit; None is a frame without a face.
            The first ones anchor the head's position, and the least expression among their frames is the face at rest:
            let them be of a calm face.
        options: how to denoise; their windows don't count.
        size: as for `animate`.
        landmarker: as for `animate`.
        portrait_landmarks: as for `animate`.
        patience: as for `Animator.stream`.

    Returns:
        Frames uint8 (f, H, W, 3) as they are finished, one for each frame since the first face.

    Raises:
        FyeError: as `animate` and `Animator.stream`.
    """
    picture = image if isinstance(image, np.ndarray) else media.read_image(image)
    size = size or animator.bundle.size
    check_sides(size, "the clip")
    portrait = media.fit_image(picture, *size)
    try:
        own = _portrait_landmarks(portrait_landmarks, lambda: _detect(portrait, landmarker, picture))
    except FaceNotFoundError as error:
        raise FaceNotFoundError(f"{error}, or give its landmarks with --portrait-landmarks") from error
    for notice in _small_face(own, size):
        logger.warning("%s", notice)
    state = animator.encode_portrait(portrait, media.clip_pixels(portrait, _clip_side(animator)))
    return animator.stream(state, _retargeted(motions, own, size), options, patience=patience)


def _retargeted(motions: Iterable[Motion | None], portrait: Motion, size: tuple[int, int]) -> Iterator[Image | None]:
    """Landmark images, frame by frame."""
    retargeter: Retargeter | None = None
    with let_go(motions):
        for motion in motions:
            if motion is None:
                yield None
                continue
            retargeter = retargeter or Retargeter(portrait, motion, size)
            yield from draw(retargeter.points(motion), size)


def live(
    path: str | os.PathLike[str],
    times: deque[float],
    frames: int | None = None,
    landmarker: str | os.PathLike[str] | None = None,
) -> tuple[Playback, Iterator[Motion | None]]:
    """A driving video or a motion as a live source, for `stream`.

    Args:
        path: a driving video, a Motion .npz or a legacy template .npy.
        times: gets the seconds of each frame from the first face on, when it is read.
        frames: stop after that many.
        landmarker: MediaPipe's model file, needed for a video.

    Returns:
        How it is played, but for its times, and its frames one by one.

    Raises:
        InputError: it is missing, damaged, or holds no motion.
    """
    path = Path(path)
    kind = "folder" if path.is_dir() else media.kind_of(path)
    if kind in ("folder", "picture"):
        raise InputError(f"{path} is no video and no motion; a stream needs one")
    if kind != "video":
        motion = read_motion(path, frames)
        return Playback(fps=motion.fps), _timed(zip(motion.times.tolist(), _singly(motion), strict=True), times)
    info = media.probe_video(path, max_frames=frames)
    fps = float(info.fps)
    read: deque[float] = deque()

    def pictures() -> Iterator[tuple[float, Image]]:
        for time, image in media.read_video(path, max_frames=frames, info=info):
            read.append(time)
            yield time, image

    found = detect_live(pictures(), fps, find_landmarker(landmarker), str(path))
    playback = Playback(fps=fps, audio_from=path if info.has_audio else None)
    return playback, _timed(((read.popleft(), motion) for motion in found), times)


def _singly(motion: Motion) -> Iterator[Motion]:
    return (motion[k : k + 1] for k in range(len(motion)))


def _timed(motions: Iterable[tuple[float, Motion | None]], times: deque[float]) -> Iterator[Motion | None]:
    for time, motion in motions:
        if motion is not None or times:
            times.append(time)
        yield motion


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A clip whose portrait is encoded and whose landmarks are known.

    Attributes:
        portrait: uint8 (H, W, 3), as it was fitted.
        portrait_state: from `Animator.encode_portrait`.
        landmarks: uint8 (F, H, W, 3).
        driving: the motion source.
        notices: what a user should know of the landmarks.
    """

    portrait: Image
    portrait_state: PortraitState
    landmarks: LandmarkImages
    driving: _Driving
    notices: tuple[str, ...]


def prepare(
    animator: Animator,
    image: str | os.PathLike[str] | Image,
    motion_source: MotionSource,
    options: Options,
    *,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
    landmarker: str | os.PathLike[str] | None = None,
    portrait_landmarks: str | os.PathLike[str] | Motion | None = None,
    tell: Tell = _silent,
    timings: Timings | None = None,
    recent: Recent | None = None,
) -> Prepared:
    """What `animate` does before it makes frames: arguments and errors are its own and those of `render`."""
    timings, recent = timings or Timings(), recent or Recent()
    reference = options.windows == "reference"
    limit = MOTION_FRAMES if options.windows == "progressive" else MAX_FRAMES
    with timings.stage("read"):
        # before the motion, whose landmarks may take minutes to find
        picture = image if isinstance(image, np.ndarray) else media.read_image(image)
        driving = _read_once(recent, motion_source, frames, landmarker, tell, limit)
        if size is None:
            moved = driving.motion
            size = animator.bundle.size if isinstance(moved, Motion) else (moved.shape[1], moved.shape[2])
        check_sides(size, "the clip")
        portrait = media.fit_image(picture, *size)
        same = size, digest([portrait])
    with timings.stage("landmarks"):

        def detect() -> Motion:
            return recent.portrait((same, landmarker), lambda: _detect(portrait, landmarker, picture))

        landmarks, notices = _landmarks(driving.motion, portrait, portrait_landmarks, detect, reference)
    tell("encode", 0, 1)
    with timings.stage("encode_portrait"):

        def encode() -> PortraitState:
            clip_pixels = media.clip_pixels(portrait, _clip_side(animator))
            seen = media.reference_round_trip(portrait) if reference else portrait
            return animator.encode_portrait(seen, clip_pixels)

        portrait_state = recent.portrait((same, reference, animator), encode)
    tell("encode", 1, 1)
    return Prepared(portrait, portrait_state, landmarks, driving, notices)


def read_motion(
    path: str | os.PathLike[str],
    frames: int | None = None,
    landmarker: str | os.PathLike[str] | None = None,
    tell: Tell | None = None,
    recent: Recent | None = None,
) -> Motion:
    """The motion of a driving video, a picture, a Motion .npz or a legacy template .npy.

    Raises:
        InputError: missing, damaged, empty, too long, or without a face.
    """
    driving = _read_once(recent or Recent(), path, frames, landmarker, tell or _silent, MOTION_FRAMES)
    if not isinstance(driving.motion, Motion):
        raise InputError(f"{path} holds landmark images, which have no landmarks to read; give a video or a picture")
    return driving.motion


def _read_once(
    recent: Recent,
    source: MotionSource,
    frames: int | None,
    landmarker: str | os.PathLike[str] | None,
    tell: Tell,
    limit: int,
) -> _Driving:
    """As `_read`; landmarks of a file are remembered."""

    def read() -> _Driving:
        return _read(source, frames, landmarker, tell, limit)

    if isinstance(source, Motion | np.ndarray) or Path(source).is_dir():
        return read()
    return recent.motion(Path(source), (frames, landmarker, limit), read, lambda driving: len(driving.motion))


def _read(
    source: MotionSource,
    frames: int | None,
    landmarker: str | os.PathLike[str] | None,
    tell: Tell,
    limit: int,
) -> _Driving:
    if frames is not None and frames < 1:
        raise InputError(f"frames={frames} is not valid; give 1 to {limit}")
    if isinstance(source, Motion):
        return _from_motion(source[:frames], "the motion", limit)
    if isinstance(source, np.ndarray):
        if source.ndim != 4:
            raise InputError(f"landmark images have shape {source.shape}; give uint8 (F, H, W, 3)")
        return _Driving(source[:frames], FOLDER_FPS)
    path = Path(source)
    if path.is_dir():
        return _Driving(_read_folder(path, frames, limit), FOLDER_FPS)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a driving video, a motion .npz, a template .npy or a folder")
    match media.kind_of(path):
        case "motion":
            return _from_file(Motion.load(path)[:frames], str(path), limit)
        case "template":
            return _from_file(load_template(path)[:frames], str(path), limit)
        case "picture":
            return _from_motion(
                detect_image(media.read_image(path), find_landmarker(landmarker), str(path)), str(path), limit
            )
        case "video":
            return _from_video(path, frames, landmarker, tell, limit)


def _from_file(motion: Motion, name: str, limit: int) -> _Driving:
    """As `_from_motion`; files hold no notices."""
    return _from_motion(replace(motion, notices=(*motion.notices, *cut_notices(motion, name))), name, limit)


def _from_motion(motion: Motion, name: str, limit: int) -> _Driving:
    _check_length(len(motion), name, limit)
    _check_times(motion, name)
    return _Driving(motion, motion.fps, tuple(motion.times), notices=motion.notices)


def _from_video(
    path: Path, frames: int | None, landmarker: str | os.PathLike[str] | None, tell: Tell, limit: int
) -> _Driving:
    info = media.probe_video(path, max_frames=frames)
    _check_length(info.frames, str(path), limit)
    motion = detect_frames(
        media.read_video(path, max_frames=frames, info=info),
        float(info.fps),
        find_landmarker(landmarker),
        progress=lambda done: tell("landmarks", done, info.frames),
        source=str(path),
    )
    return _Driving(
        motion,
        float(info.fps),
        tuple(motion.times),
        seconds=info.seconds if len(motion) == info.frames else None,
        audio_from=path if info.has_audio else None,
        notices=motion.notices,
    )


def _read_folder(path: Path, frames: int | None, limit: int) -> Pictures:
    try:
        files = media.pictures_in(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not files:
        raise InputError(f"{path} holds no pictures; give a folder of landmark images")
    files = files[:frames]
    _check_length(len(files), str(path), limit)
    return Pictures(files)


def _check_times(motion: Motion, name: str) -> None:
    try:
        media.check_times(motion.times)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _check_length(frames: int, name: str, limit: int) -> None:
    if frames > limit:
        remedy = "" if limit == MOTION_FRAMES else ", or --windows progressive, which takes more"
        raise InputError(f"{name} has {frames} frames; the limit is {limit}: pass --frames, cut it{remedy}")


def _landmarks(
    motion: Motion | LandmarkImages,
    portrait: Image,
    given: str | os.PathLike[str] | Motion | None,
    detect: Callable[[], Motion],
    reference: bool,
) -> tuple[LandmarkImages, tuple[str, ...]]:
    """Landmark images of a clip, and what a user should know of them."""
    if not isinstance(motion, Motion):
        return motion, ()
    size = (portrait.shape[0], portrait.shape[1])
    try:
        own = _portrait_landmarks(given, detect)
    except FaceNotFoundError as error:
        if not reference:
            raise FaceNotFoundError(f"{error}, or give its landmarks with --portrait-landmarks") from error
        # the public code exchanges width and height here; for square clips this is the same
        unaligned = Drawn(motion.points[..., :2] * (size[1], size[0]), size)
        return unaligned, ("the portrait: no face in it; the driving face's landmarks were not moved onto it",)
    return Drawn(retarget(own, motion, size, drop_first=reference), size), (*own.notices, *_small_face(own, size))


def _small_face(portrait: Motion, size: tuple[int, int]) -> tuple[str, ...]:
    """What is said of a face that has too few pixels in a clip of that height and width."""
    width = float(np.ptp(portrait.points[0, :, 0])) * size[1]
    if width >= SMALL_FACE * min(size):
        return ()
    return (
        f"the portrait: its face is {width:.0f} pixels wide in a clip of {size[1]}x{size[0]}, too small to show "
        "expressions; crop the picture to head and shoulders",
    )


def _detect(portrait: Image, landmarker: str | os.PathLike[str] | None, picture: Image) -> Motion:
    """Landmarks of a portrait that was fitted from a picture, whose pixels are those that a user can count."""
    try:
        return detect_image(portrait, find_landmarker(landmarker), "the portrait")
    except FaceNotFoundError as error:
        (height, width), (h, w) = portrait.shape[:2], picture.shape[:2]
        least = math.ceil(round(SMALLEST_FACE * max(height, width) / min(width / w, height / h), 3))
        same = (h, w) == (height, width)
        raise FaceNotFoundError(str(error) if same else f"{error} ({least} of the whole picture's {w}x{h})") from error


def _portrait_landmarks(given: str | os.PathLike[str] | Motion | None, detect: Callable[[], Motion]) -> Motion:
    if given is None:
        return detect()
    if isinstance(given, Motion):
        return given
    return load_template(given) if media.kind_of(given) == "template" else Motion.load(given)


def _clip_side(animator: Animator) -> int:
    return int(animator.bundle.graphs["image_encoder"].inputs[0].shape[-1])
