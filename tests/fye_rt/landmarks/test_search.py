"""Small, turned and several faces in a picture. Errors are mean distances of the points in shares of the face."""

from pathlib import Path

import numpy as np
import pytest

from fye_rt.errors import FaceNotFoundError, InputError
from fye_rt.landmarks import Motion, choose_face, detect_image, face_angle, face_box
from fye_rt.landmarks.search import FaceChoice
from tests.fye_rt.landmarks.pasted import Image, Pasted, Points, canvas, looks_of

EXACT = 0.009  # a large upright face has 0.005; half a pixel of 60 is 0.008


@pytest.fixture(scope="module")
def pasted(landmarker: Path) -> Pasted:
    return Pasted.of(pytest.importorskip("skimage.data").astronaut(), landmarker)


@pytest.fixture(scope="module")
def three(pasted: Pasted) -> Image:
    """Faces of 60, 110 and 80 pixels, from left to right; the second is nearest to the centre."""
    picture = canvas(400, 900)
    for face, x in ((60, 120), (110, 400), (80, 740)):
        picture, _ = pasted.into(picture, face, (x, 200))
    return picture


def error(motion: Motion, true: Points, face: float) -> float:
    return float(np.linalg.norm(motion.points[0, :, :2] * motion.source_size[::-1] - true, axis=1).mean() / face)


@pytest.mark.parametrize("angle", [0, 45, 90, 135, 180, 225, 270, 315])
@pytest.mark.parametrize("face", [60, 300])
def test_a_face_at_any_tilt_has_its_points_where_they_are(
    face: int, angle: int, pasted: Pasted, landmarker: Path
) -> None:
    picture, true = pasted.into(canvas(700, 1000), face, (600, 330), angle)
    motion = detect_image(picture, landmarker)
    assert error(motion, true, face) < EXACT
    assert motion.source_size == (700, 1000) and motion.valid.all()
    tilt = face_angle(motion.points[0], motion.source_size) - face_angle(true / (1000, 700), (700, 1000))
    assert abs((tilt + 180) % 360 - 180) < 3  # degrees
    # depth is in the units of x: the nose is nearer than the cheeks by a fifth of the face or more, small or large
    depth = (motion.points[0, [234, 454], 2].mean() - motion.points[0, 4, 2]) * 1000 / face
    assert 0.2 < depth < 0.8
    assert np.linalg.det(motion.pose[0, :3, :3]) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("angle", [0, 10])
def test_a_large_upright_face_keeps_the_points_of_one_look(angle: int, pasted: Pasted, landmarker: Path) -> None:
    picture, _ = pasted.into(canvas(500, 500), 140, (260, 240), angle)
    searched, once = detect_image(picture, landmarker), detect_image(picture, landmarker, search=False)
    for name in ("points", "mesh", "pose", "blendshapes"):
        np.testing.assert_array_equal(getattr(searched, name), getattr(once, name))


def test_a_second_look_makes_a_small_face_s_points_more_exact(pasted: Pasted, landmarker: Path) -> None:
    errors = []
    for x in (380, 395.5, 411):
        picture, true = pasted.into(canvas(800, 800), 120, (x, 400))
        looks = (detect_image(picture, landmarker, search=search) for search in (True, False))
        errors.append([error(look, true, 120) for look in looks])
    searched, once = np.mean(errors, axis=0)
    assert searched < EXACT / 2 and once > 1.2 * searched


@pytest.mark.slow
def test_a_face_of_40_pixels_is_found_in_20_megapixels(pasted: Pasted, landmarker: Path) -> None:
    picture, true = pasted.into(canvas(3648, 5472), 40, (4321, 777))
    motion = detect_image(picture, landmarker)
    assert error(motion, true, 40) < 0.02  # 0.011: of 40 pixels, a third of one


def test_a_face_across_the_border_is_found(pasted: Pasted, landmarker: Path) -> None:
    picture, true = pasted.into(canvas(500, 900), 90, (14, 250))
    motion = detect_image(picture, landmarker)
    left, _, width, _ = face_box(motion.points[0], motion.source_size)
    assert left < 0 < left + width
    seen = true[:, 0] > 0
    distances = np.linalg.norm(motion.points[0, seen, :2] * (900, 500) - true[seen], axis=1)
    assert distances.mean() / 90 < 0.05  # half of it is a guess


@pytest.mark.parametrize(
    ("face", "x"), [("largest", 400), ("left", 120), ("right", 740), ("center", 400), (1, 120), (2, 400), (3, 740)]
)
def test_one_of_several_faces_is_chosen_by_word_or_number(
    face: FaceChoice, x: int, three: Image, landmarker: Path
) -> None:
    motion = detect_image(three, landmarker, "three.png", face=face)
    assert abs(motion.points[0, 4, 0] * 900 - x) < 5
    assert motion.notices and motion.notices[0].startswith("three.png: several faces; ")


def test_a_number_that_is_not_there_is_refused_with_how_many_are(three: Image, landmarker: Path) -> None:
    with pytest.raises(
        InputError, match=r"three\.png: 3 faces are found, and there is no face 4; .* from 1, left to right$"
    ):
        detect_image(three, landmarker, "three.png", face=4)
    with pytest.raises(InputError, match="one face is found, and there is no face 2"):
        detect_image(np.ascontiguousarray(three[:, 640:840]), landmarker, face=2)


def test_a_group_has_more_faces_than_one_look_finds(pasted: Pasted, landmarker: Path) -> None:
    picture = canvas(400, 1400)
    for k in range(6):
        picture, _ = pasted.into(picture, 70, (120 + 230 * k, 160 + 60 * (k % 2)))
    for face, x in ((1, 120), (6, 1270)):
        assert abs(detect_image(picture, landmarker, face=face).points[0, 4, 0] * 1400 - x) < 5


def test_a_face_much_smaller_than_the_largest_does_not_count(pasted: Pasted, landmarker: Path) -> None:
    picture, _ = pasted.into(canvas(700, 1000), 300, (650, 330))
    picture, _ = pasted.into(picture, 50, (100, 330))
    assert detect_image(picture, landmarker, face="left").points[0, 4, 0] > 0.5


def test_words_and_numbers_choose_by_boxes() -> None:
    def face(left: float, side: float) -> Points:
        return np.resize(np.array([(left, 0.2), (left + side, 0.2 + side)]), (478, 2))

    faces = [face(0.7, 0.1), face(0.35, 0.3), face(0.05, 0.2)]
    words: list[FaceChoice] = ["largest", "left", "right", "center", 1, 2, 3]
    assert [choose_face(faces, word, (100, 100)) for word in words] == [1, 2, 0, 1, 2, 1, 0]
    for number in (0, -1, 4):
        with pytest.raises(InputError, match=rf"3 faces are found, and there is no face {number}"):
            choose_face(faces, number, (100, 100))


def test_a_refusal_says_where_was_searched(landmarker: Path) -> None:
    with pytest.raises(FaceNotFoundError) as caught:
        detect_image(canvas(400, 700), landmarker, "wall.png")
    assert "wall.png: no face in it, neither in squares of 448 to 112 pixels nor turned by 90, 180" in str(caught.value)
    assert "at least 25 pixels wide of these 700x400: use a larger picture" in str(caught.value)
    with pytest.raises(FaceNotFoundError, match="at least 77 pixels wide of these 700x400: crop to the face"):
        detect_image(canvas(400, 700), landmarker, search=False)


def test_a_face_that_is_too_small_is_refused_with_its_size(pasted: Pasted, landmarker: Path) -> None:
    picture, _ = pasted.into(canvas(200, 300), 19, (150, 100))
    with pytest.raises(FaceNotFoundError, match=r"its face is 1\dx\d\d pixels, and its longer side must have at le"):
        detect_image(picture, landmarker)


def test_nothing_is_searched_where_the_first_look_is_exact(
    pasted: Pasted, landmarker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, _ = pasted.into(canvas(500, 500), 140, (260, 240))
    looks = looks_of(monkeypatch)
    detect_image(picture, landmarker)
    assert looks == ["whole"]


def test_squares_are_searched_only_where_the_first_look_finds_no_face(
    pasted: Pasted, landmarker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, _ = pasted.into(canvas(2160, 3840), 600, (1700, 900))
    far, true = pasted.into(canvas(1080, 1920), 90, (1400, 500))
    looks = looks_of(monkeypatch)
    detect_image(near, landmarker)
    assert looks[0] == "whole" and set(looks) == {"whole", "region"} and len(looks) < 10
    looks.clear()
    motion = detect_image(far, landmarker)
    assert error(motion, true, 90) < EXACT
    assert looks[:2] == ["whole", "square"] and looks.count("whole") == 1


@pytest.mark.parametrize("name", ["coffee", "rocket", "chelsea", "moon"])
def test_no_face_is_seen_in_pictures_without_a_person(name: str, landmarker: Path) -> None:
    picture = getattr(pytest.importorskip("skimage.data"), name)()
    with pytest.raises(FaceNotFoundError):
        detect_image(np.ascontiguousarray(np.broadcast_to(np.atleast_3d(picture), (*picture.shape[:2], 3))), landmarker)
