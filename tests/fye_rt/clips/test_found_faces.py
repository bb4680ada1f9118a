"""Several faces that MediaPipe finds in one picture."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_rt import Animator, ClipRequest, Crop, Motion, Options, media
from fye_rt.clips.faces import render_faces
from fye_rt.errors import OptionError


@pytest.fixture(scope="module")
def picture(talking_head: Path) -> NDArray[np.uint8]:
    """Two faces: that of the talking head, and its mirror image beside it."""
    _, frame = next(media.read_video(talking_head))
    return np.concatenate([frame, frame[:, ::-1]], axis=1)


def test_both_faces_are_animated_and_all_around_them_stays(
    animator: Animator, picture: NDArray[np.uint8], motion: Motion, landmarker: Path
) -> None:
    requests = [
        ClipRequest(
            portrait=picture,
            motion=motion[:frames],
            options=Options(steps=1, seed=frames),
            crop=Crop(area="face", face=face, paste=True, mask="face"),
            size=(64, 64),
            landmarker=landmarker,
        )
        for face, frames in (("left", 2), ("right", 3))
    ]
    alone = [animator.render(request) for request in requests]
    touched = [rendering.paste.rectangle for rendering in alone]  # type: ignore[union-attr]
    frames = render_faces(animator, requests).clip().frames
    assert frames.shape == (3, *picture.shape)
    around = np.ones(picture.shape[:2], bool)
    for rendering, (left, top, width, height) in zip(alone, touched, strict=True):
        part = np.s_[top : top + height, left : left + width]
        own = rendering.clip().frames
        np.testing.assert_array_equal(frames[: len(own), *part], own[:, *part])
        changed = (frames[:, *part] != picture[part]).any(axis=-1).mean(axis=(1, 2))
        assert (changed > 0.3).all() and around[part].all()  # a face's hull, softened, in its box
        around[part] = False
    assert 0.2 < around.mean() < 0.9
    np.testing.assert_array_equal(frames[:, around], np.broadcast_to(picture[around], (3, around.sum(), 3)))
    (one, _), (two, _) = sorted((left, width) for left, _, width, _ in touched)
    assert one < picture.shape[1] / 2 < two + 20


def test_a_face_under_two_names_is_refused(animator: Animator, picture: NDArray[np.uint8], landmarker: Path) -> None:
    left, first = (
        ClipRequest(
            portrait=picture, motion="gone.mp4", crop=Crop(face=face, paste=True), size=(64, 64), landmarker=landmarker
        )
        for face in ("left", 1)
    )
    with pytest.raises(OptionError, match=r"faces 1 and 2 are the same one, Crop\.face='left' and Crop\.face=1"):
        render_faces(animator, [left, first])
