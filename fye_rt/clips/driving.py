"""Reading of motion sources: a video, a picture, a motion, a template or landmark images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fye_rt import media
from fye_rt.clips.cache import ClipCache
from fye_rt.clips.clip import Image, Playback
from fye_rt.errors import FaceNotFoundError, InputError, OptionError
from fye_rt.landmarks import MAX_FRAMES as MOTION_FRAMES
from fye_rt.landmarks import (
    LandmarkImages,
    Motion,
    Pictures,
    cut_notices,
    detect_frames,
    detect_image,
    find_landmarker,
    load_points,
    load_template,
)
from fye_rt.landmarks.builtin import is_builtin, load_builtin
from fye_rt.landmarks.mirror import mirrored
from fye_rt.options import ClipRequest, MotionSource
from fye_rt.timings import Progress, no_progress

FOLDER_FPS = 7.0  # output rate of the reference implementation, for landmark images and templates that carry none


Played = TypeVar("Played", "Driving", Playback)


@dataclass(frozen=True, slots=True)
class Driving:
    """A motion source that was read: a motion to be moved onto the portrait, or finished landmark images."""

    motion: Motion | LandmarkImages
    fps: float
    times: tuple[float, ...] | None = None
    seconds: float | None = None
    audio_from: Path | None = None
    audio_start: float = 0.0
    notices: tuple[str, ...] = ()

    def playback(self, crf: int) -> Playback:
        """Return how a clip with all of the frames is played."""
        return Playback(
            fps=self.fps,
            times=self.times,
            seconds=self.seconds,
            audio_from=self.audio_from,
            audio_start=self.audio_start,
            crf=crf,
        )


def read_motion(request: ClipRequest, progress: Progress = no_progress, cache: ClipCache | None = None) -> Motion:
    """Read the motion of a driving video, a picture, a Motion .npz or a legacy template .npy.

    Args:
        request: names the motion, its used part, the face and the landmarker; the rest of it does not count.
        progress: called with ("landmarks", done, total) frames.
        cache: keeps the motions of files.

    Raises:
        InputError: the source is missing, damaged, empty, too long, or shows no face.
    """
    motion = read_once(cache or ClipCache(), request, progress, MOTION_FRAMES).motion
    if not isinstance(motion, Motion):
        raise InputError(
            f"{request.motion} holds landmark images, which have no landmarks to read; give a video or a picture"
        )
    return motion


def read_once(cache: ClipCache, request: ClipRequest, progress: Progress, limit: int) -> Driving:
    """Read the motion of a request, of at most `limit` frames; the cache keeps the landmarks of a file."""
    source, read = request.motion, partial(_read, request, progress, limit)
    check_audio(request)  # before landmarks are detected, which may take minutes
    if request.mirror and is_drawn(source):
        raise OptionError("mirror=True needs a motion, and landmark images are finished; leave it out")
    if isinstance(source, Motion | np.ndarray) or is_builtin(source) or Path(source).is_dir():
        return _played(read(), request)
    part = request.frames, request.start, request.seconds
    key = *part, request.driving_face, request.gaps, searches(request), request.landmarker, limit
    driving = cache.motion(Path(source), key, read, lambda driving: len(driving.motion))
    return _played(driving, request)


def is_drawn(source: MotionSource) -> bool:
    """Return whether a motion source is finished landmark images: an array or a folder."""
    return isinstance(source, np.ndarray) or (not isinstance(source, Motion) and Path(source).is_dir())


def part_of(motion: Motion, request: ClipRequest, name: str) -> Motion:
    """Return the part of a motion that a request uses; its times begin at 0 if it does not begin with the motion.

    Raises:
        InputError: the part has no frame.
    """
    if request.start or request.seconds is not None:
        since = motion.times - motion.times[0]
        end = math.inf if request.seconds is None else request.start + request.seconds
        first, last = np.searchsorted(since, [request.start - 1e-6, end - 1e-6])
        if first == last:
            length = since[-1] + 1 / motion.fps
            raise InputError(f"{name} has no frame from start={request.start:g} on; it is {length:.2f} seconds long")
        motion = motion[int(first) : int(last)]
        motion = replace(motion, times=motion.times - motion.times[0])
    return motion[: request.frames]


def _read(request: ClipRequest, progress: Progress, limit: int) -> Driving:
    source = request.motion
    if isinstance(source, Motion):
        return _from_motion(part_of(source, request, "the motion"), "the motion", limit)
    if isinstance(source, np.ndarray):
        if source.ndim != 4:
            raise InputError(f"landmark images have shape {source.shape}; give uint8 (F, H, W, 3)")
        return Driving(source[_numbered(request, len(source), "the landmark images")], FOLDER_FPS)
    if is_builtin(source):
        return _from_motion(part_of(load_builtin(str(source)), request, str(source)), str(source), limit)
    path = Path(source)
    if path.is_dir():
        return Driving(_read_folder(path, request, limit), FOLDER_FPS)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a driving video, a motion .npz, a template .npy or a folder")
    match media.kind_of(path):
        case "motion":
            return _from_file(part_of(Motion.load(path), request, str(path)), str(path), limit)
        case "template":
            return _from_file(part_of(load_template(path), request, str(path)), str(path), limit)
        case "points":
            return _from_motion(load_points(path, landmarker=request.landmarker), str(path), limit)
        case "picture":
            landmarker, face = find_landmarker(request.landmarker), request.driving_face
            picture = media.read_image(path)
            try:
                motion = detect_image(picture, landmarker, str(path), face=face, search=searches(request))
            except FaceNotFoundError as error:
                remedy = "set its points by hand in a JSON or CSV file, and give that instead"
                raise FaceNotFoundError(f"{error}, or {remedy}") from error
            return _from_motion(motion, str(path), limit)
        case "video":
            return _from_video(path, request, progress, limit)


def searches(request: ClipRequest) -> bool:
    """Return whether small faces are searched for; the reference implementation looks once at the whole picture."""
    return request.options.windows != "reference"


def _numbered(request: ClipRequest, count: int, name: str) -> slice:
    """Return which of `count` landmark images a request uses; they are `FOLDER_FPS` a second, or its `fps`."""
    rate = request.fps or FOLDER_FPS
    first = math.ceil(request.start * rate - 1e-6)
    if first >= count:
        raise InputError(f"{name} have no frame from start={request.start:g} on; there are {count}, {rate:g} a second")
    most = [count, *([first + request.frames] if request.frames else [])]
    most += [] if request.seconds is None else [first + max(math.ceil(request.seconds * rate - 1e-6), 1)]
    return slice(first, min(most))


def _from_file(motion: Motion, name: str, limit: int) -> Driving:
    """Read a motion from a file, which stores no notices."""
    return _from_motion(replace(motion, notices=(*motion.notices, *cut_notices(motion, name))), name, limit)


def _from_motion(motion: Motion, name: str, limit: int) -> Driving:
    _check_length(len(motion), name, limit)
    try:
        media.check_times(motion.times)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return Driving(motion, motion.fps, tuple(motion.times), notices=motion.notices)


def _from_video(path: Path, request: ClipRequest, progress: Progress, limit: int) -> Driving:
    part: dict[str, Any] = {"max_frames": request.frames, "start": request.start, "seconds": request.seconds}
    info = media.probe_video(path, **part)
    _check_length(info.frames, str(path), limit)
    times: list[float] = []  # of all frames

    def pictures() -> Iterator[tuple[float, Image]]:
        for time, image in media.read_video(path, **part, info=info):
            times.append(time)
            yield time, image

    motion = detect_frames(
        pictures(),
        float(info.fps),
        find_landmarker(request.landmarker),
        progress=progress,
        total=info.frames,
        source=str(path),
        face=request.driving_face,
        gaps=request.gaps,
        search=searches(request),
    )
    driving = Driving(
        motion,
        float(info.fps),
        tuple(motion.times),
        seconds=info.seconds,
        audio_from=path if info.has_audio else None,
        audio_start=float(info.offset),
        notices=motion.notices,
    )
    return driving if len(motion) == len(times) else _closed_up(driving, motion, np.array([*times, info.seconds]))


def _closed_up(driving: Driving, motion: Motion, ends: NDArray[np.float64]) -> Driving:
    """Let frames that remain after others were left out follow each other; each lasts as long as before.

    Sound stays in step if frames are missing at the ends alone, and is left out otherwise.

    Args:
        driving: the motion source.
        motion: its frames that remain, with their times.
        ends: seconds of all frames and of the end of the last.
    """
    frames = np.searchsorted(ends, motion.times)
    closed = np.concatenate([[0.0], np.cumsum(np.diff(ends)[frames])])
    times, seconds = closed[:-1], float(closed[-1])
    driving = replace(driving, motion=replace(motion, times=times), times=tuple(times.tolist()), seconds=seconds)
    if (np.diff(frames) == 1).all():
        return replace(driving, audio_start=driving.audio_start + float(motion.times[0]))
    if driving.audio_from is None:
        return driving
    text = f"{driving.audio_from}: its sound is left out, as frames without a face were skipped; give audio=FILE"
    return replace(driving, audio_from=None, notices=(*driving.notices, text))


def _played(driving: Driving, request: ClipRequest) -> Driving:
    """Mirror a motion, and change its speed and its sound, as a request asks."""
    if request.mirror and isinstance(driving.motion, Motion):
        driving = replace(driving, motion=mirrored(driving.motion))
    if request.fps is not None:
        notices = driving.notices
        if driving.audio_from is not None and request.audio is None:
            notices += (f"{driving.audio_from}: its sound is left out, as fps={request.fps:g} changes its speed",)
        driving = replace(driving, fps=request.fps, times=None, seconds=None, audio_from=None, notices=notices)
    return sounding(driving, request)


def sounding(played: Played, request: ClipRequest) -> Played:
    """Give something that is played the sound that a request names, or none."""
    if request.audio == "none":
        return replace(played, audio_from=None)
    if request.audio is not None:
        return replace(played, audio_from=Path(request.audio), audio_start=0.0)
    return played


def check_audio(request: ClipRequest) -> None:
    """Raise InputError if a request names a file without sound."""
    if request.audio not in (None, "none"):
        media.check_sound(request.audio)


def _read_folder(path: Path, request: ClipRequest, limit: int) -> Pictures:
    try:
        files = media.pictures_in(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if not files:
        raise InputError(f"{path} holds no pictures; give a folder of landmark images")
    files = files[_numbered(request, len(files), f"the pictures of {path}")]
    _check_length(len(files), str(path), limit)
    return Pictures(files)


def _check_length(frames: int, name: str, limit: int) -> None:
    if frames > limit:
        remedy = "" if limit == MOTION_FRAMES else ", or use windows='progressive', which takes more"
        raise InputError(f"{name} has {frames} frames; the limit is {limit}: use frames={limit}, cut it{remedy}")
