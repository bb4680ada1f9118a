"""Which frames are made together, and in which order: every clip is a sequence of pieces.

A blended clip is one piece with several windows. A progressive clip has a piece of key frames, taken sparsely from the
whole clip, and then one piece for each interval between two neighbouring key frames, pinned to these. Key frames that
do not fit into one window have key frames of their own. A live clip has no end to take key frames from: each piece is
pinned at its beginning, to the last frames of the piece before.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError, OptionError
from fye_rt.options import MAX_WINDOW, MIN_PROGRESSIVE, Options
from fye_rt.windows import Window, blended_windows, whole_window

BUDGET = 1.15  # evaluations per frame and step, wherever the window size allows so few
SPACING = 16  # frames between neighbouring key frames, on average
MAX_FRAMES = 600  # denoised together
MIN_SPACING = 8
HOLD = 1 / 3  # share of the steps, from the first, in which the ends of an interval are held

Frames = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Frames that are denoised together, through all steps.

    Attributes:
        frames: int64 (f,), frame indices in ascending order.
        windows: windows over these frames, counted within the piece.
        pinned: bool (f,), frames that an earlier piece has made.
        finished: frames that are final with this piece. In the order of the pieces these are the whole clip, from
            beginning to end; a key frame is final with the interval after it.
        needed: frames that later pieces are pinned to.
        pinned_share: share of the steps, from the first, in which pinned frames are held; then they are released.
    """

    frames: Frames
    windows: tuple[Window, ...]
    pinned: NDArray[np.bool_]
    finished: range
    needed: frozenset[int] = frozenset()
    pinned_share: float = 1.0

    def __post_init__(self) -> None:
        self.frames.flags.writeable = False
        self.pinned.flags.writeable = False


def check_length(frames: int, name: str) -> None:
    """Raise InputError unless this number of frames can be denoised together."""
    if not 1 <= frames <= MAX_FRAMES:
        raise InputError(
            f"{name} has {frames} frames; 1 to {MAX_FRAMES} can be denoised together: give fewer frames, or make any "
            "number with windows='progressive'"
        )


def clip_pieces(frames: int, options: Options, movement: NDArray[np.floating] | None = None) -> tuple[Piece, ...]:
    """Divide a clip into pieces, in an order that finishes its frames from the first to the last.

    Of the options only `windows`, `window_size` and `window_overlap` count. For `movement` see `key_frame_pieces`.

    Raises:
        OptionError: a value outside its range.
    """
    if options.windows == "progressive":
        return key_frame_pieces(frames, options.window_size, movement)
    windows = blended_windows(frames, options.windows, options.window_size, options.window_overlap)
    return (Piece(np.arange(frames), windows, np.zeros(frames, np.bool_), range(frames)),)


def key_frame_pieces(frames: int, size: int, movement: NDArray[np.floating] | None = None) -> tuple[Piece, ...]:
    """Divide a progressive clip into pieces, in an order that finishes its frames from the first to the last.

    Key frames lie closer where there is more movement: 8 to 23 frames apart in windows of 24.

    Args:
        frames: frames of the clip, 1 or more.
        size: most frames per piece, 3 to 32.
        movement: (frames - 1,), movement between neighbouring frames, 0 or more, in any unit; by default the same
            everywhere.

    Raises:
        OptionError: a value outside its range.
    """
    if frames < 1:
        raise OptionError(f"frames={frames} is not valid; a clip has at least 1")
    if not MIN_PROGRESSIVE <= size <= MAX_WINDOW:
        raise OptionError(f"window_size={size} is not valid; allowed: {MIN_PROGRESSIVE} to {MAX_WINDOW}")
    amount = np.ones(frames - 1) if movement is None else np.asarray(movement, np.float64)
    if amount.shape != (frames - 1,) or not (np.isfinite(amount) & (amount >= 0)).all():
        raise OptionError(f"movement is not {frames - 1} finite numbers of 0 or more")
    mean = amount.mean() if frames > 1 else 0.0
    # half of the distance between key frames is time: a still face needs anchors, too
    passed = np.concatenate([[0.0], np.cumsum(1 + (amount / mean if mean else np.ones_like(amount)))])
    levels = [np.arange(frames, dtype=np.int64)]
    while len(levels[-1]) > size:
        few = len(levels) > 1  # key frames of key frames lie as far apart as possible
        levels.append(_key_frames(levels[-1], passed, size, few))
    return _with_needed(list(_pieces(levels)))


def live_pieces(frames: Iterable[int], overlap: int) -> Iterator[Piece]:
    """Yield the pieces of a clip of unknown length; each is pinned to the last `overlap` frames before it, or fewer.

    `frames` are the numbers of new frames of the pieces, 1 or more, each read when its piece is due.
    """
    end = 0
    for count in frames:
        start, end = end, end + count
        indices = np.arange(max(0, start - overlap), end)
        needed = frozenset(range(max(0, end - overlap), end))
        yield Piece(indices, (whole_window(len(indices)),), indices < start, range(start, end), needed)


def evaluations(pieces: Sequence[Piece]) -> int:
    """Count the frames that the network sees at each evaluated step, over all pieces."""
    return sum(len(window.frames) for piece in pieces for window in piece.windows)


def _with_needed(pieces: list[Piece]) -> tuple[Piece, ...]:
    needed: set[int] = set()
    for number in reversed(range(len(pieces))):
        piece = pieces[number]
        pieces[number] = replace(piece, needed=frozenset(needed))
        needed -= set(piece.frames[~piece.pinned].tolist())
        needed |= set(piece.frames[piece.pinned].tolist())
    return tuple(pieces)


def _pieces(levels: list[Frames]) -> Iterator[Piece]:
    """Yield pieces depth first: the clip comes out in order, and little of it is in memory at any time."""
    top = levels[-1]
    last = int(top[-1])
    finished = range(last + 1) if len(levels) == 1 else range(0)
    yield Piece(top.copy(), (whole_window(len(top)),), np.zeros(len(top), np.bool_), finished)
    for left, right in pairwise(top.tolist()):
        yield from _interval(levels[:-1], left, right, last)


def _interval(levels: list[Frames], left: int, right: int, last: int) -> Iterator[Piece]:
    if not levels:
        return
    items = levels[-1]
    inside = items[np.searchsorted(items, left) : np.searchsorted(items, right) + 1]
    pinned = np.zeros(len(inside), np.bool_)
    pinned[[0, -1]] = True
    windows = (whole_window(len(inside)),)
    if len(levels) == 1:
        yield Piece(inside, windows, pinned, range(left, right + (right == last)), pinned_share=HOLD)
        return
    yield Piece(inside, windows, pinned, range(0))
    for start, end in pairwise(inside.tolist()):
        yield from _interval(levels[:-1], start, end, last)


def _key_frames(items: Frames, passed: NDArray[np.float64], size: int, few: bool) -> Frames:
    """Choose key frames from `items`, first and last included, so that every interval fits into a piece of `size`."""
    widest = size - 1
    narrowest = min(MIN_SPACING, (widest + 1) // 3)  # at most a third: then every length divides into intervals
    at = passed[items]
    price = (passed[-1] / (len(passed) - 1) * SPACING) ** 2  # makes intervals of SPACING the cheapest
    if few:
        price *= 1e6
    fewest = -(-(len(items) - 1) // widest) + 1
    while True:
        keys = _divide(at, narrowest, widest, price)
        if len(keys) == fewest or _cost(len(items), len(keys), size) <= BUDGET * len(items):
            return items[keys]
        price *= 1.1


def _cost(items: int, keys: int, size: int) -> int:
    """Count evaluations of `items` frames with `keys` key frames, which have as few key frames as possible."""
    inside = items + keys - 2
    if keys <= size:
        return inside + keys
    return inside + _cost(keys, -(-(keys - 1) // (size - 1)) + 1, size)


def _divide(at: NDArray[np.float64], narrowest: int, widest: int, price: float) -> list[int]:
    """Choose where to divide, ends included: least sum of squared differences of `at`, plus `price` per interval."""
    last = len(at) - 1
    best = np.full(last + 1, np.inf)
    best[0] = 0.0
    previous = np.zeros(last + 1, np.int64)
    for k in range(narrowest, last + 1):
        starts = np.arange(max(0, k - widest), k - narrowest + 1)
        sums = best[starts] + np.square(at[k] - at[starts]) + price
        least = int(np.argmin(sums))
        best[k], previous[k] = sums[least], starts[least]
    divisions = [last]
    while divisions[-1]:
        divisions.append(int(previous[divisions[-1]]))
    return divisions[::-1]
