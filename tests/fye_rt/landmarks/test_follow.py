"""A face followed through a video. Errors and jitter are mean distances of the points in shares of the face."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fye_rt import ClipRequest
from fye_rt.clips.driving import read_motion
from fye_rt.errors import FaceNotFoundError, InputError
from fye_rt.landmarks import Motion, detect_frames, detect_live
from fye_rt.landmarks.follow import PATIENCE, VIDEO_TILES, Follower
from fye_rt.landmarks.geometry import Face, FaceGeometry
from fye_rt.landmarks.square import Square
from fye_rt.media import write_video
from tests.fye_rt.landmarks.pasted import Image, Pasted, Points, canvas, looks_of

FPS = 25.0
SIZE = (720, 1280)


@pytest.fixture(scope="module")
def pasted(landmarker: Path) -> Pasted:
    return Pasted.of(pytest.importorskip("skimage.data").astronaut(), landmarker)


def timed(frames: list[Image]) -> Iterator[tuple[float, Image]]:
    return ((k / FPS, frame) for k, frame in enumerate(frames))


def errors(motion: Motion, true: Points, face: float) -> Points:
    pixels = motion.points[..., :2] * motion.source_size[::-1]
    return np.linalg.norm(pixels - true, axis=-1).mean(axis=-1) / face


def noisy(picture: Image, frames: int) -> list[Image]:
    random = np.random.default_rng(7)
    return [np.clip(picture + random.normal(0, 3, picture.shape), 0, 255).astype(np.uint8) for _ in range(frames)]


def jitter(motion: Motion, face: float) -> float:
    pixels = motion.points[..., :2] * motion.source_size[::-1]
    return float(np.sqrt(np.square(pixels - pixels.mean(axis=0)).sum(axis=-1).mean()) / face)


def test_a_small_face_is_found_and_followed(pasted: Pasted, landmarker: Path) -> None:
    places = [(500 + 6 * k, 300 + 10 * np.sin(k)) for k in range(12)]
    pictures, true = zip(*(pasted.into(canvas(*SIZE), 70, place) for place in places), strict=True)
    motion = detect_frames(timed(list(pictures)), FPS, landmarker)
    assert motion.valid.all() and motion.source_size == SIZE and motion.notices == ()
    assert errors(motion, np.stack(true), 70).max() < 0.01
    with pytest.raises(FaceNotFoundError, match="no face in any of its 3 frames"):
        detect_frames(timed(list(pictures[:3])), FPS, landmarker, search=False)


@pytest.mark.slow
def test_a_small_face_in_a_video_of_4k_is_found_once_and_followed(
    pasted: Pasted, landmarker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A face of 2 % of the frame, through the file that a camera would write."""
    ground, film = canvas(2160, 3840), tmp_path / "4k.mp4"
    pictures, true = zip(*(pasted.into(ground, 80, (2600 + 7 * k, 1300 - 4 * k)) for k in range(8)), strict=True)
    write_video(film, pictures, FPS)
    looks = looks_of(monkeypatch)
    motion = read_motion(ClipRequest(portrait="", motion=film, landmarker=landmarker))
    assert motion.valid.all() and motion.source_size == (2160, 3840) and motion.notices == ()
    assert errors(motion, np.stack(true), 80).max() < 0.02  # 1.6 pixels, compressed as a video
    second = looks.index("whole", 1)
    assert looks[1] == "square" and looks[second:] == ["whole", "region"] * 7


def test_a_small_face_that_stays_put_jitters_no_more_than_a_large_one(pasted: Pasted, landmarker: Path) -> None:
    small, _ = pasted.into(canvas(*SIZE), 110, (700, 350))
    large, _ = pasted.into(canvas(400, 400), 160, (200, 200))
    jitters = [
        jitter(detect_frames(timed(noisy(picture, 8)), FPS, landmarker), face)
        for picture, face in ((small, 110), (large, 160))
    ]
    assert jitters[0] < 1.5 * jitters[1] + 0.0003 and jitters[1] < 0.003


def test_a_live_source_is_followed_as_a_video_is(pasted: Pasted, landmarker: Path) -> None:
    pictures = [pasted.into(canvas(*SIZE), 100, (600 + 5 * k, 300))[0] for k in range(5)]
    motion = detect_frames(timed(pictures), FPS, landmarker)
    live = list(detect_live(timed(pictures), FPS, landmarker))
    for k, frame in enumerate(live):
        assert frame is not None
        np.testing.assert_array_equal(frame.points[0], motion.points[k])


def test_a_lying_face_is_followed(pasted: Pasted, landmarker: Path) -> None:
    pictures, true = zip(
        *(pasted.into(canvas(*SIZE), 80, (600 + 4 * k, 300), 90 + 2 * k) for k in range(5)), strict=True
    )
    motion = detect_frames(timed(list(pictures)), FPS, landmarker)
    assert motion.valid.all() and errors(motion, np.stack(true), 80).max() < 0.012


@pytest.mark.parametrize(("face", "x"), [("left", 300), ("right", 900), (2, 900)])
def test_the_chosen_face_is_followed_when_another_becomes_larger(
    face: str | int, x: int, pasted: Pasted, landmarker: Path
) -> None:
    pictures = []
    for k in range(4):
        picture, _ = pasted.into(canvas(*SIZE), 90 if x == 300 else 90 + 60 * k, (300, 350))
        pictures.append(pasted.into(picture, 90 if x == 900 else 90 + 60 * k, (900, 350))[0])
    motion = detect_frames(timed(pictures), FPS, landmarker, face=face)  # type: ignore[arg-type]
    assert motion.valid.all() and (abs(motion.points[:, 4, 0] * 1280 - x) < 6).all()
    assert "several faces in frames 0" in motion.notices[0] and "taken and followed" in motion.notices[0]


def test_a_number_that_no_frame_has_is_refused(pasted: Pasted, landmarker: Path) -> None:
    picture, _ = pasted.into(canvas(*SIZE), 200, (600, 350))
    with pytest.raises(InputError, match="one face is found, and there is no face 3"):
        detect_frames(timed([picture] * 3), FPS, landmarker, face=3)


class Scene:
    """A stand-in for MediaPipe: it sees a face in pictures that show its place, and counts its looks."""

    def __init__(self, motion: Motion) -> None:
        self.face: Face = (motion.points[0], motion.blendshapes[0])
        self.geometry = FaceGeometry(motion.mesh[0], np.ones(468))
        self.looks: list[int] = []
        self.visible = True

    def look(self, image: Image) -> list[Face]:
        self.looks.append(len(image))
        return [self.face] if self.visible and len(image) == 500 else []


def test_a_lost_face_is_searched_for_at_most_every_0_4_seconds(motion: Motion) -> None:
    scene = Scene(motion)
    follower = Follower(scene.look, scene.geometry)
    picture = np.zeros((500, 900, 3), np.uint8)
    assert follower.step(0.0, picture)[0] is scene.face
    scene.visible = False
    looks = []
    for k in range(1, 31):
        scene.looks.clear()
        assert follower.step(k / FPS, picture) == (None, 0)
        looks.append(len(scene.looks))
    searches = [k / FPS for k, count in enumerate(looks, 1) if count > 3]  # the frame and two squares otherwise
    assert searches == pytest.approx([PATIENCE, 2 * PATIENCE, 3 * PATIENCE])
    assert max(looks[10:]) <= VIDEO_TILES + 6  # whole, in two squares and turned


def test_nothing_but_whole_frames_is_looked_at_while_the_face_is_large(motion: Motion) -> None:
    scene = Scene(motion)
    follower = Follower(scene.look, scene.geometry)
    for k in range(5):
        follower.step(k / FPS, np.zeros((500, 900, 3), np.uint8))
    assert scene.looks == [500] * 5


def test_a_square_stays_until_the_face_nears_its_edge(motion: Motion) -> None:
    def moved(x: float, scale: float = 1.0) -> Face:
        points = motion.points[0].copy()
        points[:, :2] = (points[:, :2] - 0.5) * scale + 0.5 + (x, 0.0)
        return points, motion.blendshapes[0]

    size = (1000, 1000)
    square = Square.around(moved(0.0, 0.2), size)
    slack = 0.15 * square.side
    assert square.following(moved(0.9 * slack / 1000, 0.2), size) == square
    assert square.following(moved(0.0, 0.2 * 1.25), size) == square
    follows = square.following(moved(slack / 1000 + 0.05, 0.2), size)
    assert follows.x - square.x == pytest.approx(50.0) and (follows.y, follows.side) == (square.y, square.side)
    assert square.following(moved(0.0, 0.4), size).side == pytest.approx(square.side * 2 / 1.3)
