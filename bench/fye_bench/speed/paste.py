"""Time the pasting of frames into a large picture, and measure how visible its edge is.

Frames have other colours than the picture, as a model's have: its contrast is lower by a tenth, its level higher by 12.
"""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_bench.arguments import Rounds, benchmark, run
from fye_bench.environment import OtherLoad, environment
from fye_rt.cli import terminal
from fye_rt.media.crop import Region
from fye_rt.media.opencv import load_cv2
from fye_rt.media.paste import Paste, feathered, shape_of

PICTURE, CLIP = (2160, 3840), (512, 512)
SIDES, FEATHERS = (512, 256, 1024), (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
ANGLES, COLORS = (0.0, 15.0), ("none", "mean")
EDGE = 3  # pixels on either side of a mask's edge

Pixels = NDArray[np.uint8]


def scene() -> Pixels:
    """Draw a picture of random smooth shapes with grain."""
    cv2 = load_cv2()
    random = np.random.default_rng(0)
    shapes = cv2.resize(random.integers(40, 216, (27, 48, 3), np.uint8), PICTURE[::-1], interpolation=cv2.INTER_CUBIC)
    grain = random.normal(0, 1, (*PICTURE, 1))
    return (shapes + grain).clip(0, 255).astype(np.uint8)


def pastings(picture: Pixels) -> Iterator[tuple[dict[str, Any], Paste, Pixels]]:
    """Yield facts, the pasting and a frame of each case."""
    for side in SIDES:
        for angle in ANGLES:
            region = Region(1500, 700, side, side, angle)
            portrait = region.cut(picture, CLIP)
            frame = (0.9 * portrait + 12).astype(np.uint8)
            for color in COLORS:
                mask = feathered(shape_of("box", CLIP), 0.3)
                facts = {"side": side, "angle": angle, "color": color}
                yield facts, Paste(picture, region, portrait, mask, color), frame


def seam(picture: Pixels, kind: str, feather: float, color: str) -> float:
    """Return the mean gradient across a mask's edge after pasting, divided by that of the picture there."""
    cv2 = load_cv2()
    region = Region(1500, 700, *CLIP[::-1])
    portrait = region.cut(picture, CLIP)
    shape = shape_of(kind, CLIP)
    frame = (0.9 * portrait + 12).astype(np.uint8)
    pasted = Paste(picture, region, portrait, feathered(shape, feather), color)(frame)
    whole = np.zeros(PICTURE, np.uint8)
    whole[700 : 700 + CLIP[0], 1500 : 1500 + CLIP[1]] = shape
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * EDGE + 1, 2 * EDGE + 1))
    near = (cv2.dilate(whole, disc) - cv2.erode(whole, disc)) > 0

    def gradient(image: Pixels) -> float:
        level = image.astype(np.float32).mean(axis=2)
        across, down = (cv2.Sobel(level, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
        return float(np.hypot(across, down)[near].mean())

    return gradient(pasted) / gradient(picture)


@benchmark("python -m fye_bench.speed.paste")
def main(rounds: Rounds = 20) -> dict[str, Any]:
    """Time the pasting of 512x512 frames into a picture of 3840x2160, and measure the energy of the mask's edge."""
    cv2 = load_cv2()
    cv2.setNumThreads(1)
    picture, load = scene(), OtherLoad()
    canvas = picture.copy()
    timed: list[dict[str, Any]] = []
    for facts, paste, frame in pastings(picture):
        seconds: dict[str, list[float]] = {"in place": [], "into a copy": []}
        for turn in range(rounds + 1):
            start = time.perf_counter()
            paste.clear(canvas)
            paste.onto(canvas, frame)
            between = time.perf_counter()
            paste(frame)
            if turn:
                seconds["in place"].append(between - start)
                seconds["into a copy"].append(time.perf_counter() - between)
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        timed.append({**facts, "median_seconds": medians, "seconds": seconds})
    busy = load.cores()
    terminal.say(f"{'side':>5}{'angle':>7}  {'color':<6}{'in place':>10}{'copy':>8}  milliseconds")
    for each in timed:
        place, copy = (1e3 * each["median_seconds"][name] for name in ("in place", "into a copy"))
        terminal.say(f"{each['side']:>5}{each['angle']:>7g}  {each['color']:<6}{place:>10.2f}{copy:>8.2f}")
    seams = {
        f"{kind}, {color}": {f"{feather:g}": seam(picture, kind, feather, color) for feather in FEATHERS}
        for kind in ("box", "oval")
        for color in COLORS
    }
    terminal.say(f"{'gradient at the edge / own':<28}" + "".join(f"{feather:>7g}" for feather in FEATHERS))
    for name, values in seams.items():
        terminal.say(f"{name:<28}" + "".join(f"{value:>7.2f}" for value in values.values()))
    return {
        "environment": environment(1) | {"other_processes_cores": busy},
        "workload": {"picture": list(PICTURE), "clip": list(CLIP), "rounds": rounds, "threads": 1},
        "pasting": timed,
        "seam": seams,
    }


if __name__ == "__main__":
    run(main)
