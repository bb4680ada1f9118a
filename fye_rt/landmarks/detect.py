"""Detect face landmarks in pictures and videos with MediaPipe's face landmarker.

Each frame is searched independently (MediaPipe's IMAGE mode), as in the reference implementation: the faces detected
in a frame depend neither on earlier frames nor on their timing.
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
from fye_rt.landmarks.gaps import MOST_LISTED, Face, bridge, check_gaps, more, ranges, runs_of
from fye_rt.landmarks.geometry import FaceGeometry, load_geometry, recover
from fye_rt.landmarks.motion import BLENDSHAPES, POINTS, Motion, check_frames, find_cuts
from fye_rt.media.opencv import load_cv2
from fye_rt.timings import Progress, no_progress

LANDMARKER_VARIABLE = "FYE_LANDMARKER"
LANDMARKER_URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)
MAX_FACES = 4  # more than one, so that the largest can be chosen
KEEP_FACE = 1.5  # another face must be this many times as large as the followed one to take its place

Array = NDArray[np.float64]


def cached_landmarker() -> Path:
    """Return the path of face_landmarker.task in the user's cache, whether or not the file exists."""
    file = cache_folder() / "face_landmarker.task"
    older = cache_folder().with_name("fye") / file.name  # ~/.cache/fye, its place before everything shared one folder
    return older if older.is_file() and not file.is_file() else file


def find_landmarker(path: str | os.PathLike[str] | None = None) -> Path:
    """Find MediaPipe's model file: `path`, else the environment variable FYE_LANDMARKER, else the user's cache.

    Raises:
        InputError: the file does not exist; the message says how to get it.
    """
    variable = os.environ.get(LANDMARKER_VARIABLE)
    if path is not None:
        file, origin, remedy = Path(path), "the given landmarker", ", and leave landmarker out"
    elif variable:
        file, origin = Path(variable), f"the environment variable {LANDMARKER_VARIABLE}"
        remedy = f", and unset {LANDMARKER_VARIABLE}"
    else:
        file, origin = cached_landmarker(), "the user's cache"
        remedy = f", or name it with landmarker=FILE or {LANDMARKER_VARIABLE}"
    if not file.is_file():
        raise InputError(
            f"MediaPipe's face_landmarker.task is not at {file} ({origin}); run: fye doctor --get landmarker{remedy}"
        )
    return file


def detect_image(image: NDArray[np.uint8], landmarker: Path, source: str = "the picture") -> Motion:
    """Detect the landmarks of the largest face in a picture.

    Args:
        image: uint8 (H, W, 3), RGB.
        landmarker: face_landmarker.task, from `find_landmarker`.
        source: the picture's name, for messages.

    Returns:
        A motion of one frame; `notices` mentions several faces.

    Raises:
        FaceNotFoundError: the picture has no face.
        InputError: `image` has another dtype or shape, or `landmarker` is damaged.
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
    """Detect the landmarks of the largest face in every frame of a video, following it until another is much larger.

    Frames without a face are interpolated between their neighbours in time if the gap is at most 0.5 s.

    Args:
        frames: (time in seconds, uint8 (H, W, 3) RGB) in order of time; the frame rate may vary. One frame is in
            memory at a time.
        fps: nominal frames per second.
        landmarker: face_landmarker.task, from `find_landmarker`.
        progress: called with ("landmarks", done, total) after each frame.
        total: number of frames, for `progress`.
        source: the video's name, for messages.

    Returns:
        A motion of as many frames; `valid` is False where a frame was interpolated. `notices` lists the interpolated
        frames, those with several faces, and cuts.

    Raises:
        FaceNotFoundError: a gap is longer; the message lists the gaps.
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
            detected = find(image)
            if len(detected) > 1:
                crowded.append(len(times))
            face = _choose(detected, followed, size)
            followed = face or followed
            times.append(time)
            faces.append(face)
            progress("landmarks", len(times), total)
    if size is None:
        raise InputError(f"{source} has no frames; give a video with at least one")
    gaps = runs_of([face is None for face in faces])
    check_gaps(faces, gaps, np.array(times), fps, source, size)
    motion = _to_motion(faces, times, fps, size, geometry)
    notices = []
    if gaps:
        notices.append(f"{source}: no face in frames {ranges(gaps)}; these were interpolated")
    if crowded:
        where, until = "", ""
        if len(times) > 1:
            where = f" in frames {ranges(runs_of(np.isin(np.arange(len(times)), crowded).tolist()))}"
            until = f" and followed until another was {KEEP_FACE:g} times as large"
        notices.append(f"{source}: several faces{where}; the largest was taken{until}")
    notices += cut_notices(motion, source)
    return bridge(motion, gaps, tuple(notices))


def cut_notices(motion: Motion, source: str) -> list[str]:
    """Return one line for the user about cuts to another face or framing, or nothing if there are none."""
    cuts = find_cuts(motion)
    if not cuts:
        return []
    places = [f"{cut} ({motion.times[cut] - motion.times[0]:.2f} s)" for cut in cuts[:MOST_LISTED]]
    frames = f"frame{'s' * (len(cuts) > 1)} {', '.join(places)}{more(cuts)}"
    return [f"{source}: the face or its framing changes at {frames}, where the portrait jumps; cut the video there"]


def detect_live(
    frames: Iterable[tuple[float, NDArray[np.uint8]]], fps: float, landmarker: Path, source: str = "the source"
) -> Iterator[Motion | None]:
    """Detect the landmarks of the largest face in every frame while frames are still arriving.

    Args:
        frames: as for `detect_frames`, in any number.
        fps: nominal frames per second.
        landmarker: face_landmarker.task, from `find_landmarker`.
        source: the source's name, for messages.

    Yields:
        A motion of one frame, or None for a frame without a face.

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
    """Yield a function that finds the faces in a picture, and the canonical face; then close MediaPipe's model."""
    load_cv2()  # MediaPipe imports OpenCV too, but its error would not say what is missing
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
    except OSError as error:  # from the dynamic linker: the file itself has just been read
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
    """Choose the largest face by bounding box in pixels; the followed face counts 1.5 times.

    Without this bonus, two people at the same distance would take turns from frame to frame.
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
    """Convert faces to a motion; a frame without one repeats the face before it (at the start: the first face)."""
    latest = next(face for face in faces if face is not None)
    filled = [latest := face or latest for face in faces]
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
        raise InputError(f"{source} is {image.dtype} {image.shape}; landmark detection needs uint8 (H, W, 3)")
    if size is not None and image.shape[:2] != size:
        raise InputError(f"{source} changes its size from {size} to {image.shape[:2]}; cut it there")
