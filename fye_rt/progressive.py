"""Pieces one after another, held by each other: how every clip is denoised.

Frames are denoised in pieces (`fye_rt.pieces`), each through all steps before the next one begins. Of a progressive
clip the first piece is the key frames; the others fill an interval between two neighbouring key frames each, whose
latents are put back at every evaluated step to what they were when the key frames were made. So temporal attention sees
its true anchors, and an interval needs nothing but its two ends.

In the last two thirds of the steps, where details are decided, the two ends of an interval are let go and settle among
their neighbours; a key frame is the mean of what the intervals before and behind it make of it. Otherwise it would show
where intervals meet: docs/measurements/index.md.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fye_rt.arrays import Array
from fye_rt.denoise import OnStep, Pins, denoise
from fye_rt.forecast import Decide, Evaluated, Forecaster, Jump, JumpTable
from fye_rt.network import Network
from fye_rt.pieces import Frames, Piece
from fye_rt.schedule import Schedule
from fye_rt.timings import Progress

Trajectories = Mapping[int, Mapping[int, Array]]


@dataclass(frozen=True, slots=True, eq=False)
class PieceInputs:
    """What the loop needs of some frames of a clip.

    Attributes:
        network: the denoiser; frame indices count within the piece.
        noise: float32 (1, 4, f, h, w).
        face: bool (f, h, w), where the forecaster asks for it.
    """

    network: Network
    noise: Array
    face: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True, eq=False)
class PieceRecord:
    """What is left of a piece when it is finished.

    Attributes:
        latents: float32 (1, 4, f, h, w), of the frames that are final with it.
        trajectories: of the frames that later pieces are pinned to, by evaluated step: float32 (1, 4, 1, h, w).
        jumps: the moves that all pieces follow; with the first piece alone.
        end: float32 (1, 4, 1, h, w), what the piece made of its last frame, where the next one finishes that.
    """

    latents: Array
    trajectories: Trajectories
    jumps: tuple[Jump, ...] = ()
    end: Array | None = None


class PieceStore(Protocol):
    """Pieces of one clip that were finished before."""

    def read(self, number: int) -> PieceRecord | None:
        """A piece, or None if it isn't there."""

    def write(self, number: int, record: PieceRecord) -> None:
        """Keep a piece."""


def denoise_pieces(
    pieces: Iterable[Piece],
    inputs: Callable[[Frames], PieceInputs],
    schedule: Schedule,
    forecaster: Forecaster,
    guidance: float,
    on_step: OnStep | None = None,
    progress: Progress | None = None,
    store: PieceStore | None = None,
) -> Iterator[tuple[range, Array]]:
    """Denoise a clip piece by piece, and give its frames as they are finished.

    Of earlier pieces only the latents of those frames are kept that later ones are pinned to.

    Args:
        pieces: from `fye_rt.pieces`.
        inputs: gives what the loop needs of the frames of a piece.
        schedule: the steps.
        forecaster: which of them are evaluated; one that decides as it goes does so in the first piece.
        guidance: classifier-free guidance scale.
        on_step: as for `fye_rt.denoise.denoise`: for one piece after another, with its latents.
        progress: called with ("denoise", finished, all) network evaluations of the pieces that are known.
        store: pieces of the same clip that were finished before; those that are finished now are added.

    Yields:
        Frame indices and their latents, float32 (1, 4, f, h, w); in the clip's order, without gaps.

    Raises:
        FyeError: as `fye_rt.denoise.denoise`.
    """
    trajectories: dict[int, Mapping[int, Array]] = {}  # by frame, by evaluated step
    followed = _Followed(forecaster)
    end: Array | None = None
    for number, piece in enumerate(pieces):
        known = len(pieces) if isinstance(pieces, Sized) else number + 1
        record = None if store is None else store.read(number)
        if record is None:
            pins = _pins(piece, trajectories, piece.pinned_share * len(schedule))
            told = _of_all(progress, number, known)
            record = _denoised(piece, inputs(piece.frames), schedule, followed, guidance, pins, on_step, told)
            if number == 0:
                record = replace(record, jumps=followed.jumps)
            if store is not None:
                store.write(number, record)
        elif progress is not None:
            evaluations = forecaster.evaluations * len(piece.windows)
            progress("denoise", (number + 1) * evaluations, known * evaluations)
        followed.jumps = followed.jumps or record.jumps
        if piece.finished:
            yield piece.finished, record.latents if end is None else _joined(end, record.latents)
            end = record.end
        trajectories.update(record.trajectories)
        for frame in set(trajectories) - piece.needed:
            del trajectories[frame]


def _of_all(progress: Progress | None, number: int, pieces: int) -> Progress | None:
    """Progress of a piece as that of all, which take as many evaluations each."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(stage, number * total + done, pieces * total)


def _denoised(
    piece: Piece,
    inputs: PieceInputs,
    schedule: Schedule,
    forecaster: Forecaster,
    guidance: float,
    pins: Pins | None,
    on_step: OnStep | None,
    progress: Progress | None,
) -> PieceRecord:
    kept = {
        frame: position
        for position, frame in enumerate(piece.frames.tolist())
        if not piece.pinned[position] and frame in piece.needed
    }
    trajectories: dict[int, dict[int, Array]] = {frame: {} for frame in kept}

    def keep(step: int, timestep: int, latents: Array) -> None:
        for frame, position in kept.items():
            trajectories[frame][step] = latents[:, :, position : position + 1].copy()
        if on_step is not None:
            on_step(step, timestep, latents)

    seen = keep if kept or on_step is not None else None
    workspace = inputs.network.workspace(inputs.noise.shape, piece.windows, schedule, forecaster, guidance, inputs.face)
    latents = denoise(workspace, schedule, forecaster, piece.windows, inputs.noise, seen, progress, pins)
    finished = latents[:, :, np.searchsorted(piece.frames, np.array(piece.finished, np.int64))]
    shared = piece.finished and piece.finished.stop <= piece.frames[-1]
    return PieceRecord(finished, trajectories, end=latents[:, :, -1:].copy() if shared else None)


def _joined(end: Array, latents: Array) -> Array:
    """Latents whose first frame is also the one before's last."""
    return np.concatenate([(end + latents[:, :, :1]) / 2, latents[:, :, 1:]], axis=2)


def _pins(piece: Piece, trajectories: Trajectories, steps: float) -> Pins | None:
    positions = np.flatnonzero(piece.pinned)
    if not len(positions):
        return None
    pinned = [trajectories[int(frame)] for frame in piece.frames[positions]]
    held = [step for step in pinned[0] if step < steps]
    return Pins(positions, {step: np.concatenate([frame[step] for frame in pinned], axis=2) for step in held})


class _Followed:
    """A forecaster whose decisions in the first piece are followed in all others.

    Attributes:
        jumps: the decisions.
    """

    def __init__(self, forecaster: Forecaster) -> None:
        self._forecaster: Forecaster = forecaster
        self.jumps: tuple[Jump, ...] = ()

    @property
    def ring(self) -> int:
        """See `Forecaster`."""
        return self._forecaster.ring

    @property
    def evaluations(self) -> int:
        """See `Forecaster`."""
        return self._forecaster.evaluations

    @property
    def masked(self) -> bool:
        """See `Forecaster`."""
        return self._forecaster.masked

    def start(self) -> Decide:
        """See `Forecaster`."""
        if self.jumps:
            return JumpTable(self.jumps).start()
        decide = self._forecaster.start()

        def noted(step: int, evaluated: Evaluated) -> Jump:
            self.jumps = (*self.jumps, decide(step, evaluated))
            return self.jumps[-1]

        return noted
