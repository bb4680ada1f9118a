"""When frames are shown: the first, the last, and those between, in files that state it badly or not at all."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from hypothesis import given, settings
from hypothesis import strategies as st

from fye_rt.errors import InputError
from fye_rt.media import check_times, probe_video, read_video, write_video
from fye_rt.media.times import CLOCK, clock_tick, mended
from tests.fye_rt.media.media_files import Pictures, Track, cut_stream, number, numbered, onset, write_film

LONG_GROUPS = {"g": "20", "keyint_min": "20", "sc_threshold": "0", "bf": "2"}


def shown(path: Path, max_frames: int | None = None) -> tuple[list[float], list[int]]:
    """Times and numbers of a film's frames."""
    times, frames = zip(*read_video(path, max_frames=max_frames), strict=True)
    return list(times), [number(frame) for frame in frames]


def without_start(source: Path, target: Path, form: str) -> Path:
    """A film that begins with its second key frame, copied: the frames before it that need the first group are left."""
    with av.open(str(source)) as old, av.open(str(target), "w", format=form) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        keys = 0
        for packet in old.demux(old.streams.video[0]):
            keys += packet.is_keyframe
            if packet.size and keys >= 2:
                packet.stream = stream
                new.mux(packet)
    return target


@pytest.mark.parametrize(
    ("form", "codec", "options"), [("mpegts", "libx264", LONG_GROUPS), ("mpegts", "mpeg2video", {"g": "20", "bf": "2"})]
)
def test_a_stream_cut_in_a_group_begins_with_its_first_whole_frame(tmp_path, form, codec, options):
    film = write_film(tmp_path / "a", form, Pictures(numbered(100), codec, options), [Track("aac", 2.4)], 4.0)
    cut = cut_stream(film, tmp_path / "cut", 0.3)
    info = probe_video(cut)
    times, numbers = shown(cut)
    assert 20 < info.frames < 80 and len(times) == info.frames
    assert numbers == list(range(100 - info.frames, 100))
    np.testing.assert_allclose(times, np.arange(info.frames) / 25, rtol=0, atol=1e-9)
    assert (info.fps, info.variable_rate) == (25, False)
    assert info.seconds == pytest.approx(info.frames / 25)
    write_video(tmp_path / "out.mp4", (frame for _, frame in read_video(cut)), 25, audio_from=cut)
    assert onset(tmp_path / "out.mp4") == pytest.approx(2.4 - numbers[0] / 25, abs=0.005)  # an AAC packet rings 5 ms


@pytest.mark.parametrize("form", ["matroska", "mpegts"])
def test_leading_frames_of_an_open_group_are_not_counted(tmp_path, form):
    options = {"x265-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0:log-level=none"}
    write_film(tmp_path / "whole", "matroska", Pictures(numbered(48), "libx265", options))
    cut = without_start(tmp_path / "whole", tmp_path / "cut", form)
    info = probe_video(cut)
    times, numbers = shown(cut)
    assert numbers == list(range(48 - info.frames, 48)) and info.frames == len(times) == 36
    assert times[0] == 0 and info.seconds == pytest.approx(36 / 25, abs=0.002)  # Matroska counts in 1/1000 s


def test_packets_that_show_nothing_are_not_counted(tmp_path):
    source = write_film(tmp_path / "a", "webm", Pictures(numbered(30), "libvpx", {"deadline": "realtime"}))
    film = tmp_path / "b"
    with av.open(str(source)) as old, av.open(str(film), "w", format="webm") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for index, packet in enumerate(old.demux(old.streams.video[0])):
            if packet.size:
                data = bytearray(bytes(packet))
                data[0] &= ~0x10 if index % 5 == 4 else 0xFF  # the bit says that the frame is shown
                hidden = av.Packet(bytes(data))
                hidden.pts, hidden.dts, hidden.time_base = packet.pts, packet.dts, packet.time_base
                hidden.is_keyframe, hidden.stream = packet.is_keyframe, stream
                new.mux(hidden)
    times, numbers = shown(film)
    assert probe_video(film).frames == len(times) == 24
    assert numbers == [index for index in range(30) if index % 5 != 4]
    np.testing.assert_allclose(times, np.array(numbers) / 25, rtol=0, atol=1e-3)  # WebM counts in 1/1000 s


@pytest.mark.parametrize(
    ("form", "codec", "options"),
    [
        ("mp4", "libx264", LONG_GROUPS),
        ("matroska", "libx264", LONG_GROUPS),
        ("mpegts", "libx264", LONG_GROUPS),
        ("mpegts", "mpeg2video", {"bf": "2"}),
        ("mp4", "libx265", {"x265-params": "bframes=3:log-level=none"}),
        ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
        ("avi", "mjpeg", {}),
        ("flv", "libx264", {"bf": "2"}),
    ],
)
def test_an_ordinary_film_is_probed_with_one_frame_decoded(tmp_path, decoded, form, codec, options):
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    film = write_film(tmp_path / "a", form, Pictures(numbered(48), codec, options, pixels))
    assert probe_video(film).frames == 48
    assert len(decoded) == 1


@pytest.mark.parametrize("frames", ["1", "2", "3"])
def test_b_frames_in_a_container_without_times_are_even(tmp_path, frames):
    options = {"bf": frames, "b_strategy": "0", "g": "20"}
    film = write_film(tmp_path / "a.avi", "avi", Pictures(numbered(60), options=options))
    info = probe_video(film)
    times, numbers = shown(film)
    assert (info.frames, info.variable_rate, info.fps) == (60, False, 25) and numbers == list(range(60))
    np.testing.assert_allclose(times, np.arange(60) / 25, rtol=0, atol=1e-9)
    assert info.seconds == pytest.approx(60 / 25)
    write_video(tmp_path / "a.mp4", numbered(60), info.fps, times=times, seconds=info.seconds)
    np.testing.assert_allclose(shown(tmp_path / "a.mp4")[0], np.arange(60) / 25, rtol=0, atol=1e-9)
    for count in (1, 2, 3, 5):
        assert shown(film, count) == (times[:count], numbers[:count])
        assert probe_video(film, max_frames=count).start == info.start


def test_b_frames_copied_from_mp4_to_avi_are_even(tmp_path):
    write_film(tmp_path / "a.mp4", "mp4", Pictures(numbered(60), options={"bf": "3", "b_strategy": "0", "g": "30"}))
    with av.open(str(tmp_path / "a.mp4")) as old, av.open(str(tmp_path / "a.avi"), "w", format="avi") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        unpack = BitStreamFilterContext("h264_mp4toannexb", old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            for unpacked in unpack.filter(packet if packet.size else None):
                unpacked.stream = stream
                new.mux(unpacked)
    times, numbers = shown(tmp_path / "a.avi")
    assert numbers == list(range(60))
    np.testing.assert_allclose(times, np.arange(60) / 25, rtol=0, atol=1e-9)


def test_times_closer_than_a_tick_of_a_written_clip_are_spread(tmp_path):
    ticks = [0, 3, 6, 9, 40_000, 40_002, 80_000]  # in microseconds; a tick of a written clip is 11
    film = write_film(
        tmp_path / "a.mp4", "mp4", Pictures(numbered(7), options={"bf": "0"}, times=ticks, tick=Fraction(1, 1_000_000))
    )
    times, _ = shown(film)
    np.testing.assert_allclose(times, np.array(ticks) / 1e6, rtol=0, atol=4 / 90_000)
    check_times(times)
    write_video(tmp_path / "b.mp4", numbered(7), 25, times=times)
    assert len(shown(tmp_path / "b.mp4")[0]) == 7


def test_a_part_ends_at_the_next_frame_s_time(tmp_path):
    film = write_film(tmp_path / "a.mp4", "mp4", Pictures(numbered(6), options={"bf": "0"}, times=[0, 1, 2, 7, 8, 9]))
    info = probe_video(film, max_frames=3)
    assert (info.frames, info.seconds) == (3, pytest.approx(7 / 25))
    assert probe_video(film, max_frames=50).frames == 6


@pytest.mark.parametrize(
    ("times", "rate"), [([0, 1000], 0.1), ([0], 25), ([0, 1, 2, 3], 25)], ids=["slides", "still", "film"]
)
def test_a_probed_rate_can_be_written(tmp_path, times, rate):
    film = write_film(tmp_path / "a.mp4", "mp4", Pictures(numbered(len(times)), options={"bf": "0"}, times=times))
    assert float(probe_video(film).fps) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ([(0, 0), (2, 1), (4, 2)], [0, 2, 4]),  # rising
        ([(1, 2), (4, 3), (3, 4), (5, 5), (2, None)], [2, 3, 4, 5, 6]),  # the decoder's, extended
        ([(0, None), (2, None), (1, None), (3, None)], [0, 1, 2, 3]),  # exchanged
        ([(7, 0), (8, 0), (8, 0), (9, 0), (10, 0)], [7, 8, 9, 10, 11]),  # repeated
        ([(k % 20 * 5, k % 20 * 5) for k in range(40)], [*range(0, 200, 5)]),  # starts again
        ([(None, None), (None, None)], [0, 1]),
        ([(5, None), (6, None), (None, None), (None, None)], [5, 6, 7, 8]),
        ([(None, None), (6, None), (3, None)], [0, 6, 7]),
        ([(-9, -9)], [-9]),
    ],
)
def test_stated_times_are_mended_to_rise(stated, expected):
    assert mended(stated) == expected


@settings(derandomize=True, max_examples=200)
@given(st.lists(st.tuples(*[st.none() | st.integers(-(2**40), 2**40) | st.integers(0, 9)] * 2), min_size=1))
def test_mended_times_rise_whatever_is_stated(stated):
    ticks = mended(stated)
    assert len(ticks) == len(stated) and (np.diff(ticks) > 0).all()


@pytest.mark.parametrize("time", [0.04 + 1e-9, 0.04 - 1e-9, 0.03, -1.0, float("nan"), 1e6])
def test_times_that_cannot_be_written_are_refused_with_their_frame(time):
    check_times([0, 0.04, 0.04 + float(CLOCK)])
    with pytest.raises(InputError, match="the time of frame 2"):
        check_times([0, 0.04, time])
    assert clock_tick(0.04) == 3600
