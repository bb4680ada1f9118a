"""Animated pictures as driving clips."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fye_rt.errors import InputError
from fye_rt.media import LIMITS, Limits, probe_video, read_image, read_video
from tests.fye_rt.media import colour_profiles as profiles
from tests.fye_rt.media.media_files import number, numbered

FORMS = ["webp", "avif", "png", "gif"]
DURATIONS = [40, 80, 200, 30, 100, 60]  # ms
BEGINS = np.cumsum([0, *DURATIONS])


def save(path: Path, pictures: list[np.ndarray], duration: int | list[int] = 40, **settings: object) -> Path:
    images = [Image.fromarray(picture) for picture in pictures]
    lossless = {"webp": {"lossless": True}, "avif": {"quality": 100, "subsampling": "4:4:4"}}.get(path.suffix[1:], {})
    images[0].save(path, save_all=True, append_images=images[1:], duration=duration, **{**lossless, **settings})
    return path


@pytest.mark.parametrize("form", FORMS)
def test_an_animation_is_read_with_its_times(tmp_path, form):
    film = save(tmp_path / f"a.{form}", numbered(6, 48, 64), DURATIONS)
    info = probe_video(film)
    times, frames = zip(*read_video(film), strict=True)
    assert (info.frames, info.height, info.width, info.rotation, info.has_audio) == (6, 48, 64, 0, False)
    assert info.variable_rate and info.seconds == pytest.approx(0.51)
    assert [number(frame) for frame in frames] == list(range(6))
    np.testing.assert_allclose(times, BEGINS[:-1] / 1000, rtol=0, atol=1e-6)
    assert all(frame.dtype == np.uint8 and frame.flags.c_contiguous for frame in frames)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("start", "seconds", "most", "shown"),
    [(0.0, 0.12, None, [0, 1]), (0.1, None, None, [2, 3, 4, 5]), (0.12, 0.3, None, [2, 3, 4]), (0.3, None, 2, [3, 4])],
)
def test_a_part_of_an_animation_is_read(tmp_path, form, start, seconds, most, shown):
    film = save(tmp_path / f"a.{form}", numbered(6), DURATIONS)
    info = probe_video(film, max_frames=most, start=start, seconds=seconds)
    part = list(read_video(film, max_frames=most, info=info, start=start, seconds=seconds))
    assert [number(frame) for _, frame in part] == shown and info.frames == len(shown)
    np.testing.assert_allclose([time for time, _ in part], (BEGINS[shown] - BEGINS[shown[0]]) / 1000, atol=1e-6)
    assert float(info.offset) == pytest.approx(BEGINS[shown[0]] / 1000)
    end = BEGINS[shown[-1] + 1] / 1000 if seconds is None else start + seconds
    assert info.seconds == pytest.approx(end - BEGINS[shown[0]] / 1000)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("start", "seconds"), [(0.6, None), (-1.0, None), (0.13, 0.05), (0.0, 0.0)])
def test_a_part_without_a_frame_is_refused_with_the_length(tmp_path, form, start, seconds):
    film = save(tmp_path / f"a.{form}", numbered(6), DURATIONS)
    with pytest.raises(InputError, match=rf"a\.{form} is 0\.51 seconds long and shows no frame from start={start:g}"):
        probe_video(film, start=start, seconds=seconds)


@pytest.mark.parametrize("form", ["webp", "png", "gif"])
def test_a_duration_of_nothing_lasts_as_in_a_browser(tmp_path, form):
    film = save(tmp_path / f"a.{form}", numbered(3), [0, 0, 40])
    info = probe_video(film)
    assert info.frames == 3 and 0.1 < info.seconds <= 0.24  # FFmpeg shows an APNG's for 1/15 s, browsers for 0.1 s
    assert (np.diff([time for time, _ in read_video(film)]) > 0.05).all()


@pytest.mark.parametrize("form", ["webp", "avif", "png"])
def test_transparent_pixels_are_laid_over_white(tmp_path, form):
    pictures = []
    for alpha in (0, 128, 255):
        picture = np.zeros((48, 64, 4), np.uint8)
        picture[...] = (200, 40, 40, alpha)
        pictures.append(picture)
    film = save(tmp_path / f"a.{form}", pictures)
    for (_, frame), alpha in zip(read_video(film), (0, 128, 255), strict=True):
        expected = 255 + (np.array((200, 40, 40)) - 255) * alpha / 255
        assert np.abs(frame - expected).max() <= 3  # AVIF's rounding
    np.testing.assert_array_equal(read_image(film), next(read_video(film))[1])  # as in a portrait


@pytest.mark.parametrize("form", ["webp", "png", "gif"])
def test_a_picture_that_replaces_a_part_of_the_one_before_keeps_the_rest(tmp_path, form):
    pictures = []
    for k in range(4):
        picture = np.full((48, 64, 3), 50, np.uint8)
        picture[8:16, 16 * k : 16 * k + 16] = 200
        pictures.append(picture)
    film = save(tmp_path / f"a.{form}", pictures)
    for (_, frame), picture in zip(read_video(film), pictures, strict=True):
        np.testing.assert_array_equal(frame, picture)


def test_a_default_image_of_an_animated_png_is_no_frame(tmp_path):
    film = save(tmp_path / "a.png", numbered(4), default_image=True)
    assert [number(frame) for _, frame in read_video(film)] == [1, 2, 3]


def test_an_animation_is_turned_as_its_exif_data_say(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = [np.rot90(picture).copy() for picture in numbered(3, 48, 64)]
    film = save(tmp_path / "a.webp", pictures, exif=exif)
    info = probe_video(film)
    frames = [frame for _, frame in read_video(film)]
    assert frames[0].shape == (info.height, info.width, 3) == (48, 64, 3)
    assert [number(frame) for frame in frames] == [0, 1, 2]


@pytest.mark.parametrize("form", ["webp", "avif"])
def test_an_animation_s_colours_are_converted(tmp_path, form, caplog):
    pictures = [np.full((48, 64, 3), (level, 60, 40), np.uint8) for level in (220, 210, 200)]
    film = save(tmp_path / f"a.{form}", pictures, icc_profile=profiles.rgb(profiles.P3))
    frames = [frame for _, frame in read_video(film)]
    np.testing.assert_array_equal(frames[0], read_image(film))
    for frame, level in zip(frames, (220, 210, 200), strict=True):
        assert frame[..., 0].min() > level + 8  # P3's red is outside of sRGB's
    caplog.clear()
    film = save(tmp_path / f"b.{form}", pictures, icc_profile=b"damaged" * 40)
    assert len(list(read_video(film))) == 3
    assert sum("colour profile" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("form", FORMS)
def test_limits_hold_for_an_animation(tmp_path, form):
    film = save(tmp_path / f"a.{form}", numbered(6), DURATIONS)
    for limits, said in (
        (Limits(max_frames=4), "limit is 4: pass frames=4"),
        (Limits(max_seconds=0.1), "pass frames=2"),
        (Limits(max_side=40), "64x64 pixels; the limit is 40"),
        (Limits(max_file=20), "frames=N or seconds=S"),
    ):
        with pytest.raises(InputError, match=said):
            probe_video(film, limits)
    assert len(list(read_video(film, Limits(max_file=20, max_frames=2), max_frames=2))) == 2


@pytest.mark.parametrize("form", ["webp", "avif"])
def test_a_damaged_animation_is_refused_in_one_sentence(tmp_path, form):
    film = save(
        tmp_path / f"a.{form}", [np.random.default_rng(k).integers(0, 255, (64, 64, 3), np.uint8) for k in range(6)]
    )
    whole = film.read_bytes()
    refused = 0
    random = np.random.default_rng(0)
    for _ in range(30):
        data = bytearray(whole)
        for start in random.integers(12, len(data), 4):
            data[start : start + 8] = random.bytes(8)
        film.write_bytes(data[: int(random.integers(len(data) // 2, len(data) + 1))])
        try:
            times = [time for time, _ in read_video(film, LIMITS)]
            assert (np.diff(times) > 0).all()
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and str(film) in str(error)
    assert refused > 5


def test_one_picture_is_in_memory_at_a_time(tmp_path):
    film = save(tmp_path / "a.webp", numbered(40, 256, 256))
    tracemalloc.start()
    try:
        for _ in read_video(film):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * 256 * 256 * 4  # a few copies in different modes; all would be 40
