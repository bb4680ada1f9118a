"""Frames without a face and frames with several, where MediaPipe is not needed to tell: its answers are given."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fye_rt.errors import FaceNotFoundError
from fye_rt.landmarks import Motion, detect, detect_frames
from fye_rt.landmarks.geometry import FaceGeometry

Detect = Callable[..., Motion]


@pytest.fixture
def found(motion: Motion, monkeypatch: pytest.MonkeyPatch) -> Detect:
    """Detect frames in which so many faces are found, 10 a second; the recorded faces take turns."""

    def run(
        *counts: int,
        fps: float = 10.0,
        size: tuple[int, int] = (256, 256),
        shrink: float = 1.0,
        cut: int | None = None,
        gaps: str = "refuse",
    ) -> Motion:
        answers = iter(enumerate(counts))

        def find(image: np.ndarray) -> list[Any]:
            index, count = next(answers)
            points = (motion.points[index % len(motion)] - 0.5) * shrink + 0.5
            if cut is not None and index >= cut:
                points = points + np.array((0.6, 0.0, 0.0))
            return [(points, motion.blendshapes[index % len(motion)])] * count

        @contextmanager
        def opened(landmarker: Path) -> Iterator[Any]:
            yield find, FaceGeometry(motion.mesh[0], np.ones(468))

        monkeypatch.setattr(detect, "_open", opened)
        frames = [(index / fps, np.zeros((*size, 3), np.uint8)) for index in range(len(counts))]
        return detect_frames(frames, fps, Path("face_landmarker.task"), source="talk.mp4", gaps=gaps, search=False)

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
        ((1, 0, 0, 0, 0, 0, 0, 1), "frames 1-6 (0.10-0.70 s)"),
        ((0, 0, 0, 0, 0, 0, 1, 0, 1), "frames 0-5 (0.00-0.60 s)"),
        ((1, 0, 0, 0, 0, 0, 0), "frames 1-6 (0.10-0.70 s)"),
        ((1, *(0,) * 6, 1, *(0,) * 7), "frames 1-6 (0.10-0.70 s), 8-14 (0.80-1.50 s)"),
    ],
)
def test_a_gap_over_half_a_second_is_refused_and_listed(counts: tuple[int, ...], listed: str, found: Detect) -> None:
    remedies = "use a video where the face stays in view, or gaps='hold' .* or gaps='skip' .*"
    rest = rf"and only gaps up to 0\.5 s are bridged; {remedies}$"
    with pytest.raises(FaceNotFoundError, match=rf"talk\.mp4: no face in {re.escape(listed)}, {rest}"):
        found(*counts)


@pytest.mark.parametrize(
    ("counts", "part"),
    [
        ((0,) * 10 + (1,) * 30, "frames 10-39 (1.00-4.00 s)"),  # a title
        ((1,) * 30 + (0,) * 10, "frames 0-29 (0.00-3.00 s)"),  # credits
        ((1,) * 10 + (0,) * 8 + (1,) * 20 + (0,) * 8 + (1,) * 15, "frames 18-37 (1.80-3.80 s)"),
    ],
)
def test_the_longest_part_with_a_face_is_named_in_a_refusal(counts: tuple[int, ...], part: str, found: Detect) -> None:
    with pytest.raises(FaceNotFoundError, match=re.escape(part)):
        found(*counts)


def test_of_many_gaps_the_first_are_listed_and_the_others_counted(found: Detect) -> None:
    with pytest.raises(FaceNotFoundError) as caught:
        found(*((1, 1, *(0,) * 6) * 20))
    assert "frames 2-7 (0.20-0.80 s), 10-15" in str(caught.value) and "and 12 more" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("size", "least", "pixels"),
    [((1080, 1920), 212, "1920x1080"), ((1920, 1080), 212, "1080x1920"), ((192, 192), 22, "192x192")],
)
def test_the_message_says_how_wide_a_face_must_be(
    size: tuple[int, int], least: int, pixels: str, found: Detect
) -> None:
    for counts, where in (((0,), "in it"), ((0, 0, 0), "in any of its 3 frames")):
        width = f"at least {least} pixels wide of these {pixels}: crop to the face"
        with pytest.raises(FaceNotFoundError, match=rf"talk\.mp4: no face {where}.*{width}"):
            found(*counts, size=size)


def test_a_crop_is_suggested_only_for_small_faces(found: Detect, motion: Motion) -> None:
    counts = (*(1,) * 9, *(0,) * 6)
    share = np.median(np.ptp(motion.points[:9, :, 0], axis=1))
    with pytest.raises(FaceNotFoundError) as caught:
        found(*counts)
    assert share > 0.2 and "crop it" not in str(caught.value)
    with pytest.raises(FaceNotFoundError, match="or crop it to the face, which must be at least 29 pixels wide"):
        found(*counts, shrink=0.12 / share)


def test_a_cut_is_among_the_notices(found: Detect) -> None:
    assert found(*(1,) * 20).notices == ()
    (notice,) = found(*(1,) * 20, cut=12).notices
    assert notice.startswith("talk.mp4: the face or its framing changes at frame 12 (1.20 s)")


def test_several_faces_are_a_notice_with_their_frames(found: Detect) -> None:
    (notice,) = found(1, 2, 3, 1, 2).notices
    assert notice == (
        "talk.mp4: several faces in frames 1-2, 4; the largest was taken and followed until another was 1.5 times as "
        "large"
    )


GAPPY = (*(0,) * 7, 1, 1, 0, 1, *(0,) * 8, 1, *(0,) * 6)  # long gaps at the start, in the middle and at the end
LONG = "0-6, 11-18, 20-25"


def test_a_long_gap_holds_the_last_face_still_and_a_short_one_is_interpolated(found: Detect, motion: Motion) -> None:
    held = found(*GAPPY, gaps="hold")
    assert held.valid.tolist() == [count == 1 for count in GAPPY]
    for frames, face in ((slice(0, 7), 7), (slice(11, 19), 10), (slice(20, 26), 19)):
        assert (held.points[frames] == held.points[face]).all() and (held.pose[frames] == held.pose[face]).all()
    np.testing.assert_allclose(held.points[9], (held.points[8] + held.points[10]) / 2, atol=1e-12)
    assert held.notices[:2] == (
        "talk.mp4: no face in frames 9; these were interpolated",
        f"talk.mp4: no face in frames {LONG}; the face before is held still there (at the start, the first)",
    )


def test_frames_of_long_gaps_are_left_out_and_the_others_keep_their_times(found: Detect) -> None:
    held, cut = found(*GAPPY, gaps="hold"), found(*GAPPY, gaps="skip")
    kept = [7, 8, 9, 10, 19]
    np.testing.assert_array_equal(cut.times, np.array(kept) / 10.0)
    np.testing.assert_array_equal(cut.points, held.points[kept])
    assert cut.valid.tolist() == [True, True, False, True, True] and cut.fps == 10.0
    assert f"talk.mp4: no face in frames {LONG}; these were left out" in cut.notices


def test_notices_about_many_frames_list_the_first_ones(found: Detect) -> None:
    bridged = found(*((1, 0) * 20), 2)
    assert bridged.notices[0] == (
        "talk.mp4: no face in frames 1, 3, 5, 7, 9, 11, 13, 15 and 12 more; these were interpolated"
    )
    for gaps in ("hold", "skip"):
        (notice, *_) = found(*((1, *(0,) * 6) * 10), gaps=gaps).notices
        assert "no face in frames 1-6, 8-13, 15-20, 22-27, 29-34, 36-41, 43-48, 50-55 and 2 more; " in notice
    several = found(*((1, 2) * 20)).notices[0]
    assert "several faces in frames 1, 3, 5, 7, 9, 11, 13, 15 and 12 more; " in several


@pytest.mark.parametrize("gaps", ["refuse", "hold", "skip"])
def test_a_video_without_any_face_is_refused_whatever_becomes_of_gaps(gaps: str, found: Detect) -> None:
    with pytest.raises(FaceNotFoundError, match="no face in any of its 9 frames"):
        found(*(0,) * 9, gaps=gaps)


@pytest.mark.parametrize("gaps", ["hold", "skip"])
def test_without_long_gaps_holding_and_skipping_change_nothing(gaps: str, found: Detect) -> None:
    counts = (0, 1, 1, 0, 0, 1)
    bridged, other = found(*counts), found(*counts, gaps=gaps)
    np.testing.assert_array_equal(bridged.points, other.points)
    assert bridged.notices == other.notices and len(other) == 6
