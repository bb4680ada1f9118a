"""From files to a clip: which frames, when, with which sound. Denoising is left out, and MediaPipe has a stand-in."""

import dataclasses
import wave
from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from fye_rt import Animator, ClipRequest, Crop, Motion, Options, media
from fye_rt.cli import overlay
from fye_rt.clips import driving, live, place, write
from fye_rt.clips.clip import Playback
from fye_rt.clips.live import Stream
from fye_rt.errors import FaceNotFoundError, InputError, OptionError
from fye_rt.landmarks import draw, landmark_images
from fye_rt.options import ImageSource, MotionSource
from fye_rt.timings import Progress
from tests.fye_rt.media.media_files import (
    Pictures,
    Track,
    cut_stream,
    number,
    numbered,
    onset,
    patch_matrix,
    write_film,
)

SIZE = (64, 72)
REFERENCE = Options(windows="reference")
ARRAYS = ("points", "mesh", "pose", "blendshapes", "valid")
IMAGE = np.full((64, 64, 3), 40, np.uint8)
NO_MOTION: Any = None  # of streams whose control is not asked for

pytestmark = pytest.mark.usefixtures("undenoised", "opencv")
Seen = list[NDArray[np.uint8]]


def asked(
    motion: MotionSource, options: Options | None = None, portrait: ImageSource = IMAGE, **more: Any
) -> ClipRequest:
    return ClipRequest(portrait=portrait, motion=motion, options=options or Options(), **more)


@pytest.fixture
def detected(motion: Motion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Stands in for MediaPipe on videos: the recorded motion at the video's times; keeps the pictures it was shown."""
    seen: Seen = []

    def detect(
        frames: Any, fps: float, landmarker: Path, progress: Progress, total: int, source: str, **how: Any
    ) -> Motion:
        times, pictures = zip(*frames, strict=True)
        seen.extend(pictures)
        size = (pictures[0].shape[0], pictures[0].shape[1])
        return dataclasses.replace(motion[: len(times)], times=np.array(times), fps=fps, source_size=size)

    monkeypatch.setattr(driving, "detect_frames", detect)
    monkeypatch.setattr(driving, "find_landmarker", lambda path: tmp_path / "face_landmarker.task")
    return seen


@pytest.fixture
def faceless(monkeypatch: pytest.MonkeyPatch) -> None:
    """MediaPipe finds no face in the portrait."""

    def detect(image: NDArray[np.uint8], landmarker: Path, source: str, **how: Any) -> Motion:
        raise FaceNotFoundError(f"{source}: no face in it; use another")

    monkeypatch.setattr(place, "detect_image", detect)
    monkeypatch.setattr(place, "find_landmarker", lambda path: Path("face_landmarker.task"))


def test_only_the_reference_drops_the_first_frame(animator: Animator, motion: Motion, portrait: Motion) -> None:
    more: dict[str, Any] = {"size": SIZE, "portrait_landmarks": portrait}
    every = animator.animate(asked(motion, **more))
    fewer = animator.animate(asked(motion, REFERENCE, **more))
    assert (every.frames.shape, every.frames.dtype) == ((10, *SIZE, 3), np.uint8)
    assert every.times == tuple(motion.times)
    assert len(fewer.frames) == 9
    assert fewer.times == tuple(motion.times[1:])  # each frame keeps its time, and so its sound
    np.testing.assert_array_equal(every.landmarks, landmark_images(portrait, motion, SIZE))
    np.testing.assert_array_equal(fewer.landmarks, every.landmarks[1:])
    assert len(animator.animate(asked(motion, frames=4, **more)).frames) == 4


def test_a_clip_keeps_times_turn_and_sound(
    animator: Animator, portrait: Motion, detected: Seen, tmp_path: Path
) -> None:
    times = [0.0, 0.04, 0.08, 0.2, 0.24, 0.5]
    with wave.open(str(tmp_path / "tone.wav"), "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes((8000 * np.sin(np.arange(16_000) / 6)).astype("<i2").tobytes())
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[:24] = 255
    plain, turned = tmp_path / "plain.mp4", tmp_path / "turned.mp4"
    frames = [np.rot90(upright)] * len(times)
    media.write_video(plain, frames, 25, times=times, seconds=0.9, audio_from=tmp_path / "tone.wav")
    patch_matrix(plain, turned, (0, 1, -1, 0))  # a quarter turn clockwise

    clip = animator.animate(asked(turned, size=SIZE, portrait_landmarks=portrait))
    clip.save(tmp_path / "out.mp4")
    assert detected[0].shape == upright.shape  # the detector sees frames the right way up
    assert np.abs(detected[0].astype(int) - upright).mean() < 6  # the codec blurs the edge
    info = media.probe_video(tmp_path / "out.mp4")
    assert info.has_audio and info.variable_rate and info.seconds == pytest.approx(0.9, abs=1e-3)
    read = [time for time, _ in media.read_video(tmp_path / "out.mp4")]
    np.testing.assert_allclose(read, times, atol=2 / 90_000)  # ticks of two files' clocks


def test_a_portrait_without_a_face_is_refused_with_a_way_out(
    animator: Animator, motion: Motion, faceless: None
) -> None:
    with pytest.raises(
        FaceNotFoundError, match=r"no face in it; .*portrait_landmarks, for instance points set by hand"
    ):
        animator.animate(asked(motion, size=SIZE))


def test_the_reference_animates_a_portrait_without_a_face(animator: Animator, motion: Motion, faceless: None) -> None:
    clip = animator.animate(asked(motion, REFERENCE, size=SIZE))
    # all frames; x in units of the width and y of the height, which the public code exchanges
    np.testing.assert_array_equal(clip.landmarks, draw(motion.points[..., :2] * (72, 64), SIZE))
    assert len(clip.frames) == 10 and clip.times == tuple(motion.times)
    assert any("no face" in notice for notice in clip.notices)


def test_every_stage_reports_its_progress(animator: Animator, motion: Motion, portrait: Motion, tmp_path: Path) -> None:
    progress: list[tuple[str, int, int]] = []
    request = asked(motion, size=SIZE, portrait_landmarks=portrait)
    clip = animator.animate(request, progress=lambda *step: progress.append(step))
    clip.save(tmp_path / "out.mp4", lambda *step: progress.append(step))
    stages = list(dict.fromkeys(stage for stage, _, _ in progress))
    assert stages == ["encode", "denoise", "decode", "write"]
    for stage in stages:
        steps = [(done, total) for name, done, total in progress if name == stage]
        assert steps[0][0] == 0 and steps[-1][0] == steps[-1][1] > 0


def test_a_rendering_makes_the_clip_s_frames_one_by_one(animator: Animator, motion: Motion, portrait: Motion) -> None:
    request = asked(motion, size=SIZE, portrait_landmarks=portrait)
    whole, rendering = animator.animate(request), animator.render(request)
    assert len(rendering) == len(whole) == 10
    assert "decode" not in rendering.timings  # nothing is made before it is asked for
    frames = iter(rendering)
    np.testing.assert_array_equal(next(frames), whole.frames[0])
    np.testing.assert_array_equal(np.stack(list(frames)), whole.frames[1:])
    np.testing.assert_array_equal(rendering.landmarks[:], whole.landmarks)
    assert (rendering.fps, rendering.times, rendering.seconds) == (whole.fps, whole.times, whole.seconds)


def test_only_progressive_windows_take_over_600_frames(animator: Animator, motion: Motion, portrait: Motion) -> None:
    fields = {name: np.resize(getattr(motion, name), (601, *getattr(motion, name).shape[1:])) for name in ARRAYS}
    long = dataclasses.replace(motion, **fields | {"times": np.arange(601) / 25})
    more: dict[str, Any] = {"size": SIZE, "portrait_landmarks": portrait}
    with pytest.raises(InputError, match=r"601 frames; the limit is 600: .*windows='progressive'"):
        animator.render(asked(long, **more))
    assert len(animator.render(asked(long, Options(windows="progressive"), **more))) == 601


@pytest.mark.parametrize("times", [[0, 0.04, 0.04 + 1e-8], [0, 0.04, 90_000]])
def test_impossible_times_are_refused_before_any_work(
    animator: Animator, motion: Motion, times: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    motion = dataclasses.replace(motion[:3], times=np.array(times))
    motion.save(tmp_path / "a.npz")
    for name in ("encode_portrait", "latents"):
        monkeypatch.setattr(Animator, name, None)
    for source in (motion, tmp_path / "a.npz"):
        with pytest.raises(InputError, match="the time of frame 2"):
            animator.animate(asked(source, portrait_landmarks=motion[:1]))
    with pytest.raises(InputError, match=r"a\.npz: the time of frame 2"):
        animator.stream(asked(tmp_path / "a.npz"))


def test_a_cut_broadcast_starts_in_step(animator: Animator, portrait: Motion, detected: Seen, tmp_path: Path) -> None:
    options = {"g": "8", "keyint_min": "8", "sc_threshold": "0", "bf": "2"}
    film = write_film(tmp_path / "a.ts", "mpegts", Pictures(numbered(15), options=options), [Track("aac", 0.5)], 0.6)
    cut = cut_stream(film, tmp_path / "cut.ts", 0.3)
    clip = animator.animate(asked(cut, size=SIZE, portrait_landmarks=portrait))
    assert [number(picture) for picture in detected] == list(range(8, 15))
    assert clip.seconds == pytest.approx(7 / 25) and len(clip) == 7
    np.testing.assert_allclose(clip.times or (), np.arange(7) / 25, rtol=0, atol=1e-9)
    clip.save(tmp_path / "out.mp4")
    assert onset(tmp_path / "out.mp4") == pytest.approx(0.5 - 8 / 25, abs=0.005)  # an AAC packet rings 5 ms


def grey(*levels: int) -> NDArray[np.uint8]:
    return np.stack([np.full((64, 64, 3), level, np.uint8) for level in levels])


def test_an_interrupted_stream_leaves_a_playable_clip(tmp_path: Path) -> None:
    def pieces() -> Generator[NDArray[np.uint8]]:
        yield grey(40, 60, 80)
        yield grey(100)
        raise KeyboardInterrupt

    progress: list[tuple[str, int, int]] = []
    stream = Stream(Playback(fps=10), iter([0.5, 0.6, 0.9, 1.0]), pieces(), NO_MOTION)
    written = write.write_stream(tmp_path / "out.mp4", stream, 9, lambda *step: progress.append(step))
    assert written == 4 and progress == [("stream", 3, 9), ("stream", 4, 9)]
    read = list(media.read_video(tmp_path / "out.mp4"))
    assert np.abs([frame.mean() for _, frame in read] - np.array([40, 60, 80, 100])).max() < 2


def test_a_stream_without_a_frame_leaves_no_file(tmp_path: Path) -> None:
    def interrupted() -> Generator[NDArray[np.uint8]]:
        raise KeyboardInterrupt
        yield

    empty = "no frame showed a face, so nothing was made"
    for pieces, kind, text in ((interrupted(), KeyboardInterrupt, None), ((x for x in ()), InputError, empty)):
        with pytest.raises(kind, match=text):
            write.write_stream(tmp_path / "out.mp4", Stream(Playback(fps=10), iter([]), pieces, NO_MOTION))
    assert not list(tmp_path.iterdir())


def test_a_live_source_gives_times_from_the_first_face_on(
    animator: Animator, motion: Motion, portrait: Motion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = tmp_path / "driving.mp4"
    media.write_video(video, [IMAGE] * 5, 25, times=[0, 0.04, 0.1, 0.14, 0.2], seconds=0.3)

    def detect(frames: Any, fps: float, landmarker: Path, source: str, **how: Any) -> Iterator[Motion | None]:
        for k, _ in enumerate(frames):
            yield None if k in (0, 1, 3) else motion[k : k + 1]

    monkeypatch.setattr(live, "detect_live", detect)
    monkeypatch.setattr(live, "find_landmarker", lambda path: tmp_path / "face_landmarker.task")
    stream = animator.stream(asked(video, size=SIZE, portrait_landmarks=portrait))
    assert sum(map(len, stream)) == 3 and stream.frame_times is not None
    np.testing.assert_allclose(list(islice(stream.frame_times, 3)), [0.1, 0.14, 0.2], atol=1e-4)
    assert stream.audio_from is None
    with pytest.raises(InputError, match="no video and no motion"):
        animator.stream(asked(tmp_path))


def test_landmark_images_come_in_order(animator: Animator, motion: Motion, portrait: Motion, tmp_path: Path) -> None:
    drawn = landmark_images(portrait, motion, SIZE)
    several = np.concatenate((drawn, drawn[::-1][:3]))
    folder = tmp_path / "frames"
    folder.mkdir()
    for k, image in enumerate(several, start=1):
        media.write_image(folder / f"{k}.png", image)
    (folder / "._1.png").write_bytes(b"\0\5\x16\7" + bytes(50))
    (folder / "notes.txt").write_text("frame 1 is the first")
    clip = animator.animate(asked(folder))
    np.testing.assert_array_equal(clip.landmarks, several)
    first = animator.animate(asked(folder, frames=3))
    np.testing.assert_array_equal(first.landmarks, several[:3])


@pytest.mark.parametrize("name", ["motion", "motion.mp4", "motion.png", "motion.npy"])
def test_a_motion_file_drives_under_any_name(
    name: str, animator: Animator, motion: Motion, portrait: Motion, tmp_path: Path
) -> None:
    motion.save(tmp_path / "motion.npz")
    portrait.save(tmp_path / "portrait.npz")
    file = (tmp_path / "motion.npz").rename(tmp_path / name)
    own = (tmp_path / "portrait.npz").rename(tmp_path / "landmarks of mine")
    clip = animator.animate(asked(file, size=SIZE, portrait_landmarks=own))
    np.testing.assert_array_equal(clip.landmarks, landmark_images(portrait, motion, SIZE))
    assert sum(map(len, animator.stream(asked(file, size=SIZE, portrait_landmarks=own)))) == len(motion)


@pytest.mark.parametrize("name", ["driving", "driving.png", "driving.npz"])
def test_a_video_drives_under_any_name(
    name: str, animator: Animator, portrait: Motion, detected: Seen, tmp_path: Path
) -> None:
    media.write_video(tmp_path / "driving.mp4", [IMAGE] * 4, 25.0)
    file = (tmp_path / "driving.mp4").rename(tmp_path / name)
    clip = animator.animate(asked(file, size=SIZE, portrait_landmarks=portrait))
    assert len(clip) == len(detected) == 4
    overlay.write_overlay(tmp_path / "overlay.mp4", asked(file), driving.read_motion(asked(file)))
    assert media.probe_video(tmp_path / "overlay.mp4").frames == 4
    with av.open(str(tmp_path / "overlay.mp4")) as container:  # a real video
        assert "comment" not in container.metadata and b"synthetic" not in (tmp_path / "overlay.mp4").read_bytes()


@pytest.mark.parametrize(("name", "form"), [("a", "PNG"), ("a.jfif", "JPEG"), ("a.tif", "TIFF"), ("a.mp4", "WEBP")])
def test_a_picture_drives_under_any_name(
    name: str, form: str, animator: Animator, motion: Motion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "detect_image", lambda image, landmarker, source, **how: motion[:1])
    monkeypatch.setattr(driving, "find_landmarker", lambda path: tmp_path / "face_landmarker.task")
    PIL.Image.fromarray(IMAGE).save(tmp_path / name, form)
    assert len(driving.read_motion(asked(tmp_path / name))) == 1
    overlay.write_overlay(tmp_path / "overlay.png", asked(tmp_path / name), motion[:1])
    assert media.read_image(tmp_path / "overlay.png").shape == IMAGE.shape
    with pytest.raises(InputError, match="no video and no motion"):
        animator.stream(asked(tmp_path / name))


def test_a_heic_photograph_as_a_motion_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
    with pytest.raises(InputError, match=r"is a HEIC image, .*; save it as PNG or JPEG"):
        driving.read_motion(asked(tmp_path / "a.heic", landmarker=Path(__file__)))


def test_a_cut_in_a_motion_is_a_notice(animator: Animator, motion: Motion, portrait: Motion, tmp_path: Path) -> None:
    points = motion.points.copy()
    points[5:] = (points[5:] - 0.5) * 0.4 + (0.8, 0.2, 0.5)
    dataclasses.replace(motion, points=points).save(tmp_path / "cut.npz")
    motion.save(tmp_path / "whole.npz")
    more: dict[str, Any] = {"size": SIZE, "portrait_landmarks": portrait}
    (notice,) = animator.render(asked(tmp_path / "cut.npz", **more)).notices
    assert notice.startswith(f"{tmp_path / 'cut.npz'}: the face or its framing changes at frame 5 (0.71 s)")
    assert not animator.render(asked(tmp_path / "whole.npz", **more)).notices


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (128, 64)])
def test_a_small_face_is_a_notice_to_crop(
    size: tuple[int, int], animator: Animator, motion: Motion, portrait: Motion
) -> None:
    width = float(np.ptp(portrait.points[0, :, 0])) * size[1]

    def shrunk(share: float) -> Motion:
        """The portrait with a face of that share of the clip's shorter side."""
        points = (portrait.points - 0.5) * (share * min(size) / width) + 0.5
        return dataclasses.replace(portrait, points=points)

    more: dict[str, Any] = {"size": size, "crop": Crop(area="none")}
    assert not animator.render(asked(motion, **more, portrait_landmarks=shrunk(0.22))).notices
    more["portrait_landmarks"] = shrunk(0.17)
    (notice,) = animator.render(asked(motion, **more)).notices
    assert notice == (
        f"the portrait: its face is 11 pixels wide in a clip of {size[1]}x{size[0]}, too small to show expressions; "
        "use Crop.area='face', or crop the picture to head and shoulders"
    )
    (notice,) = animator.render(asked(motion, REFERENCE, **more)).notices  # never crops
    assert notice.endswith("too small to show expressions; crop the picture to head and shoulders")


def test_a_crop_that_cannot_be_is_refused_before_the_motion_is_read(animator: Animator, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Crop\.area='60,0,20,20' reaches outside of the picture, which is 64x64"):
        animator.render(asked(tmp_path / "gone.mp4", crop=Crop(area="60,0,20,20")))


@pytest.mark.parametrize("crop", [Crop(area="face"), Crop(scale=3.0), Crop(rotate=True), Crop(face="left")])
def test_finished_landmark_images_take_no_crop_to_a_face(animator: Animator, crop: Crop) -> None:
    with pytest.raises(OptionError, match="concerns landmarks, and landmark images are finished; leave it out"):
        animator.render(asked(np.zeros((2, *SIZE, 3), np.uint8), crop=crop))


@pytest.mark.parametrize("alpha", [False, True])
def test_a_pasted_clip_has_the_pictures_size_and_keeps_what_is_around(
    animator: Animator, motion: Motion, portrait: Motion, tmp_path: Path, alpha: bool
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 100, 3), np.uint8)
    crop = Crop(area="20,10,64,64", paste=True, feather=0.0, alpha=alpha)
    more: dict[str, Any] = {"portrait": picture, "crop": crop, "size": (64, 64), "portrait_landmarks": portrait}
    clip = animator.animate(asked(motion, **more))
    assert clip.frames.shape == (10, 90, 100, 4 if alpha else 3) and clip.landmarks.shape == (10, 64, 64, 3)
    assert clip.shape == clip.frames.shape
    plain = animator.animate(asked(motion, **{**more, "crop": Crop(area="20,10,64,64")}))
    np.testing.assert_array_equal(clip.frames[:, 10:74, 20:84, :3], plain.frames)
    outside = np.ones((90, 100), bool)
    outside[10:74, 20:84] = False
    assert (clip.frames[:, outside] == (0 if alpha else picture[outside])).all()
    if alpha:
        assert (clip.frames[:, 10:74, 20:84, 3] == 255).all()
    rendering = animator.render(asked(motion, **more))
    path, comparison = tmp_path / ("out.webm" if alpha else "out.mp4"), tmp_path / "compare.mp4"
    write.write_clip(rendering, path, comparison, tmp_path / "sheet.png")
    written = [image for _, image in media.read_video(path)]
    assert len(written) == 10 and written[0].shape == (90, 100, 3)
    expected = clip.frames[5, ..., :3].astype(int)
    if alpha:
        expected = np.where(clip.frames[5, ..., 3:] == 0, 255, expected)  # readers lay transparent pixels over white
    inner = np.s_[16:68, 26:78]  # the codec blurs the edge, and colours everywhere
    assert np.abs((written[5][inner].astype(int) - expected[inner]).mean(axis=-1)).mean() < 8
    assert media.probe_video(comparison).width == 3 * 64


def test_frames_that_reuse_a_picture_are_those_that_copy_it(
    animator: Animator, motion: Motion, portrait: Motion
) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (90, 100, 3), np.uint8)
    request = asked(
        motion,
        portrait=picture,
        crop=Crop(area="20,10,64,64", paste=True),
        size=(64, 64),
        portrait_landmarks=portrait,
    )
    rendering, clip = animator.render(request), animator.animate(request)
    before = None
    for frame, expected in zip(rendering.unpasted(), clip.frames, strict=True):
        shown = rendering.finished(frame, reuse=True)
        np.testing.assert_array_equal(shown, expected)
        assert before is None or before is not shown
        before = shown


def test_a_transparent_clip_becomes_a_folder_of_pictures(
    animator: Animator, motion: Motion, portrait: Motion, tmp_path: Path
) -> None:
    picture = np.random.default_rng(2).integers(0, 256, (90, 100, 3), np.uint8)
    crop = Crop(area="20,10,64,64", paste=True, alpha=True)
    request = asked(motion, portrait=picture, crop=crop, size=(64, 64), portrait_landmarks=portrait)
    write.write_clip(animator.render(request), tmp_path / "frames", None, None)
    files = sorted((tmp_path / "frames").iterdir())
    assert [file.name for file in files] == [f"{k:05}.png" for k in range(10)]
    frames = animator.animate(request).frames
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(files[3])), frames[3])


def test_a_stream_is_pasted_too(animator: Animator, motion: Motion, portrait: Motion) -> None:
    picture = np.random.default_rng(3).integers(0, 256, (90, 100, 3), np.uint8)
    crop = Crop(area="20,10,64,64", paste=True, feather=0.0)
    request = asked(motion, portrait=picture, crop=crop, size=(64, 64), portrait_landmarks=portrait)
    frames = np.concatenate(list(animator.stream(request)))
    assert frames.shape == (10, 90, 100, 3)
    np.testing.assert_array_equal(frames[:, :10], np.broadcast_to(picture[:10], (10, 10, 100, 3)))


def test_a_stream_has_no_alpha(animator: Animator, motion: Motion, portrait: Motion) -> None:
    with pytest.raises(OptionError, match="alpha=True needs a whole clip"):
        animator.stream(asked(motion, crop=Crop(paste=True, alpha=True), size=SIZE, portrait_landmarks=portrait))


def test_a_stream_takes_no_gaps(animator: Animator, motion: Motion, portrait: Motion) -> None:
    for gaps in ("hold", "skip"):
        with pytest.raises(OptionError, match=f"gaps='{gaps}' needs a whole clip; leave it out"):
            animator.stream(asked(motion, gaps=gaps, size=SIZE, portrait_landmarks=portrait))


def test_a_written_clip_says_that_it_is_synthetic(
    animator: Animator, motion: Motion, portrait: Motion, tmp_path: Path
) -> None:
    animator.animate(asked(motion, size=SIZE, portrait_landmarks=portrait)).save(tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert "synthetic" in container.metadata["comment"] and "fye-rt" in container.metadata["comment"]
