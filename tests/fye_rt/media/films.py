"""Films by container and codec, and when they end, and the clips that are written from them."""

from pathlib import Path
from typing import Any

import av
import pytest

from fye_rt.media import probe_video, read_video, write_video
from tests.fye_rt.media.media_files import RATE

COUNT = 10
FRAME = 1 / RATE  # seconds
FAST_VPX = {"deadline": "realtime", "cpu-used": "8", "crf": "4", "b": "4M"}
CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", "yuv420p", {"crf": "5", "bf": "2"}),
    "hevc": ("libx265", "yuv420p", {"crf": "5", "x265-params": "log-level=none"}),
    "vp8": ("libvpx", "yuv420p", FAST_VPX),
    "vp9": ("libvpx-vp9", "yuv420p", FAST_VPX),
    "av1": ("libsvtav1", "yuv420p", {"crf": "5", "preset": "12", "svtav1-params": "lp=1", "b": "0"}),
    "mpeg4": ("mpeg4", "yuv420p", {"qmin": "1", "qmax": "2"}),
    "mpeg2": ("mpeg2video", "yuv420p", {"qmin": "1", "qmax": "2"}),
    "mjpeg": ("mjpeg", "yuvj420p", {"qmin": "1", "qmax": "2"}),
    "prores": ("prores_ks", "yuv422p10le", {}),
    "gif": ("gif", "rgb8", {}),
    "apng": ("apng", "rgb24", {}),
    "webp": ("libwebp_anim", "bgra", {"lossless": "1"}),
}
PIXELS = {
    "h264": ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le"],
    "hevc": ["yuv420p", "yuv444p", "yuv420p10le", "yuv422p10le"],
    "vp9": ["yuv420p", "yuv444p", "yuv420p10le"],
    "av1": ["yuv420p", "yuv420p10le"],
    "prores": ["yuv422p10le", "yuva444p10le"],
}
# container, codec and sound of every kind of film that is read
FILMS = [
    ("mp4", "h264", "aac"), ("mp4", "hevc", "aac"), ("mp4", "av1", "aac"), ("mp4", "vp9", "libopus"),
    ("mp4", "mpeg4", "libmp3lame"), ("mp4", "mjpeg", "aac"),
    ("mov", "h264", "aac"), ("mov", "hevc", "aac"), ("mov", "prores", "pcm_s16le"), ("mov", "mjpeg", "pcm_s16le"),
    ("matroska", "h264", "aac"), ("matroska", "hevc", "flac"), ("matroska", "av1", "libopus"),
    ("matroska", "vp8", "libopus"), ("matroska", "vp9", "libopus"), ("matroska", "mpeg4", "ac3"),
    ("matroska", "mjpeg", "pcm_s16le"), ("matroska", "prores", "pcm_s16le"),
    ("webm", "vp8", "libopus"), ("webm", "vp9", "libopus"), ("webm", "av1", "libopus"),
    ("avi", "h264", "libmp3lame"), ("avi", "mpeg4", "pcm_s16le"), ("avi", "mjpeg", "pcm_s16le"),
    ("mpegts", "h264", "aac"), ("mpegts", "hevc", "aac"), ("mpegts", "mpeg2", "ac3"),
    ("flv", "h264", "aac"), ("mpeg", "mpeg2", "mp2"),
    ("gif", "gif", None), ("apng", "apng", None), ("webp", "webp", None),
]  # fmt: skip
# a sound that each container may hold, its longest packet 21 ms
SOUNDS = {
    "mp4": "aac", "mov": "aac", "matroska": "libopus", "webm": "libopus", "avi": "pcm_s16le", "mpegts": "aac",
    "flv": "aac",
}  # fmt: skip


def encoder(name: str, pixels: str | None = None) -> str:
    """Return an encoder's name, or skip the test if this FFmpeg lacks it or its kind of pixels."""
    if name not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no encoder {name}")
    if pixels and pixels not in {form.name for form in av.Codec(name, "w").video_formats or ()}:
        pytest.skip(f"this FFmpeg's {name} does not write {pixels}")
    return name


def ends(path: Path) -> tuple[float, float | None]:
    """When pictures and sound of a clip end, in seconds since the first frame."""
    info = probe_video(path)
    sound = None
    if info.has_audio:
        with av.open(str(path)) as container:
            last = [frame for frame in container.decode(audio=0) if frame.pts is not None][-1]
            sound = float(last.time + last.samples / last.sample_rate - info.start)
    return info.seconds, sound


def rewritten(film: Path, out: Path) -> Path:
    info = probe_video(film)
    times, frames = zip(*read_video(film, info=info), strict=True)
    write_video(out, frames, info.fps, times=times, audio_from=film, seconds=info.seconds)
    return out


def check_ends(film: Path, seconds: float, sound: float | None) -> Path:
    """Write the clip of a film, and check that its pictures and its sound end with the film's, within a frame.

    Args:
        film: the film; the clip is written beside it.
        seconds: how long its pictures were written to be shown.
        sound: when its sound was written to end, or None if it has none.
    """
    clip = rewritten(film, film.with_name("clip.mp4"))
    assert probe_video(film).seconds == pytest.approx(seconds, abs=2e-3)
    assert probe_video(clip).frames == probe_video(film).frames
    clip_end, clip_sound = ends(clip)
    assert clip_end == pytest.approx(seconds, abs=2e-3)
    if sound is None:
        assert clip_sound is None
    else:
        assert round(abs(clip_sound - min(sound, seconds)), 6) <= FRAME
    return clip


def shifted(source: Path, target: Path, form: str, late: float) -> Path:
    """A film, copied, whose sound begins `late` seconds later."""
    with av.open(str(source)) as old, av.open(str(target), "w", format=form) as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        packets: list[Any] = [packet for packet in old.demux() if packet.size]
        for packet in packets:
            if packet.stream.type == "audio":
                ticks = round(late / packet.time_base)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            packet.stream = streams[packet.stream.index]
            new.mux(packet)
    return target
