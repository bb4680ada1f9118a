"""Bridge short gaps of frames without a face; refuse, hold or skip long ones."""

import math
from collections.abc import Sized
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import FaceNotFoundError
from fye_rt.files.rows import by_parts
from fye_rt.landmarks.motion import Motion
from fye_rt.landmarks.rotation import slerp

Array = NDArray[np.float64]
SMALLEST_FACE = 0.11  # of the picture's longer side: 0.08 is never detected, 0.11 always, at any resolution
MAX_GAP = 0.5  # seconds of the longest gap that is bridged
MOST_LISTED = 8  # runs of frames in one message


def bridge(motion: Motion, gaps: list[tuple[int, int]]) -> None:
    """Interpolate each gap, in place, between its two neighbours; a gap at either end keeps the nearest face."""
    fields = [getattr(motion, name) for name in ("points", "mesh", "pose", "blendshapes")]
    for start, stop in gaps:
        if start == 0 or stop == len(motion):
            continue
        before, after = start - 1, stop
        for frame in range(start, stop):
            fraction = (motion.times[frame] - motion.times[before]) / (motion.times[after] - motion.times[before])
            rotation = slerp(motion.pose[before, :3, :3], motion.pose[after, :3, :3], float(fraction))
            for array in fields:
                array[frame] = (1.0 - fraction) * array[before] + fraction * array[after]
            motion.pose[frame, :3, :3] = rotation


def runs_of(missing: list[bool]) -> list[tuple[int, int]]:
    """Return the runs [start, stop) of True."""
    runs = ((gap, [index for index, _ in run]) for gap, run in groupby(enumerate(missing), key=lambda item: item[1]))
    return [(indices[0], indices[-1] + 1) for gap, indices in runs if gap]


def no_face(frames: int, source: str, size: tuple[int, int], side: int = 0, where: str = "") -> FaceNotFoundError:
    """Return the error for a picture or a video without any face.

    Args:
        frames: number of frames.
        source: name, for the message.
        size: height and width in pixels.
        side: smallest square that was searched, in pixels; 0 for the whole picture.
        where: a phrase that says where else was searched.
    """
    place = "in it" if frames == 1 else f"in any of its {frames} frames"
    remedy = "use a larger picture of it" if 0 < side < max(size) else "crop to the face"
    return FaceNotFoundError(
        f"{source}: no face {place}{where and ', '}{where}; a face must be seen from the front, well lit, and at least "
        f"{_least(size, side)}: {remedy} if it is smaller"
    )


def long_gaps(gaps: list[tuple[int, int]], times: Array, fps: float) -> list[tuple[int, int]]:
    """Return the gaps of more than half a second."""
    ends = _ends(times, fps)
    # half a millisecond: time stamps are rounded to the container's time base
    return [(start, stop) for start, stop in gaps if ends[stop] - ends[start] > MAX_GAP + 5e-4]


def check_gaps(
    widths: list[float],
    long: list[tuple[int, int]],
    times: Array,
    fps: float,
    source: str,
    size: tuple[int, int],
    side: int = 0,
) -> None:
    """Refuse gaps that are too long to bridge; `widths` are those of found faces, as shares of the picture's.

    Raises:
        FaceNotFoundError: there is a long gap; the message lists the frames.
    """
    if not long:
        return
    frames, ends = len(times), _ends(times, fps)

    def part(run: tuple[int, int]) -> str:
        return f"{ranges([run])} ({ends[run[0]] - times[0]:.2f}-{ends[run[1]] - times[0]:.2f} s)"

    borders = zip([0, *(stop for _, stop in long)], [*(start for start, _ in long), frames], strict=True)
    start, stop = max(borders, key=lambda run: ends[run[1]] - ends[run[0]])
    remedy = "use a video where the face stays in view, or gaps='hold' (the last face is kept) or gaps='skip' (the "
    remedy += "frames are left out)"
    if ends[stop] - ends[start] > MAX_GAP:
        remedy = f"cut the video to a part with a face, frames {part((start, stop))} for instance, or {remedy}"
    if np.median(widths) * size[1] < 1.5 * math.ceil(SMALLEST_FACE * (side or max(size))):
        remedy += f", or crop it to the face, which must be at least {_least(size, side)}"
    raise FaceNotFoundError(
        f"{source}: no face in frames {', '.join(map(part, long[:MOST_LISTED]))}{more(long)}, and only gaps up to "
        f"{MAX_GAP} s are bridged; {remedy}"
    )


def hold_notice(long: list[tuple[int, int]], source: str) -> str:
    """Say in which frames the face is held still."""
    return f"{source}: no face in frames {ranges(long)}; the face before is held still there (at the start, the first)"


def skip(motion: Motion, long: list[tuple[int, int]], source: str) -> tuple[Motion, str]:
    """Leave the frames of long gaps out; the other frames keep their times. Also return a notice."""
    kept = np.ones(len(motion), np.bool_)
    for start, stop in long:
        kept[start:stop] = False
    frames = np.flatnonzero(kept)
    arrays: dict[str, Any] = {"times": motion.times[frames], "valid": motion.valid[frames]}
    for name in ("points", "mesh", "pose", "blendshapes"):
        arrays[name] = _taken(getattr(motion, name), frames)
    shorter = replace(motion, **arrays)
    return shorter, f"{source}: no face in frames {ranges(long)}; these were left out"


def _taken(array: Array, frames: NDArray[np.int64]) -> Array:
    return by_parts(len(frames), array.shape[1:], lambda part: array[frames[part]])


def _ends(times: Array, fps: float) -> Array:
    """Return the times of frames and the end of the last: a frame lasts until the next one."""
    return np.append(times, times[-1] + 1.0 / fps)


def _least(size: tuple[int, int], side: int) -> str:
    return f"{math.ceil(SMALLEST_FACE * (side or max(size)))} pixels wide of these {size[1]}x{size[0]}"


def ranges(runs: list[tuple[int, int]]) -> str:
    """Format runs [start, stop) of frames, for instance "3, 7-9"; of many, the first ones and how many follow."""
    listed = (str(start) if stop - start == 1 else f"{start}-{stop - 1}" for start, stop in runs[:MOST_LISTED])
    return f"{', '.join(listed)}{more(runs)}"


def more(listed: Sized) -> str:
    """Say how many items a message leaves out, if any."""
    return f" and {len(listed) - MOST_LISTED} more" if len(listed) > MOST_LISTED else ""
