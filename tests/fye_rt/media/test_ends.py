"""Pictures and sound of a clip end within a frame of the driving film's, whatever kind of film it is.

test_formats.py has the same of every container and codec.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fye_rt.media import probe_video, read_video
from tests.fye_rt.media.films import CODECS, COUNT, FRAME, PIXELS, SOUNDS, check_ends, encoder, shifted
from tests.fye_rt.media.media_files import (
    Pictures,
    Track,
    bar,
    cut_stream,
    number,
    numbered,
    onset,
    patch_matrix,
    woven,
    write_film,
)

LENGTH = COUNT * FRAME  # seconds
MATRICES = {"smpte170m": 6, "bt709": 1, "bt2020nc": 9}  # numbers in H.273
GROUPS = {"g": "10", "keyint_min": "10", "sc_threshold": "0"}


def film_of(
    path: Path,
    form: str,
    codec: str,
    frames: list[np.ndarray],
    pixels: str | None = None,
    seconds: float | None = None,
    **more: object,
) -> Path:
    """A film with one sound track, as long as its frames or of `seconds`."""
    name, usual, options = CODECS[codec]
    pictures = Pictures(frames, encoder(name, pixels), options, pixels or usual, **more)
    return write_film(path, form, pictures, [Track(encoder(SOUNDS[form]))], seconds or len(frames) * FRAME)


@pytest.mark.parametrize(("codec", "pixels"), [(codec, form) for codec, forms in PIXELS.items() for form in forms])
def test_a_clip_ends_with_its_film_of_any_bits_and_chroma(tmp_path, codec, pixels):
    form = "mov" if codec == "prores" else "matroska"
    check_ends(film_of(tmp_path / "a", form, codec, numbered(COUNT), pixels), LENGTH, LENGTH)


@pytest.mark.parametrize("matrix", ["smpte170m", "bt709", "bt2020nc"])
@pytest.mark.parametrize("limits", ["tv", "pc"])
@pytest.mark.parametrize(("form", "codec"), [("mp4", "h264"), ("webm", "vp9"), ("matroska", "h264")])
def test_a_clip_ends_with_its_film_of_any_matrix_and_range(tmp_path, form, codec, matrix, limits):
    name, pixels, options = CODECS[codec]
    stated = {"colorspace": matrix, "color_range": limits}
    pictures = Pictures(numbered(COUNT), encoder(name), {**options, **stated}, pixels)
    film = write_film(tmp_path / "a", form, pictures, [Track(encoder(SOUNDS[form]))], LENGTH)
    with av.open(str(film)) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (MATRICES[matrix], 2 if limits == "pc" else 1)
    check_ends(film, LENGTH, LENGTH)


UNEVEN = [0, 1, 2, 5, 6, 9, 10, 14, 15, 16]  # frames of 1/25 s


@pytest.mark.parametrize(
    ("form", "codec"),
    [("mp4", "h264"), ("mov", "hevc"), ("matroska", "h264"), ("webm", "vp9"), ("webm", "vp8"), ("mpegts", "h264"),
     ("flv", "h264")],
)  # fmt: skip
def test_a_clip_ends_with_its_film_of_uneven_times(tmp_path, form, codec):
    film = film_of(tmp_path / "a", form, codec, numbered(COUNT), times=UNEVEN, seconds=17 * FRAME)
    info = probe_video(film)
    assert info.variable_rate and info.frames == COUNT
    check_ends(film, info.seconds, 17 * FRAME)  # how long the last frame is shown, FFmpeg's muxers choose


@pytest.mark.parametrize(("transfer", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
@pytest.mark.parametrize("form", ["mp4", "matroska", "mpegts"])
def test_a_clip_ends_with_its_hdr_film(tmp_path, form, transfer, name, caplog):
    colours = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    pictures = Pictures(
        numbered(COUNT), encoder("libx265"), {"x265-params": f"log-level=none:{colours}"}, "yuv420p10le"
    )
    film = write_film(tmp_path / "a", form, pictures, [Track(SOUNDS[form])], LENGTH)
    check_ends(film, LENGTH, LENGTH)
    assert f"is HDR ({name})" in caplog.text


@pytest.mark.parametrize(
    ("form", "codec", "options"),
    [
        ("mp4", "libx264", {"x264-params": "tff=1", "bf": "0"}),
        ("matroska", "libx264", {"x264-params": "bff=1", "bf": "2"}),
        ("mpegts", "mpeg2video", {"flags": "+ildct+ilme", "field_order": "tt"}),
        ("avi", "mpeg4", {"flags": "+ildct+ilme", "bf": "0"}),
    ],
)
def test_a_clip_ends_with_its_interlaced_film(tmp_path, form, codec, options, caplog):
    pictures = Pictures(woven([bar(index) for index in range(2 * COUNT)]), codec, options)
    check_ends(write_film(tmp_path / "a", form, pictures, [Track(SOUNDS[form])], LENGTH), LENGTH, LENGTH)
    assert "interlaced" in caplog.text


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1)])
@pytest.mark.parametrize(("form", "codec"), [("mp4", "h264"), ("mov", "hevc"), ("mov", "prores")])
def test_a_clip_ends_with_its_film_that_is_turned_or_mirrored(tmp_path, form, codec, matrix):
    film = film_of(tmp_path / "a", form, codec, numbered(COUNT, 64, 96))
    patch_matrix(film, film, matrix)
    check_ends(film, LENGTH, LENGTH)
    assert next(read_video(film))[1].shape == ((96, 64, 3) if matrix[1] else (64, 96, 3))


@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(3, 4)])
@pytest.mark.parametrize(
    ("form", "codec"), [("mp4", "h264"), ("mov", "prores"), ("matroska", "hevc"), ("mpegts", "hevc"), ("avi", "mpeg4")]
)
def test_a_clip_ends_with_its_film_whose_pixels_are_not_square(tmp_path, form, codec, aspect):
    film = film_of(tmp_path / "a", form, codec, numbered(COUNT), aspect=aspect)
    check_ends(film, LENGTH, LENGTH)
    assert next(read_video(film))[1].shape == ((64, 86, 3) if aspect > 1 else (86, 64, 3))


@pytest.mark.parametrize(("height", "width"), [(47, 63), (63, 48), (48, 61)])
@pytest.mark.parametrize(
    ("form", "codec", "pixels"),
    [
        ("mp4", "mpeg4", "yuv420p"), ("mov", "prores", "yuv422p10le"), ("matroska", "h264", "yuv444p"),
        ("webm", "vp8", "yuv420p"), ("webm", "vp9", "yuv420p"), ("avi", "mjpeg", "yuvj420p"),
    ],
)  # fmt: skip
def test_a_clip_ends_with_its_film_of_odd_size(tmp_path, form, codec, pixels, height, width):
    film = film_of(tmp_path / "a", form, codec, numbered(COUNT, height, width), pixels)
    check_ends(film, LENGTH, LENGTH)
    assert next(read_video(film))[1].shape == (height, width, 3)


def with_edits(film: Path, begins: float, lasts: float) -> Path:
    """Let the edit lists of an mp4's tracks show `lasts` seconds of it from `begins` on, as telephones trim films."""
    data = bytearray(film.read_bytes())

    def number_at(place: int) -> int:
        return int.from_bytes(data[place : place + 4], "big")

    movie, track = number_at(data.index(b"mvhd") + 16), data.index(b"trak")
    while track >= 0:
        entry = data.index(b"elst", track) + 12  # duration, beginning
        assert number_at(entry - 4) == 1
        begin = number_at(entry + 4) + round(begins * number_at(data.index(b"mdhd", track) + 16))
        data[entry : entry + 8] = round(lasts * movie).to_bytes(4, "big") + begin.to_bytes(4, "big")
        track = data.find(b"trak", track + 4)
    film.write_bytes(data)
    return film


@pytest.mark.parametrize(("begins", "lasts"), [(0.0, 0.8), (0.4, 1.2), (0.4, 0.8), (0.52, 0.6)])
@pytest.mark.parametrize("form", ["mp4", "mov"])
def test_a_clip_ends_with_its_film_that_an_edit_list_trims(tmp_path, form, begins, lasts):
    pictures = Pictures(numbered(40), options={"bf": "0", **GROUPS})
    film = write_film(tmp_path / "a", form, pictures, [Track("aac", 0.7)], 1.6)
    whole = [number(frame) for _, frame in read_video(film)]
    assert whole == list(range(40))
    clip = check_ends(with_edits(film, begins, lasts), lasts, lasts)
    first = round(begins / FRAME)
    assert [number(frame) for _, frame in read_video(film)] == list(range(first, first + round(lasts / FRAME)))
    assert onset(clip) == pytest.approx(0.7 - begins, abs=0.01)


@pytest.mark.parametrize("form", ["mp4", "mov"])
def test_a_clip_ends_with_its_film_whose_edit_list_begins_late(tmp_path, form):
    pictures = Pictures(numbered(40), times=range(10, 50), options={"bf": "2"})
    film = write_film(tmp_path / "a", form, pictures, [Track("aac", 0.9)], 2.0)
    assert b"elst" in film.read_bytes()
    check_ends(film, 1.6, 1.6)


@pytest.mark.parametrize("part", [0.1, 0.4, 0.7])
def test_a_clip_ends_with_its_film_that_is_cut_out_of_a_broadcast(tmp_path, part):
    pictures = Pictures(numbered(40), options={"bf": "2", **GROUPS})
    film = write_film(tmp_path / "a", "mpegts", pictures, [Track("aac")], 1.6)
    cut = cut_stream(film, tmp_path / "b", part)
    rest = 1.6 - number(next(read_video(cut))[1]) * FRAME
    assert rest < 1.6
    check_ends(cut, rest, rest)


@pytest.mark.parametrize("between", ["1", "3"])
def test_a_clip_ends_with_its_avi_of_b_frames(tmp_path, between):
    pictures = Pictures(numbered(40), options={"bf": between, "b_strategy": "0"})
    check_ends(write_film(tmp_path / "a", "avi", pictures, [Track("pcm_s16le")], 1.6), 1.6, 1.6)


FORMS = ["mp4", "mov", "matroska", "webm", "mpegts", "avi", "flv"]


def silent_pictures(form: str, count: int) -> Pictures:
    name, pixels, options = CODECS["vp9" if form == "webm" else "h264"]
    return Pictures(numbered(count), name, options | ({"bf": "0"} if name == "libx264" else {}), pixels)


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("avi", "flv")])
@pytest.mark.parametrize("sound", [0.6, 1.0, 1.8])
def test_a_clip_ends_with_its_film_whose_sound_begins_late(tmp_path, form, sound):
    film = write_film(tmp_path / "a", form, silent_pictures(form, 40), [Track(SOUNDS[form])], sound)
    check_ends(shifted(film, tmp_path / "b", form, 0.4), 1.6, 0.4 + sound)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sound", [0.4, 1.0, 1.6])
def test_a_clip_ends_with_its_film_whose_sound_is_shorter_or_longer(tmp_path, form, sound):
    film = write_film(tmp_path / "a", form, silent_pictures(form, 25), [Track(SOUNDS[form])], sound)
    check_ends(film, 1.0, sound)


@pytest.mark.parametrize("form", FORMS)
def test_a_clip_ends_with_its_film_without_sound(tmp_path, form):
    check_ends(write_film(tmp_path / "a", form, silent_pictures(form, 25)), 1.0, None)


@pytest.mark.parametrize("default", [0, 1, 2])
@pytest.mark.parametrize("form", ["mp4", "mov", "matroska", "webm"])
def test_a_clip_ends_with_its_film_of_several_sound_tracks(tmp_path, form, default):
    tracks = [Track(SOUNDS[form], 0.2 * (index + 1), default=index == default) for index in range(3)]
    film = write_film(tmp_path / "a", form, silent_pictures(form, 25), tracks, 1.0)
    clip = check_ends(film, 1.0, 1.0)
    assert onset(clip) == pytest.approx(0.2 * (default + 1), abs=0.01)


@pytest.mark.parametrize("form", ["mpegts", "avi"])
def test_a_clip_ends_with_its_film_of_several_sound_tracks_without_a_default(tmp_path, form):
    tracks = [Track(SOUNDS[form], begins) for begins in (0.2, 0.6)]
    film = write_film(tmp_path / "a", form, silent_pictures(form, 25), tracks, 1.0)
    assert onset(check_ends(film, 1.0, 1.0)) == pytest.approx(0.2, abs=FRAME + 0.005)  # AVI: a frame late
