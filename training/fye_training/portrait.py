"""Drawn portraits: pictures of an identity in the frames of a motion.

`python -m fye_training.portrait` measures the drawing speed.
"""

import time

import cv2
import numpy as np
from numpy.typing import NDArray

from fye_rt.landmarks.motion import Motion
from fye_training.drawing import accessories, features, fur, hair, scene, skin
from fye_training.drawing.canvas import Mark, draw_frames
from fye_training.drawing.character import Coat
from fye_training.drawing.view import Skull, View
from fye_training.face import motion as act
from fye_training.identity import FAMILIES, Identity, identity
from fye_training.performance import poses
from fye_training.shape import neutral_mesh


def render(character: Identity, motion: Motion, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw a character. Each picture depends only on its frame of the motion.

    Args:
        character: the drawn character.
        motion: F frames of its face, made with the character's own shape or retargeted onto it.
        size: height and width of the pictures.

    Returns:
        uint8 (F, H, W, 3), RGB.
    """
    neutral = neutral_mesh(character.shape)
    view = View(motion, size, neutral, Skull.of_face(neutral, character.skull_height))
    marks = _animal(character, view, character.coat) if character.coat else _person(character, view)
    return draw_frames(scene.background(character, size), marks, len(motion), size)


def _person(identity: Identity, view: View) -> list[Mark]:
    tint = skin.complexion(identity)
    shading = skin.surface(identity, view, tint, np.array(identity.skin, float))
    stone = shading if identity.family == "sculptures" else None
    bare = identity.hair_style in ("bald", "receding")
    return [
        *hair.back(identity, view),
        *skin.neck(identity, view),
        *scene.shoulders(identity, view),
        *hair.behind_face(identity, view, stone),
        *accessories.hat_behind(identity, view),
        *(skin.head(identity, view, shading, bare) if bare else []),
        *skin.ears(identity, view, shading),
        *hair.side_locks(identity, view),
        *(skin.face_again(view, shading) if bare else skin.head(identity, view, shading, bare)),
        *skin.lines(identity, view),
        *features.eyes(identity, view),
        *accessories.beard(identity, view, stone),
        skin.nose_bridge(view, shading),
        *features.nose(identity, view),
        *features.mouth(identity, view),
        *features.brows(identity, view),
        *accessories.glasses(identity, view),
        *hair.front(identity, view, stone),
        *accessories.hat(identity, view),
    ]


def _animal(identity: Identity, view: View, coat: Coat) -> list[Mark]:
    shading = skin.surface(identity, view, *fur.complexion(identity, coat))
    return [
        *skin.neck(identity, view),
        *scene.shoulders(identity, view),
        *fur.ears(identity, view, coat, shading, in_front=False),
        *skin.head(identity, view, shading, True, fur.tufts(identity, view, coat)),
        *fur.markings(identity, view, coat),
        *features.eyes(identity, view),
        skin.nose_bridge(view, shading),
        *features.mouth(identity, view),
        *fur.nose(identity, view, coat),
        *fur.whiskers(identity, view, coat),
        *features.brows(identity, view),
        *fur.ears(identity, view, coat, shading, in_front=True),
    ]


def frames_per_second(family: str, size: int = 128, identities: int = 8, frames: int = 16, repeats: int = 3) -> float:
    """Frames of a family that one core draws in a second, in the fastest repeat."""
    acts = []
    for seed in range(identities):
        character = identity(seed, family)
        acts.append((character, act(character.shape, poses(seed, frames), (size, size))))
    times = []
    for _ in range(repeats):
        start = time.process_time()
        for character, acting in acts:
            render(character, acting, (size, size))
        times.append(time.process_time() - start)
    return identities * frames / min(times)


def _benchmark() -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for family in FAMILIES:
            print(f"{family:<11}{frames_per_second(family):5.0f} frames/s at 128 px on one core")
    finally:
        cv2.setNumThreads(threads)


if __name__ == "__main__":
    _benchmark()
