"""Landmarks of named points in a file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fye_rt.errors import InputError
from fye_rt.landmarks import Motion, is_points_file, load_points, retarget
from fye_rt.landmarks.geometry import load_geometry, recover
from fye_rt.landmarks.library import LEFT_EYE, RIGHT_EYE
from fye_rt.landmarks.points_file import NAMES, REQUIRED, VERTICES, read_points
from tests.fye_rt.landmarks.named_points import CAT, CAT_SIZE, DOG, DOG_SIZE, Points, points_of, write_points

Change = Callable[[dict], object]


def as_csv(points: Points, separator: str = ",", header: str = "name,x,y\n") -> str:
    return header + "".join(separator.join((name, f"{x:g}", f"{y:g}")) + "\n" for name, (x, y) in points.items())


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    return write_points(tmp_path / "cat.json", CAT, size=CAT_SIZE)


def test_the_points_are_a_portrait_at_rest(cat: Path, landmarker: Path) -> None:
    motion = load_points(cat, landmarker=landmarker)
    assert (len(motion), motion.source_size, motion.valid.all(), motion.blendshapes.any()) == (1, CAT_SIZE, True, False)
    for size in (CAT_SIZE, (600, 902)):
        seen = retarget(motion, motion, size)[0]
        scale = size[0] / CAT_SIZE[0]
        for name, vertex in VERTICES.items():
            if name in CAT:
                np.testing.assert_allclose(seen[vertex], np.array(CAT[name]) * scale, atol=1e-6)
        np.testing.assert_allclose(seen, motion.points[0, :, :2] * size[::-1], atol=1e-6)


def test_another_face_at_rest_leaves_the_points_where_they_were_set(
    tmp_path: Path, portrait: Motion, landmarker: Path
) -> None:
    drawn = load_points(write_points(tmp_path / "dog.json", DOG), DOG_SIZE, landmarker)
    resting = load_points(write_points(tmp_path / "a.json", points_of(portrait)), portrait.source_size, landmarker)
    seen = retarget(drawn, resting, DOG_SIZE)[0]
    pixels = np.array([DOG[name] for name in REQUIRED])
    moved = seen[[VERTICES[name] for name in REQUIRED]] - pixels
    # the driving head's own rotation is all that moves them: 6 degrees of pitch, over 7 centimetres of depth
    assert np.linalg.norm(moved, axis=1).mean() < 20


def test_the_depth_of_the_landmarks_is_mediapipe_s(tmp_path: Path, landmarker: Path, portrait: Motion) -> None:
    points = write_points(tmp_path / "a.json", points_of(portrait, tuple(VERTICES)))
    motion = load_points(points, portrait.source_size, landmarker)
    mesh, pose = recover(motion.points, motion.source_size, load_geometry(landmarker))
    np.testing.assert_allclose(pose[0, :3, 3], motion.pose[0, :3, 3], rtol=0.05, atol=0.5)
    np.testing.assert_allclose(mesh, motion.mesh, atol=1.0)  # centimetres: Procrustes turns a deformed face a little


def test_irises_are_where_the_pupils_are_or_else_in_the_middle_of_the_eyes(tmp_path: Path, landmarker: Path) -> None:
    one = load_points(write_points(tmp_path / "a.json", {**DOG, "right_pupil": (155, 172)}), DOG_SIZE, landmarker)
    pixels = one.points[0, :, :2] * 512
    np.testing.assert_allclose(pixels[468], (155, 172))
    np.testing.assert_allclose(pixels[473], (349.25, 173.25))
    for (iris, _), corners in (
        (RIGHT_EYE, ("right_eye_outer", "right_eye_inner")),
        (LEFT_EYE, ("left_eye_inner",) * 2),
    ):
        ring = pixels[iris][1:] - pixels[iris][0]
        assert np.ptp(np.linalg.norm(ring, axis=1)) < 1e-6, corners
        assert ring[0, 0] > 0 > ring[2, 0] and ring[1, 1] < 0 < ring[3, 1]  # right, up, left, down, as in MediaPipe


def test_json_and_csv_of_any_kind_give_the_same(tmp_path: Path) -> None:
    points = dict(DOG)
    swapped = {name.translate(str.maketrans("", "")): point for name, point in points.items()}
    mirrored = {
        name.replace("right", "?").replace("left", "right").replace("?", "left"): point
        for name, point in swapped.items()
    }
    spelled = {name.replace("_", " ").title(): point for name, point in points.items()}
    files = {
        "flat.json": json.dumps(points),
        "nested": json.dumps({"size": [512, 512], "points": points}),
        "marked.json": "\ufeff" + json.dumps(points),
        "sides.json": json.dumps({"sides": "picture", **mirrored}),
        "spelled.json": json.dumps(spelled),
        "a.csv": as_csv(points),
        "no-header.csv": as_csv(points, header=""),
        "tabs.txt": as_csv(points, "\t", ""),
        "excel.csv": "\ufeff" + as_csv(points, ";", "Name;X;Y\n").replace(".", ","),
        "comments.csv": "# a dog\n\n" + as_csv(points, ", "),
    }
    for name, text in files.items():
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        assert is_points_file(path), name
        assert read_points(path).points == points, name
    assert read_points(tmp_path / "nested").size == (512, 512)


def test_decimal_commas_of_a_spreadsheet_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(as_csv(DOG, ";", "").replace("140;170", "140,5;170,25"))
    assert read_points(tmp_path / "a.csv").points["right_eye_outer"] == (140.5, 170.25)


def test_points_of_a_smaller_copy_of_the_picture_are_scaled(cat: Path, landmarker: Path) -> None:
    small, large = (load_points(cat, size, landmarker) for size in (None, (600, 902)))
    np.testing.assert_allclose(small.points, large.points, atol=1e-9)
    assert large.source_size == (600, 902)


def set_point(name: str, *value: object) -> Change:
    return lambda points: points.update({name: list(value)})


def exchange(*names: str) -> Change:
    def change(points: dict) -> None:
        first, second = names
        points[first], points[second] = points[second], points[first]

    return change


def exchange_sides(points: dict) -> None:
    for name in [name for name in points if name.startswith("right") or name == "mouth_right"]:
        exchange(name, name.replace("right", "left"))(points)


def turn_over(points: dict) -> None:
    for name, (x, y) in list(points.items()):
        points[name] = [511 - x, 511 - y]


REFUSED: dict[str, tuple[Change, str]] = {
    "unknown name": (
        set_point("rigth_eye_outer", 1, 2),
        "'rigth_eye_outer' is not the name .* did you mean right_eye_o",
    ),
    "strange name": (set_point("tail", 1, 2), "'tail' is not the name of a point; a point is one of right_eye_outer"),
    "one missing": (lambda points: points.pop("nose_tip"), "it lacks nose_tip; set it too"),
    "several missing": (
        lambda points: [points.pop(name) for name in ("mouth_left", "nose_tip")],
        "lacks nose_tip, mou",
    ),
    "outside": (set_point("nose_tip", 256, 513), r"nose_tip at \(256, 513\) is outside the picture, which is 512x512"),
    "negative": (set_point("nose_tip", -1, 200), r"nose_tip at \(-1, 200\) is outside"),
    "no number": (set_point("nose_tip", "a", 2), "nose_tip has 'a' in place of a number"),
    "a boolean": (set_point("nose_tip", True, 2), "nose_tip has True in place of a number"),
    "three numbers": (set_point("nose_tip", 1, 2, 3), r"'nose_tip' is \[1, 2, 3\]; give \[x, y\] in pixels"),
    "twice in two spellings": (set_point("Nose tip", 256, 350), "nose_tip is there twice; remove one"),
    "sides exchanged": (exchange_sides, "right and left seem exchanged; right is the face's own right"),
    "upside down": (turn_over, "the mouth is above the eyes; turn the picture upright"),
    "eyes below the mouth": (
        lambda points: points.update(mouth_left=[322, 100], mouth_right=[190, 100]),
        "the mouth is above the eyes",
    ),
    "an eye upside down": (
        exchange("right_eye_upper", "right_eye_lower"),
        "right_eye_upper is not above right_eye_lower, .*exchange them",
    ),
    "corners exchanged": (
        exchange("left_eye_outer", "left_eye_inner"),
        "left_eye_inner is not left of left_eye_outer, as the face is seen upright",
    ),
    "mouth exchanged": (exchange("mouth_right", "mouth_left"), "mouth_right is not left of mouth_left"),
    "an eye of no width": (set_point("right_eye_inner", 140, 170), "right_eye_outer is not left of right_eye_inner"),
    "lips exchanged": (exchange("upper_lip", "lower_lip"), "upper_lip is not above lower_lip"),
    "a pupil on the cheek": (set_point("right_pupil", 163, 260), "right_pupil is outside the right eye; correct it"),
    "a pupil on the nose": (set_point("left_pupil", 300, 175), "left_pupil is outside the left eye"),
    "a fold": (
        lambda points: points.update(right_brow_inner=[256, 420]),
        "the points fold the face's mesh near .* and .*; correct right_brow_inner, which does not fit the others",
    ),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_wrong_points_are_refused_in_one_sentence(mistake: str, tmp_path: Path, landmarker: Path) -> None:
    change, said = REFUSED[mistake]
    points: dict = {name: list(point) for name, point in DOG.items()}
    change(points)
    path = write_points(tmp_path / "points.json", points)
    with pytest.raises(InputError, match=said) as caught:
        load_points(path, DOG_SIZE, landmarker)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


FILES: dict[str, tuple[str, str]] = {
    "broken.json": ('{"nose_tip": [1, 2]', "it is not JSON"),
    "list.json": ("[[1, 2]]", "it is not a JSON object; write"),
    "listed.json": ('{"points": [[1, 2]]}', "its points are not a JSON object"),
    "twice.json": ('{"nose_tip": [1, 2], "nose_tip": [1, 2]}', "it says 'nose_tip' twice; remove one"),
    "more.json": ('{"points": {}, "version": 1}', "it has 'version' beside points"),
    "size.json": ('{"size": [512], "points": {}}', r"size is \[512\]; give \[height, width\]"),
    "huge-size.json": ('{"size": [1, 99999999], "points": {}}', "size is .*1 to 8192"),
    "sides.json": ('{"sides": "mine", "points": {}}', "sides='mine' is not known"),
    "nan.json": ('{"nose_tip": [NaN, 2]}', "nose_tip has nan in place of a number"),
    "short.csv": ("name,x,y\nnose_tip,1\n", "'nose_tip,1' is not a point; write name, x, y in each line"),
    "words.csv": ("nose_tip,12,here\n", "nose_tip has 'here' in place of a number"),
    "twice.csv": ("nose_tip,1,2\nnose_tip,1,2\n", "nose_tip is there twice"),
    "quotes.csv": ('nose_tip,"1,2\n', "it is not CSV"),
    "huge.csv": ("nose_tip,1,2\n" * 9999, "the limit is 65,536: leave only the points of one face in it"),
    "empty.json": ("", "is empty"),
    "text.txt": ("nothing that is known\n" * 9, "is not a JSON or CSV file of named points; give one"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_without_points_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    content, said = FILES[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        load_points(tmp_path / name, DOG_SIZE)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_other_files_are_named_for_what_they_are(tmp_path: Path, still: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("nose_tip,1,2\n# Schnäuzchen\n".encode("latin-1"))
    for path, said in (
        (still, "but a motion; give one"),
        (tmp_path / "latin.csv", "it is not text in UTF-8; save it as CSV with UTF-8"),
        (tmp_path / "none.json", "does not exist"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(InputError, match=said):
            load_points(path, DOG_SIZE)


def test_without_a_size_no_picture_is_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'how large its picture is; as JSON, add "size": \[height, width\]'):
        load_points(write_points(tmp_path / "dog.json", DOG))


def test_a_picture_of_another_shape_is_refused(cat: Path) -> None:
    with pytest.raises(InputError, match="says its picture is 451x300 pixels, and the picture is 512x512"):
        load_points(cat, (512, 512))


def test_a_missing_landmarker_is_named_with_the_command_that_gets_it(cat: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run: fye doctor --get landmarker"):
        load_points(cat, landmarker=tmp_path / "none.task")


def test_every_name_that_is_not_required_may_be_left_out(tmp_path: Path) -> None:
    least = write_points(tmp_path / "a.json", {name: DOG[name] for name in REQUIRED})
    assert set(read_points(least).points) == set(REQUIRED) < set(NAMES)
