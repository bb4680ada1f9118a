"""`fye landmarks --points`, and points in place of a portrait's landmarks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fye_rt import media
from fye_rt.landmarks import Motion, load_points
from tests.fye_rt.command_line import FAST, PORTRAIT, Fye
from tests.fye_rt.landmarks.named_points import CAT, CAT_SIZE, DOG, write_points


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Grey, of the size of the cat's picture."""
    media.write_image(tmp_path / "cat.png", np.full((*CAT_SIZE, 3), 128, np.uint8))
    return tmp_path / "cat.png"


@pytest.fixture
def points(tmp_path: Path) -> Path:
    return write_points(tmp_path / "cat.json", CAT)


def test_points_become_the_landmarks_of_their_picture(
    fye: Fye, picture: Path, points: Path, tmp_path: Path, landmarker: Path
) -> None:
    out, overlay = tmp_path / "out.npz", tmp_path / "overlay.png"
    options = ("--points", points, "-o", out, "--landmarker", landmarker)
    assert "fitted to 21 points; look at the fit with --overlay FILE.png" in fye("landmarks", picture, *options)
    motion = Motion.load(out)
    np.testing.assert_array_equal(motion.points, load_points(points, CAT_SIZE, landmarker).points)
    assert f"look at the fit in {overlay}" in fye("landmarks", picture, *options, "--overlay", overlay)
    drawn = media.read_image(overlay)
    assert max(drawn.shape) == 1280  # the face is enlarged, so that names can be read
    yellow = (drawn == (255, 230, 0)).all(axis=2)
    low, high = motion.points[0, :, :2].min(axis=0) * (451, 300), motion.points[0, :, :2].max(axis=0) * (451, 300)
    left, top = np.floor(np.maximum(low - 0.25 * (high - low), 0))
    scale = 1280 / (np.ceil(np.minimum(high + 0.25 * (high - low), (451, 300))) - (left, top)).max()
    for name, (x, y) in CAT.items():
        assert yellow[round((y - top) * scale), round((x - left) * scale)], name
    assert (drawn != 128).any(axis=2).mean() > 0.05  # the mesh


def test_a_fit_is_shown_in_a_picture_alone(fye: Fye, picture: Path, points: Path, tmp_path: Path) -> None:
    line = fye.refuses(
        "landmarks", picture, "--points", points, "-o", tmp_path / "a.npz", "--overlay", tmp_path / "a.mp4"
    )
    assert "its name must end in .png" in line
    for overlay in (picture, points.rename(tmp_path / "points.png")):
        line = fye.refuses(
            "landmarks", picture, "--points", tmp_path / "points.png", "-o", tmp_path / "a.npz", "--overlay", overlay
        )
        assert "another name" in line


def test_settings_of_a_motion_go_with_a_motion(fye: Fye, picture: Path, points: Path, tmp_path: Path) -> None:
    line = fye.refuses("landmarks", picture, "--points", points, "-o", tmp_path / "a.npz", "--driving-face", "left")
    assert "leave out --driving-face" in line
    skipping = ("--gaps", "skip", "--overlay", tmp_path / "a.mp4")
    assert "leave out --gaps skip" in fye.refuses("landmarks", picture, "-o", tmp_path / "a.npz", *skipping)


@pytest.mark.parametrize("name", ["cat.json", "cat.csv"])
def test_points_may_stand_for_the_portrait_s_landmarks(
    name: str, fye: Fye, picture: Path, still: Path, tmp_path: Path, landmarker: Path
) -> None:
    if name.endswith(".csv"):
        (tmp_path / name).write_text("".join(f"{point},{x},{y}\n" for point, (x, y) in CAT.items()))
    else:
        write_points(tmp_path / name, CAT)
    options = ("--portrait-landmarks", tmp_path / name, "--landmarker", landmarker, "--size", "64x64")
    fye("animate", picture, still, "-o", tmp_path / "out.mp4", *FAST, *options)
    assert media.probe_video(tmp_path / "out.mp4").frames == 1


def test_points_with_a_size_may_drive_another_face(fye: Fye, still: Path, tmp_path: Path, landmarker: Path) -> None:
    points = write_points(tmp_path / "cat.json", CAT, size=CAT_SIZE)
    options = ("--portrait-landmarks", still, "--landmarker", landmarker, "--size", "64x64")
    fye("animate", PORTRAIT, points, "-o", tmp_path / "out.mp4", *FAST, *options)
    line = fye.refuses(
        "animate", PORTRAIT, write_points(tmp_path / "dog.json", DOG), "-o", tmp_path / "out.mp4", *FAST, *options
    )
    assert "does not say how large its picture is" in line and "give it as --portrait-landmarks if it shows" in line


def test_mistakes_in_the_points_are_one_line_and_leave_no_file(
    fye: Fye, picture: Path, tmp_path: Path, landmarker: Path
) -> None:
    points = write_points(tmp_path / "cat.json", {**CAT, "nose_tip": (263, 301)})
    out = tmp_path / "out.npz"
    line = fye.refuses("landmarks", picture, "--points", points, "-o", out, "--landmarker", landmarker)
    assert "nose_tip at (263, 301) is outside the picture, which is 451x300 pixels" in line
    assert not out.exists()
    assert "but a picture; give one" in fye.refuses("landmarks", picture, "--points", picture, "-o", out)


def test_a_picture_without_a_face_is_refused_with_the_way_out(fye: Fye, tmp_path: Path, landmarker: Path) -> None:
    Image.new("RGB", (256, 256), "grey").save(tmp_path / "grey.png")
    out = ("-o", tmp_path / "out.npz", "--landmarker", landmarker)
    line = fye.refuses("landmarks", tmp_path / "grey.png", *out)
    by_hand = "or set its points by hand in a JSON or CSV file, and give that instead"
    assert "no face in it" in line and line.endswith(f"{by_hand}, or beside the picture with --points FILE\n")
    line = fye.refuses("animate", PORTRAIT, tmp_path / "grey.png", "-o", tmp_path / "out.mp4", *FAST, *out[2:])
    assert "grey.png: no face in it" in line and line.endswith(f"{by_hand}\n")
