"""Several faces of one picture, each with a motion of its own. Denoising is left out."""

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

pytestmark = pytest.mark.usefixtures("undenoised", "opencv")


@pytest.fixture
def faces(motion: Motion, portrait: Motion) -> tuple[ClipRequest, ClipRequest]:
    """A left and a right face, of 10 and of 4 frames."""

    def face(area: str, driver: Motion, seed: int) -> ClipRequest:
        return ClipRequest(
            portrait=PICTURE,
            motion=driver,
            options=Options(seed=seed),
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
