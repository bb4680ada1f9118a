"""Bridge short gaps of frames without a face, and refuse long ones."""

import math
from collections.abc import Sized
from dataclasses import replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import FaceNotFoundError
from fye_rt.landmarks.motion import Motion
from fye_rt.landmarks.rotation import slerp

Array = NDArray[np.float64]
Face = tuple[Array, Array]  # points (478, 3), blendshapes (51,)
SMALLEST_FACE = 0.11  # of the picture's longer side: 0.08 is never detected, 0.11 always, at any resolution
MAX_GAP = 0.5  # seconds of the longest gap that is bridged
MOST_LISTED = 8  # runs of frames in one message


def bridge(motion: Motion, gaps: list[tuple[int, int]], notices: tuple[str, ...]) -> Motion:
    """Interpolate each gap between its two neighbours; a gap at either end keeps the nearest face."""
    fields = {name: getattr(motion, name).copy() for name in ("points", "mesh", "pose", "blendshapes")}
    for start, stop in gaps:
        if start == 0 or stop == len(motion):
            continue
        before, after = start - 1, stop
        for frame in range(start, stop):
            fraction = (motion.times[frame] - motion.times[before]) / (motion.times[after] - motion.times[before])
            for array in fields.values():
                array[frame] = (1.0 - fraction) * array[before] + fraction * array[after]
            rotation = slerp(motion.pose[before, :3, :3], motion.pose[after, :3, :3], float(fraction))
            fields["pose"][frame, :3, :3] = rotation
    return replace(motion, **fields, notices=notices)


def runs_of(missing: list[bool]) -> list[tuple[int, int]]:
    """Return the runs [start, stop) of True."""
    runs = ((gap, [index for index, _ in run]) for gap, run in groupby(enumerate(missing), key=lambda item: item[1]))
    return [(indices[0], indices[-1] + 1) for gap, indices in runs if gap]


def check_gaps(
    faces: list[Face | None], gaps: list[tuple[int, int]], times: Array, fps: float, source: str, size: tuple[int, int]
) -> None:
    """Refuse gaps that are too long to bridge.

    Raises:
        FaceNotFoundError: no face, or a gap of more than half a second; the message lists the frames.
    """
    frames, least = len(times), math.ceil(SMALLEST_FACE * max(size))
    pixels = f"{least} pixels wide of these {size[1]}x{size[0]}"
    if gaps == [(0, frames)]:
        what = "in it" if frames == 1 else f"in any of its {frames} frames"
        raise FaceNotFoundError(
            f"{source}: no face {what}; a face must be seen from the front, well lit, and at least {pixels}: crop to "
            "the face if it is smaller"
        )
    ends = np.append(times, times[-1] + 1.0 / fps)  # a frame lasts until the next one
    # half a millisecond: time stamps are rounded to the container's time base
    long = [(start, stop) for start, stop in gaps if ends[stop] - ends[start] > MAX_GAP + 5e-4]
    if not long:
        return

    def part(run: tuple[int, int]) -> str:
        return f"{ranges([run])} ({ends[run[0]] - times[0]:.2f}-{ends[run[1]] - times[0]:.2f} s)"

    borders = zip([0, *(stop for _, stop in long)], [*(start for start, _ in long), frames], strict=True)
    start, stop = max(borders, key=lambda run: ends[run[1]] - ends[run[0]])
    remedy = "use a video where the face stays in view"
    if ends[stop] - ends[start] > MAX_GAP:
        remedy = f"cut the video to a part with a face, frames {part((start, stop))} for instance, or {remedy}"
    widths = [float(np.ptp(face[0][:, 0])) * size[1] for face in faces if face is not None]
    if np.median(widths) < 1.5 * least:
        remedy += f", or crop it to the face, which must be at least {pixels}"
    raise FaceNotFoundError(
        f"{source}: no face in frames {', '.join(map(part, long[:MOST_LISTED]))}{more(long)}, and only gaps up to "
        f"{MAX_GAP} s are bridged; {remedy}"
    )


def ranges(runs: list[tuple[int, int]]) -> str:
    """Format runs [start, stop) of frames, for instance "3, 7-9"."""
    return ", ".join(str(start) if stop - start == 1 else f"{start}-{stop - 1}" for start, stop in runs)


def more(listed: Sized) -> str:
    """Say how many items a message leaves out, if any."""
    return f" and {len(listed) - MOST_LISTED} more" if len(listed) > MOST_LISTED else ""
