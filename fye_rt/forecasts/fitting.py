"""Fitting of jumps to what a model does between evaluated steps.

A few clips are recorded with every step evaluated. Then, for a choice of steps, least squares fits the weights of each
move, one move after another, on the latents that the moves before it lead to (a closed loop), so that it ends where all
the steps would have ended:

    x' = a x + sum_i w_i v_{e-i}        against x of the full run at the next evaluated step

Two constraints hold in every move: the weights must carry a point whose x0 and epsilon stand still exactly to its next
place, as every forecast and every solver does. Plain least squares would blur what it cannot predict.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fye_rt.arrays import Array, weighted_sum
from fye_rt.forecast import Jump, JumpTable, move
from fye_rt.forecasts.fitted import Fitted
from fye_rt.schedule import Schedule
from fye_rt.timings import Progress, no_progress

TAPS = 3  # predictions in a move: the newest and the two before it
REFINED = 6  # evaluations in the largest table whose steps are refined: with more, moves begin near the full run
_PATIENCE = 5  # most evaluations of a refinement, in full runs per clip

Predict = Callable[[Array, int], Array]  # (latents, step) to the guided prediction of a whole clip
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A clip with every step evaluated.

    Attributes:
        predict: evaluates the network on this clip.
        latents: float32 (steps + 1, ...), from the noise to the result.
        predictions: float32 (steps, ...).
    """

    predict: Predict
    latents: Array
    predictions: Array


def record(schedule: Schedule, predict: Predict, noise: Array, progress: Progress = no_progress) -> Recorded:
    """Evaluate every step of a clip; `progress` is called with ("record", finished, all) steps."""
    latents, predictions = [noise], []
    for step in range(len(schedule)):
        predictions.append(predict(latents[-1], step).copy())
        latents.append(weighted_sum((latents[-1], predictions[-1]), move(schedule, step, "v")))
        progress("record", step + 1, len(schedule))
    return Recorded(predict, np.stack(latents), np.stack(predictions))


def fit_all(
    schedule: Schedule,
    clips: Sequence[Recorded],
    guidance: tuple[float, float],
    evaluations: Sequence[int],
    taps: int = TAPS,
    progress: Progress = no_progress,
) -> list[Fitted]:
    """Choose steps and fit moves for each number of evaluations, and measure the error on held-out clips.

    Args:
        schedule: the DDIM steps.
        clips: recorded clips to fit to.
        guidance: least and greatest guidance scale of the clips.
        evaluations: network evaluations of each table.
        taps: most predictions in a move.
        progress: called with ("fit", finished, all) network evaluations.

    Returns:
        Tables with their errors on held-out clips: each half of the clips is measured with weights fitted to the other
        half, at steps chosen on all clips. With one clip the error is NaN.
    """
    halves = [(clips[::2], clips[1::2]), (clips[1::2], clips[::2])] if len(clips) > 1 else []
    refinement = _PATIENCE * len(schedule) * len(clips)
    refinements = sum(count <= REFINED for count in evaluations)
    done, total = 0, (1 + len(halves)) * len(clips) * sum(evaluations) + refinements * refinement
    fitted = []

    def refined(stage: str, so_far: int, most: int) -> None:
        progress("fit", done + so_far, total)

    for count in evaluations:
        steps = search(schedule, clips, count, taps)
        if count <= REFINED:
            steps = refine(schedule, clips, steps, taps, refined)
            done += refinement
        table, _ = fit(schedule, clips, steps, taps)
        done += len(clips) * count
        progress("fit", done, total)
        errors = []
        for ours, others in halves:
            errors.append(distance(schedule, others, fit(schedule, ours, steps, taps)[0]) ** 2 * len(others))
            done += len(clips) * count
            progress("fit", done, total)
        error = math.sqrt(sum(errors) / len(clips)) if halves else math.nan
        fitted.append(Fitted(len(schedule), guidance, table, error))
    return fitted


def fit(
    schedule: Schedule, clips: Sequence[Recorded], steps: Sequence[int], taps: int = TAPS
) -> tuple[JumpTable, float]:
    """Fit the moves between evaluated `steps`, ascending from 0; see `fit_all` for the other arguments.

    Returns:
        The table, and the distance of its results from those of the full runs (`distance`).
    """
    return _ClosedLoops(schedule, clips, taps).fit(tuple(steps))


def refine(
    schedule: Schedule,
    clips: Sequence[Recorded],
    steps: Sequence[int],
    taps: int = TAPS,
    progress: Progress = no_progress,
) -> list[int]:
    """Find steps near the given ones whose fitted moves end nearer to the full runs.

    `search` lets every move begin on the full run. With few evaluations a move really begins some way off, and other
    steps are better. Here each step, except the first and the last, moves by up to two as long as that helps. Later
    steps go first, because the steps before them need not be evaluated again.

    `steps`, ascending from 0, are those to start from, and `progress` is called with ("refine", finished, most) network
    evaluations. The other arguments are those of `fit_all`.
    """
    loops = _ClosedLoops(schedule, clips, taps)
    most = _PATIENCE * len(schedule) * len(clips)
    best = tuple(steps)
    tried, least = {best}, loops.fit(best)[1]
    last = None
    while last != best:
        last = best
        for i in range(len(steps) - 2, 0, -1):
            for by in (-1, 1, -2, 2):
                path = (*best[:i], best[i] + by, *best[i + 1 :])
                if path in tried or not path[i - 1] < path[i] < path[i + 1]:
                    continue
                if loops.evaluations > most - len(steps) * len(clips):
                    return list(best)
                tried.add(path)
                error = loops.fit(path)[1]
                if error < least:
                    best, least = path, error
                loops.keep(best)
                progress("refine", loops.evaluations, most)
    return list(best)


def distance(schedule: Schedule, clips: Sequence[Recorded], table: JumpTable) -> float:
    """Root mean square distance of a table's results from those of the full runs, over all latents of all clips."""
    loops = [_Loop(clip, clip.latents[0]) for clip in clips]
    for loop in loops:
        for jump in table.jumps:
            loop.evaluate(jump.step, table.ring)
            loop.move(jump)
    return _rms(loops)


class _ClosedLoops:
    """Runs of all clips along several choices of steps, which share the evaluations of common first steps."""

    def __init__(self, schedule: Schedule, clips: Sequence[Recorded], taps: int) -> None:
        self._schedule, self._clips, self._taps = schedule, clips, taps
        # by the steps evaluated so far: the clips, and the moves that led there
        self._known: dict[tuple[int, ...], tuple[list[_Loop], tuple[Jump, ...]]] = {}
        self.evaluations = 0  # of the network, in total

    def fit(self, steps: tuple[int, ...]) -> tuple[JumpTable, float]:
        """Return the table for these steps, and the distance of its results from those of the full runs."""
        loops, jumps = self._moved(steps, len(self._schedule))
        return JumpTable(jumps), _rms(loops)

    def keep(self, steps: tuple[int, ...]) -> None:
        """Forget all evaluations that do not belong to these steps."""
        self._known = {path: runs for path, runs in self._known.items() if path == steps[: len(path)]}

    def _moved(self, steps: tuple[int, ...], end: int) -> tuple[list["_Loop"], tuple[Jump, ...]]:
        if not steps:
            return [_Loop(clip, clip.latents[0]) for clip in self._clips], ()
        loops, jumps = self._evaluated(steps)
        products = np.sum([loop.products(end) for loop in loops], axis=0)
        a, *w = solve(self._schedule, steps[::-1][: self._taps], end, products)
        jump = Jump(steps[-1], end, a, tuple(w))
        loops = [loop.copy() for loop in loops]
        for loop in loops:
            loop.move(jump)
        return loops, (*jumps, jump)

    def _evaluated(self, steps: tuple[int, ...]) -> tuple[list["_Loop"], tuple[Jump, ...]]:
        if steps not in self._known:
            loops, jumps = self._moved(steps[:-1], steps[-1])
            for loop in loops:
                loop.evaluate(steps[-1], self._taps)
            self.evaluations += len(loops)
            self._known[steps] = loops, jumps
        return self._known[steps]


class _Loop:
    """One clip in the closed loop of a table."""

    def __init__(self, clip: Recorded, latents: Array, ring: Sequence[Array] = ()) -> None:
        self._clip = clip
        self._latents = latents
        self._ring = list(ring)  # predictions, the newest first

    def copy(self) -> "_Loop":
        return _Loop(self._clip, self._latents, self._ring)

    def evaluate(self, step: int, keep: int) -> None:
        self._ring.insert(0, self._clip.predict(self._latents, step).copy())
        del self._ring[keep:]

    def products(self, end: int) -> Matrix:
        """Scalar products of the target (the full run at step `end`), the latents and the predictions."""
        return _products([self._clip.latents[end], self._latents, *self._ring])

    def move(self, jump: Jump) -> None:
        self._latents = weighted_sum((self._latents, *self._ring[: len(jump.w)]), (jump.a, *jump.w))

    def squared_error(self) -> float:
        return float(np.square(self._latents.astype(np.float64) - self._clip.latents[-1]).mean())


def _rms(loops: Sequence[_Loop]) -> float:
    return math.sqrt(np.mean([loop.squared_error() for loop in loops]))


def solve(schedule: Schedule, known: Sequence[int], end: int, products: Matrix) -> list[float]:
    """Solve for the weights (a, w_0, ...) of the latents at step known[0] and of the predictions at the known steps.

    Args:
        schedule: the DDIM steps.
        known: evaluated steps, the newest first.
        end: step at which the move ends.
        products: scalar products of the target, the latents and the predictions with each other.
    """
    power = schedule.alpha_bar_t[list(known)]
    signal, noise = np.sqrt(power), np.sqrt(1 - power)
    # of x0 and of epsilon, in the latents and in the predictions
    constraints = np.array([[signal[0], *-noise], [noise[0], *signal]])
    level = schedule.alpha_bar_prev[end - 1]
    base = np.linalg.pinv(constraints) @ np.sqrt([level, 1 - level])
    free = np.linalg.svd(constraints)[2][2:].T
    gram, cross = products[1:, 1:], products[1:, 0]
    solution = np.linalg.lstsq(free.T @ gram @ free, free.T @ (cross - gram @ base), rcond=1e-12)[0]
    return list((base + free @ solution).tolist())


def search(schedule: Schedule, clips: Sequence[Recorded], evaluations: int, taps: int = TAPS) -> list[int]:
    """Find the steps whose moves, each fitted on the full runs, leave the least error in sum.

    The first and the last step are always among them: at the first nothing is known yet, and the last keeps the detail.
    """
    steps = len(schedule)
    if evaluations == 1:
        return [0]
    products = np.sum([_products([*clip.latents, *clip.predictions]) for clip in clips], axis=0)

    def error(known: Sequence[int], end: int) -> float:
        rows = [end, known[0], *(steps + 1 + step for step in known)]
        gram = products[np.ix_(rows, rows)]
        residual = np.array([-1.0, *solve(schedule, known, end, gram)])
        return float(residual @ gram @ residual)

    # the best path to every pair of last two steps; earlier steps hardly matter for the next move
    best: dict[tuple[int, ...], tuple[float, tuple[int, ...]]] = {(0,): (0.0, (0,))}
    for done in range(1, evaluations):
        further: dict[tuple[int, ...], tuple[float, tuple[int, ...]]] = {}
        for cost, path in best.values():
            left = evaluations - 1 - done
            ends = [steps - 1] if left == 0 else range(path[-1] + 1, steps - 1 - (left - 1))
            for end in ends:
                candidate = (cost + error(path[::-1][:taps], end), (*path, end))
                key = candidate[1][-2:]
                if key not in further or candidate < further[key]:
                    further[key] = candidate
        best = further
    return list(min((cost + error(path[::-1][:taps], steps), path) for cost, path in best.values())[1])


def _products(arrays: Iterable[Array]) -> Matrix:
    """Scalar products of arrays of one shape with each other."""
    flat = np.stack([array.ravel() for array in arrays]).astype(np.float64)
    return flat @ flat.T
