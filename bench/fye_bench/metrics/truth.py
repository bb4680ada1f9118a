"""The drawn suite: portraits and motions fixed by seeds, whose true frames are known.

Case n is held-out identity FIRST_IDENTITY + n of family n mod 4 in a motion of kind n mod 5. So 20 cases show every
family in every kind, and any number of first cases is spread evenly. Neither identities nor motions are in the training
data: its identities have seeds below `HELD_OUT_SEED`, its motions seeds below 2**31.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import OptionError
from fye_rt.landmarks import Motion, landmark_images
from fye_training import face
from fye_training.expressions import irises
from fye_training.identity import FAMILIES, Identity, held_out, identity
from fye_training.performance import KINDS, Performance, perform
from fye_training.portrait import render
from fye_training.topology import Array

# first held-out identity of each purpose; sample sheets of training show the first hundreds
FIRST_IDENTITY = 10_000
FIRST_CALIBRATION = 100_000
FIRST_READER = 200_000
FIRST_MOTION = 2**31  # the smallest seed of a motion that training never draws
CASES, FRAMES, STRIDE = 12, 16, 3

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Case:
    """One clip of the suite.

    Attributes:
        number: position in the suite.
        family: family of the character.
        kind: kind of motion.
        identity_seed: seed of the character.
        motion_seed: seed of the motion and of the head's position.
    """

    number: int
    family: str
    kind: str
    identity_seed: int
    motion_seed: int

    def __str__(self) -> str:
        return f"{self.number} {self.family}, {self.kind}"


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A face in F pictures.

    Attributes:
        mesh: float64 (F, 468, 3), centimetres.
        pose: float64 (F, 4, 4).
        points: float64 (F, 478, 2), x and y in pixels.
        size: height and width of the pictures.
    """

    mesh: Array
    pose: Array
    points: Array
    size: tuple[int, int]

    @classmethod
    def of(cls, motion: Motion, size: tuple[int, int]) -> "Shown":
        """Return the face of a motion, in pictures of a size."""
        return cls(motion.mesh, motion.pose, motion.points[..., :2] * (size[1], size[0]), size)

    def still(self, frames: int) -> "Shown":
        """Repeat the first picture's face."""
        mesh, pose, points = (np.repeat(array[:1], frames, axis=0) for array in (self.mesh, self.pose, self.points))
        return Shown(mesh, pose, points, self.size)


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The true content of a clip: a portrait and F frames.

    Attributes:
        character: the drawn character.
        portrait: uint8 (H, W, 3), a neutral face that looks straight ahead.
        frames: uint8 (F, H, W, 3).
        portrait_face: face in the portrait.
        face: face in the frames.
        gaze: float64 (F + 1, 2, 2), portrait first: x and y of the right and of the left iris's middle in the
            canonical frame, centimetres.
    """

    character: Identity
    portrait: Image
    frames: Image
    portrait_face: Shown
    face: Shown
    gaze: Array

    def __len__(self) -> int:
        return len(self.frames)

    def __str__(self) -> str:
        return f"character {self.character.seed} of the {self.character.family}"


@dataclass(frozen=True, slots=True, eq=False)
class Drawn(Truth):
    """A case with its truth.

    Attributes:
        case: the case.
        landmarks: uint8 (F, H, W, 3), as the runtime retargets and draws them.
        acting: expressions and head poses, portrait first: F + 1 frames.
    """

    case: Case
    landmarks: Image
    acting: Performance

    def __str__(self) -> str:
        return str(self.case)


def cases(count: int = CASES, first_identity: int = FIRST_IDENTITY) -> tuple[Case, ...]:
    """List the first `count` cases.

    Args:
        count: at least 1.
        first_identity: first character of the suite. `FIRST_CALIBRATION` gives other characters and motions, for
            fitting what is then measured on the suite.

    Raises:
        OptionError: count is below 1.
    """
    if count < 1:
        raise OptionError(f"{count} cases are not a suite; give 1 or more")
    return tuple(
        Case(
            number,
            FAMILIES[number % len(FAMILIES)],
            KINDS[number % len(KINDS)],
            held_out(first_identity + number),
            FIRST_MOTION + first_identity + number,
        )
        for number in range(count)
    )


def draw(case: Case, size: tuple[int, int], frames: int = FRAMES, stride: int = STRIDE) -> Drawn:
    """Draw a case.

    Args:
        case: the case.
        size: height and width in pixels.
        frames: number of frames, without the portrait.
        stride: frames at 25 a second per drawn frame. With three, 16 frames are almost two seconds; a motion comes to
            life over half a second.
    """
    character = identity(case.identity_seed, case.family)
    acting = perform(case.motion_seed, frames * stride + 1, case.kind)[::stride]
    motion = face.motion(character.shape, acting, size, face.placement(character.shape, size, case.motion_seed))
    pictures = render(character, motion, size)
    return Drawn(
        case=case,
        character=character,
        portrait=pictures[0],
        frames=pictures[1:],
        landmarks=landmark_images(motion[:1], motion, size)[1:],
        acting=acting,
        portrait_face=Shown.of(motion[:1], size),
        face=Shown.of(motion[1:], size),
        gaze=irises(character.shape, acting.weights)[:, ::5, :2],
    )


def suite(count: int, size: tuple[int, int], frames: int = FRAMES) -> Iterator[Drawn]:
    """Draw the first `count` cases, one after another."""
    for case in cases(count):
        yield draw(case, size, frames)


def calibration_clips(count: int, size: tuple[int, int], frames: int = FRAMES) -> Iterator[tuple[Image, Image]]:
    """Draw portraits and landmark images of characters and motions that the suite never shows."""
    for case in cases(count, FIRST_CALIBRATION):
        drawn = draw(case, size, frames)
        yield drawn.portrait, drawn.landmarks
