"""Which frames are evaluated together, and how the predictions of windows are blended into one clip."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import OptionError
from fye_rt.options import BLENDED, MAX_WINDOW


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Frames that the network sees together.

    Attributes:
        frames: int64 (f,), distinct frame indices in the order in which the network sees them.
        weights: float64 (f,), above 0: share of this window in each frame; over all windows they sum to 1.
    """

    frames: NDArray[np.int64]
    weights: NDArray[np.float64]

    def __post_init__(self) -> None:
        self.frames.flags.writeable = False
        self.weights.flags.writeable = False


def blended_windows(frames: int, kind: str, size: int, overlap: int) -> tuple[Window, ...]:
    """Divide a clip into windows, the same at every step. A clip of at most `size` frames is one window.

    Args:
        frames: frames of the clip, 1 or more.
        kind: "context": neighbours share `overlap` frames and cross-fade linearly; the last window ends with the clip
            (and may share more). "reference": the reference implementation's list; neighbours share nothing, the last
            window wraps around to the clip's beginning, weights are equal, `overlap` is ignored. "tiles": as "context",
            with the Gaussian weights of the reference implementation's forward_long.
        size: frames per window, 1 to 32.
        overlap: 0 to size - 1.

    Raises:
        OptionError: a value outside its range.
    """
    if frames < 1:
        raise OptionError(f"frames={frames} is not valid; a clip has at least 1")
    if not 1 <= size <= MAX_WINDOW:
        raise OptionError(f"window_size={size} is not valid; allowed: 1 to {MAX_WINDOW}")
    if not 0 <= overlap < size:
        raise OptionError(f"window_overlap={overlap} is not valid; allowed: 0 to {size - 1}, below window_size={size}")
    match kind:
        case "reference":
            indices = [np.array(window, dtype=np.int64) for window in uniform(frames, size)]
            return _normalised(frames, indices, [np.ones(len(window)) for window in indices])
        case "tiles":
            # The reference implementation takes the DDIM step in every tile and blends the new latents. All tiles start
            # from the same latents and the step is linear in the prediction, so blending predictions is the same
            starts = _starts(frames, size, overlap)
            weights = [_gaussian(min(size, frames))] * len(starts)
        case "context":
            starts = _starts(frames, size, overlap)
            weights = _cross_fade(starts, min(size, frames))
        case _:
            raise OptionError(f"windows={kind!r} is not valid; allowed: {', '.join(BLENDED)}")
    return _normalised(frames, [np.arange(start, start + min(size, frames)) for start in starts], weights)


def whole_window(frames: int) -> Window:
    """Return the single window of frames that the network sees all together."""
    return Window(np.arange(frames), np.ones(frames))


def uniform(
    frames: int, size: int, stride: int = 1, overlap: int = 0, step: int = 0, closed_loop: bool = True
) -> list[list[int]]:
    """List windows as the reference implementation's context scheduler of that name; its pipeline uses these defaults.

    Windows of `size` frames at strides 1, 2, 4, ... (at most `stride` of them), wrapping around the clip's end;
    their origin shifts with the step by the bit-reversed step as a fraction of the clip.
    """
    if frames <= size:
        return [list(range(frames))]
    shift = int(f"{step:064b}"[::-1], 2) / 2**64
    origin = round(frames * shift)
    stop = frames + origin + (0 if closed_loop else -overlap)
    windows = []
    for level in range(min(stride, math.ceil(math.log2(frames / size)) + 1)):
        spacing = 2**level
        for start in range(int(shift * spacing) + origin, stop, size * spacing - overlap):
            windows.append([(start + k * spacing) % frames for k in range(size)])
    return windows


def _starts(frames: int, size: int, overlap: int) -> list[int]:
    """Start a window every `size - overlap` frames; the last one is moved back to end with the clip."""
    last = max(0, frames - size)
    return [*range(0, last, size - overlap), last]


def _gaussian(size: int) -> NDArray[np.float64]:
    """Weigh with variance 0.01 in units of the window's length; normalisation cancels the constant factor."""
    offset = (np.arange(size) - (size - 1) / 2) / size
    return np.exp(-(offset**2) / (2 * 0.01))


def _cross_fade(starts: list[int], size: int) -> list[NDArray[np.float64]]:
    """Ramp over the frames shared with each neighbour; where only two windows meet, the two ramps sum to 1."""
    shared = [0, *(left + size - right for left, right in pairwise(starts)), 0]
    rise = np.arange(1, size + 1)
    return [
        np.minimum(1, np.minimum(rise / (before + 1), rise[::-1] / (after + 1))) for before, after in pairwise(shared)
    ]


def _normalised(
    frames: int, indices: list[NDArray[np.int64]], weights: list[NDArray[np.float64]]
) -> tuple[Window, ...]:
    total = np.zeros(frames)
    for index, weight in zip(indices, weights, strict=True):
        total[index] += weight
    return tuple(Window(index, weight / total[index]) for index, weight in zip(indices, weights, strict=True))
