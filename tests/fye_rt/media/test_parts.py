"""A part of a driving video: which frames it has, when they are shown, and what is decoded for it."""

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fye_rt.errors import InputError
from fye_rt.media import Limits, packets, probe_video, read_video
from fye_rt.media.sound import Sound
from tests.fye_rt.media.media_files import Pictures, Track, cut_stream, number, numbered, onset, woven, write_film

GROUPS = {"g": "10", "keyint_min": "10", "sc_threshold": "0", "bf": "2"}
FRAMES = 100  # four seconds
KINDS = {
    "mp4": ("mp4", Pictures(numbered(FRAMES), "libx264", GROUPS)),
    "mov": ("mov", Pictures(numbered(FRAMES), "libx264", GROUPS)),
    "mkv": ("matroska", Pictures(numbered(FRAMES), "libx264", GROUPS)),
    "ts": ("mpegts", Pictures(numbered(FRAMES), "libx264", GROUPS)),
    "ts, mpeg2": ("mpegts", Pictures(numbered(FRAMES), "mpeg2video", {"g": "10", "bf": "2"})),
    "hevc": ("mp4", Pictures(numbered(FRAMES), "libx265", {"x265-params": "keyint=10:open-gop=1:log-level=none"})),
    "vp9": ("webm", Pictures(numbered(FRAMES), "libvpx-vp9", {"g": "10", "deadline": "realtime", "cpu-used": "8"})),
    "mjpeg": ("avi", Pictures(numbered(FRAMES), "mjpeg", pixels="yuvj420p")),
    "flv": ("flv", Pictures(numbered(FRAMES), "libx264", GROUPS)),
    # these state too little to be searched
    "vp8": ("webm", Pictures(numbered(FRAMES), "libvpx", {"g": "10", "deadline": "realtime"})),
    "avi": ("avi", Pictures(numbered(FRAMES), "libx264", GROUPS)),
    "gif": ("gif", Pictures(numbered(FRAMES), "gif", pixels="rgb8")),
    "apng": ("apng", Pictures(numbered(FRAMES), "apng", pixels="rgb24")),
    "interlaced": ("mpegts", Pictures(woven(numbered(2 * FRAMES)), "libx264", {"x264-params": "tff=1", **GROUPS})),
    "late": ("matroska", Pictures(numbered(FRAMES), "libx264", GROUPS, times=range(40, 40 + FRAMES))),
}
SEARCHED = ("mp4", "mov", "mkv", "ts", "ts, mpeg2", "hevc", "vp9", "mjpeg", "flv", "late")


@pytest.fixture(scope="module", params=KINDS)
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    form, pictures = KINDS[request.param]
    return write_film(tmp_path_factory.mktemp("film") / "a", form, pictures)


def refusal(path: Path, start: float, seconds: float | None) -> str:
    with pytest.raises(InputError) as caught:
        probe_video(path, start=start, seconds=seconds)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.mark.parametrize(
    ("start", "seconds", "most", "first", "last"),
    [
        (0.0, None, None, 0, 100),
        (0.0, 1.0, None, 0, 25),
        (2.0, 1.0, None, 50, 75),
        (1.01, 0.5, None, 26, 38),
        (1.48, 0.04, None, 37, 38),
        (3.0, None, None, 75, 100),
        (2.4, None, 7, 60, 67),
        (0.4, 9.0, None, 10, 100),
        (1.2, 2.0, 3, 30, 33),
        (0.08, 0.2, None, 2, 7),
    ],
)
def test_a_part_has_the_frames_of_the_whole_between_its_times(film, start, seconds, most, first, last):
    whole = list(read_video(film))
    assert len(whole) == FRAMES
    info = probe_video(film, max_frames=most, start=start, seconds=seconds)
    part = list(read_video(film, max_frames=most, start=start, seconds=seconds))
    assert info.frames == len(part) == last - first
    assert float(info.offset) == pytest.approx(first / 25, abs=0.001)  # Matroska's clock
    assert info.start == probe_video(film).start + info.offset
    assert part[0][0] == 0.0
    for (time, image), (time_in_whole, expected) in zip(part, whole[first:last], strict=True):
        assert time == pytest.approx(time_in_whole - whole[first][0], abs=1e-6)
        np.testing.assert_array_equal(image, expected)
    end = min(4.0, start + (seconds or 9)) if most is None else last / 25
    assert info.seconds == pytest.approx(end - first / 25, abs=0.0011)
    assert not info.variable_rate and (info.fps == 25 or len(part) < 8)
    again = list(read_video(film, max_frames=most, info=info, start=start, seconds=seconds))
    assert [time for time, _ in again] == [time for time, _ in part]


@pytest.mark.parametrize("film", SEARCHED, indirect=True)
def test_a_part_is_decoded_from_the_key_frame_before_it(film, decoded):
    part = list(read_video(film, start=3.08, seconds=0.2))
    assert [number(image) for _, image in part] == list(range(77, 82))
    # the probe's first frame, a group, in MPEG-TS the one before it, the part, one that ends it
    assert len(decoded) <= 1 + 10 + 10 + 5 + 1


@pytest.mark.parametrize(
    ("start", "seconds"),
    [(4.0, None), (4.5, 1.0), (1e9, None), (-0.1, None), (-3.0, 9.0), (math.nan, None), (math.inf, None),
     (1.0, 0.0), (1.0, -1.0), (1.0, math.nan), (0.0, math.inf), (1.005, 0.01)],
)  # fmt: skip
def test_a_part_without_a_frame_is_refused_with_the_videos_length(film, start, seconds):
    message = refusal(film, start, seconds)
    assert "is 4.00 seconds long" in message and f"start={start:g}" in message
    assert (seconds is None) == ("seconds=" not in message)


def test_limits_hold_for_the_part(film):
    for limits in (Limits(max_frames=30), Limits(max_seconds=1.2), Limits(max_file=1000)):
        assert probe_video(film, limits, start=2.0, seconds=1.0).frames == 25
        with pytest.raises(InputError, match=r"frames=3[01],|seconds=S"):
            probe_video(film, limits, start=1.0)
    with pytest.raises(InputError, match="the limit is 20:"):
        probe_video(film, Limits(max_frames=20), start=1.0, seconds=1.0)


def test_a_part_of_a_stream_that_was_cut_begins_where_it_is_shown(tmp_path):
    film = write_film(tmp_path / "a.ts", "mpegts", Pictures(numbered(FRAMES), "libx264", GROUPS))
    cut = cut_stream(film, tmp_path / "cut.ts", 0.3)
    whole = list(read_video(cut))
    part = list(read_video(cut, start=1.0, seconds=0.4))
    assert [number(image) for _, image in part] == [number(image) for _, image in whole[25:35]]


def test_a_part_of_uneven_times_has_the_frames_that_begin_in_it(tmp_path):
    ticks = [0, 1, 2, 5, 6, 30, 31, 32, 50, 52]
    film = write_film(tmp_path / "a.mkv", "matroska", Pictures(numbered(10), times=ticks))
    info = probe_video(film, start=0.2, seconds=1.2)
    part = list(read_video(film, start=0.2, seconds=1.2))
    assert [number(image) for _, image in part] == [3, 4, 5, 6, 7]
    np.testing.assert_allclose([time for time, _ in part], [0, 0.04, 1.0, 1.04, 1.08], atol=0.001)
    assert info.variable_rate and info.seconds == pytest.approx(1.2, abs=0.001)  # the last is shown until its end
    assert "2.1" in refusal(film, 0.3, 0.5)


def test_an_edit_list_moves_the_part(tmp_path):
    """A film that a telephone has trimmed: its first frames are stored, but not shown."""
    film = write_film(tmp_path / "a.mov", "mov", Pictures(numbered(FRAMES), "libx264", GROUPS))
    data = bytearray(film.read_bytes())
    entry = data.index(b"elst") + 12  # version, count; then duration, media time
    shift = int.from_bytes(data[entry + 4 : entry + 8], "big")
    scale = int.from_bytes(data[(at := data.index(b"mdhd")) + 16 : at + 20], "big")
    data[entry + 4 : entry + 8] = (shift + 33 * scale // 25).to_bytes(4, "big")
    film.write_bytes(data)
    whole = [number(image) for _, image in read_video(film)]
    assert whole == list(range(33, FRAMES))
    part = [number(image) for _, image in read_video(film, start=1.0, seconds=0.2)]
    assert part == list(range(58, 63))


def test_the_rest_of_a_long_film_is_not_read_for_a_part(tmp_path, monkeypatch):
    film = write_film(tmp_path / "a.mp4", "mp4", Pictures(numbered(250, 16, 16) * 8, "libx264", GROUPS))
    read: list[object] = []
    add = packets._Scan._add

    def counted(scan: packets._Scan, packet: av.Packet) -> int:
        read.append(packet.pts)
        return add(scan, packet)

    monkeypatch.setattr(packets._Scan, "_add", counted)
    part = [number(image) for _, image in read_video(film, start=60.0, seconds=0.4)]
    assert part == [(1500 + k) % 250 for k in range(10)]
    assert len(read) < 350 < 2000  # the head, a group, the part, 256 packets behind it


@pytest.mark.parametrize(
    ("form", "codec"),
    [("mp4", "aac"), ("matroska", "libopus"), ("mpegts", "aac"), ("avi", "pcm_s16le"), ("ogg", "flac")],
)
@pytest.mark.parametrize("start", [0.0, 1.0, 2.52])
def test_sound_is_in_step_with_the_part(tmp_path, form, codec, start):
    pictures = "libvpx" if form == "ogg" else "libx264"
    options = {"deadline": "realtime"} if form == "ogg" else {"bf": "0"}
    film = write_film(tmp_path / "a", form, Pictures(numbered(FRAMES), pictures, options), [Track(codec, 3.0)], 4.0)
    info = probe_video(film, start=start)
    out = tmp_path / "out.mp4"
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        sound = Sound(container, film, info.offset)
        for index, (_, image) in enumerate(read_video(film, info=info, start=start)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
            sound.lay(container, Fraction(index + 1, 25))
        container.mux(stream.encode(None))
        sound.close()
    # AVI does not state when H.264 is shown: FFmpeg takes it a frame late; an AAC packet or a coder's ringing are less
    assert onset(out) == pytest.approx(3.0 - start, abs=0.041 if form == "avi" else 0.03 if form == "mpegts" else 0.01)
