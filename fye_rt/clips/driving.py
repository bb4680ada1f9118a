"""Reading of motion sources: a video, a picture, a motion, a template or landmark images."""

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from fye_rt import media
from fye_rt.clips.cache import ClipCache
from fye_rt.errors import InputError
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
from fye_rt.options import MotionSource
from fye_rt.timings import Progress, no_progress

FOLDER_FPS = 7.0  # output rate of the reference implementation, for landmark images and templates that carry none


@dataclass(frozen=True, slots=True)
class Driving:
    """A motion source that was read: a motion to be moved onto the portrait, or finished landmark images."""

    motion: Motion | LandmarkImages
    fps: float
    times: tuple[float, ...] | None = None
    seconds: float | None = None
    audio_from: Path | None = None
    notices: tuple[str, ...] = ()


def read_motion(
    path: str | os.PathLike[str],
    frames: int | None = None,
    landmarker: str | os.PathLike[str] | None = None,
    progress: Progress = no_progress,
    cache: ClipCache | None = None,
) -> Motion:
    """Read the motion of a driving video, a picture, a Motion .npz or a legacy template .npy.

    Args:
        path: the file.
        frames: number of first frames to use; None: all.
        landmarker: MediaPipe's model file, needed for a video and a picture.
        progress: called with ("landmarks", done, total) frames.
        cache: keeps the motions of files.

    Raises:
        InputError: the source is missing, damaged, empty, too long, or shows no face.
    """
    driving = read_once(cache or ClipCache(), path, frames, landmarker, progress, MOTION_FRAMES)
    if not isinstance(driving.motion, Motion):
        raise InputError(f"{path} holds landmark images, which have no landmarks to read; give a video or a picture")
    return driving.motion


def read_once(
    cache: ClipCache,
    source: MotionSource,
    frames: int | None,
    landmarker: str | os.PathLike[str] | None,
    progress: Progress,
    limit: int,
) -> Driving:
    """Read a source of at most `limit` frames; the cache keeps the landmarks of a file."""
    read = partial(_read, source, frames, landmarker, progress, limit)
    if isinstance(source, Motion | np.ndarray) or Path(source).is_dir():
        return read()
    return cache.motion(Path(source), (frames, landmarker, limit), read, lambda driving: len(driving.motion))


def _read(
    source: MotionSource, frames: int | None, landmarker: str | os.PathLike[str] | None, progress: Progress, limit: int
) -> Driving:
    if isinstance(source, Motion):
        return _from_motion(source[:frames], "the motion", limit)
    if isinstance(source, np.ndarray):
        if source.ndim != 4:
            raise InputError(f"landmark images have shape {source.shape}; give uint8 (F, H, W, 3)")
        return Driving(source[:frames], FOLDER_FPS)
    path = Path(source)
    if path.is_dir():
        return Driving(_read_folder(path, frames, limit), FOLDER_FPS)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a driving video, a motion .npz, a template .npy or a folder")
    match media.kind_of(path):
        case "motion":
            return _from_file(Motion.load(path)[:frames], str(path), limit)
        case "template":
            return _from_file(load_template(path)[:frames], str(path), limit)
        case "points":
            return _from_motion(load_points(path, landmarker=landmarker), str(path), limit)
        case "picture":
            motion = detect_image(media.read_image(path), find_landmarker(landmarker), str(path))
            return _from_motion(motion, str(path), limit)
        case "video":
            return _from_video(path, frames, landmarker, progress, limit)


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


def _from_video(
    path: Path, frames: int | None, landmarker: str | os.PathLike[str] | None, progress: Progress, limit: int
) -> Driving:
    info = media.probe_video(path, max_frames=frames)
    _check_length(info.frames, str(path), limit)
    motion = detect_frames(
        media.read_video(path, max_frames=frames, info=info),
        float(info.fps),
        find_landmarker(landmarker),
        progress=progress,
        total=info.frames,
        source=str(path),
    )
    return Driving(
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


def _check_length(frames: int, name: str, limit: int) -> None:
    if frames > limit:
        remedy = "" if limit == MOTION_FRAMES else ", or use windows='progressive', which takes more"
        raise InputError(f"{name} has {frames} frames; the limit is {limit}: use frames={limit}, cut it{remedy}")
