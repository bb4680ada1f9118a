"""Measure the memory of `fye animate` with driving videos of rising length.

Each video is a photograph of a face that moves sideways, small and with few details, so that many frames take little
time: its landmarks are found in every frame, and every frame is generated, decoded and written.
"""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from fye_bench.arguments import benchmark, option, run
from fye_bench.environment import environment
from fye_bench.speed import process
from fye_rt import media
from fye_rt.bundle import shipped_bundles
from fye_rt.cli import terminal

FRAMES = (600, 6000, 12000, 24000)
SIDE, CLIP, RATE = 128, 64, 25.0
OPTIONS = ("--size", f"{CLIP}x{CLIP}", "--steps", "1", "--forecast", "off", "--threads", "1", "--quiet")


def photograph() -> NDArray[np.uint8]:
    """Return scikit-image's astronaut (NASA, public domain), cut to head and shoulders: uint8 (176, 176, 3)."""
    import skimage.data

    picture: NDArray[np.uint8] = skimage.data.astronaut()[30:206, 135:311]
    return np.ascontiguousarray(picture)


def write_driving(path: Path, frames: int) -> None:
    """Write a video of a face that swings to and fro once a second."""
    small = media.fit_image(photograph(), SIDE, SIDE)
    shifts = np.rint(6 * np.sin(2 * np.pi * np.arange(frames) / RATE)).astype(int)
    media.write_video(path, (np.roll(small, shift, axis=1) for shift in shifts.tolist()), RATE)


@benchmark("python -m fye_bench.speed.long_video")
def main(
    frames: Annotated[list[int] | None, option("N", "Length of a driving video; repeatable.")] = None,
) -> dict[str, Any]:
    """Measure the memory of `fye animate` with driving videos of rising length."""
    bundle = shipped_bundles() / "tiny"
    clips: list[dict[str, Any]] = []
    terminal.say(f"{'frames':>7}{'anonymous':>12}{'resident':>11}{'seconds':>9}  MB at the peak")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        media.write_image(folder / "portrait.png", photograph())
        for count in frames or FRAMES:
            write_driving(folder / "driving.mp4", count)
            source = ("animate", str(folder / "portrait.png"), str(folder / "driving.mp4"))
            outputs = ("-o", str(folder / "out.mp4"), "--bundle", str(bundle))
            measured = process.run(["-m", "fye_rt", *source, *outputs, *OPTIONS], folder / "log.txt")
            if media.probe_video(folder / "out.mp4").frames != count:
                raise ValueError(f"the clip of {count} frames has another number of them")
            clips.append(
                {
                    "frames": count,
                    "peak_anonymous_bytes": measured.peak_anonymous_bytes,
                    "peak_resident_bytes": measured.peak_memory_bytes,
                    "seconds": measured.seconds,
                }
            )
            megabytes = measured.peak_anonymous_bytes / 1e6, measured.peak_memory_bytes / 1e6
            terminal.say(f"{count:>7}{megabytes[0]:>12.0f}{megabytes[1]:>11.0f}{measured.seconds:>9.0f}")
    workload = {"driving": [SIDE, SIDE], "size": [CLIP, CLIP], "bundle": "tiny", "options": list(OPTIONS)}
    return {"environment": environment(1), "workload": workload, "clips": clips}


if __name__ == "__main__":
    run(main)
