import sys
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest

from fye_rt.errors import BackendError, FaceNotFoundError, InputError
from fye_rt.landmarks import Motion, detect_frames, detect_image, detect_live, find_landmarker
from fye_rt.landmarks.follow import largest
from tests.fye_rt.command_line import python

Video = list[tuple[float, np.ndarray]]
FPS = 30000 / 1001


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return pytest.importorskip("skimage.data").astronaut()


@pytest.fixture(scope="module")
def video(talking_head: Path) -> Video:
    with av.open(str(talking_head)) as container:
        frames = container.decode(container.streams.video[0])
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in frames]


@pytest.fixture(scope="module")
def driving(video: Video, landmarker: Path) -> Motion:
    return detect_frames(video, FPS, landmarker)


def without_face(video: Video, *frames: int) -> Video:
    return [(time, np.zeros_like(image) if index in frames else image) for index, (time, image) in enumerate(video)]


def test_a_picture_gives_one_frame_with_the_eyes_where_they_are(astronaut: np.ndarray, landmarker: Path) -> None:
    motion = detect_image(astronaut, landmarker)
    assert len(motion) == 1 and motion.valid.all() and motion.source_size == (512, 512) and motion.notices == ()
    # pupils read off the picture by eye, within 4 px of a face 90 px wide
    np.testing.assert_allclose(motion.points[0, [468, 473], :2] * 512, [(204, 100), (247, 103)], atol=4)


def test_mesh_pose_and_expression_agree_with_mediapipe(astronaut: np.ndarray, landmarker: Path) -> None:
    mediapipe = pytest.importorskip("mediapipe")
    from mediapipe.tasks.python import BaseOptions, vision

    picture = np.ascontiguousarray(astronaut[:260, 60:420])  # not square
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(landmarker)),
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    with vision.FaceLandmarker.create_from_options(options) as model:
        result = model.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture))
    expected = np.asarray(result.facial_transformation_matrixes[0])
    motion = detect_image(picture, landmarker)
    turned = motion.pose[0, :3, :3] @ expected[:3, :3].T - np.eye(3)
    assert np.degrees(np.linalg.norm(turned) / np.sqrt(2.0)) < 0.01
    np.testing.assert_allclose(motion.pose[0, :3, 3], expected[:3, 3], atol=1e-3)  # centimetres
    scores = [category.score for category in result.face_blendshapes[0] if category.category_name != "_neutral"]
    np.testing.assert_allclose(motion.blendshapes[0], scores, atol=1e-6)  # float32


def test_every_frame_of_a_talking_head_is_found_with_its_time(video: Video, driving: Motion) -> None:
    assert len(driving) == 40 and driving.valid.all() and driving.notices == ()
    assert driving.fps == FPS and driving.source_size == (144, 176)
    np.testing.assert_array_equal(driving.times, [time for time, _ in video])
    nose = driving.points[:, 4, :2] * (176, 144)
    assert np.linalg.norm(np.diff(nose, axis=0), axis=1).max() < 12  # pixels; a lost face would jump further


def test_a_live_source_has_the_landmarks_of_the_whole_video(video: Video, driving: Motion, landmarker: Path) -> None:
    found = list(detect_live(without_face(video[:6], 0, 3), FPS, landmarker))
    assert [motion is None for motion in found] == [True, False, False, True, False, False]
    for k, motion in enumerate(found):
        if motion is not None:
            np.testing.assert_array_equal(motion.points[0], driving.points[k])
            assert motion.times[0] == video[k][0]


def test_a_frame_s_landmarks_do_not_depend_on_other_frames(video: Video, driving: Motion, landmarker: Path) -> None:
    alone = detect_image(video[20][1], landmarker)
    np.testing.assert_array_equal(alone.points[0], driving.points[20])


def test_progress_counts_every_frame(video: Video, landmarker: Path) -> None:
    progress: list[tuple[str, int, int]] = []
    detect_frames(video[:3], FPS, landmarker, progress=lambda *step: progress.append(step), total=3)
    assert progress == [("landmarks", k, 3) for k in (1, 2, 3)]


def test_a_short_gap_is_interpolated_in_time_and_reported(video: Video, driving: Motion, landmarker: Path) -> None:
    # 4 frames missing, the times stretched so that the gap is crossed unevenly
    times = np.concatenate((driving.times[:10], driving.times[9] + np.array([0.01, 0.02, 0.2, 0.3, 0.4])))
    stretched = [(float(time), image) for time, (_, image) in zip(times, video, strict=False)]
    motion = detect_frames(without_face(stretched, 10, 11, 12, 13), FPS, landmarker, source="talk.mp4")
    assert motion.valid.tolist() == [True] * 10 + [False] * 4 + [True]
    assert motion.notices == ("talk.mp4: no face in frames 10-13; these were interpolated",)
    fraction = (times[12] - times[9]) / (times[14] - times[9])
    for name in ("points", "mesh", "blendshapes"):
        array = getattr(motion, name)
        np.testing.assert_allclose(array[12], (1 - fraction) * array[9] + fraction * array[14], atol=1e-12)
    rotation = motion.pose[10:14, :3, :3]
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (4, 1, 1)), atol=1e-12)
    np.testing.assert_array_equal(motion.points[9], driving.points[9])


def test_short_gaps_at_both_ends_hold_the_nearest_face(video: Video, driving: Motion, landmarker: Path) -> None:
    motion = detect_frames(without_face(video[:8], 0, 1, 7), FPS, landmarker)
    assert motion.valid.tolist() == [False, False, True, True, True, True, True, False]
    np.testing.assert_array_equal(motion.points[[0, 1, 7]], driving.points[[2, 2, 6]])
    assert "frames 0-1, 7;" in motion.notices[0]


def test_no_face_at_all_is_an_error(landmarker: Path) -> None:
    blank = np.full((48, 64, 3), 90, np.uint8)
    with pytest.raises(FaceNotFoundError, match=r"wall\.png: no face in it"):
        detect_image(blank, landmarker, source="wall.png")
    with pytest.raises(FaceNotFoundError, match="no face in any of its 2 frames"):
        detect_frames([(0.0, blank), (0.1, blank)], 10.0, landmarker)
    with pytest.raises(FaceNotFoundError, match="no face in it"):
        detect_image(np.zeros((1, 1, 3), np.uint8), landmarker)


def test_of_two_faces_the_larger_is_taken_and_both_are_reported(astronaut: np.ndarray, landmarker: Path) -> None:
    head = astronaut[:240, 110:350]
    canvas = np.full((240, 400, 3), 200, np.uint8)
    canvas[60:220, :160] = pytest.importorskip("skimage.transform").resize(head, (160, 160), preserve_range=True)
    canvas[:, 160:] = head
    for picture, right in ((canvas, True), (canvas[:, ::-1], False)):
        motion = detect_image(picture, landmarker, source="two.png")
        assert (motion.points[0, :, 0].mean() > 0.5) == right
        assert motion.notices == ("two.png: several faces; the largest was taken",)
    assert detect_frames([(0.0, head), (0.1, head)], 10.0, landmarker).notices == ()
    (notice,) = detect_frames([(0.0, canvas), (0.1, canvas)], 10.0, landmarker).notices
    text = "the video: several faces in frames 0-1; the largest was taken and followed until"
    assert notice.startswith(text)


def test_the_face_followed_so_far_is_kept_until_another_is_much_larger() -> None:
    def face(left: float, side: float) -> tuple[np.ndarray, np.ndarray]:
        corners = np.array([(left, 0.2, 0.0), (left + side, 0.2 + side, 0.0)])
        return np.resize(corners, (478, 3)), np.zeros(51)

    small, large, huge = face(0.1, 0.20), face(0.6, 0.22), face(0.6, 0.30)
    assert largest([small, large], None, (100, 100)) is large
    assert largest([small, large], face(0.11, 0.2), (100, 100)) is small
    assert largest([small, huge], face(0.11, 0.2), (100, 100)) is huge
    assert largest([], small, (100, 100)) is None


def test_frames_of_two_sizes_and_other_arrays_are_refused(landmarker: Path) -> None:
    a, b = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 40, 3), np.uint8)
    with pytest.raises(InputError, match="changes its size"):
        detect_frames([(0.0, a), (0.1, b)], 10.0, landmarker)
    with pytest.raises(InputError, match="no frames"):
        detect_frames([], 10.0, landmarker)
    for wrong in (a[..., 0], a.astype(np.float32), np.zeros((0, 8, 3), np.uint8), np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(InputError, match="uint8"):
            detect_image(wrong, landmarker)


def test_a_landmarker_with_a_damaged_network_is_an_input_error(landmarker: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "face_landmarker.task"
    with zipfile.ZipFile(landmarker) as good, zipfile.ZipFile(damaged, "w") as bad:
        for info in good.infolist():
            content = good.read(info)
            bad.writestr(info.filename, bytes(len(content)) if info.filename.endswith(".tflite") else content)
    with pytest.raises(InputError, match=r"cannot open .*face_landmarker\.task .* download it again"):
        detect_image(np.zeros((32, 32, 3), np.uint8), damaged)


def test_the_older_cache_serves_until_the_new_one_has_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FYE_LANDMARKER", raising=False)
    for folder in ("fye", "fye-rt"):
        place = tmp_path / folder / "face_landmarker.task"
        place.parent.mkdir()
        place.write_bytes(b"")
        assert find_landmarker() == place


def test_find_landmarker_asks_argument_variable_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [tmp_path / "argument.task", tmp_path / "variable.task", tmp_path / "fye-rt" / "face_landmarker.task"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("FYE_LANDMARKER", str(places[1]))
    for place, origin in ((places[0], "leave landmarker out"), (None, "unset FYE_LANDMARKER")):
        with pytest.raises(InputError, match=f"run: fye doctor --get landmarker, and {origin}$"):
            find_landmarker(place)
    monkeypatch.delenv("FYE_LANDMARKER")
    with pytest.raises(InputError, match=r"the user's cache.*run: fye doctor --get landmarker"):
        find_landmarker()
    places[2].parent.mkdir()
    for place in places:
        place.write_bytes(b"")
    assert find_landmarker() == places[2]
    monkeypatch.setenv("FYE_LANDMARKER", str(places[1]))
    assert find_landmarker() == places[1]
    assert find_landmarker(places[0]) == places[0]


@pytest.mark.usefixtures("opencv")
def test_without_mediapipe_the_message_has_the_pip_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(BackendError, match=r"pip install 'fye-rt\[landmarks\]'"):
        detect_image(np.zeros((8, 8, 3), np.uint8), tmp_path / "any.task")


def test_importing_landmarks_loads_neither_mediapipe_nor_opencv_nor_av() -> None:
    code = "import sys, fye_rt.landmarks; print({'mediapipe', 'cv2', 'av', 'PIL', 'torch', 'scipy'} & set(sys.modules))"
    assert python("-c", code).stdout.strip() == "set()"
