"""Landmarks of pictures and videos, found by MediaPipe's face landmarker.

Every frame is searched on its own (MediaPipe's IMAGE mode), as the reference does it: the result of a frame does
not depend on the frames before it, nor on their timing.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import BackendError, InputError
from fye_rt.files import cache_folder, place_for_matplotlib, refuse_pointer
from fye_rt.landmarks.draw import load_cv2
from fye_rt.landmarks.gaps import MOST_LISTED, Face, bridge, check_gaps, more, ranges, runs_of
from fye_rt.landmarks.geometry import FaceGeometry, load_geometry, recover
from fye_rt.landmarks.motion import BLENDSHAPES, POINTS, Motion, check_frames, find_cuts
from fye_rt.timings import Progress, no_progress

LANDMARKER_VARIABLE = "FYE_LANDMARKER"
LANDMARKER_URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)
MAX_FACES = 4  # searched for, so that the largest can be told from the others
KEEP_FACE = 1.5  # another face must be this much larger than the one followed so far to take its place

Array = NDArray[np.float64]


def cached_landmarker() -> Path:
    """Where face_landmarker.task lies in the user's cache, whether it is there or not."""
    file = cache_folder() / "face_landmarker.task"
    older = cache_folder().with_name("fye") / file.name  # ~/.cache/fye, where it was before all lay in one folder
    return older if older.is_file() and not file.is_file() else file


def find_landmarker(path: str | os.PathLike[str] | None = None) -> Path:
    """MediaPipe's model file: `path`, else the variable FYE_LANDMARKER, else the user's cache.

    Raises:
        InputError: it is not there; the message says how to get it.
    """
    variable = os.environ.get(LANDMARKER_VARIABLE)
    if path is not None:
        found, origin, then = Path(path), "the given landmarker", ", and leave landmarker out"
    elif variable:
        origin, then = f"the environment variable {LANDMARKER_VARIABLE}", f", and unset {LANDMARKER_VARIABLE}"
        found = Path(variable)
    else:
        found, origin = cached_landmarker(), "the user's cache"
        then = f", or name it with landmarker=FILE or {LANDMARKER_VARIABLE}"
    if not found.is_file():
        raise InputError(
            f"MediaPipe's face_landmarker.task is not at {found} ({origin}); run: fye doctor --get landmarker{then}"
        )
    return found


def detect_image(image: NDArray[np.uint8], landmarker: Path, source: str = "the picture") -> Motion:
    """Landmarks of the largest face of one picture.

    Args:
        image: uint8 (H, W, 3), RGB.
        landmarker: face_landmarker.task, from `find_landmarker`.
        source: the picture's name, for messages.

    Returns:
        A motion of one frame; `notices` tells when there are several faces.

    Raises:
        FaceNotFoundError: no face in it.
        InputError: not such an array, or `landmarker` is damaged.
        BackendError: MediaPipe is not installed.
    """
    return detect_frames([(0.0, image)], fps=1.0, landmarker=landmarker, source=source)


def detect_frames(
    frames: Iterable[tuple[float, NDArray[np.uint8]]],
    fps: float,
    landmarker: Path,
    progress: Progress = no_progress,
    total: int = 0,
    source: str = "the video",
) -> Motion:
    """Landmarks of the largest face in every frame of a video; it is followed until another is much larger.

    Frames without a face are interpolated between their neighbours in time where a gap is at most 0.5 s.

    Args:
        frames: (time in seconds, uint8 (H, W, 3) RGB) in order of time; frame rates may vary. One frame is held
            in memory at a time.
        fps: nominal frames per second.
        landmarker: face_landmarker.task, from `find_landmarker`.
        progress: called with ("landmarks", done, total) after each frame.
        total: how many frames there are, for `progress`.
        source: the video's name, for messages.

    Returns:
        A motion of as many frames, False in `valid` where interpolated; `notices` lists the frames that were, and
        those with several faces.

    Raises:
        FaceNotFoundError: longer gaps; the message lists them.
        InputError: no frames or more than 18,000, frames of different sizes, or a damaged `landmarker`.
        BackendError: MediaPipe is not installed.
    """
    times: list[float] = []
    faces: list[Face | None] = []
    crowded: list[int] = []
    size: tuple[int, int] | None = None
    followed: Face | None = None
    with _open(landmarker) as (find, geometry):
        for time, image in frames:
            _check_image(image, size, source)
            size = image.shape[0], image.shape[1]
            check_frames(len(times) + 1)
            found = find(image)
            if len(found) > 1:
                crowded.append(len(times))
            face = _choose(found, followed, size)
            followed = face or followed
            times.append(time)
            faces.append(face)
            progress("landmarks", len(times), total)
    if size is None:
        raise InputError(f"{source} has no frames; give one that does")
    gaps = runs_of([face is None for face in faces])
    check_gaps(faces, gaps, np.array(times), fps, source, size)
    motion = _to_motion(faces, times, fps, size, geometry)
    notices = []
    if gaps:
        notices.append(f"{source}: no face in frames {ranges(gaps)}; these were interpolated")
    if crowded:
        runs = runs_of(np.isin(np.arange(len(times)), crowded).tolist())
        where, kept = "", ""
        if len(times) > 1:
            where = f" in frames {ranges(runs)}"
            kept = f", and kept until another was {KEEP_FACE:g} times as large"
        notices.append(f"{source}: several faces{where}; the largest was taken{kept}")
    notices += cut_notices(motion, source)
    return bridge(motion, gaps, tuple(notices))


def cut_notices(motion: Motion, source: str) -> list[str]:
    """What a user should know of cuts to another face or framing, in one line; nothing if there is none."""
    cuts = find_cuts(motion)
    if not cuts:
        return []
    places = [f"{cut} ({motion.times[cut] - motion.times[0]:.2f} s)" for cut in cuts[:MOST_LISTED]]
    frames = f"frame{'s' * (len(cuts) > 1)} {', '.join(places)}{more(cuts)}"
    return [f"{source}: another face or framing from {frames} on, where the portrait jumps; cut the video there"]


def detect_live(
    frames: Iterable[tuple[float, NDArray[np.uint8]]], fps: float, landmarker: Path, source: str = "the source"
) -> Iterator[Motion | None]:
    """Landmarks of the largest face in every frame, while frames still come in.

    Args:
        frames: as for `detect_frames`, of any number.
        fps: nominal frames per second.
        landmarker: face_landmarker.task, from `find_landmarker`.
        source: the source's name, for messages.

    Yields:
        A motion of one frame; None where there is no face.

    Raises:
        InputError: frames of different sizes, or a damaged `landmarker`.
        BackendError: MediaPipe is not installed.
    """
    size: tuple[int, int] | None = None
    followed: Face | None = None
    with _open(landmarker) as (find, geometry):
        for time, image in frames:
            _check_image(image, size, source)
            size = image.shape[0], image.shape[1]
            face = _choose(find(image), followed, size)
            followed = face or followed
            yield None if face is None else _to_motion([face], [time], fps, size, geometry)


@contextmanager
def _open(landmarker: Path) -> Iterator[tuple[Callable[[NDArray[np.uint8]], list[Face]], FaceGeometry]]:
    """A function that finds the faces of a picture, and the canonical face; MediaPipe's model is closed at the end."""
    load_cv2()  # MediaPipe imports it too, and would not say what is missing
    place_for_matplotlib()
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision
    except ImportError as error:
        raise BackendError(
            f"landmarks need MediaPipe, which cannot be imported ({error}); run: pip install 'fye-rt[landmarks]'"
        ) from error
    refuse_pointer(landmarker, InputError)
    geometry = load_geometry(landmarker)
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(landmarker)),
        running_mode=vision.RunningMode.IMAGE,
        num_faces=MAX_FACES,
        output_face_blendshapes=True,
    )
    try:
        model = vision.FaceLandmarker.create_from_options(options)
    except OSError as error:  # of the dynamic linker; the file has just been read
        raise BackendError(
            f"MediaPipe cannot be loaded ({error}); on Debian or Ubuntu run: apt install libegl1 libgles2"
        ) from error
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"MediaPipe cannot open {landmarker} ({error}); download it again from {LANDMARKER_URL}"
        ) from error

    def find(image: NDArray[np.uint8]) -> list[Face]:
        picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        return _faces(model.detect(picture))

    try:
        yield find, geometry
    finally:
        model.close()


def _faces(result: Any) -> list[Face]:
    faces = []
    for landmarks, blendshapes in zip(result.face_landmarks, result.face_blendshapes, strict=True):
        points = np.array([(point.x, point.y, point.z) for point in landmarks], np.float64)
        scores = np.array([category.score for category in blendshapes[1:]], np.float64)  # the first is "_neutral"
        if points.shape != (POINTS, 3) or scores.shape != (BLENDSHAPES,):
            raise InputError(
                f"the landmarker gives {len(points)} points and {len(scores)} blendshapes, {POINTS} and {BLENDSHAPES} "
                f"are needed; download it again from {LANDMARKER_URL}"
            )
        faces.append((points, scores))
    return faces


def _choose(faces: list[Face], followed: Face | None, size: tuple[int, int]) -> Face | None:
    """The largest face by its bounding box in pixels; the one followed so far counts 1.5 times.

    Without this bonus two people at the same distance would take turns from frame to frame.
    """

    def weight(face: Face) -> float:
        low, high = face[0][:, :2].min(axis=0), face[0][:, :2].max(axis=0)
        area = float(np.prod((high - low) * size[::-1]))
        if followed is None:
            return area
        centre = (low + high) / 2.0
        inside = (followed[0][:, :2].min(axis=0) <= centre) & (centre <= followed[0][:, :2].max(axis=0))
        return area * KEEP_FACE if inside.all() else area

    return max(faces, key=weight, default=None)


def _to_motion(
    faces: list[Face | None], times: list[float], fps: float, size: tuple[int, int], geometry: FaceGeometry
) -> Motion:
    """All frames; those without a face repeat the nearest earlier one (at the start: the first one)."""
    shown = next(face for face in faces if face is not None)
    filled = [shown := face or shown for face in faces]
    points = np.stack([points for points, _ in filled])
    mesh, pose = recover(points, size, geometry)
    return Motion(
        points=points,
        mesh=mesh,
        pose=pose,
        blendshapes=np.stack([scores for _, scores in filled]),
        times=np.array(times),
        fps=fps,
        source_size=size,
        valid=np.array([face is not None for face in faces]),
    )


def _check_image(image: NDArray[np.uint8], size: tuple[int, int] | None, source: str) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"{source} is {image.dtype} {image.shape}, landmarks are found in uint8 (H, W, 3)")
    if size is not None and image.shape[:2] != size:
        raise InputError(f"{source} changes its size from {size} to {image.shape[:2]} on its way; cut it there")
