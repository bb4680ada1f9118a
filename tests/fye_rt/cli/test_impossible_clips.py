"""Crops, faces, masks, points and sounds that no clip can be made of: one sentence each, and nothing is written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fye_rt import media
from fye_rt.landmarks import Motion, detect_image
from tests.fye_rt.command_line import FAST, LANDMARKS, PORTRAIT, Fye
from tests.fye_rt.landmarks.named_points import DOG, DOG_SIZE, write_points
from tests.fye_rt.media.media_files import Pictures, numbered, write_film

Refusal = Callable[..., str]


@pytest.fixture
def refusal(fye: Fye, tmp_path: Path) -> Refusal:
    """The one line of a refused `fye animate`, which was asked for every kind of output and left none."""

    def run(*arguments: object) -> str:
        folder = tmp_path / "results"
        folder.mkdir()
        outputs = ("-o", folder / "a.mp4", "--contact-sheet", folder / "a.png", "--json", folder / "a.json")
        line = fye.refuses("animate", *arguments, *FAST, *outputs)
        assert not list(folder.iterdir())
        return line

    return run


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    """A picture without a face, of the size of `DOG`."""
    media.write_image(tmp_path / "grey.png", np.full((*DOG_SIZE, 3), 128, np.uint8))
    return tmp_path / "grey.png"


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-image's astronaut (NASA, public domain): one face."""
    path = tmp_path_factory.mktemp("photograph") / "astronaut.png"
    media.write_image(path, pytest.importorskip("skimage.data").astronaut())
    return path


@pytest.fixture(scope="module")
def driving(photograph: Path, landmarker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A motion of one frame, in which the photograph's face is at rest."""
    path = tmp_path_factory.mktemp("driving") / "motion.npz"
    detect_image(media.read_image(photograph), landmarker).save(path)
    return path


@pytest.mark.parametrize("area", ["100,0,100,192", "0,150,100,43", "4000,4000,10,10"])
def test_a_crop_outside_of_the_picture_is_refused_with_the_picture_s_size(refusal: Refusal, area: str) -> None:
    line = refusal(PORTRAIT, LANDMARKS, "--crop", area)
    assert f"--crop {area} reaches outside of the picture, which is 192x192 pixels" in line


@pytest.mark.parametrize("area", ["10,10,0,50", "10,10,50,0", "0,0,0,0"])
def test_a_crop_without_size_is_refused_with_what_to_give(refusal: Refusal, area: str) -> None:
    line = refusal(PORTRAIT, LANDMARKS, "--crop", area)
    assert f"--crop {area} has no size; give left, top, width and height in pixels" in line


def test_a_face_number_that_is_not_there_is_refused_with_how_many_are(
    refusal: Refusal, photograph: Path, driving: Path, landmarker: Path
) -> None:
    line = refusal(photograph, driving, "--face", 3, "--landmarker", landmarker)
    assert "one face is found, and there is no face 3; faces are counted from 1, left to right" in line


def test_a_driving_face_s_number_that_is_not_there_is_refused_with_how_many_are(
    refusal: Refusal, photograph: Path, landmarker: Path
) -> None:
    line = refusal(PORTRAIT, photograph, "--driving-face", 2, "--landmarker", landmarker)
    assert "one face is found, and there is no face 2; faces are counted from 1, left to right" in line


def test_a_mask_around_a_face_without_landmarks_is_refused_with_other_masks(refusal: Refusal) -> None:
    line = refusal(PORTRAIT, LANDMARKS, "--paste", "--paste-mask", "face")
    assert "needs landmarks, and landmark images have none; use 'box' or 'oval'" in line


def test_a_mask_around_a_face_beside_the_clip_is_refused_with_other_masks(
    refusal: Refusal, grey: Path, driving: Path, landmarker: Path, tmp_path: Path
) -> None:
    seen = Motion.load(driving)
    pose, aside = seen.pose.copy(), tmp_path / "aside.npz"
    pose[:, 0, 3] += 200  # centimetres to the right
    replace(seen, points=seen.points + np.array([3.0, 0.0, 0.0]), pose=pose).save(aside)
    given = ("--crop", "none", "--portrait-landmarks", aside, "--landmarker", landmarker)
    mask = (*given, "--paste", "--paste-mask", "face")
    assert "finds no face within the clip; use 'box' or 'oval'" in refusal(grey, driving, *mask)


def test_a_mask_around_the_face_of_a_picture_without_one_is_refused_with_points_by_hand(
    refusal: Refusal, grey: Path, driving: Path, landmarker: Path
) -> None:
    line = refusal(grey, driving, "--paste", "--paste-mask", "face", "--landmarker", landmarker)
    assert "no face in it" in line and "points set by hand in a JSON or CSV file" in line


@pytest.mark.parametrize("role", ["portrait", "driving"])
def test_points_that_fold_the_mesh_are_refused_with_the_one_to_correct(
    refusal: Refusal, role: str, grey: Path, driving: Path, landmarker: Path, tmp_path: Path
) -> None:
    folding = write_points(tmp_path / "points.json", {**DOG, "right_brow_inner": (256, 420)}, size=DOG_SIZE)
    if role == "portrait":
        line = refusal(grey, driving, "--portrait-landmarks", folding, "--landmarker", landmarker)
    else:
        line = refusal(PORTRAIT, folding, "--landmarker", landmarker)
    assert f"{folding}: the points fold the face's mesh near " in line and "; correct right_brow_inner, " in line


def test_a_sound_file_without_sound_is_refused_with_what_to_give(refusal: Refusal, tmp_path: Path) -> None:
    silent = write_film(tmp_path / "silent.mp4", "mp4", Pictures(numbered(3)))
    line = refusal(PORTRAIT, LANDMARKS, "--audio", silent)
    assert f"--audio {silent} has no sound; give a file with a sound track, or 'none'" in line


@pytest.mark.parametrize("content", [b"", b"la la la\n" * 50])
def test_a_sound_file_that_is_none_is_refused_by_name(refusal: Refusal, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "song.wav").write_bytes(content)
    assert str(tmp_path / "song.wav") in refusal(PORTRAIT, LANDMARKS, "--audio", tmp_path / "song.wav")
