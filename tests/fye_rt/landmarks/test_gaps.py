"""Frames without a face and frames with several, where MediaPipe is not needed to tell: its answers are given."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fye_rt.errors import FaceNotFoundError
from fye_rt.landmarks import Motion, detect, detect_frames
from fye_rt.landmarks.geometry import FaceGeometry

IMAGE = np.zeros((256, 256, 3), np.uint8)
Detect = Callable[..., Motion]


@pytest.fixture
def found(motion: Motion, monkeypatch: pytest.MonkeyPatch) -> Detect:
    """Detect frames in which so many faces are found, 10 a second; the recorded faces take turns."""

    def run(*counts: int, fps: float = 10.0) -> Motion:
        answers = iter(enumerate(counts))

        def find(image: np.ndarray) -> list[Any]:
            index, count = next(answers)
            return [(motion.points[index % len(motion)], motion.blendshapes[index % len(motion)])] * count

        @contextmanager
        def opened(landmarker: Path) -> Iterator[Any]:
            yield find, FaceGeometry(motion.mesh[0], np.ones(468))

        monkeypatch.setattr(detect, "_open", opened)
        frames = [(index / fps, IMAGE) for index in range(len(counts))]
        return detect_frames(frames, fps, Path("face_landmarker.task"), source="talk.mp4")

    return run


def test_half_a_second_without_a_face_is_bridged_and_reported(found: Detect, motion: Motion) -> None:
    bridged = found(1, 1, 0, 0, 0, 0, 0, 1, 1)
    assert bridged.valid.tolist() == [True] * 2 + [False] * 5 + [True] * 2
    assert bridged.notices == ("talk.mp4: no face in frames 2-6; these were interpolated",)
    expected = motion.points[1] + (motion.points[7] - motion.points[1]) * 3 / 6
    np.testing.assert_allclose(bridged.points[4], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("counts", "listed"),
    [
        ((1, 0, 0, 0, 0, 0, 0, 1), "frames 1-6"),
        ((0, 0, 0, 0, 0, 0, 1, 0, 1), "frames 0-5"),
        ((1, 0, 0, 0, 0, 0, 0), "frames 1-6"),
        ((1, *(0,) * 6, 1, *(0,) * 7), "frames 1-6, 8-14"),
    ],
)
def test_more_than_half_a_second_is_an_error_that_lists_the_frames(
    counts: tuple[int, ...], listed: str, found: Detect
) -> None:
    with pytest.raises(FaceNotFoundError, match=rf"talk\.mp4: no face in {listed}, and only gaps up to 0\.5 s"):
        found(*counts)


def test_a_video_without_a_face_is_an_error(found: Detect) -> None:
    with pytest.raises(FaceNotFoundError, match=r"talk\.mp4: no face in any of its 3 frames"):
        found(0, 0, 0)


def test_several_faces_are_reported_with_their_frames_and_which_of_them_was_followed(found: Detect) -> None:
    (notice,) = found(1, 2, 3, 1, 2).notices
    assert notice == (
        "talk.mp4: several faces in frames 1-2, 4; the largest was taken, and kept until another was 1.5 times as large"
    )
