"""Preparation of a clip: fit and encode the portrait, and move the motion onto it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fye_rt import media
from fye_rt.clips.cache import ClipCache
from fye_rt.clips.clip import Image
from fye_rt.clips.driving import Driving, read_once
from fye_rt.clips.resume import digest
from fye_rt.errors import FaceNotFoundError
from fye_rt.landmarks import MAX_FRAMES as MOTION_FRAMES
from fye_rt.landmarks import (
    Drawn,
    LandmarkImages,
    Motion,
    detect_image,
    find_landmarker,
    load_points,
    load_template,
    retarget,
)
from fye_rt.landmarks.gaps import SMALLEST_FACE
from fye_rt.network import PortraitState
from fye_rt.options import ClipRequest, check_sides
from fye_rt.pieces import MAX_FRAMES
from fye_rt.stages import Stages
from fye_rt.timings import Progress, Timings, no_progress

SMALL_FACE = 0.2  # of the clip's shorter side; in a clip of 192 that is a face of 38 pixels, 5 latents wide

LANDMARKS_BY_HAND = "give its portrait_landmarks, for instance points set by hand in a JSON or CSV file"


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A clip whose portrait is encoded and whose landmarks are known.

    Attributes:
        portrait: uint8 (H, W, 3), fitted to the clip's size.
        portrait_state: from `Stages.encode_portrait`.
        landmarks: uint8 (F, H, W, 3).
        driving: the motion source.
        notices: messages for the user about the landmarks.
    """

    portrait: Image
    portrait_state: PortraitState
    landmarks: LandmarkImages
    driving: Driving
    notices: tuple[str, ...]


def prepare(
    stages: Stages,
    request: ClipRequest,
    progress: Progress = no_progress,
    timings: Timings | None = None,
    cache: ClipCache | None = None,
) -> Prepared:
    """Read, fit and encode what a request names.

    `timings` counts the seconds of each stage. The other arguments and the errors are those of `Animator.render`.
    """
    timings, cache = timings or Timings(), cache or ClipCache()
    reference = request.options.windows == "reference"
    limit = MOTION_FRAMES if request.options.windows == "progressive" else MAX_FRAMES
    with timings.stage("read"):
        # before the motion, where landmark detection may take minutes
        picture = read_picture(request)
        driving = read_once(cache, request.motion, request.frames, request.landmarker, progress, limit)
        size = request.size
        if size is None:
            motion = driving.motion
            size = stages.bundle.size if isinstance(motion, Motion) else (motion.shape[1], motion.shape[2])
        check_sides(size, "the clip")
        portrait = media.fit_image(picture, *size)
        key = size, digest([portrait])
    with timings.stage("landmarks"):

        def detect() -> Motion:
            return cache.portrait((key, request.landmarker), lambda: detect_portrait(portrait, request, picture))

        landmarks, notices = _landmarks(driving.motion, portrait, request, detect, reference)
    progress("encode", 0, 1)
    with timings.stage("encode_portrait"):
        portrait_state = cache.portrait((key, reference, stages), lambda: encode(stages, portrait, reference))
    progress("encode", 1, 1)
    return Prepared(portrait, portrait_state, landmarks, driving, notices)


def read_picture(request: ClipRequest) -> Image:
    """Read the portrait of a request, uint8 (H, W, 3)."""
    return request.portrait if isinstance(request.portrait, np.ndarray) else media.read_image(request.portrait)


def encode(stages: Stages, portrait: Image, reference: bool = False) -> PortraitState:
    """Encode a fitted portrait; with `reference`, as the reference implementation sees it."""
    side = int(stages.bundle.graphs["image_encoder"].inputs[0].shape[-1])
    pixels = media.reference_round_trip(portrait) if reference else portrait
    return stages.encode_portrait(pixels, media.clip_pixels(portrait, side))


def _landmarks(
    motion: Motion | LandmarkImages,
    portrait: Image,
    request: ClipRequest,
    detect: Callable[[], Motion],
    reference: bool,
) -> tuple[LandmarkImages, tuple[str, ...]]:
    """Return the landmark images of a clip, and messages for the user about them."""
    if not isinstance(motion, Motion):
        return motion, ()
    size = (portrait.shape[0], portrait.shape[1])
    try:
        portrait_points = portrait_landmarks(request, detect, size)
    except FaceNotFoundError as error:
        if not reference:
            raise FaceNotFoundError(f"{error}, or {LANDMARKS_BY_HAND}") from error
        # the reference implementation exchanges width and height here; for square clips this is the same
        unaligned = Drawn(motion.points[..., :2] * (size[1], size[0]), size)
        return unaligned, ("the portrait: no face in it; the driving face's landmarks were not moved onto it",)
    landmark_images = Drawn(retarget(portrait_points, motion, size, drop_first=reference), size)
    return landmark_images, (*portrait_points.notices, *small_face(portrait_points, size))


def small_face(portrait: Motion, size: tuple[int, int]) -> tuple[str, ...]:
    """Warn of a face with too few pixels in a clip of `size` (height, width); () if it is large enough."""
    width = float(np.ptp(portrait.points[0, :, 0])) * size[1]
    if width >= SMALL_FACE * min(size):
        return ()
    return (
        f"the portrait: its face is {width:.0f} pixels wide in a clip of {size[1]}x{size[0]}, too small to show "
        "expressions; crop the picture to head and shoulders",
    )


def detect_portrait(portrait: Image, request: ClipRequest, picture: Image) -> Motion:
    """Find the landmarks of a portrait fitted from `picture`; an error also counts pixels of that picture."""
    try:
        return detect_image(portrait, find_landmarker(request.landmarker), "the portrait")
    except FaceNotFoundError as error:
        (height, width), (h, w) = portrait.shape[:2], picture.shape[:2]
        least = math.ceil(round(SMALLEST_FACE * max(height, width) / min(width / w, height / h), 3))
        whole = "" if (h, w) == (height, width) else f" ({least} of the whole picture's {w}x{h})"
        raise FaceNotFoundError(f"{error}{whole}") from error


def portrait_landmarks(
    request: ClipRequest, detect: Callable[[], Motion], size: tuple[int, int] | None = None
) -> Motion:
    """Return the portrait's landmarks: those of the request, or else the result of `detect`.

    `size` is the height and width into which the portrait is fitted; None: the request's, or those of the portrait.
    """
    source = request.portrait_landmarks
    if source is None:
        return detect()
    if isinstance(source, Motion):
        return source
    match media.kind_of(source):
        case "points":  # in pixels of the picture as it is
            height, width, _ = read_picture(request).shape
            return load_points(source, (height, width), request.landmarker, size or request.size)
        case "template":
            return load_template(source)
        case _:
            return Motion.load(source)
