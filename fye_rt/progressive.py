"""Denoising of clips, piece after piece.

Each piece (`fye_rt.pieces`) goes through all steps before the next one begins. In a progressive clip the first piece is
the key frames. Each other piece fills an interval between two neighbouring key frames, whose latents are put back at
every evaluated step to what they were when the key frames were made. So temporal attention sees its true anchors, and
an interval needs nothing but its two ends.

In the last two thirds of the steps, where details are decided, the two ends of an interval are released and settle
among their neighbours; a key frame becomes the mean of its versions in the intervals before and after it. Otherwise the
seams between intervals would show: docs/measurements/index.md.
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
    """Inputs of the loop for some frames of a clip.

    Attributes:
        network: the denoiser; frame indices count within the piece.
        noise: float32 (1, 4, f, h, w).
        face: bool (f, h, w), true in the face, or None; required if the forecaster treats the face separately.
    """

    network: Network
    noise: Array
    face: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True, eq=False)
class PieceRecord:
    """Results of a finished piece.

    Attributes:
        latents: float32 (1, 4, f, h, w), of the frames that are final with the piece.
        trajectories: latents of each frame that later pieces are pinned to, by evaluated step: float32 (1, 4, 1, h, w).
        jumps: the jumps that all pieces follow; set in the first piece alone.
        end: float32 (1, 4, 1, h, w), the piece's version of its last frame, if the next piece finishes that frame.
    """

    latents: Array
    trajectories: Trajectories
    jumps: tuple[Jump, ...] = ()
    end: Array | None = None


class PieceStore(Protocol):
    """Storage for the finished pieces of one clip."""

    def read(self, number: int) -> PieceRecord | None:
        """Return a piece, or None if it is not stored."""

    def write(self, number: int, record: PieceRecord) -> None:
        """Store a piece."""


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
    """Denoise a clip piece by piece, and yield its frames as they are finished.

    It keeps only latents of frames that later pieces are pinned to. Errors are those of `fye_rt.denoise.denoise`.

    Args:
        pieces: from `fye_rt.pieces`.
        inputs: makes the loop's inputs for the frames of a piece.
        schedule: the DDIM steps.
        forecaster: decides which steps are evaluated; if it decides as it goes, it does so in the first piece.
        guidance: classifier-free guidance scale.
        on_step: see `fye_rt.denoise.denoise`; called with the latents of one piece after another.
        progress: called with ("denoise", finished, all) network evaluations of all pieces known so far.
        store: finished pieces of the same clip; newly finished pieces are added.

    Yields:
        Frame indices and their latents, float32 (1, 4, f, h, w); in the clip's order, without gaps.
    """
    trajectories: dict[int, Mapping[int, Array]] = {}  # by frame and evaluated step
    shared = _SharedJumps(forecaster)
    end: Array | None = None
    for number, piece in enumerate(pieces):
        known = len(pieces) if isinstance(pieces, Sized) else number + 1
        record = None if store is None else store.read(number)
        if record is None:
            pins = _pins(piece, trajectories, piece.pinned_share * len(schedule))
            overall = _overall(progress, number, known)
            record = _denoised(piece, inputs(piece.frames), schedule, shared, guidance, pins, on_step, overall)
            if number == 0:
                record = replace(record, jumps=shared.jumps)
            if store is not None:
                store.write(number, record)
        elif progress is not None:
            evaluations = forecaster.evaluations * len(piece.windows)
            progress("denoise", (number + 1) * evaluations, known * evaluations)
        shared.jumps = shared.jumps or record.jumps
        if piece.finished:
            latents = record.latents
            if end is not None:  # two pieces made the first frame: take the mean
                latents = np.concatenate([(end + latents[:, :, :1]) / 2, latents[:, :, 1:]], axis=2)
            yield piece.finished, latents
            end = record.end
        trajectories.update(record.trajectories)
        for frame in set(trajectories) - piece.needed:
            del trajectories[frame]


def _overall(progress: Progress | None, number: int, pieces: int) -> Progress | None:
    """Turn progress of one piece into progress of all pieces, which take equally many evaluations."""
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
    needed = piece.needed - set(piece.frames[piece.pinned].tolist())
    recorded = {frame: i for i, frame in enumerate(piece.frames.tolist()) if frame in needed}
    trajectories: dict[int, dict[int, Array]] = {frame: {} for frame in recorded}

    def record(step: int, timestep: int, latents: Array) -> None:
        for frame, i in recorded.items():
            trajectories[frame][step] = latents[:, :, i : i + 1].copy()
        if on_step is not None:
            on_step(step, timestep, latents)

    callback = record if recorded or on_step is not None else None
    workspace = inputs.network.workspace(inputs.noise.shape, piece.windows, schedule, forecaster, guidance, inputs.face)
    latents = denoise(workspace, schedule, forecaster, piece.windows, inputs.noise, callback, progress, pins)
    finished = latents[:, :, np.searchsorted(piece.frames, np.array(piece.finished, np.int64))]
    ends_shared = piece.finished and piece.finished.stop <= piece.frames[-1]
    return PieceRecord(finished, trajectories, end=latents[:, :, -1:].copy() if ends_shared else None)


def _pins(piece: Piece, trajectories: Trajectories, steps: float) -> Pins | None:
    positions = np.flatnonzero(piece.pinned)
    if not len(positions):
        return None
    pinned = [trajectories[int(frame)] for frame in piece.frames[positions]]
    held_steps = [step for step in pinned[0] if step < steps]
    return Pins(positions, {step: np.concatenate([frame[step] for frame in pinned], axis=2) for step in held_steps})


class _SharedJumps:
    """A forecaster that decides in the first piece and repeats these decisions, `jumps`, in all others."""

    def __init__(self, forecaster: Forecaster) -> None:
        self._forecaster = forecaster
        self.ring, self.evaluations, self.masked = forecaster.ring, forecaster.evaluations, forecaster.masked
        self.jumps: tuple[Jump, ...] = ()

    def start(self) -> Decide:
        if self.jumps:
            return JumpTable(self.jumps).start()
        decide = self._forecaster.start()

        def record(step: int, evaluated: Evaluated) -> Jump:
            self.jumps = (*self.jumps, decide(step, evaluated))
            return self.jumps[-1]

        return record
