"""Several faces of one picture, each with a motion of its own, denoised by the tiny model in one step."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_rt import Animator, ClipRequest, Crop, Motion, Options, media
from fye_rt.clips import write
from fye_rt.clips.faces import Faces, render_faces
from fye_rt.errors import OptionError
from fye_rt.media.paste import over
from tests.fye_rt.media.media_files import Track, write_film

PICTURE = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
LEFT, RIGHT = np.s_[:, 10:74, 4:68], np.s_[:, 20:84, 90:154]

pytestmark = pytest.mark.usefixtures("opencv")


@pytest.fixture
def faces(motion: Motion, portrait: Motion) -> tuple[ClipRequest, ClipRequest]:
    """A left and a right face, of 10 and of 4 frames."""

    def face(area: str, driver: Motion, seed: int) -> ClipRequest:
        return ClipRequest(
            portrait=PICTURE,
            motion=driver,
            options=Options(steps=1, seed=seed),
            crop=Crop(area=area, paste=True, feather=0.0),
            size=(64, 64),
            portrait_landmarks=portrait,
        )

    return face("4,10,64,64", motion, 1), face("90,20,64,64", motion[:4], 2)


def alone(animator: Animator, request: ClipRequest) -> NDArray[np.uint8]:
    return animator.animate(dataclasses.replace(request, crop=Crop(area=request.crop.area))).frames


def test_each_face_has_its_own_motion_and_the_shorter_one_is_held(
    animator: Animator, faces: tuple[ClipRequest, ClipRequest]
) -> None:
    frames = render_faces(animator, faces).clip().frames
    assert frames.shape == (10, 90, 160, 3)
    assert len({frame.tobytes() for frame in frames[LEFT]}) == 10  # so an exchanged one is seen
    np.testing.assert_array_equal(frames[LEFT], alone(animator, faces[0]))
    np.testing.assert_array_equal(frames[RIGHT], alone(animator, faces[1])[[0, 1, 2, 3, 3, 3, 3, 3, 3, 3]])
    outside = np.ones((90, 160), bool)
    outside[LEFT[1:]] = outside[RIGHT[1:]] = False
    assert (frames[:, outside] == PICTURE[outside]).all()


def test_motions_keep_their_own_speed(animator: Animator, faces: tuple[ClipRequest, ClipRequest]) -> None:
    left, right = faces
    slow = dataclasses.replace(right, fps=left.motion.fps / 2)  # type: ignore[union-attr]
    rendering = render_faces(animator, [left, slow])
    assert (len(rendering), rendering.fps) == (10, left.motion.fps)  # type: ignore[union-attr]
    own = alone(animator, right)
    np.testing.assert_array_equal(rendering.clip().frames[RIGHT], own[[0, 0, 1, 1, 2, 2, 3, 3, 3, 3]])


def test_every_face_moves_at_its_own_times(animator: Animator, faces: tuple[ClipRequest, ClipRequest]) -> None:
    left, right = dataclasses.replace(faces[0], fps=4.0, frames=3), dataclasses.replace(faces[1], fps=10.0)
    rendering = render_faces(animator, [left, right])
    assert rendering.times == pytest.approx((0, 0.1, 0.2, 0.25, 0.3, 0.5))
    assert (len(rendering), rendering.fps, rendering.seconds) == (6, 10.0, pytest.approx(0.75))
    frames = rendering.clip().frames
    np.testing.assert_array_equal(frames[LEFT], alone(animator, left)[[0, 0, 0, 1, 1, 2]])
    np.testing.assert_array_equal(frames[RIGHT], alone(animator, right)[[0, 1, 2, 2, 3, 3]])


def test_times_that_a_container_has_rounded_are_one(
    animator: Animator, motion: Motion, faces: tuple[ClipRequest, ClipRequest]
) -> None:
    exact = dataclasses.replace(motion[:4], times=np.arange(4) / 30)
    rounded = dataclasses.replace(exact, times=exact.times + np.array((0, -3e-4, 3e-4, 0)))
    left, right = (dataclasses.replace(face, motion=own) for face, own in zip(faces, (exact, rounded), strict=True))
    assert len(render_faces(animator, [left, right])) == 4


def test_a_comparison_shows_the_faces_side_by_side(
    animator: Animator, faces: tuple[ClipRequest, ClipRequest], tmp_path: Path
) -> None:
    left, right = faces[0], dataclasses.replace(faces[1], size=(72, 80))
    rendering, wide = render_faces(animator, [left, right]), 64 + 80
    assert rendering.portrait.shape == (72, wide, 3) and rendering.landmarks.shape == (10, 72, wide, 3)
    np.testing.assert_array_equal(rendering.landmarks[5:6][:, :, 64:], animator.render(right).landmarks[3:4])
    write.write_clip(rendering, tmp_path / "out.mp4", tmp_path / "beside.mp4", tmp_path / "sheet.png")
    info = media.probe_video(tmp_path / "beside.mp4")
    assert (info.frames, info.height, info.width) == (10, 72, 3 * wide)
    assert media.probe_video(tmp_path / "out.mp4").width == 160 and (tmp_path / "sheet.png").is_file()


def test_frames_that_are_not_pasted_yet_show_the_faces_side_by_side(
    animator: Animator, faces: tuple[ClipRequest, ClipRequest]
) -> None:
    left, right = faces[0], dataclasses.replace(faces[1], size=(72, 80))
    rendering = render_faces(animator, [left, right])
    frames = np.stack(list(rendering.unpasted()))
    assert frames.shape == rendering.landmarks.shape == (10, 72, 64 + 80, 3)
    np.testing.assert_array_equal(frames[:, :64, :64], alone(animator, left))
    np.testing.assert_array_equal(frames[:4, :, 64:], alone(animator, right))
    np.testing.assert_array_equal(frames[4:, :, 64:], np.broadcast_to(frames[3, :, 64:], (6, 72, 80, 3)))
    assert not frames[:, 64:, :64].any()
    pasted = render_faces(animator, [left, right]).clip().frames
    np.testing.assert_array_equal([rendering.finished(frame) for frame in frames], pasted)
    np.testing.assert_array_equal(pasted[LEFT], alone(animator, left))
    for read in (iter, Faces.unpasted):
        with pytest.raises(RuntimeError, match="already read"):
            read(rendering)


def test_a_face_in_two_crops_is_refused_before_motions_are_read(
    animator: Animator, faces: tuple[ClipRequest, ClipRequest]
) -> None:
    left, right = faces
    near = dataclasses.replace(right, motion="gone.mp4", crop=dataclasses.replace(right.crop, area="8,14,64,64"))
    with pytest.raises(OptionError, match=r"faces 1 and 2 are the same one, Crop\.face='largest' and"):
        render_faces(animator, [left, near])


def test_a_later_face_lies_over_an_earlier_one(animator: Animator, faces: tuple[ClipRequest, ClipRequest]) -> None:
    left, right = faces
    near = dataclasses.replace(right, crop=dataclasses.replace(right.crop, area="40,10,64,64"))
    frames = render_faces(animator, [left, near]).clip().frames
    np.testing.assert_array_equal(frames[:4, 10:74, 40:104], alone(animator, near))
    np.testing.assert_array_equal(frames[:, 10:74, 4:40], alone(animator, left)[:, :, :36])


def test_transparent_faces_are_laid_over_each_other(
    animator: Animator, faces: tuple[ClipRequest, ClipRequest], tmp_path: Path
) -> None:
    clear = [dataclasses.replace(face, crop=dataclasses.replace(face.crop, alpha=True)) for face in faces]
    rendering = render_faces(animator, clear)
    assert rendering.shape == (10, 90, 160, 4)
    frames = rendering.clip().frames
    np.testing.assert_array_equal(frames[LEFT][..., :3], alone(animator, faces[0]))
    assert (frames[LEFT][..., 3] == 255).all() and (frames[RIGHT][..., 3] == 255).all()
    assert (frames[..., 3] > 0).mean() == pytest.approx(2 * 64 * 64 / (90 * 160))
    write.write_clip(render_faces(animator, clear), tmp_path / "out.webm", None, None)
    assert media.probe_video(tmp_path / "out.webm").frames == 10


def test_half_transparent_pixels_are_mixed() -> None:
    pixel = np.array([[[200, 100, 0, 128]]], np.uint8)
    under = np.array([[[0, 100, 200, 255]]], np.uint8)
    np.testing.assert_array_equal(over(under, pixel), [[[100, 100, 100, 255]]])
    np.testing.assert_array_equal(over(pixel, under), under)
    np.testing.assert_array_equal(over(np.zeros_like(pixel), pixel), pixel)
    np.testing.assert_array_equal(over(pixel, np.zeros_like(pixel)), pixel)
    twice = over(pixel, pixel)[0, 0]
    assert twice.tolist() == [200, 100, 0, 192]  # half of what shone through


def test_progress_and_times_are_those_of_all_faces(animator: Animator, faces: tuple[ClipRequest, ClipRequest]) -> None:
    seen: list[tuple[str, int, int]] = []
    rendering = render_faces(animator, faces, lambda *told: seen.append(told))
    frames = list(rendering)
    assert len(frames) == 10 and isinstance(rendering, Faces)
    assert [told for told in seen if told[0] == "decode"][-1] == ("decode", 14, 14)
    assert rendering.timings["paste"] > 0 and rendering.timings["decode"] > 0


def test_the_sound_is_the_first_that_there_is(
    animator: Animator, faces: tuple[ClipRequest, ClipRequest], tmp_path: Path
) -> None:
    film = write_film(tmp_path / "sound.mkv", "matroska", sounds=[Track("pcm_s16le")])
    left, right = faces
    assert render_faces(animator, [left, right]).audio_from is None
    assert render_faces(animator, [left, dataclasses.replace(right, audio=film)]).audio_from == film


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paste": False, "feather": 0.3}, "several faces of a picture are pasted into it"),
        ({"alpha": True}, "alpha is set for some of the faces"),
        ({"area": "4,10,64,64"}, "faces 1 and 2 are the same one"),
    ],
)
def test_faces_that_make_no_clip_are_refused(
    animator: Animator, faces: tuple[ClipRequest, ClipRequest], change: dict[str, Any], message: str
) -> None:
    left, right = faces
    with pytest.raises(OptionError, match=message):
        render_faces(animator, [left, dataclasses.replace(right, crop=dataclasses.replace(right.crop, **change))])


def test_no_face_is_refused(animator: Animator) -> None:
    with pytest.raises(OptionError, match="faces=\\[\\] is empty"):
        render_faces(animator, [])
