"""The files that people bring: each container, codec and kind of picture of the table in docs/guide/files.md."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from fye_rt.media import kind_of, probe_video, read_image, read_video
from tests.fye_rt.media import colour_profiles as profiles
from tests.fye_rt.media import test_animations
from tests.fye_rt.media.charts import chart, patches, write_chart
from tests.fye_rt.media.films import CODECS, COUNT, FILMS, FRAME, PIXELS, encoder, ends, rewritten, shifted
from tests.fye_rt.media.media_files import RATE, Pictures, Track, number, numbered, onset, patch_matrix, write_film

PRECISION = {"matroska": 1e-3, "webm": 1e-3, "flv": 1e-3}  # s; ticks of the containers' clocks, others are finer
LEVELS_OF_GIF = 86  # FFmpeg's palette has two bits of blue


def marked(count: int = COUNT, height: int = 64, width: int = 64) -> list[np.ndarray]:
    """Frames with their numbers in the upper half and patches of colour in the lower one."""
    frames = numbered(count, height, width)
    for frame in frames:
        frame[height // 2 :] = chart(height, width)[: height // 2]
    return frames


def check_marks(images: list[np.ndarray], levels: int) -> None:
    """Check the numbers and the colours of `marked` frames, the right way up and round."""
    assert [number(image[: image.shape[0] // 2 - 4]) for image in images] == list(range(len(images)))
    for image in images:
        half = image.shape[0] // 2
        expected = patches(chart())[0]
        seen = image[half + half // 2, (np.arange(4) * 2 + 1) * image.shape[1] // 8].astype(int)
        assert np.abs(seen - expected).max() <= levels


@pytest.mark.parametrize(("form", "codec", "sound"), FILMS)
def test_a_film_is_read_and_its_clip_ends_with_it(tmp_path, form, codec, sound):
    name, pixels, options = CODECS[codec]
    pictures = Pictures(marked(), encoder(name), options, pixels)
    sounds = [] if sound is None else [Track(encoder(sound))]
    film = write_film(tmp_path / "film", form, pictures, sounds, COUNT * FRAME)
    assert kind_of(film) == "video"
    info = probe_video(film)
    assert (info.frames, info.height, info.width, info.rotation, info.has_audio) == (COUNT, 64, 64, 0, bool(sounds))
    assert float(info.fps) == pytest.approx(RATE, rel=0.01) and not info.variable_rate
    assert info.seconds == pytest.approx(COUNT * FRAME, abs=2e-3)
    times, frames = zip(*read_video(film), strict=True)
    np.testing.assert_allclose(times, np.arange(COUNT) * FRAME, rtol=0, atol=PRECISION.get(form, 1e-4))
    check_marks(list(frames), LEVELS_OF_GIF if codec == "gif" else 8)  # else a coder's rounding
    pictures_end, sound_end = ends(rewritten(film, tmp_path / "out.mp4"))
    assert pictures_end == pytest.approx(info.seconds, abs=1e-3)
    if sound_end is not None:
        assert abs(sound_end - min(ends(film)[1], info.seconds)) <= FRAME


RANGES = [
    (codec, form, full)
    for codec, forms in PIXELS.items()
    for form in forms
    for full in ([False] if codec == "prores" else [False, True])  # ProRes has no full range
]


@pytest.mark.parametrize("standard", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize(("codec", "pixels", "full"), RANGES)
def test_colours_are_those_of_the_stated_matrix_and_range(tmp_path, codec, pixels, standard, full):
    name, _, options = CODECS[codec]
    form = "mov" if codec == "prores" else "matroska"
    film = write_chart(tmp_path / "a", form, encoder(name, pixels), pixels, standard, full, options=options)
    for _, frame in read_video(film):
        assert np.abs(patches(frame) - patches(chart())).max() <= 4  # eight bits have fewer YCbCr than RGB colours


@pytest.mark.parametrize(
    ("size", "standard"),
    [((576, 720), "bt601"), ((480, 854), "bt601"), ((720, 1280), "bt709"), ((1280, 720), "bt709")],
)
@pytest.mark.parametrize("codec", ["ffv1", "mpeg4"])
def test_colours_of_an_unstated_matrix_are_those_that_players_take_for_the_size(tmp_path, codec, size, standard):
    film = write_chart(
        tmp_path / "a", "matroska", codec, standard=standard, signal=chart(*size) / 255, tagged=False, frames=1,
        options={"qmin": "1", "qmax": "2"} if codec == "mpeg4" else None,
    )  # fmt: skip
    _, frame = next(read_video(film))
    assert np.abs(patches(frame) - patches(chart())).max() <= 4


@pytest.mark.parametrize("standard", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("full", [False, True])
def test_interlaced_films_keep_matrix_and_range(tmp_path, standard, full):
    options = {"crf": "3", "x264-params": "tff=1"}
    film = write_chart(tmp_path / "a", "matroska", "libx264", "yuv420p", standard, full, options=options)
    for _, frame in read_video(film):
        assert np.abs(patches(frame) - patches(chart())).max() <= 4


@pytest.mark.parametrize(("height", "width"), [(47, 63), (63, 48), (48, 61)])
@pytest.mark.parametrize(
    ("form", "codec", "pixels"),
    [
        ("matroska", "h264", "yuv444p"), ("webm", "vp9", "yuv420p"), ("webm", "vp8", "yuv420p"),
        ("avi", "mjpeg", "yuvj420p"), ("mov", "prores", "yuv422p10le"), ("mp4", "mpeg4", "yuv420p"),
        ("gif", "gif", "rgb8"), ("apng", "apng", "rgb24"), ("webp", "webp", "bgra"),
    ],
)  # fmt: skip
def test_odd_sizes_are_kept_and_their_clip_grows_by_a_line(tmp_path, form, codec, pixels, height, width):
    name, _, options = CODECS[codec]
    frames = [chart(height, width)[:, ::step] for step in (1, -1)]
    film = write_film(tmp_path / "a", form, Pictures(frames, encoder(name), options, pixels))
    info = probe_video(film)
    assert (info.height, info.width, info.frames) == (height, width, 2)
    for (_, image), expected in zip(read_video(film), frames, strict=True):
        assert np.abs(patches(image) - patches(expected)).max() <= (LEVELS_OF_GIF if codec == "gif" else 10)
    clip = probe_video(rewritten(film, tmp_path / "out.mp4"))
    assert (clip.height, clip.width) == (height + height % 2, width + width % 2)


UNEVEN = [0, 1, 2, 5, 6, 9, 10, 14, 15, 16]


@pytest.mark.parametrize(
    ("form", "codec"),
    [("mp4", "h264"), ("mov", "hevc"), ("matroska", "h264"), ("webm", "vp9"), ("webm", "vp8"), ("mpegts", "h264"),
     ("flv", "h264"), ("gif", "gif"), ("apng", "apng"), ("webp", "webp")],
)  # fmt: skip
def test_uneven_times_are_kept_and_their_clip_ends_with_them(tmp_path, form, codec):
    name, pixels, options = CODECS[codec]
    pictures = Pictures(marked(), encoder(name), options, pixels, times=UNEVEN)
    film = write_film(tmp_path / "a", form, pictures)
    info = probe_video(film)
    times, frames = zip(*read_video(film), strict=True)
    assert info.variable_rate and info.frames == COUNT
    np.testing.assert_allclose(times, np.array(UNEVEN) * FRAME, rtol=0, atol=PRECISION.get(form, 1e-4))
    check_marks(list(frames), LEVELS_OF_GIF if codec == "gif" else 8)
    out = rewritten(film, tmp_path / "out.mp4")
    np.testing.assert_allclose([time for time, _ in read_video(out)], times, rtol=0, atol=1e-4)
    assert ends(out)[0] == pytest.approx(info.seconds, abs=1e-3)


@pytest.mark.parametrize(("form", "codec"), [("mp4", "h264"), ("mov", "prores"), ("mov", "hevc"), ("mp4", "av1")])
@pytest.mark.parametrize(("matrix", "turn"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_every_codec_is_turned(tmp_path, form, codec, matrix, turn):
    name, pixels, options = CODECS[codec]
    film = write_film(tmp_path / "a", form, Pictures(marked(), encoder(name), options, pixels))
    patch_matrix(film, film, matrix)
    frames = [np.rot90(frame, -turn) for _, frame in read_video(film)]
    check_marks(frames, 8)


@pytest.mark.parametrize(
    ("form", "pictures", "sound"),
    [("mp4", "h264", "aac"), ("mov", "h264", "pcm_s16le"), ("matroska", "h264", "flac"), ("webm", "vp9", "libopus"),
     ("mpegts", "h264", "aac")],
)  # fmt: skip
def test_sound_that_begins_late_stays_late(tmp_path, form, pictures, sound):
    name, pixels, options = CODECS[pictures]
    track = Pictures(numbered(40), name, options | ({"bf": "0"} if name == "libx264" else {}), pixels)
    source = write_film(tmp_path / "a", form, track, [Track(sound, 0.4)], 1.0)
    film = shifted(source, tmp_path / "b", form, 0.4)
    expected = onset(film)
    assert expected == pytest.approx(0.8, abs=0.01)
    out = rewritten(film, tmp_path / "out.mp4")
    assert onset(out) == pytest.approx(expected, abs=0.01)  # half a packet of sound at most
    assert abs(ends(out)[1] - 1.4) <= FRAME


@pytest.mark.parametrize("form", ["mp4", "mov", "matroska", "mpegts", "avi"])
def test_a_film_without_sound_or_with_several_tracks_makes_a_clip(tmp_path, form):
    silent = write_film(tmp_path / "a", form, Pictures(numbered(25), options={"bf": "0"}))
    assert ends(rewritten(silent, tmp_path / "a.mp4")) == (pytest.approx(1.0, abs=2e-3), None)
    tracks = [Track("libmp3lame", 0.2, default=form == "avi"), Track("libmp3lame", 0.6, default=form != "avi")]
    film = write_film(tmp_path / "b", form, Pictures(numbered(25), options={"bf": "0"}), tracks, 1.0)
    chosen = 0.2 if form in ("avi", "mpegts") else 0.6  # these two state no default, so the first track is taken
    assert onset(rewritten(film, tmp_path / "b.mp4")) == pytest.approx(chosen, abs=0.055)  # a frame, and MP3's delay


@pytest.mark.parametrize("between", ["1", "2", "3"])
def test_sound_of_an_avi_with_b_frames_is_within_a_frame(tmp_path, between):
    options = {"bf": between, "b_strategy": "0"}
    film = write_film(tmp_path / "a", "avi", Pictures(numbered(40), options=options), [Track("pcm_s16le", 1.0)], 1.6)
    assert onset(rewritten(film, tmp_path / "out.mp4")) == pytest.approx(1.0, abs=FRAME + 0.005)


def test_an_edit_list_that_begins_late_is_kept_in_step(tmp_path):
    """A film whose pictures begin after its sound: an empty edit stands in front of them."""
    track = Pictures(numbered(40), times=range(10, 50), options={"bf": "2"})
    film = write_film(tmp_path / "a.mp4", "mp4", track, [Track("aac", 0.9)], 2.0)
    assert b"elst" in film.read_bytes()
    out = rewritten(film, tmp_path / "out.mp4")
    assert onset(out) == pytest.approx(onset(film), abs=0.005) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(3, 4)])
@pytest.mark.parametrize(
    ("form", "codec"), [("mp4", "h264"), ("mov", "prores"), ("matroska", "hevc"), ("mpegts", "hevc"), ("avi", "mpeg4")]
)
def test_pixels_of_every_container_are_made_square(tmp_path, form, codec, aspect):
    name, pixels, options = CODECS[codec]
    film = write_film(tmp_path / "a", form, Pictures(marked(), encoder(name), options, pixels, aspect=aspect))
    info = probe_video(film)
    frames = [frame for _, frame in read_video(film)]
    assert info.pixel_aspect == aspect
    assert frames[0].shape[:2] == (info.height, info.width) == ((64, 86) if aspect > 1 else (86, 64))
    assert np.abs(patches(np.concatenate([frames[0][info.height // 2 :]] * 2))[0] - patches(chart())[0]).max() <= 8


# --- pictures

SHOT = chart(48, 64)
GREY = SHOT.mean(axis=2).round().astype(np.uint8)
LEVELS = {"jpeg": 8, "webp": 8, "avif": 8, "heic": 8, "gif": 30}  # what a coder or a palette of 256 colours leaves


def image_settings(form: str) -> dict[str, Any]:
    return {
        "jpeg": {"quality": 95, "subsampling": 0},
        "webp": {"quality": 95},
        "avif": {"quality": 95},
        "heic": {"quality": 95},
    }.get(form, {})


def save(path: Path, image: Image.Image, **settings: Any) -> Path:
    if path.suffix == ".heic":
        pytest.importorskip("pillow_heif", reason="the extra heif is not installed").register_heif_opener()
    image.save(path, **(image_settings(path.suffix[1:]) | settings))
    return path


def modes(form: str) -> Iterator[str]:
    return iter(
        {
            "png": ("RGB", "RGBA", "P", "L", "LA", "I;16"),
            "jpeg": ("RGB", "L", "CMYK"),
            "webp": ("RGB", "RGBA"),
            "avif": ("RGB", "RGBA", "L"),
            "tiff": ("RGB", "RGBA", "P", "L", "CMYK", "I;16"),
            "bmp": ("RGB", "P", "L"),
            "gif": ("P", "L"),
            "heic": ("RGB", "RGBA", "L", "I;16"),
        }[form]
    )


def of_mode(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(GREY.astype(np.uint16) * 257)
    if mode in ("L", "LA"):
        return Image.fromarray(GREY).convert(mode)
    return Image.fromarray(SHOT).convert(mode, palette=Image.Palette.ADAPTIVE)


FORMS = ["png", "jpeg", "webp", "avif", "tiff", "bmp", "gif", "heic"]


@pytest.mark.parametrize(("form", "mode"), [(form, mode) for form in FORMS for mode in modes(form)])
def test_a_picture_of_every_format_and_mode_is_read(tmp_path, form, mode):
    path = save(tmp_path / f"a.{form}", of_mode(mode))
    assert kind_of(path) == "picture"
    image = read_image(path)
    expected = GREY[..., None].repeat(3, 2) if mode in ("L", "LA", "I;16") else SHOT
    assert (image.dtype, image.shape) == (np.uint8, SHOT.shape)
    assert np.abs(patches(image) - patches(expected)).max() <= LEVELS.get(form, 1)


DEEP = ["png", "tiff", "avif", "heic"]


@pytest.mark.parametrize("form", DEEP)
def test_a_colour_picture_of_more_than_eight_bits_is_read(tmp_path, form):
    deep = SHOT.astype(np.uint16) * 257
    path = tmp_path / f"a.{form}"
    if form == "heic":
        plugin = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
        plugin.from_bytes("RGB;16", (64, 48), deep.tobytes()).save(path, quality=95)
    elif form == "avif":
        with av.open(str(path), "w", format="avif") as container:
            stream = container.add_stream(encoder("libsvtav1"), rate=1, options={"crf": "5", "preset": "8"})
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p10le"
            frame = av.VideoFrame.from_ndarray(SHOT, format="rgb24").reformat(format="yuv420p10le")
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    else:
        with av.open(str(path), "w", format="image2") as container:
            stream = container.add_stream(form, rate=1)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "rgb48be" if form == "png" else "rgb48le"
            frame = av.VideoFrame.from_ndarray(deep, format="rgb48le").reformat(format=stream.pix_fmt)
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    assert np.abs(patches(read_image(path)) - patches(SHOT)).max() <= LEVELS.get(form, 1)


TURNED = ["png", "jpeg", "webp", "avif", "tiff", "heic"]  # formats that hold EXIF data and profiles
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    3: lambda image: np.rot90(image, 2),
    6: lambda image: np.rot90(image, 1),
    8: lambda image: np.rot90(image, -1),
    2: lambda image: image[:, ::-1],
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("form", TURNED)
def test_a_picture_of_every_format_is_turned_as_its_exif_data_say(tmp_path, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(TURNS[orientation](SHOT))
    image = read_image(save(tmp_path / f"a.{form}", Image.fromarray(stored), exif=exif.tobytes()))
    assert image.shape == SHOT.shape
    assert np.abs(patches(image) - patches(SHOT)).max() <= LEVELS.get(form, 1)


@pytest.mark.parametrize("form", TURNED)
def test_a_picture_of_every_format_is_converted_by_its_profile(tmp_path, form):
    plain = read_image(save(tmp_path / f"a.{form}", Image.fromarray(SHOT)))
    path = save(tmp_path / f"b.{form}", Image.fromarray(SHOT), icc_profile=profiles.rgb(profiles.P3))
    expected = profiles_to_srgb(plain)
    assert np.abs(patches(read_image(path)) - expected).max() <= LEVELS.get(form, 2)
    assert np.abs(patches(plain) - expected).max() > 15


def profiles_to_srgb(image: np.ndarray) -> np.ndarray:
    """Patches of an image in Display P3, as sRGB; both have sRGB's curve."""
    signal = patches(image) / 255
    linear = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[1.224940, -0.224940, 0], [-0.042057, 1.042057, 0], [-0.019638, -0.078636, 1.098274]])
    light = (linear @ matrix.T).clip(0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


# --- what the documents say is read

PAGE = Path(__file__).parents[3] / "docs" / "guide" / "files.md"
FORMS_OF_NAMES = {"mkv": "matroska", "ts": "mpegts", "mpg": "mpeg"}
CODECS_OF_NAMES = {
    "H.264": "h264", "HEVC": "hevc", "AV1": "av1", "VP8": "vp8", "VP9": "vp9", "MPEG-4": "mpeg4", "MPEG-2": "mpeg2",
    "Motion JPEG": "mjpeg", "ProRes": "prores",
}  # fmt: skip
MODES_OF_NAMES = {
    "RGB": "RGB", "RGBA": "RGBA", "palette": "P", "grey": "L", "grey with transparency": "LA", "CMYK": "CMYK",
}  # fmt: skip


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading of the page, without the table's head."""
    table = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n| ", 1)[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()[2:]]


def test_the_documented_containers_and_codecs_are_those_that_are_tried():
    documented = [(row[0], name) for row in rows("Driving videos")[:-1] for name in row[1].split(", ")]
    tried = [(form, codec) for form, codec, _ in FILMS if codec in CODECS_OF_NAMES.values()]
    assert sorted((FORMS_OF_NAMES.get(form, form), CODECS_OF_NAMES[name]) for form, name in documented) == sorted(tried)
    animations = rows("Driving videos")[-1][0].removeprefix("animated ").lower().split(", ")
    assert sorted(animations) == sorted(test_animations.FORMS)
    assert {form.replace("png", "apng") for form in animations} - {"avif"} <= {codec for _, codec, _ in FILMS}


def test_the_documented_kinds_of_pictures_are_those_that_are_tried():
    documented = {}
    for formats, kinds, *_ in rows("Pictures"):
        if formats in ("EXIF orientation", "colour profiles"):
            assert sorted(kinds.lower().split(", ")) == sorted(TURNED), formats
            continue
        words = kinds.split("; ")[0].split(", ")
        deep = "16 bits" in kinds or "10 bits" in kinds
        documented[formats.split(", ")[0].lower()] = sorted(MODES_OF_NAMES[word] for word in words), deep
    tried = {form: (sorted(set(modes(form)) - {"I;16"}), form in DEEP) for form in FORMS}
    assert documented == tried
