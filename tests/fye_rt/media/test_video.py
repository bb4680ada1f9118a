import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av.error
import numpy as np
import pytest

from fye_rt.errors import InputError
from fye_rt.media import LIMITS, Limits, check_times, probe_video, read_video, video, write_image, write_video
from fye_rt.media import frames as frames_module
from tests.fye_rt.media.media_files import (
    Pictures,
    Track,
    bar,
    noise_frames,
    number,
    numbered,
    patch_matrix,
    woven,
    write_empty_film,
    write_film,
)


def remux(source: Path, target: Path, form: str) -> None:
    with av.open(str(source)) as old, av.open(str(target), "w", format=form) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                packet.stream = stream
                new.mux(packet)


def refusal(path: Path, limits: Limits = LIMITS) -> str:
    with pytest.raises(InputError) as caught:
        list(read_video(path, limits))
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, noise_frames(50, 96, 96), 25)
    return path


@pytest.mark.parametrize(("module", "step"), [(video, "to_rgb"), (frames_module, "_Deinterlacer")])
def test_a_frame_that_cannot_be_converted_is_named(tmp_path, monkeypatch, module, step):
    def fail(*given: object) -> None:
        raise av.error.BlockingIOError(11, "Resource temporarily unavailable")  # swscale without memory for threads

    frames = woven([bar(index) for index in range(8)])
    options = {"flags": "+ildct+ilme"}
    path = write_film(tmp_path / "a.mpg", "mpeg", Pictures(frames, codec="mpeg2video", options=options))
    monkeypatch.setattr(module, step, fail)
    message = refusal(path)
    assert "frame 0 cannot be converted (Resource temporarily unavailable)" in message


def test_a_talking_head_clip_is_read(shared):
    path = shared / "media" / "carphone.mp4"
    if not path.is_file():
        pytest.skip("needs carphone.mp4 of ../shared, which is not there")
    info = probe_video(path)
    assert (info.width, info.height, info.fps, info.frames) == (192, 144, Fraction(30000, 1001), 120)
    assert (info.rotation, info.has_audio, info.variable_rate) == (0, False, False)
    assert info.seconds == pytest.approx(120 * 1001 / 30000)
    times, frames = zip(*read_video(path), strict=True)
    assert len(frames) == 120
    assert info.pixel_aspect == Fraction(128, 117)  # it is stored with 176 wide pixels a line
    assert all(frame.shape == (144, 192, 3) and frame.dtype == np.uint8 for frame in frames)
    np.testing.assert_allclose(times, np.arange(120) * 1001 / 30000, rtol=0, atol=1e-9)
    assert np.mean(frames) > 30  # a picture, not black


def test_colours_survive_writing_and_reading(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (10, 200, 180), (128, 128, 128), (0, 0, 0), (255, 255, 255)]
    write_video(tmp_path / "a.mp4", [np.full((32, 32, 3), colour, np.uint8) for colour in colours], 25)
    for colour, (_, frame) in zip(colours, read_video(tmp_path / "a.mp4"), strict=True):
        assert np.abs(frame.astype(int) - colour).max() <= 2  # 8-bit YCbCr has fewer colours than 8-bit RGB


@pytest.mark.parametrize(("form", "suffix"), [("matroska", "mkv"), ("mpegts", "ts"), ("mov", "mov")])
def test_other_containers_give_the_same_frames_and_an_even_rate(clip, tmp_path, form, suffix):
    other = tmp_path / f"a.{suffix}"
    remux(clip, other, form)
    info = probe_video(other)
    assert (info.frames, info.width, info.height, info.variable_rate) == (50, 96, 96, False)
    assert float(info.fps) == pytest.approx(25, rel=0.001)
    frames = [frame for _, frame in read_video(other)]
    assert len(frames) == 50
    np.testing.assert_array_equal(frames, [frame for _, frame in read_video(clip)])


@pytest.mark.parametrize(
    ("form", "codec", "options"),
    [
        ("avi", "mpeg4", {"qscale": "2"}),
        ("mp4", "libx264", {"bf": "3", "crf": "10"}),
        ("mpegts", "mpeg2video", {"bf": "2"}),
    ],
)
def test_frames_come_in_the_order_of_their_times(tmp_path, form, codec, options):
    pictures = [np.full((64, 64, 3), level, np.uint8) for level in range(10, 250, 10)]
    write_film(tmp_path / "a", form, Pictures(pictures, codec, options))
    info = probe_video(tmp_path / "a")
    assert (info.frames, info.fps, info.variable_rate) == (24, 25, False)
    times, frames = zip(*read_video(tmp_path / "a"), strict=True)
    np.testing.assert_allclose(times, np.arange(24) / 25, rtol=0, atol=1e-4)  # MPEG-TS counts in 1/90000 s
    levels = [float(frame.mean()) for frame in frames]
    np.testing.assert_allclose(levels, np.arange(10, 250, 10), rtol=0, atol=3)  # the codecs' quantisation


@pytest.mark.parametrize(
    ("matrix", "rotation", "turn"),
    [
        ((1, 0, 0, 1), 0, lambda a: a),
        ((0, 1, -1, 0), 90, lambda a: np.rot90(a, -1)),
        ((-1, 0, 0, -1), 180, lambda a: np.rot90(a, 2)),
        ((0, -1, 1, 0), 270, lambda a: np.rot90(a)),
        ((-1, 0, 0, 1), 180, lambda a: a[:, ::-1]),  # mirrored, as some front cameras record
        ((0, 1, 1, 0), 90, lambda a: a.transpose(1, 0, 2)),
    ],
)
def test_the_display_matrix_is_applied(tmp_path, matrix, rotation, turn):
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24], image[:16, 24:], image[16:, :24] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    write_video(tmp_path / "a.mp4", [image] * 3, 25)
    patch_matrix(tmp_path / "a.mp4", tmp_path / "b.mp4", matrix)
    expected = turn(image)
    info = probe_video(tmp_path / "b.mp4")
    assert (info.height, info.width) == expected.shape[:2]
    assert info.rotation == rotation
    frames = [frame for _, frame in read_video(tmp_path / "b.mp4")]
    assert len(frames) == 3
    for frame in frames:
        assert frame.flags.c_contiguous
        assert np.abs(frame.astype(int) - expected).mean() < 6  # the codec blurs colour at the edges of the quarters


def test_missing_folder_empty_device_and_film_without_frames_are_refused(tmp_path):
    assert "does not exist" in refusal(tmp_path / "no.mp4")
    assert "folder" in refusal(tmp_path)
    (tmp_path / "empty.mp4").touch()
    assert "empty" in refusal(tmp_path / "empty.mp4")
    assert "regular" in refusal(Path("/dev/zero"))
    write_empty_film(tmp_path / "a.mp4")
    assert "no frames" in refusal(tmp_path / "a.mp4")


def test_refusals_come_before_the_first_frame_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_video(tmp_path / "no.mp4")


def test_text_and_images_renamed_to_mp4_are_refused(tmp_path):
    (tmp_path / "a.mp4").write_text("not a video\n" * 100)
    assert "not a video" in refusal(tmp_path / "a.mp4")
    write_image(tmp_path / "a.png", np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "a.png").rename(tmp_path / "b.mp4")
    assert "not a video" in refusal(tmp_path / "b.mp4")


@pytest.mark.parametrize(
    "playlist",
    ["#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {}\n"],
)
def test_a_playlist_cannot_make_us_open_another_file(clip, tmp_path, playlist):
    (tmp_path / "a.mp4").write_text(playlist.format(clip))
    assert "not a video" in refusal(tmp_path / "a.mp4")


def test_a_name_that_looks_like_an_address_or_a_pattern_is_a_file_name(clip, tmp_path):
    for name in ("http:a.mp4", "a%03d.mp4", "ä b?.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
        assert probe_video(tmp_path / name).frames == 50


def test_an_mp4_without_its_index_is_refused_as_cut_short(clip, tmp_path):
    (tmp_path / "a.mp4").write_bytes(clip.read_bytes()[:100])
    assert "cut short" in refusal(tmp_path / "a.mp4") or "no frames" in refusal(tmp_path / "a.mp4")
    remux(clip, tmp_path / "b.mp4", "mp4")  # index at the end
    whole = (tmp_path / "b.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole[: len(whole) // 2])
    assert "index" in refusal(tmp_path / "b.mp4") and "cut short" in refusal(tmp_path / "b.mp4")


def test_an_mp4_cut_in_its_middle_is_refused_with_the_frame(clip, tmp_path):
    whole = clip.read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole[: len(whole) // 2])
    message = refusal(tmp_path / "a.mp4")
    frame = int(message.split("after frame ")[1].split(";")[0])
    assert "cut short" in message and 5 < frame < 45
    assert len(list(read_video(tmp_path / "a.mp4", max_frames=5))) == 5  # what is whole can be used


@pytest.mark.parametrize("filling", [b"\0", b"\xa5"])
def test_a_frame_that_cannot_be_decoded_is_named(clip, tmp_path, filling):
    data = bytearray(clip.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20_000] = filling * 20_000
    (tmp_path / "a.mp4").write_bytes(data)
    frames = read_video(tmp_path / "a.mp4")
    with pytest.raises(InputError, match=r"decoded from frame \d+") as caught:
        list(frames)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("form", "codec"), [("mp4", "aac"), ("wav", "pcm_s16le")])
def test_an_audio_only_file_is_refused(tmp_path, form, codec):
    write_film(tmp_path / "a.mp4", form, sounds=[Track(codec, rate=8000)])
    assert "no picture" in refusal(tmp_path / "a.mp4")


def test_a_video_over_a_limit_is_refused_with_its_number(clip):
    assert "49" in refusal(clip, Limits(max_frames=49))
    assert "limit is 1:" in refusal(clip, Limits(max_seconds=1))
    assert "95" in refusal(clip, Limits(max_side=95))
    assert "9,000" in refusal(clip, Limits(max_pixels=9000))
    assert "100" in refusal(clip, Limits(min_side=100))
    assert "1,000" in refusal(clip, Limits(max_file=1000))


@pytest.mark.parametrize("limits", [Limits(max_frames=20), Limits(max_seconds=0.8)])
def test_the_limits_are_checked_again_while_decoding(clip, monkeypatch, limits):
    info = probe_video(clip)
    monkeypatch.setattr(video, "probe_video", lambda *_: info)  # a probe that missed it
    count = 0
    with pytest.raises(InputError, match="limit"):
        for _ in read_video(clip, limits):
            count += 1
    assert count in (20, 21)


def test_a_size_that_changes_on_the_way_is_refused_with_the_frame(tmp_path):
    for name, side in (("a", 64), ("b", 96)):
        write_video(tmp_path / f"{name}.mp4", noise_frames(5, side, side), 25)
        remux(tmp_path / f"{name}.mp4", tmp_path / f"{name}.ts", "mpegts")
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with pytest.raises(InputError, match="frame 5 is 96x96, the first is 64x64"):
        list(read_video(both))


def test_times_rise_strictly_even_where_the_file_repeats_one(clip, tmp_path):
    remux(clip, tmp_path / "a.ts", "mpegts")
    both = tmp_path / "both.ts"  # the second half starts again at the first half's time
    both.write_bytes((tmp_path / "a.ts").read_bytes() * 2)
    times = [time for time, _ in read_video(both)]
    assert times[0] == 0 and len(times) > 50
    assert (np.diff(times) > 0).all()


def without_decoder(film: Path, *tags: bytes) -> Path:
    """A film in mp4 whose tracks of these codecs have names that no decoder has."""
    unknown = {b"avc1": (b"xvc9", b"avcC", b"xvcC"), b"mp4a": (b"mha1", b"esds", b"mhaC")}
    data = film.read_bytes()
    for tag in tags:
        name, header, other = unknown[tag]
        data = data.replace(tag, name).replace(header, other)
    film.write_bytes(data)
    return film


def test_an_animated_png_is_read_and_a_still_one_is_not(tmp_path):
    film = write_film(tmp_path / "a.png", "apng", Pictures(numbered(6), "apng", pixels="rgb24"))
    numbers = [number(frame) for _, frame in read_video(film)]
    assert numbers == list(range(6)) and probe_video(film).frames == 6
    write_image(tmp_path / "b.png", np.zeros((64, 64, 3), np.uint8))
    assert "not a video" in refusal(tmp_path / "b.png")


def test_undecodable_metadata_do_not_matter(tmp_path):
    film = write_film(tmp_path / "a.mkv", "matroska", Pictures(numbered(3)), metadata={"title": "QQQQ"})
    data = film.read_bytes()
    assert data.count(b"QQQQ") == 1
    film.write_bytes(data.replace(b"QQQQ", b"\xff\xfe\x80\xc3"))
    assert probe_video(film).frames == 3


@pytest.mark.parametrize(
    ("size", "aspect", "shown"),
    [
        ((48, 64), Fraction(4, 3), (48, 86)),
        ((64, 96), Fraction(16, 15), (64, 102)),  # PAL
        ((64, 96), Fraction(8, 9), (72, 96)),  # NTSC
        ((64, 64), Fraction(2), (64, 128)),
        ((64, 64), Fraction(1, 3), (192, 64)),
    ],
)
@pytest.mark.parametrize(("form", "codec"), [("mp4", "libx264"), ("matroska", "mpeg4"), ("mpegts", "libx264")])
def test_pixels_that_are_not_square_are_made_square(tmp_path, size, aspect, shown, form, codec):
    image = np.zeros((*size, 3), np.uint8)
    image[:, : size[1] // 2] = 200
    image[: size[0] // 4] = 100
    film = write_film(tmp_path / "a", form, Pictures([image] * 12, codec, {"bf": "0"}, aspect=aspect))
    info = probe_video(film)
    assert (info.height, info.width, info.pixel_aspect) == (*shown, aspect)
    expected = np.zeros((*shown, 3), np.uint8)
    expected[:, : shown[1] // 2] = 200
    expected[: shown[0] // 4] = 100
    frames = [frame for _, frame in read_video(film)]
    assert len(frames) == 12
    for frame in frames:
        assert frame.shape == expected.shape
        assert np.abs(frame.astype(int) - expected).mean() < 6  # the codec and the scaler blur two edges


@pytest.mark.parametrize(("matrix", "turn"), [((0, 1, -1, 0), -1), ((0, -1, 1, 0), 1), ((-1, 0, 0, -1), 2)])
def test_pixels_are_made_square_before_they_are_turned(tmp_path, matrix, turn):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:12, :32] = 220
    film = write_film(tmp_path / "a.mp4", "mp4", Pictures([image] * 2, aspect=Fraction(3, 2)))
    patch_matrix(film, film, matrix)
    expected = np.rot90(image.repeat(3, 1)[:, ::2], turn)
    info = probe_video(film)
    assert (info.height, info.width) == expected.shape[:2]
    _, frame = next(read_video(film))
    assert np.abs(frame.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("aspect", [Fraction(1, 50), Fraction(20), Fraction(1001, 1000), Fraction(1279, 1280), None])
def test_pixels_that_are_nearly_square_or_that_nobody_has_are_left(tmp_path, aspect, caplog):
    frames = noise_frames(3)
    film = write_film(tmp_path / "a.mp4", "mp4", Pictures(frames, aspect=aspect))
    plain = write_film(tmp_path / "b.mp4", "mp4", Pictures(frames))
    read, expected = ([frame for _, frame in read_video(file)] for file in (film, plain))
    assert len(read) == 3
    np.testing.assert_array_equal(read, expected)
    assert len(caplog.records) == (aspect in (Fraction(1, 50), 20))


@pytest.mark.parametrize("aspect", [(0, 0), (0, 1), (1, 0), (1, 1000), (255, 1), (2**32 - 1, 1), (1, 2**31)])
def test_a_senseless_shape_of_pixels_is_ignored(tmp_path, aspect):
    film = write_film(tmp_path / "a.mp4", "mp4", Pictures(numbered(3), "mpeg4", aspect=Fraction(4, 3)))
    data = bytearray(film.read_bytes())
    start = data.index(b"pasp") + 4
    data[start : start + 8] = struct.pack(">II", *aspect)
    film.write_bytes(data)
    info = probe_video(film)
    assert (info.width, info.height) in ((64, 64), (86, 64))  # 4:3 is stated by the codec, too
    assert [frame.shape for _, frame in read_video(film)] == [(64, info.width, 3)] * 3


def test_limits_hold_for_the_displayed_size(tmp_path):
    film = write_film(tmp_path / "a.mp4", "mp4", Pictures(noise_frames(2), aspect=Fraction(2)))
    assert "128x64" in refusal(film, Limits(max_side=100))
    assert "128x64" in refusal(film, Limits(max_pixels=64 * 100))
    assert probe_video(film, Limits(max_side=128)).width == 128


INTERLACED = [
    ("mp4", "libx264", {"x264-params": "tff=1", "crf": "5"}),
    ("matroska", "libx264", {"x264-params": "bff=1", "crf": "5", "bf": "0"}),
    ("mpegts", "mpeg2video", {"flags": "+ildct+ilme", "field_order": "tt", "qmax": "3"}),
    ("avi", "mpeg4", {"flags": "+ildct+ilme", "qmax": "3", "bf": "0"}),
]


@pytest.mark.parametrize(("form", "codec", "options"), INTERLACED)
def test_interlaced_frames_are_deinterlaced_with_a_warning(tmp_path, caplog, form, codec, options):
    frames = woven([bar(index) for index in range(48)])
    film = write_film(tmp_path / "a", form, Pictures(frames, codec, options))
    info = probe_video(film)
    times, shown = zip(*read_video(film), strict=True)
    assert info.frames == len(shown) == 24 and not info.variable_rate
    np.testing.assert_allclose(times, np.arange(24) / 25, rtol=0, atol=1e-4)

    def combed(images: Sequence[np.ndarray]) -> float:
        return float(np.mean([np.abs(np.diff(image.astype(int), axis=0)).mean() for image in images]))

    assert combed(frames) > 30 and combed(shown) < 0.3 * combed(frames)
    assert len(caplog.records) == 1
    part = [frame for _, frame in read_video(film, max_frames=5)]
    for frame, expected in zip(part[:4], shown, strict=False):  # the fifth has no next one to look at
        np.testing.assert_array_equal(frame, expected)
    assert len(part) == 5


@pytest.mark.parametrize(("form", "codec", "options"), INTERLACED)
def test_interlaced_frames_keep_their_colours_and_their_turn(tmp_path, form, codec, options):
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48], image[:32, 48:], image[32:, :48] = (200, 40, 40), (40, 200, 40), (40, 40, 200)
    film = write_film(tmp_path / "a", form, Pictures([image] * 12, codec, options))
    if form == "mp4":
        patch_matrix(film, film, (0, 1, -1, 0))
        image = np.rot90(image, -1)
    read = [frame for _, frame in read_video(film)]
    assert len(read) == 12
    for frame in read:
        assert np.abs(frame.astype(int) - image).mean() < 8  # the codec blurs colour at the edges of the quarters


def test_progressive_frames_come_through_the_deinterlacer_untouched(tmp_path, caplog):
    for name, options in (("a", {}), ("b", {"x264-params": "tff=1"})):
        frames = [bar(index) for index in range(6)]
        write_film(tmp_path / f"{name}.ts", "mpegts", Pictures(frames, options={"bf": "0", **options}))
    both = tmp_path / "both.ts"
    a, b = ((tmp_path / f"{name}.ts").read_bytes() for name in "ab")
    alone = [frame for _, frame in read_video(tmp_path / "a.ts")]
    assert not caplog.text
    both.write_bytes(a + b + a)
    shown = [frame for _, frame in read_video(both)]
    assert len(shown) == 18
    for frame, expected in zip(shown[:6] + shown[12:], alone * 2, strict=True):
        np.testing.assert_array_equal(frame, expected)


def test_pictures_without_a_decoder_are_refused_with_their_codecs_tag(tmp_path):
    film = write_film(tmp_path / "a.mp4", "mp4", Pictures(numbered(5)), [Track()])
    assert "xvc9" in refusal(without_decoder(film, b"avc1"))


def test_a_picture_track_without_a_decoder_does_not_hide_another(tmp_path):
    tracks = [Pictures(numbered(5)), Pictures(numbered(9), "mpeg4", default=False)]
    film = write_film(tmp_path / "a.mp4", "mp4", tracks)
    assert probe_video(film).frames == 5
    assert probe_video(without_decoder(film, b"avc1")).frames == 9


@pytest.mark.parametrize("form", ["matroska", "mov"])
def test_the_default_picture_track_is_taken(tmp_path, form):
    tracks = [Pictures(numbered(5), default=False), Pictures(numbered(9))]
    film = write_film(tmp_path / "a", form, tracks)
    assert probe_video(film).frames == len(list(read_video(film))) == 9


def test_subtitles_and_attachments_do_not_matter(tmp_path):
    film = write_film(tmp_path / "a.mkv", "matroska", Pictures(numbered(5)), [Track()])
    with av.open(str(film)) as old, av.open(str(tmp_path / "b.mkv"), "w", format="matroska") as new:
        new.add_attachment("a.ttf", "application/x-truetype-font", bytes(100))
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    info = probe_video(tmp_path / "b.mkv")
    assert (info.frames, info.has_audio) == (5, True) and len(list(read_video(tmp_path / "b.mkv"))) == 5


def test_a_refusal_for_length_says_how_many_frames_can_be_used(clip):
    for limits in (Limits(max_frames=20), Limits(max_seconds=0.78)):
        assert "frames=20," in refusal(clip, limits)
        assert len(list(read_video(clip, limits, max_frames=20))) == 20
    assert "frames=N" in refusal(clip, Limits(max_file=1000))
    assert len(list(read_video(clip, Limits(max_file=1000), max_frames=3))) == 3


def test_a_part_of_a_long_film_is_probed_without_reading_the_rest(tmp_path):
    film = write_film(tmp_path / "a.ts", "mpegts", Pictures(numbered(200, 16, 16) * 2))
    whole = probe_video(film)
    assert whole.frames == 400
    with film.open("ab") as file:
        file.truncate(2 * LIMITS.max_file)  # a hole, which takes no room and would take a while to search
    info = probe_video(film, max_frames=10)
    assert (info.frames, info.fps, info.start) == (10, whole.fps, whole.start)
    assert [number(frame) for _, frame in read_video(film, max_frames=10, info=info)] == list(range(10))


@pytest.mark.parametrize(
    ("form", "codec", "options", "sound"),
    [
        ("avi", "libx264", {"bf": "3"}, "libmp3lame"),
        ("mpegts", "mpeg2video", {"flags": "+ildct+ilme"}, "aac"),
        ("mp4", "libx264", {}, "aac"),
        ("webm", "libvpx", {"deadline": "realtime"}, "libopus"),
        ("ogg", "libvpx", {"deadline": "realtime"}, "flac"),
    ],
)
def test_damage_anywhere_is_refused_or_read_with_rising_times(tmp_path, form, codec, options, sound):
    film = write_film(tmp_path / "a", form, Pictures(numbered(20), codec, options), [Track(sound)], 0.8)
    whole = film.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(25):
        data = bytearray(whole)
        for start in random.integers(0, len(data), random.integers(1, 8)):
            length = int(random.integers(1, 64))
            data[start : start + length] = random.bytes(length)
        film.write_bytes(data[: int(random.integers(len(data) // 2, len(data) + 1))])
        times: list[float] = []
        try:
            for time, frame in read_video(film):
                assert frame.shape == (64, 64, 3) or frame.ndim == 3
                times.append(time)
        except InputError as error:
            assert "\n" not in str(error) and str(film) in str(error)
        check_times(times)
        try:
            write_video(tmp_path / "out.mp4", numbered(3), 25, audio_from=film)
        except InputError as error:
            assert str(film) in str(error)
