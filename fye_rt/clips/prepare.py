"""Preparation of a clip: place and encode the portrait, and move the motion onto it."""

from dataclasses import dataclass

import numpy as np

from fye_rt import media
from fye_rt.clips.cache import ClipCache
from fye_rt.clips.clip import Image
from fye_rt.clips.driving import Driving, read_once
from fye_rt.clips.place import Place, check_place, place, small_face
from fye_rt.clips.resume import digest
from fye_rt.errors import FaceNotFoundError, OptionError
from fye_rt.landmarks import MAX_FRAMES as MOTION_FRAMES
from fye_rt.landmarks import Drawn, LandmarkImages, Motion
from fye_rt.landmarks.retarget import retargeted
from fye_rt.network import PortraitState
from fye_rt.options import ClipRequest, check_sides
from fye_rt.pieces import MAX_FRAMES
from fye_rt.stages import Stages
from fye_rt.timings import Progress, Timings, no_progress


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A clip whose portrait is encoded and whose landmarks are known.

    Attributes:
        place: the portrait, and its place in the picture.
        portrait_state: from `Stages.encode_portrait`.
        landmarks: uint8 (F, H, W, 3).
        driving: the motion source.
        notices: messages for the user about the landmarks.
    """

    place: Place
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
        check_place(request, picture)
        driving = read_once(cache, request, progress, limit)
        size = request.size
        if size is None:
            motion = driving.motion
            size = stages.bundle.size if isinstance(motion, Motion) else (motion.shape[1], motion.shape[2])
        check_sides(size, "the clip")
    with timings.stage("landmarks"):
        share, moved = stages.bundle.face_share, isinstance(driving.motion, Motion)
        placed = place(request, picture, size, share, cache, moved)
        landmarks, notices = _landmarks(driving.motion, placed, request)
    progress("encode", 0, 1)
    with timings.stage("encode_portrait"):
        key = size, digest([placed.portrait]), reference, stages
        portrait_state = cache.portrait(key, lambda: encode(stages, placed.portrait, reference))
    progress("encode", 1, 1)
    return Prepared(placed, portrait_state, landmarks, driving, placed.notices + notices)


def read_picture(request: ClipRequest) -> Image:
    """Read the portrait of a request, uint8 (H, W, 3)."""
    return request.portrait if isinstance(request.portrait, np.ndarray) else media.read_image(request.portrait)


def encode(stages: Stages, portrait: Image, reference: bool = False) -> PortraitState:
    """Encode a fitted portrait; with `reference`, as the reference implementation sees it."""
    side = int(stages.bundle.graphs["image_encoder"].inputs[0].shape[-1])
    pixels = media.reference_round_trip(portrait) if reference else portrait
    return stages.encode_portrait(pixels, media.clip_pixels(portrait, side))


def _landmarks(
    motion: Motion | LandmarkImages, placed: Place, request: ClipRequest
) -> tuple[LandmarkImages, tuple[str, ...]]:
    """Return the landmark images of a clip, and messages for the user about them."""
    control, reference = request.control, request.options.windows == "reference"
    if not isinstance(motion, Motion):
        if not control.is_neutral:
            raise OptionError("control changes landmarks, and MOTION holds landmark images; give a video or a motion")
        return motion, ()
    size = placed.portrait.shape[0], placed.portrait.shape[1]
    try:
        portrait = placed.landmarks()
    except FaceNotFoundError:
        if not reference:
            raise
        # the reference implementation exchanges width and height here; for square clips this is the same
        unaligned = Drawn(motion.points[..., :2] * (size[1], size[0]), size)
        return unaligned, ("the portrait: no face in it; the driving face's landmarks were not moved onto it",)
    points, clamped = retargeted(portrait, motion, size, drop_first=reference, control=control)
    return Drawn(points, size), (*portrait.notices, *small_face(portrait, size, request), *clamped)
