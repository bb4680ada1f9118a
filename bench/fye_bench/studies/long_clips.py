"""Long drawn clips whose true frames are known."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fye_bench.metrics.truth import Case, Image, Shown, cases
from fye_rt.landmarks import landmark_images
from fye_training import face
from fye_training.identity import identity
from fye_training.performance import perform
from fye_training.portrait import render

FIRST_IDENTITY = 20_000  # first of the characters that no suite shows
LEAD = 25  # frames between the portrait and the clip, while the face comes to life


@dataclass(frozen=True, slots=True, eq=False)
class Long:
    """A long clip, 25 frames a second.

    Attributes:
        case: character and motion.
        portrait: uint8 (H, W, 3), a neutral face.
        landmarks: uint8 (F, H, W, 3).
        frames: uint8 (F, H, W, 3), the truth.
        face: face in the frames.
    """

    case: Case
    portrait: Image
    landmarks: Image
    frames: Image
    face: Shown


def draw(case: Case, size: tuple[int, int], frames: int) -> Long:
    """Draw a clip whose face moves from the first frame to the last."""
    character = identity(case.identity_seed, case.family)
    acting = perform(case.motion_seed, 1 + LEAD + frames, case.kind)
    acting = acting[:1] + acting[1 + LEAD :]
    motion = face.motion(character.shape, acting, size, face.placement(character.shape, size, case.motion_seed))
    pictures = np.concatenate([render(character, motion[k : k + 50], size) for k in range(0, len(motion), 50)])
    landmarks = landmark_images(motion[:1], motion, size)
    return Long(case, pictures[0], landmarks[1:], pictures[1:], Shown.of(motion[1:], size))


def clips(count: int, size: tuple[int, int], frames: int) -> Iterator[Long]:
    """Draw the first `count` clips, one after another."""
    for case in cases(count, FIRST_IDENTITY):
        yield draw(case, size, frames)
