"""Detect face landmarks in pictures and videos with MediaPipe's face landmarker.

Each frame is looked at independently (MediaPipe's IMAGE mode), as in the reference implementation: the landmarks of a
large face depend neither on earlier frames nor on their timing. Those of a small one are looked for where it was.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import BackendError, InputError
from fye_rt.files import cache_folder, place_for_matplotlib, refuse_pointer
from fye_rt.landmarks.follow import KEEP_FACE, LIVE_TILES, Follower
from fye_rt.landmarks.gaps import (
    MOST_LISTED,
    bridge,
    check_gaps,
    hold_notice,
    long_gaps,
    more,
    no_face,
    ranges,
    runs_of,
    skip,
)
from fye_rt.landmarks.geometry import Face, FaceGeometry, load_geometry
from fye_rt.landmarks.motion import BLENDSHAPES, POINTS, Motion, check_frames, find_cuts
from fye_rt.landmarks.recording import Recording
from fye_rt.landmarks.search import FaceChoice, choose_face, find_face, no_such_face
from fye_rt.landmarks.square import Look
from fye_rt.media.opencv import load_cv2
from fye_rt.timings import Progress, no_progress

LANDMARKER_VARIABLE = "FYE_LANDMARKER"
LANDMARKER_URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)
MAX_FACES = 4  # more than one, so that the largest can be chosen

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


def detect_image(
    image: NDArray[np.uint8],
    landmarker: Path,
    source: str = "the picture",
    face: FaceChoice = "largest",
    search: bool = True,
) -> Motion:
    """Detect the landmarks of one face in a picture.

    A face that the detector places exactly (upright, and 20 % of the picture's longer side or more) keeps the landmarks
    of one look at the whole picture. A smaller one is looked at again in a square cut around it. Where that look finds
    none, the picture is searched in squares of falling size, then turned by 90, 270 and 180 degrees.

    Args:
        image: uint8 (H, W, 3), RGB.
        landmarker: face_landmarker.task, from `find_landmarker`.
        source: the picture's name, for messages.
        face: which of several faces, as for `choose_face`: "largest", "left", "right", "center", or a number from 1,
            counted from left to right among those at least a third as large as the largest.
        search: False looks once at the whole picture, as the reference implementation does.

    Returns:
        A motion of one frame, whose points are those of the whole picture; `notices` mentions several faces.

    Raises:
        FaceNotFoundError: the picture has no face, or one of fewer than 24 pixels; the message says what was searched.
        InputError: the picture has no face of this number, `image` has another dtype or shape, or `landmarker` is
            damaged.
        BackendError: MediaPipe is not installed.
    """
    _check_image(image, None, source)
    size = image.shape[0], image.shape[1]
    with _open(landmarker) as (look, geometry):
        if search:
            chosen, count = find_face(image, look, geometry, face, source)
        else:
            faces = look(image)
            if not faces:
                raise no_face(1, source, size)
            chosen, count = faces[choose_face([points for points, _ in faces], face, size, source)], len(faces)
        recording = Recording()
        recording.add(0.0, chosen)
        motion = recording.motion(1.0, size, geometry)
    return replace(motion, notices=_several([0] if count > 1 else [], 1, source, face))


def detect_frames(
    frames: Iterable[tuple[float, NDArray[np.uint8]]],
    fps: float,
    landmarker: Path,
    progress: Progress = no_progress,
    total: int = 0,
    source: str = "the video",
    face: FaceChoice = "largest",
    gaps: str = "refuse",
    search: bool = True,
) -> Motion:
    """Detect the landmarks of one face in every frame of a video, following it.

    A face of 20 % of the frame's longer side or more keeps the landmarks of one look at the whole frame. A smaller or
    lost one is looked for in a square around its last place, at full resolution, which moves only as the face nears its
    edge. Where no face is known or it has been lost for 0.4 s, the frame is searched as by `detect_image`, but for
    faces of an eighth of the squares that 150 looks allow (all squares at the start), and at most every 0.4 s.

    Frames without a face are interpolated between their neighbours in time if the gap is at most 0.5 s.

    Args:
        frames: (time in seconds, uint8 (H, W, 3) RGB) in order of time; the frame rate may vary. One frame is in
            memory at a time.
        fps: nominal frames per second.
        landmarker: face_landmarker.task, from `find_landmarker`.
        progress: called with ("landmarks", done, total) after each frame.
        total: number of frames, for `progress`.
        source: the video's name, for messages.
        face: which of several faces, as for `choose_face`. It is chosen in the first frame that has it, then followed;
            "largest" changes to another face that is 1.5 times as large.
        gaps: for gaps of more than 0.5 s: "refuse", "hold" (the last face is kept, at the start the first) or "skip"
            (these frames are left out; the others keep their times).
        search: False looks once at each whole frame, as the reference implementation does.

    Returns:
        A motion of as many frames (with "skip": fewer); `valid` is False where a frame was interpolated or held.
        `notices` lists these frames, those with several faces, and cuts.

    Raises:
        FaceNotFoundError: no frame has a face, or with "refuse" a gap is longer; the message lists the gaps.
        InputError: no frame has a face of this number, no frames or more than a million, frames of different sizes, or
            a damaged `landmarker`.
        BackendError: MediaPipe is not installed.
        OutputError: landmarks of a long video find no room on the disk.
    """
    recording = Recording()
    crowded: list[int] = []
    size: tuple[int, int] | None = None
    with _open(landmarker) as (look, geometry):
        follower = Follower(look, geometry, face, search)
        for time, image in frames:
            _check_image(image, size, source)
            size = image.shape[0], image.shape[1]
            check_frames(len(recording) + 1)
            followed, count = follower.step(time, image)
            if count > 1:
                crowded.append(len(recording))
            recording.add(time, followed)
            progress("landmarks", len(recording), total)
    if size is None:
        raise InputError(f"{source} has no frames; give a video with at least one")
    if not any(recording.found):
        if isinstance(face, int) and follower.most:
            raise InputError(no_such_face(face, follower.most, source))
        raise no_face(len(recording), source, size, follower.side)
    missing, times = runs_of([not found for found in recording.found]), np.array(recording.times)
    long = long_gaps(missing, times, fps)
    if gaps == "refuse":
        check_gaps(recording.widths, long, times, fps, source, size, follower.side)
    short = sorted(set(missing) - set(long))
    motion = recording.motion(fps, size, geometry)
    bridge(motion, short)
    notices = []
    if short:
        notices.append(f"{source}: no face in frames {ranges(short)}; these were interpolated")
    if long and gaps == "hold":
        notices.append(hold_notice(long, source))
    if long and gaps == "skip":
        motion, notice = skip(motion, long, source)
        notices.append(notice)
    notices += [*_several(crowded, len(times), source, face), *cut_notices(motion, source)]
    return replace(motion, notices=tuple(notices))


def cut_notices(motion: Motion, source: str) -> list[str]:
    """Return one line for the user about cuts to another face or framing, or nothing if there are none."""
    cuts = find_cuts(motion)
    if not cuts:
        return []
    places = [f"{cut} ({motion.times[cut] - motion.times[0]:.2f} s)" for cut in cuts[:MOST_LISTED]]
    frames = f"frame{'s' * (len(cuts) > 1)} {', '.join(places)}{more(cuts)}"
    return [f"{source}: the face or its framing changes at {frames}, where the portrait jumps; cut the video there"]


def detect_live(
    frames: Iterable[tuple[float, NDArray[np.uint8]]],
    fps: float,
    landmarker: Path,
    source: str = "the source",
    face: FaceChoice = "largest",
    search: bool = True,
) -> Iterator[Motion | None]:
    """Detect the landmarks of one face in every frame while frames are still arriving.

    Args:
        frames: as for `detect_frames`, in any number.
        fps: nominal frames per second.
        landmarker: face_landmarker.task, from `find_landmarker`.
        source: the source's name, for messages.
        face: as for `detect_frames`.
        search: as for `detect_frames`, but a search takes 24 looks at most, so that frames are not late.

    Yields:
        A motion of one frame, or None for a frame without a face.

    Raises:
        InputError: frames of different sizes, or a damaged `landmarker`.
        BackendError: MediaPipe is not installed.
    """
    size: tuple[int, int] | None = None
    with _open(landmarker) as (look, geometry):
        follower = Follower(look, geometry, face, search, LIVE_TILES, LIVE_TILES)
        for time, image in frames:
            _check_image(image, size, source)
            size = image.shape[0], image.shape[1]
            followed, _ = follower.step(time, image)
            if followed is None:
                yield None
                continue
            recording = Recording()
            recording.add(time, followed)
            yield recording.motion(fps, size, geometry)


@contextmanager
def _open(landmarker: Path) -> Iterator[tuple[Look, FaceGeometry]]:
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

    def look(image: NDArray[np.uint8]) -> list[Face]:
        picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        return _faces(model.detect(picture))

    try:
        yield look, geometry
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


def _several(crowded: list[int], frames: int, source: str, face: FaceChoice) -> tuple[str, ...]:
    """Return one line about frames with several faces, or nothing."""
    if not crowded:
        return ()
    choice = (
        f"number {face} from the left" if isinstance(face, int) else f"the {face}{'' if face == 'largest' else 'most'}"
    )
    choice = "the one nearest to the center" if face == "center" else choice
    if frames == 1:
        return (f"{source}: several faces; {choice} was taken",)
    listed = ranges(runs_of(np.isin(np.arange(frames), crowded).tolist()))
    until = f" until another was {KEEP_FACE:g} times as large" if face == "largest" else ""
    return (f"{source}: several faces in frames {listed}; {choice} was taken and followed{until}",)


def _check_image(image: NDArray[np.uint8], size: tuple[int, int] | None, source: str) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"{source} is {image.dtype} {image.shape}; landmark detection needs uint8 (H, W, 3)")
    if size is not None and image.shape[:2] != size:
        raise InputError(f"{source} changes its size from {size} to {image.shape[:2]}; cut it there")
