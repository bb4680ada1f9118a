"""Which part of a motion drives a clip, how fast, with which sound."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fye_rt import ClipRequest, Motion, Options, media
from fye_rt.clips import driving
from fye_rt.clips.cache import ClipCache
from fye_rt.clips.driving import Driving, read_once
from fye_rt.errors import InputError, OptionError
from fye_rt.landmarks.mirror import mirrored
from fye_rt.timings import no_progress
from tests.fye_rt.media.media_files import Pictures, Track, number, numbered, onset, write_film

FACE = np.full((64, 64, 3), 40, np.uint8)


def read(motion: Any, **settings: Any) -> Driving:
    return read_once(ClipCache(), ClipRequest(portrait=FACE, motion=motion, **settings), no_progress, 18000)


@pytest.fixture
def timed(motion: Motion) -> Motion:
    """Four frames, ten a second."""
    return dataclasses.replace(motion[:4], times=np.arange(4) / 10, fps=10.0)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Twenty frames at 25 a second, and a sound that begins at 0.4 s."""
    path = tmp_path / "film.mp4"
    write_film(path, "mp4", Pictures(numbered(20)), [Track(begins=0.4)])
    return path


@pytest.fixture
def seen(motion: Motion, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for MediaPipe: the recorded motion at a video's times, without the frames in "missing"."""
    facts: dict[str, Any] = {"missing": []}

    def detect(frames: Any, fps: float, landmarker: Path, **how: Any) -> Motion:
        times, pictures = zip(*frames, strict=True)
        facts.update(how, pictures=pictures)
        kept = [k for k in range(len(times)) if k not in facts["missing"]]
        rows = np.resize(np.arange(len(motion)), len(kept))
        arrays = {name: getattr(motion, name)[rows] for name in ("points", "mesh", "pose", "blendshapes", "valid")}
        return dataclasses.replace(motion, **arrays, times=np.array(times)[kept], fps=fps)

    monkeypatch.setattr(driving, "detect_frames", detect)
    monkeypatch.setattr(driving, "find_landmarker", lambda path: Path("face_landmarker.task"))
    return facts


@pytest.mark.parametrize(
    ("settings", "frames"),
    [
        ({}, [0, 1, 2, 3]),
        ({"start": 0.1}, [1, 2, 3]),
        ({"start": 0.15}, [2, 3]),
        ({"seconds": 0.2}, [0, 1]),
        ({"start": 0.1, "seconds": 0.2}, [1, 2]),
        ({"start": 0.1, "frames": 1}, [1]),
        ({"seconds": 9.0}, [0, 1, 2, 3]),
    ],
)
def test_a_part_of_a_motion_drives(timed: Motion, settings: dict[str, Any], frames: list[int], tmp_path: Path) -> None:
    timed.save(tmp_path / "motion.npz")
    for source in (timed, tmp_path / "motion.npz"):
        part = read(source, **settings)
        assert isinstance(part.motion, Motion) and part.times is not None
        np.testing.assert_array_equal(part.motion.points, timed.points[frames])
        np.testing.assert_allclose(part.times, np.arange(len(frames)) / 10)


def test_a_part_of_landmark_images_is_counted_at_their_rate() -> None:
    images = np.zeros((14, 64, 64, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(14)
    for settings, frames in (
        ({"start": 1.0}, range(7, 14)),
        ({"start": 1.0, "seconds": 0.5}, range(7, 11)),
        ({"start": 0.5, "fps": 10.0}, range(5, 14)),
    ):
        part = read(images, **settings)
        assert list(part.motion[:][:, 0, 0, 0]) == list(frames)
    with pytest.raises(InputError, match="no frame from start=2 on; there are 14, 7 a second"):
        read(images, start=2.0)


@pytest.mark.parametrize("start", [0.4, 5.0])
def test_a_start_behind_the_end_is_refused_with_the_length(timed: Motion, start: float) -> None:
    with pytest.raises(InputError, match=rf"no frame from start={start:g} on; it is 0.40 seconds long"):
        read(timed, start=start)


def test_a_part_of_a_video_drives_with_its_part_of_the_sound(film: Path, seen: dict[str, Any], tmp_path: Path) -> None:
    part = read(film, start=0.2, seconds=0.4)
    assert [number(picture) for picture in seen["pictures"]] == list(range(5, 15))
    assert part.audio_from == film and part.audio_start == pytest.approx(0.2)
    assert part.seconds == pytest.approx(0.4)
    with part.playback(20).writer(tmp_path / "out.mp4") as video:
        for picture in seen["pictures"]:
            video.add(picture)
    assert onset(tmp_path / "out.mp4") == pytest.approx(0.2, abs=0.03)


def test_detection_is_asked_for_what_the_request_says(film: Path, seen: dict[str, Any]) -> None:
    read(film, driving_face=2, gaps="hold")
    assert (seen["face"], seen["gaps"], seen["search"]) == (2, "hold", True)
    read(film, options=Options(windows="reference"))
    assert (seen["face"], seen["gaps"], seen["search"]) == ("largest", "refuse", False)


def test_frames_that_are_skipped_at_the_ends_leave_the_sound_in_step(film: Path, seen: dict[str, Any]) -> None:
    seen["missing"] = [0, 1, 2, 18, 19]
    part = read(film, gaps="skip")
    assert len(part.motion) == 15 and part.audio_from == film and part.audio_start == pytest.approx(3 / 25)
    np.testing.assert_allclose(part.times, np.arange(15) / 25, atol=1e-6)
    assert part.seconds == pytest.approx(15 / 25)


def test_frames_that_are_skipped_in_the_middle_close_up_without_sound(film: Path, seen: dict[str, Any]) -> None:
    seen["missing"] = list(range(2, 17))
    part = read(film, gaps="skip")
    np.testing.assert_allclose(part.times, np.arange(5) / 25, atol=1e-6)
    assert part.audio_from is None and part.seconds == pytest.approx(5 / 25)
    assert "sound is left out" in part.notices[-1]


def test_skipped_gaps_are_closed_and_long_frames_stay(tmp_path: Path, seen: dict[str, Any]) -> None:
    ticks = [0, 1, 2, 40, 41, 42, 43, 70, 71]  # frames 2 and 6 last longer than a gap that is bridged
    path = tmp_path / "slides.mkv"
    write_film(path, "matroska", Pictures(numbered(9), times=ticks), [Track(begins=0.0)])
    seen["missing"] = [4, 5]
    part = read(path, gaps="skip")
    np.testing.assert_allclose(part.times, np.array([0, 1, 2, 40, 41, 68, 69]) / 25, atol=2e-3)
    assert part.seconds == pytest.approx(70 / 25, abs=2e-3) and part.audio_from is None
    seen["missing"] = [0, 8]
    part = read(path, gaps="skip")
    np.testing.assert_allclose(part.times, np.array([0, 1, 39, 40, 41, 42, 69]) / 25, atol=2e-3)
    assert part.audio_from == path and part.audio_start == pytest.approx(1 / 25, abs=2e-3)


def test_what_is_known_to_fail_is_refused_before_landmarks_are_looked_for(
    film: Path, seen: dict[str, Any], tmp_path: Path
) -> None:
    media.write_video(tmp_path / "silent.mp4", [FACE] * 3, 10)
    with pytest.raises(InputError, match="has no sound"):
        read(film, audio=tmp_path / "silent.mp4")
    assert "pictures" not in seen


def test_a_mirrored_motion_drives(timed: Motion) -> None:
    part = read(timed, mirror=True)
    assert isinstance(part.motion, Motion)
    np.testing.assert_array_equal(part.motion.points, mirrored(timed).points)
    with pytest.raises(OptionError, match="landmark images are finished"):
        read(np.zeros((2, 64, 64, 3), np.uint8), mirror=True)


def test_a_rate_replaces_the_times_and_the_sound_of_a_video(film: Path, seen: dict[str, Any], timed: Motion) -> None:
    part = read(film, fps=12.5)
    assert (part.fps, part.times, part.seconds, part.audio_from) == (12.5, None, None, None)
    assert "its sound is left out, as fps=12.5 changes its speed" in part.notices[-1]
    assert read(timed, fps=5.0).notices == timed.notices


def test_sound_is_that_of_the_named_file_or_none(film: Path, seen: dict[str, Any], timed: Motion) -> None:
    assert read(timed, audio=film).audio_from == film
    assert read(film, start=0.2, audio=film).audio_start == 0
    assert read(film, audio="none").audio_from is None
    assert read(film, fps=5.0, audio=film).audio_from == film


def test_a_file_without_sound_is_refused(timed: Motion, tmp_path: Path) -> None:
    media.write_video(tmp_path / "silent.mp4", [FACE] * 3, 10)
    with pytest.raises(InputError, match=r"silent.mp4 has no sound; give a file with a sound track, or 'none'"):
        read(timed, audio=tmp_path / "silent.mp4")
    media.write_image(tmp_path / "face.png", FACE)
    with pytest.raises(InputError, match=r"audio=.*face.png is no sound or video that can be read; give a wav, mp3 or"):
        read(timed, audio=tmp_path / "face.png")
    with pytest.raises(InputError, match=r"does not exist|[Nn]o such file"):
        read(timed, audio=tmp_path / "missing.wav")
