import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fye_rt.errors import InputError, OptionError, OutputError
from fye_rt.media import LIMITS, VideoWriter, probe_video, read_video, write_video
from tests.fye_rt.command_line import ROOT
from tests.fye_rt.media.media_files import Pictures, Track, noise_frames, onset, write_film

TONE = 1000.0  # of `Track`
SHORT = [np.full((64, 64, 3), 90, np.uint8)] * 50


def heard(path: Path) -> tuple[str, np.ndarray, int]:
    """Codec, samples of the first channel from time 0 on, sample rate."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        parts = []
        for frame in container.decode(stream):
            samples = frame.to_ndarray().astype(np.float64)
            parts.append(samples[0] if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)[:, 0])
        return stream.codec_context.codec.canonical_name, np.concatenate(parts), stream.rate


def frequency(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax()) * rate / len(samples)


def test_a_clip_reads_back_with_its_size_rate_and_length(tmp_path):
    write_video(tmp_path / "a.mp4", noise_frames(30), Fraction(30000, 1001))
    info = probe_video(tmp_path / "a.mp4")
    assert (info.width, info.height, info.frames, info.fps) == (64, 64, 30, Fraction(30000, 1001))
    assert info.seconds == pytest.approx(1.001, abs=1e-4)  # ticks of 1/90000 s
    assert not info.variable_rate and not info.has_audio


def test_a_clip_is_h264_with_420_colour_and_its_index_in_front(tmp_path):
    write_video(tmp_path / "a.mp4", noise_frames(5), 25)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_a_written_picture_survives_above_40_db(tmp_path):
    smooth = np.indices((64, 64)).sum(0)[..., None].repeat(3, 2).astype(np.uint8)
    write_video(tmp_path / "a.mp4", [np.roll(smooth, 2 * index, 0) for index in range(10)], 25)
    frames = [frame for _, frame in read_video(tmp_path / "a.mp4")]
    assert len(frames) == 10
    for index, frame in enumerate(frames):
        error = frame.astype(int) - np.roll(smooth, 2 * index, 0)
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 40  # dB; crf 17 gives more on a smooth picture


@pytest.mark.parametrize("fps", [1, 7, 12.5, 23.976, 29.97, 60])
def test_any_usual_rate_is_kept(tmp_path, fps):
    write_video(tmp_path / "a.mp4", noise_frames(12), fps)
    assert float(probe_video(tmp_path / "a.mp4").fps) == pytest.approx(fps, rel=1e-3)


def test_an_odd_size_grows_by_a_copy_of_its_edge(tmp_path):
    image = np.full((33, 47, 3), 60, np.uint8)
    image[-1:] = image[:, -1:] = 200
    write_video(tmp_path / "a.mp4", [image] * 3, 25)
    _, frame = next(read_video(tmp_path / "a.mp4"))
    assert frame.shape == (34, 48, 3)
    assert np.abs(frame[:33, :47].astype(int) - image).mean() < 6  # the codec's rounding at the bright edge
    assert np.abs(frame[-1].astype(int) - 200).max() < 12 and np.abs(frame[:, -1].astype(int) - 200).max() < 12


def test_one_frame_makes_a_clip(tmp_path):
    write_video(tmp_path / "a.mp4", noise_frames(1), 25)
    info = probe_video(tmp_path / "a.mp4")
    assert (info.frames, info.seconds, info.variable_rate) == (1, pytest.approx(0.04), False)


def test_variable_times_survive_a_whole_round(tmp_path):
    times = [0.0, 0.04, 0.08, 0.2, 0.24, 0.5, 0.52, 0.9]
    write_video(tmp_path / "a.mp4", noise_frames(8), 25, times=times, seconds=1.4)
    info = probe_video(tmp_path / "a.mp4")
    assert info.variable_rate
    assert info.seconds == pytest.approx(1.4, abs=1e-4)  # the last frame stays until the end
    read = [time for time, _ in read_video(tmp_path / "a.mp4")]
    np.testing.assert_allclose(read, times, rtol=0, atol=1 / 90_000)  # a tick of the file's clock
    write_video(tmp_path / "b.mp4", (frame for _, frame in read_video(tmp_path / "a.mp4")), info.fps, times=read)
    again = [time for time, _ in read_video(tmp_path / "b.mp4")]
    np.testing.assert_allclose(again, times, rtol=0, atol=1 / 90_000)


@pytest.mark.parametrize(
    "times", [[0, 0.1, 0.1], [0, 0.2, 0.1], [0, 0.1], [-0.1, 0, 0.1], [0, float("nan"), 1], [0, 1, 1e9]]
)
def test_falling_missing_and_senseless_times_are_refused(tmp_path, times):
    with pytest.raises(InputError, match="time"):
        write_video(tmp_path / "a.mp4", noise_frames(3), 25, times=times)
    assert not list(tmp_path.iterdir())


def test_frames_are_streamed_not_collected(tmp_path):
    alive, most = 0, 0

    class Counted(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= self.base is not None and self.shape == (64, 64, 3)

    def frames() -> Iterator[np.ndarray]:
        nonlocal alive, most
        for image in noise_frames(60):
            alive += 1
            most = max(most, alive)
            yield image.view(Counted)

    write_video(tmp_path / "a.mp4", frames(), 25)
    assert most <= 4


@pytest.mark.parametrize(
    ("form", "codec", "rate", "result"),
    [
        ("mp4", "aac", 44100, "aac"),
        ("mp4", "libmp3lame", 44100, "mp3"),
        ("mpegts", "aac", 48000, "aac"),
        ("matroska", "libopus", 48000, "opus"),
        ("avi", "pcm_s16le", 22050, "aac"),
        ("matroska", "flac", 48000, "aac"),
        ("matroska", "pcm_s16le", 11000, "aac"),  # a rate that AAC does not have
    ],
)
def test_the_sound_survives_cut_to_the_clip(tmp_path, form, codec, rate, result):
    write_film(tmp_path / "drive", form, Pictures(SHORT), [Track(codec, rate=rate)])
    assert probe_video(tmp_path / "drive").has_audio
    write_video(tmp_path / "a.mp4", noise_frames(25), 25, audio_from=tmp_path / "drive")
    name, samples, sample_rate = heard(tmp_path / "a.mp4")
    assert name == result
    packet = 1152 / min(rate, sample_rate)  # the longest packet, MP3's, in seconds; the cut falls between packets
    assert 1 - packet <= len(samples) / sample_rate <= 1 + packet
    assert frequency(samples, sample_rate) == pytest.approx(TONE, abs=2)  # a bin of a second's spectrum is 1 Hz
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    assert np.abs(middle).max() == pytest.approx(16000 / 32768, rel=0.1) or np.abs(middle).max() > 14000
    info = probe_video(tmp_path / "a.mp4")
    assert info.frames == 25 and info.seconds == pytest.approx(1, abs=1e-3)


def test_copied_sound_is_the_same_packets(tmp_path):
    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    write_film(tmp_path / "drive.mp4", "mp4", Pictures(SHORT), [Track(rate=44100)])
    write_video(tmp_path / "a.mp4", noise_frames(25), 25, audio_from=tmp_path / "drive.mp4")
    copied = packets(tmp_path / "a.mp4")
    assert len(copied) > 40
    assert copied == packets(tmp_path / "drive.mp4")[: len(copied)]


@pytest.mark.parametrize(("form", "codec"), [("matroska", "flac"), ("mp4", "aac")])
def test_sound_stays_in_step_with_a_picture_that_starts_late(tmp_path, form, codec):
    write_film(tmp_path / "drive", form, Pictures(SHORT, times=range(25, 75)), [Track(codec)], 1.5)
    write_video(tmp_path / "a.mp4", noise_frames(50), 25, audio_from=tmp_path / "drive")
    with av.open(str(tmp_path / "a.mp4")) as container:
        ends = [(frame.time or 0) + frame.samples / frame.sample_rate for frame in container.decode(audio=0)]
    assert ends[-1] == pytest.approx(0.5, abs=0.05)  # 1.5 s less 1 s before the picture; AAC packets are 0.02 s


def test_a_sound_file_can_be_laid_under(tmp_path):
    write_film(tmp_path / "a.wav", "wav", sounds=[Track("pcm_s16le", rate=16000)])
    write_video(tmp_path / "a.mp4", noise_frames(25), 25, audio_from=tmp_path / "a.wav")
    _, samples, rate = heard(tmp_path / "a.mp4")
    assert frequency(samples, rate) == pytest.approx(TONE, abs=2)


def test_a_silent_driving_video_gives_a_silent_clip(tmp_path):
    write_video(tmp_path / "a.mp4", noise_frames(5), 25)
    write_video(tmp_path / "b.mp4", noise_frames(5), 25, audio_from=tmp_path / "a.mp4")
    assert not probe_video(tmp_path / "b.mp4").has_audio


def test_an_unreadable_sound_source_is_refused_before_a_frame_is_taken(tmp_path):
    (tmp_path / "a.wav").write_text("no sound")

    def frames() -> Iterator[np.ndarray]:
        yield from noise_frames(1)
        raise AssertionError("a second frame was computed")

    for name in ("a.wav", "missing.wav"):
        with pytest.raises(InputError, match=name):
            write_video(tmp_path / "a.mp4", frames(), 25, audio_from=tmp_path / name)
    assert not (tmp_path / "a.mp4").exists()


def test_damaged_sound_costs_no_clip(tmp_path, caplog):
    write_film(tmp_path / "drive.mp4", "mp4", Pictures(SHORT), [Track("flac")])
    data = bytearray((tmp_path / "drive.mp4").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 10_000] = bytes(10_000)
    (tmp_path / "drive.mp4").write_bytes(data)
    with caplog.at_level(logging.WARNING, "fye_rt"):
        write_video(tmp_path / "a.mp4", noise_frames(50), 25, audio_from=tmp_path / "drive.mp4")
    assert "sound" in caplog.text and "damaged" in caplog.text
    assert probe_video(tmp_path / "a.mp4").frames == 50


@pytest.mark.parametrize(
    ("frames", "what"),
    [
        ([], "no frames"),
        ([np.zeros((8, 8, 3), np.float32)], "uint8"),
        ([np.zeros((8, 8), np.uint8)], "uint8"),
        ([np.zeros((16, 16, 3), np.uint8), np.zeros((16, 32, 3), np.uint8)], "one size"),
    ],
)
def test_wrong_frames_are_refused_and_leave_nothing(tmp_path, frames, what):
    with pytest.raises(InputError, match=what):
        write_video(tmp_path / "a.mp4", frames, 25)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_another_suffix_and_a_senseless_rate_are_refused(tmp_path):
    with pytest.raises(OutputError, match="folder"):
        write_video(tmp_path / "no" / "a.mp4", noise_frames(1), 25)
    with pytest.raises(OptionError, match="mp4"):
        write_video(tmp_path / "a.avi", noise_frames(1), 25)
    for fps in (0, -5, 1e6, float("nan")):
        with pytest.raises(OptionError, match="fps"):
            write_video(tmp_path / "a.mp4", noise_frames(1), fps)


def test_an_error_in_the_frames_leaves_the_old_file(tmp_path):
    write_video(tmp_path / "a.mp4", noise_frames(3), 25)
    before = (tmp_path / "a.mp4").read_bytes()

    def frames() -> Iterator[np.ndarray]:
        yield from noise_frames(2)
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        write_video(tmp_path / "a.mp4", frames(), 25)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == before


WRITER = """
import resource, sys, time
import numpy as np
from fye_rt.errors import OutputError
from fye_rt.media import write_video

mode, path = sys.argv[1:3]
noise = np.random.default_rng(0)

def frames(count):
    for index in range(count):
        if mode == "hang" and index == 100:
            print("half way", flush=True)
            time.sleep(60)
        yield noise.integers(0, 255, (96, 96, 3), np.uint8)

if mode != "hang":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(mode), int(mode)))
try:
    write_video(path, frames(150), 25)
    print("written")
except OutputError as error:
    print("OutputError", error)
"""


def writer(mode: str, path: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", WRITER, mode, str(path)], stdout=subprocess.PIPE, text=True, env=env)


@pytest.mark.parametrize("limit", [0, 4096, 300_000, 900_000])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path, limit):
    # a limit on the file's size refuses writes as a full disk does, needs no mount, and Python ignores its signal
    output, _ = writer(str(limit), tmp_path / "a.mp4").communicate(timeout=60)
    assert output.startswith(f"OutputError cannot write {tmp_path / 'a.mp4'}"), output
    assert not list(tmp_path.iterdir())


def test_frames_added_one_by_one_make_the_same_file(tmp_path):
    images = noise_frames(3)
    write_video(tmp_path / "a.mp4", images, 25)
    with VideoWriter(tmp_path / "b.mp4", 25) as video:
        for image in images:
            video.add(image)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_kill_9_in_mid_write_leaves_nothing_under_the_final_name(tmp_path):
    process = writer("hang", tmp_path / "a.mp4")
    try:
        assert process.stdout is not None and process.stdout.readline() == "half way\n"
        assert any(tmp_path.iterdir())  # it is writing, under another name
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert not (tmp_path / "a.mp4").exists()


def laid(source: Path, target: Path, frames: int = 50) -> Path:
    write_video(target, noise_frames(frames), 25, audio_from=source)
    return target


@pytest.mark.parametrize(
    ("form", "codec"), [("mp4", "aac"), ("matroska", "flac"), ("mov", "pcm_s16le"), ("matroska", "libopus")]
)
def test_the_default_sound_track_is_taken(tmp_path, form, codec):
    tracks = [Track(codec, 9.0, default=False), Track(codec, 1.0), Track(codec, 0.2)]
    film = write_film(tmp_path / "drive", form, Pictures(SHORT), tracks)
    assert onset(laid(film, tmp_path / "a.mp4")) == pytest.approx(1.0, abs=0.005)  # a coder rings 5 ms before a tone


def test_the_first_sound_track_is_taken_where_none_is_default(tmp_path):
    tracks = [Track("aac", 0.5, default=False), Track("aac", 1.0, default=False)]
    film = write_film(tmp_path / "drive", "matroska", Pictures(SHORT), tracks)
    assert onset(laid(film, tmp_path / "a.mp4")) == pytest.approx(0.5, abs=0.005)


def test_a_sound_track_without_a_decoder_does_not_hide_another(tmp_path, caplog):
    tracks = [Track("aac", 0.5), Track("libmp3lame", 1.0, default=False)]
    film = write_film(tmp_path / "drive.mp4", "mp4", Pictures(SHORT), tracks)
    data = film.read_bytes()
    first = data.index(b"mp4a")
    assert data.index(b"esds", first) < data.index(b"mp4a", first + 4)
    patched = data[:first] + data[first:].replace(b"mp4a", b"mha1", 1).replace(b"esds", b"mhaC", 1)
    film.write_bytes(patched)
    assert onset(laid(film, tmp_path / "a.mp4")) == pytest.approx(1.0, abs=0.03)  # MP3's delay is not stated
    assert [record.getMessage() for record in caplog.records] == [
        f"track 1 of {film}, sound, cannot be decoded (codec mha1); it is left out"
    ]


@pytest.mark.parametrize("broken", ["name", "header", "packets"])
def test_sound_that_cannot_be_decoded_makes_a_silent_clip_with_a_warning(tmp_path, broken, caplog):
    film = write_film(tmp_path / "drive.mp4", "mp4", Pictures(SHORT), [Track("aac", 0.0)])
    data = bytearray(film.read_bytes())
    if broken == "name":
        data = data.replace(b"mp4a", b"mha1").replace(b"esds", b"mhaC")
    elif broken == "header":
        start = data.index(b"\x05\x80\x80\x80", data.index(b"esds"))  # the decoder's own settings
        data[start + 5 : start + 7] = b"\xff\xff"
    else:
        with av.open(str(film)) as container:
            for packet in container.demux(audio=0):
                if packet.size:
                    data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    film.write_bytes(data)
    assert probe_video(film).has_audio
    assert not probe_video(laid(film, tmp_path / "a.mp4")).has_audio
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        f"track 1 of {film}, sound, cannot be decoded"
    ]


def test_sound_is_taken_from_a_file_whose_pictures_cannot_be_shown(tmp_path):
    film = write_film(tmp_path / "drive.mp4", "mp4", Pictures(SHORT), [Track("aac", 1.0)])
    data = film.read_bytes()
    film.write_bytes(data.replace(b"avc1", b"xvc9").replace(b"avcC", b"xvcC"))
    assert onset(laid(film, tmp_path / "a.mp4")) == pytest.approx(1.0, abs=0.005)


@pytest.mark.parametrize("codec", ["eac3", "ac3"])
def test_sound_that_mp4_refuses_costs_no_clip(tmp_path, codec, caplog):
    write_film(tmp_path / "whole.mkv", "matroska", Pictures(SHORT), [Track(codec)])
    film = tmp_path / "drive.mkv"
    with av.open(str(tmp_path / "whole.mkv")) as old, av.open(str(film), "w", format="matroska") as new:
        stream = new.add_stream_from_template(old.streams.audio[0])
        for index, packet in enumerate(old.demux(old.streams.audio[0])):
            if packet.size:
                damaged = av.Packet(bytes(packet) if index < 20 else bytes(packet.size))
                damaged.pts, damaged.dts, damaged.duration = packet.pts, packet.dts, packet.duration
                damaged.time_base, damaged.stream = packet.time_base, stream
                new.mux(damaged)
    assert probe_video(laid(film, tmp_path / "a.mp4")).frames == 50
    assert len(heard(tmp_path / "a.mp4")[1]) > 20_000
    assert ["damaged" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize("name", [b"OpusHead", b"esds"])
def test_sound_whose_header_is_damaged_is_coded_anew_or_left_out(tmp_path, name, caplog):
    form, codec = ("matroska", "libopus") if name == b"OpusHead" else ("mp4", "aac")
    film = write_film(tmp_path / "drive", form, Pictures(SHORT), [Track(codec)])
    data = bytearray(film.read_bytes())
    start = data.index(name)
    for offset in range(4, 24):
        film.write_bytes(data[: start + offset] + b"\xfe\xff" + data[start + offset + 2 :])
        assert probe_video(laid(film, tmp_path / "a.mp4", 10)).frames == 10


def test_sound_of_a_large_file_is_laid_under(tmp_path):
    film = write_film(tmp_path / "drive.mp4", "mp4", Pictures(SHORT), [Track("aac", 1.0)])
    with film.open("ab") as file:
        file.truncate(2 * LIMITS.max_file)  # a hole, which takes no room
    assert onset(laid(film, tmp_path / "a.mp4")) == pytest.approx(1.0, abs=0.005)


def test_a_time_that_cannot_be_written_is_refused_with_its_frame(tmp_path):
    with pytest.raises(InputError, match="the time of frame 2"):
        write_video(tmp_path / "a.mp4", noise_frames(3), 25, times=[0, 0.04, 0.04 + 1e-7])
