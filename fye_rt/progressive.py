"""Long clips, coarse to fine: key frames first, then what lies between them, held at both ends by them.

Frames are denoised in pieces, each through all steps before the next one begins. The first piece is the key frames,
sparsely taken from the whole clip; the others fill an interval between two neighbouring key frames each, whose latents
are put back at every evaluated step to what they were when the key frames were made. So temporal attention sees its
true anchors, and an interval needs nothing but its two ends. Where one window doesn't hold all key frames, they have
key frames of their own.

In the last two thirds of the steps, where details are decided, the two ends of an interval are let go and settle among
their neighbours; a key frame is the mean of what the intervals before and behind it make of it. Otherwise it would show
where intervals meet: docs/performance.md.

A live clip has no end to take key frames from: there every piece is held at its beginning, by the last frames of the
one before.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fye_rt.arrays import Array
from fye_rt.clips.resume import Kept, Record, Trajectories
from fye_rt.denoise import Evaluate, OnStep, Pins, denoise
from fye_rt.errors import OptionError
from fye_rt.forecast import Decide, Jump, Method, Plan
from fye_rt.options import MAX_WINDOW, MIN_PROGRESSIVE
from fye_rt.schedule import Schedule
from fye_rt.windows import Window

BUDGET = 1.15  # evaluations per frame and step, wherever the window's size allows so few
SPACING = 16  # between neighbouring key frames, on average
MIN_SPACING = 8
HOLD = 1 / 3  # of the steps, from the first: in these the ends of an interval are held

Frames = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Frames that are denoised together, through all steps.

    Attributes:
        frames: int64 (f,), frame indices in ascending order.
        pinned: bool (f,), those that an earlier piece has made: the first and the last, but in the first piece.
        finished: frames that are final with this piece. Over all pieces, in their order, that is the whole clip from
            its beginning to its end; key frames finish with what lies behind them.
        needed: frames that later pieces are pinned to.
        hold: share of the steps, from the first, in which pinned frames are held; then they are let go.
    """

    frames: Frames
    pinned: NDArray[np.bool_]
    finished: range
    needed: frozenset[int] = frozenset()
    hold: float = 1.0

    def __post_init__(self) -> None:
        self.frames.flags.writeable = False
        self.pinned.flags.writeable = False


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What the loop needs of some frames of a clip; see `fye_rt.denoise.denoise`.

    Attributes:
        evaluate: the network; frame indices count within the part.
        noise: float32 (1, 4, f, h, w).
        face: bool (f, h, w), where the method asks for it.
    """

    evaluate: Evaluate
    noise: Array
    face: NDArray[np.bool_] | None


def plan(frames: int, size: int, movement: NDArray[np.floating] | None = None) -> tuple[Piece, ...]:
    """The pieces of a clip, in an order that finishes its frames from the first to the last.

    Key frames lie closer where there is more movement: 8 to 23 frames apart in windows of 24.

    Args:
        frames: of the clip, 1 or more.
        size: frames per piece at most, 3 to 32.
        movement: (frames - 1,), how much moves between neighbouring frames, 0 or more, in any unit; by default the
            same everywhere.

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
    # half of what spaces key frames is time: a still face may not go unanchored for long
    passed = np.concatenate([[0.0], np.cumsum(1 + (amount / mean if mean else np.ones_like(amount)))])
    levels = [np.arange(frames, dtype=np.int64)]
    while len(levels[-1]) > size:
        few = len(levels) > 1  # key frames of key frames lie as far apart as they may
        levels.append(_key_frames(levels[-1], passed, size, few))
    return _with_needed(list(_pieces(levels)))


def stream(frames: Iterable[int], overlap: int) -> Iterator[Piece]:
    """The pieces of a clip whose length nobody knows: each is pinned to the last frames of the one before.

    Args:
        frames: how many new ones each piece has, 1 or more; asked for when the piece is to be made.
        overlap: how many of the frames before it a piece is pinned to, at most.
    """
    end = 0
    for count in frames:
        pinned = min(overlap, end)
        start, end = end, end + count
        yield Piece(
            np.arange(start - pinned, end),
            np.arange(pinned + count) < pinned,
            range(start, end),
            frozenset(range(max(0, end - overlap), end)),
        )


def evaluations(pieces: Sequence[Piece]) -> int:
    """How many frames the network sees at each evaluated step, over all pieces."""
    return sum(len(piece.frames) for piece in pieces)


def denoise_pieces(
    pieces: Iterable[Piece],
    part: Callable[[Frames], Part],
    schedule: Schedule,
    method: Method,
    guidance: float,
    on_step: OnStep | None = None,
    progress: Callable[[int, int, int], None] | None = None,
    kept: Kept | None = None,
) -> Iterator[tuple[range, Array]]:
    """Denoise a clip piece by piece, and give its frames as they are finished.

    Of earlier pieces only the latents of those frames are kept that later ones are pinned to.

    Args:
        pieces: from `plan` or `stream`.
        part: gives what the loop needs of the frames of a piece.
        schedule: the steps.
        method: which of them are evaluated; one that decides as it goes does so in the first piece.
        guidance: classifier-free guidance scale.
        on_step: as for `fye_rt.denoise.denoise`: for one piece after another, with its latents.
        progress: called with (number of the piece, finished, all) network evaluations of a piece.
        kept: pieces of the same clip that were finished before; those that are finished now are added.

    Yields:
        Frame indices and their latents, float32 (1, 4, f, h, w); in the clip's order, without gaps.

    Raises:
        FyeError: as `fye_rt.denoise.denoise`.
    """
    trajectories: dict[int, Mapping[int, Array]] = {}  # by frame, by evaluated step
    followed = _Followed(method)
    end: Array | None = None
    for number, piece in enumerate(pieces):
        record = None if kept is None else kept.read(number)
        if record is None:
            told = None if progress is None else partial(progress, number)
            pins = _pins(piece, trajectories, piece.hold * len(schedule))
            record = _denoised(piece, part(piece.frames), schedule, followed, guidance, pins, on_step, told)
            if number == 0:
                record = replace(record, jumps=followed.jumps)
            if kept is not None:
                kept.write(number, record)
        elif progress is not None:
            progress(number, method.evaluations, method.evaluations)
        followed.jumps = followed.jumps or record.jumps
        if piece.finished:
            yield piece.finished, record.latents if end is None else _joined(end, record.latents)
            end = record.end
        trajectories.update(record.trajectories)
        for k in set(trajectories) - piece.needed:
            del trajectories[k]


def _denoised(
    piece: Piece,
    inputs: Part,
    schedule: Schedule,
    method: Method,
    guidance: float,
    pins: Pins | None,
    on_step: OnStep | None,
    progress: Callable[[int, int], None] | None,
) -> Record:
    made = {k: i for i, k in enumerate(piece.frames.tolist()) if not piece.pinned[i] and k in piece.needed}
    trajectories: dict[int, dict[int, Array]] = {k: {} for k in made}

    def keep(step: int, timestep: int, latents: Array) -> None:
        for k, i in made.items():
            trajectories[k][step] = latents[:, :, i : i + 1].copy()
        if on_step is not None:
            on_step(step, timestep, latents)

    windows = [Window(np.arange(len(piece.frames)), np.ones(len(piece.frames)))]
    latents = denoise(
        inputs.evaluate, schedule, method, windows, inputs.noise, guidance, keep, progress, inputs.face, pins
    )
    finished = latents[:, :, np.searchsorted(piece.frames, np.array(piece.finished, np.int64))]
    shared = piece.finished and piece.finished.stop <= piece.frames[-1]
    return Record(finished, trajectories, end=latents[:, :, -1:].copy() if shared else None)


def _joined(end: Array, latents: Array) -> Array:
    """Latents whose first frame is also the one before's last."""
    return np.concatenate([(end + latents[:, :, :1]) / 2, latents[:, :, 1:]], axis=2)


def _pins(piece: Piece, trajectories: Trajectories, steps: float) -> Pins | None:
    positions = np.flatnonzero(piece.pinned)
    if not len(positions):
        return None
    each = [trajectories[int(k)] for k in piece.frames[positions]]
    held = [step for step in each[0] if step < steps]
    return Pins(positions, {step: np.concatenate([one[step] for one in each], axis=2) for step in held})


def _with_needed(pieces: list[Piece]) -> tuple[Piece, ...]:
    needed: set[int] = set()
    for number in reversed(range(len(pieces))):
        piece = pieces[number]
        pieces[number] = replace(piece, needed=frozenset(needed))
        needed -= set(piece.frames[~piece.pinned].tolist())
        needed |= set(piece.frames[piece.pinned].tolist())
    return tuple(pieces)


class _Followed:
    """A method whose decisions in the first clip are followed in all others.

    Attributes:
        jumps: the decisions.
    """

    def __init__(self, method: Method) -> None:
        self._method: Method = method
        self.jumps: tuple[Jump, ...] = ()

    @property
    def ring(self) -> int:
        """See `Method`."""
        return self._method.ring

    @property
    def evaluations(self) -> int:
        """See `Method`."""
        return self._method.evaluations

    def start(self) -> Decide:
        """See `Method`."""
        if self.jumps:
            return Plan(self.jumps).start()
        decide = self._method.start()

        def noted(step: int, prediction: Array, latents: Array) -> Jump:
            self.jumps = (*self.jumps, decide(step, prediction, latents))
            return self.jumps[-1]

        return noted


def _pieces(levels: list[Frames]) -> Iterator[Piece]:
    """Depth first, so that the clip comes out in order and little of it is alive at any time."""
    top = levels[-1]
    last = int(top[-1])
    yield Piece(top.copy(), np.zeros(len(top), np.bool_), range(last + 1) if len(levels) == 1 else range(0))
    for left, right in pairwise(top.tolist()):
        yield from _interval(levels[:-1], left, right, last)


def _interval(levels: list[Frames], left: int, right: int, last: int) -> Iterator[Piece]:
    if not levels:
        return
    items = levels[-1]
    inside = items[np.searchsorted(items, left) : np.searchsorted(items, right) + 1]
    pinned = np.zeros(len(inside), np.bool_)
    pinned[[0, -1]] = True
    finest = len(levels) == 1
    yield (
        Piece(inside, pinned, range(left, right + (right == last)), hold=HOLD)
        if finest
        else Piece(inside, pinned, range(0))
    )
    if not finest:
        for one, next_one in pairwise(inside.tolist()):
            yield from _interval(levels[:-1], one, next_one, last)


def _key_frames(items: Frames, passed: NDArray[np.float64], size: int, few: bool) -> Frames:
    """Some of `items`, with the first and the last one, so that every interval fits into a piece of `size`."""
    widest = size - 1
    narrowest = min(MIN_SPACING, (widest + 1) // 3)  # at most a third: then every length divides into intervals
    at = passed[items]
    price = (passed[-1] / (len(passed) - 1) * SPACING) ** 2  # what makes intervals of SPACING the cheapest
    if few:
        price *= 1e6
    fewest = -(-(len(items) - 1) // widest) + 1
    while True:
        chosen = _divide(at, narrowest, widest, price)
        if len(chosen) == fewest or _cost(len(items), len(chosen), size) <= BUDGET * len(items):
            return items[chosen]
        price *= 1.1


def _cost(items: int, keys: int, size: int) -> int:
    """Evaluations of a clip of `items` frames with so many key frames, which have as few of their own as possible."""
    inside = items + keys - 2
    if keys <= size:
        return inside + keys
    return inside + _cost(keys, -(-(keys - 1) // (size - 1)) + 1, size)


def _divide(at: NDArray[np.float64], narrowest: int, widest: int, price: float) -> list[int]:
    """Where to divide, the ends included: the least sum of squared differences of `at`, plus `price` an interval."""
    last = len(at) - 1
    best = np.full(last + 1, np.inf)
    best[0] = 0.0
    before = np.zeros(last + 1, np.int64)
    for k in range(narrowest, last + 1):
        starts = np.arange(max(0, k - widest), k - narrowest + 1)
        sums = best[starts] + np.square(at[k] - at[starts]) + price
        least = int(np.argmin(sums))
        best[k], before[k] = sums[least], starts[least]
    chosen = [last]
    while chosen[-1]:
        chosen.append(int(before[chosen[-1]]))
    return chosen[::-1]
