from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fye_rt.landmarks.motion import Motion
from fye_training import face
from fye_training.expressions import INDEX
from fye_training.identity import FAMILIES, Identity, held_out, identity
from fye_training.performance import KINDS, Performance, perform, poses, resting
from fye_training.portrait import render
from fye_training.topology import EYES, IRISES, LIPS

pytestmark = pytest.mark.usefixtures("opencv")

Frames = NDArray[np.uint8]
SIZE = (128, 128)


def acting(*rows: dict[str, float], rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Performance:
    """A frame a row: expressions by name, both sides of those that have sides."""
    played = resting(len(rows))
    played.rotation[:] = rotation
    for frame, row in enumerate(rows):
        for name, weight in row.items():
            for full in (name, f"{name}Left", f"{name}Right"):
                if full in INDEX:
                    played.weights[frame, INDEX[full]] = weight
    return played


def drawn(character: Identity, played: Performance, size: tuple[int, int] = SIZE) -> tuple[Frames, Motion]:
    motion = face.motion(character.shape, played, size)
    return render(character, motion, size), motion


def changed(frames: Frames) -> NDArray[np.bool_]:
    """Pixels of the second frame that differ clearly from the first's."""
    change: NDArray[np.bool_] = np.abs(frames[1].astype(int) - frames[0]).max(axis=-1) > 12
    return change


def box(motion: Motion, points: NDArray[np.intp], margin: int = 0) -> tuple[slice, slice]:
    """Rows and columns of all frames' points, with a margin in pixels."""
    xy = motion.points[:, points, :2].reshape(-1, 2) * (SIZE[1], SIZE[0])
    (left, top), (right, bottom) = np.floor(xy.min(axis=0)) - margin, np.ceil(xy.max(axis=0)) + margin
    return slice(max(int(top), 0), int(bottom) + 1), slice(max(int(left), 0), int(right) + 1)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_same_character_and_motion_give_the_same_bytes(family: str) -> None:
    character = identity(3, family)
    motion = face.motion(character.shape, poses(5, 4), SIZE)
    assert render(character, motion, SIZE).tobytes() == render(identity(3, family), motion, SIZE).tobytes()


def test_a_drawn_frame_depends_on_its_own_motion_alone(family: str) -> None:
    character = identity(11, family)
    played = poses(8, 5)
    whole, _ = drawn(character, played)
    for frame in (0, 3, 4):
        alone, _ = drawn(character, played[frame : frame + 1])
        assert (alone[0] == whole[frame]).all()


@pytest.mark.parametrize("side", (128, 256))
def test_every_kind_of_motion_is_drawn(family: str, side: int) -> None:
    for number, kind in enumerate(KINDS):
        character = identity(number, family)
        frames, _ = drawn(character, perform(number, 60, kind)[::20], (side, side))
        assert frames.shape == (3, side, side, 3) and frames.dtype == np.uint8
        assert all(frame.std() > 15 for frame in frames)
        assert (frames[1] != frames[0]).any() and (frames[2] != frames[1]).any()


@pytest.mark.parametrize("rotation", ((25.0, 45.0, 15.0), (-25.0, -45.0, -15.0), (25.0, -45.0, 0.0)))
def test_extreme_turns_keep_the_head_in_one_piece(family: str, rotation: tuple[float, float, float]) -> None:
    played = acting({}, {"jawOpen": 1.4, "mouthSmile": 1.0, "eyeWide": 1.0}, rotation=rotation)
    for seed in range(2):
        character = identity(seed, family)
        blue, green = (
            drawn(replace(character, background="gradient", backdrop=(colour, colour)), played)
            for colour in ((0, 0, 255), (0, 255, 0))
        )
        through = (blue[0] != green[0]).any(axis=-1)
        assert through.mean() > 0.1
        # what shows the background does so around the head, nowhere within the face
        for frame, points in enumerate(blue[1].points[:, :468, :2] * SIZE[0]):
            mask = np.zeros(SIZE, np.uint8)
            cv2.fillConvexPoly(mask, cv2.convexHull(points.astype(np.float32)).astype(np.int32), 1)
            within = cv2.erode(mask, np.ones((5, 5), np.uint8)).astype(bool)
            assert not through[frame][within].any()


def test_faces_partly_outside_the_picture_are_drawn(family: str) -> None:
    character = identity(4, family)
    played = acting({}, {"jawOpen": 1.0}, {}, {}, {})
    played.translation[:] = ((-14, 0, 0), (14, 6, 0), (0, 14, 10), (0, -20, 0), (60, 60, 0))  # centimetres
    frames, motion = drawn(character, played)
    assert (motion.points[:4, :, :2].min(axis=(1, 2)) < 0).any() and (motion.points[:4, :, :2] > 1).any()
    assert len({frame.tobytes() for frame in frames}) == 5


def test_a_tall_picture_shows_the_same_face_as_a_square_one(family: str) -> None:
    character = identity(2, family)
    frames, motion = drawn(character, acting({}), (160, 96))
    assert frames.shape == (1, 160, 96, 3)
    assert ((motion.points[0, :, :2] > 0) & (motion.points[0, :, :2] < 1)).all()


def test_the_jaw_moves_the_mouth_and_not_the_hair(family: str) -> None:
    for seed in range(3):
        frames, motion = drawn(identity(seed, family), acting({}, {"jawOpen": 1.0}))
        change = changed(frames)
        mouth = box(motion, LIPS)
        assert change[mouth].mean() > 0.3
        forehead = int(motion.points[0, 10, 1] * SIZE[0])
        assert not change[: max(forehead - 1, 1)].any()


def test_an_open_mouth_is_dark_inside(family: str) -> None:
    for seed in range(3):
        frames, motion = drawn(identity(seed, family), acting({}, {"jawOpen": 1.2, "mouthSmile": 0.6}))
        middle = motion.points[1, [13, 14], :2].mean(axis=0) * SIZE[0]
        x, y = np.rint(middle).astype(int)
        assert frames[1, y - 2 : y + 3, x - 2 : x + 3].mean() < frames[0, y - 2 : y + 3, x - 2 : x + 3].mean() - 10


def test_the_gaze_moves_the_iris_and_nothing_but_the_eyes(family: str) -> None:
    for seed in range(3):
        left = {"eyeLookOutRight": 1.0, "eyeLookInLeft": 1.0}
        right = {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0}
        frames, motion = drawn(identity(seed, family), acting(left, right))
        change = changed(frames)
        for eye in EYES:
            assert change[box(motion, eye)].mean() > 0.1
            change[box(motion, eye, margin=3)] = False
        assert change.mean() < 0.002


def test_closed_lids_hide_the_iris(family: str) -> None:
    """An eyeball that moves behind closed lids makes no difference to the picture but at the seam of the lids."""
    for seed in range(3):
        character = identity(seed, family)
        motion = face.motion(character.shape, acting({"eyeBlink": 1.0}, {"eyeBlink": 1.0}), SIZE)
        for iris in IRISES:
            motion.points[1, iris, 0] += 0.02
        frames = render(character, motion, SIZE)
        assert changed(frames).sum() <= 16
        awake, _ = drawn(character, acting({"eyeBlink": 1.0}, {}))
        assert changed(awake)[box(motion, EYES[0], margin=2)].mean() > 0.1


def test_brows_and_smiles_are_readable(family: str) -> None:
    """Each changes at least 1 % of a picture of 128 pixels."""
    for seed in range(3):
        for expression in ({"browInnerUp": 1.0, "browOuterUp": 1.0}, {"mouthSmile": 1.0}, {"browDown": 1.2}):
            frames, _ = drawn(identity(seed, family), acting({}, expression))
            assert changed(frames).mean() > 0.01


def test_small_movements_make_small_changes(family: str) -> None:
    """No part jumps: over half a degree no step changes the picture much more than the usual one."""
    character = identity(7, family)
    played = resting(41)
    played.rotation[:, 1] = np.linspace(-10.0, 30.0, 41) / 2.0
    frames, _ = drawn(character, played)
    steps = np.abs(np.diff(frames.astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert steps.max() < 2.0 * np.median(steps)


def test_held_out_characters_are_drawn_too(family: str) -> None:
    frames, _ = drawn(identity(held_out(0), family), acting({}))
    assert frames.std() > 15
