"""Jumps that are fitted to what a model really does between evaluated steps.

Every step is evaluated on a few clips. Then, for a choice of steps, the weights of each move are fitted by least
squares, one after another, on the latents that the moves before it lead to (a closed loop), so that it ends where all
the steps would have ended:

    x' = a x + sum_i w_i v_{e-i}        against x of the full run at the next evaluated step

Two numbers a move are given: the weights must carry a point whose x0 and epsilon stand still exactly to its next place,
as every forecast and every solver does. Plain least squares would blur what it cannot foresee.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fye_rt.arrays import Array, weighted_sum
from fye_rt.forecast import Jump, Plan, move
from fye_rt.schedule import Schedule

TAPS = 3  # predictions in a move: the newest and two before

Predict = Callable[[Array, int], Array]  # (latents, step) to the guided prediction of a whole clip
Matrix = NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A clip with every step evaluated.

    Attributes:
        predict: the network on this clip.
        latents: float32 (steps + 1, ...), from noise to the result.
        predictions: float32 (steps, ...).
    """

    predict: Predict
    latents: Array
    predictions: Array


def record(
    schedule: Schedule, predict: Predict, noise: Array, progress: Progress = lambda done, total: None
) -> Recorded:
    """Evaluate every step of a clip."""
    latents, predictions = [noise], []
    for step in range(len(schedule)):
        predictions.append(predict(latents[-1], step).copy())
        latents.append(weighted_sum((latents[-1], predictions[-1]), move(schedule, step, "v")))
        progress(step + 1, len(schedule))
    return Recorded(predict, np.stack(latents), np.stack(predictions))


def fit(
    schedule: Schedule,
    clips: Sequence[Recorded],
    steps: Sequence[int],
    taps: int = TAPS,
    progress: Progress = lambda done, total: None,
) -> tuple[Plan, float]:
    """Fit the moves between the given steps.

    Args:
        schedule: the DDIM steps.
        clips: what to fit them to.
        steps: that are evaluated, ascending from 0.
        taps: most predictions in a move.
        progress: called with (finished, all) evaluated steps.

    Returns:
        The table, and how far its results are from those of the full runs: root mean square over all latents.
    """
    now = [clip.latents[0] for clip in clips]
    rings: list[list[Array]] = [[] for _ in clips]
    jumps = []
    for i, (step, end) in enumerate(zip(steps, [*steps[1:], len(schedule)], strict=True)):
        products = np.zeros((taps + 2, taps + 2))
        for clip, latents, ring in zip(clips, now, rings, strict=True):
            ring.insert(0, clip.predict(latents, step).copy())
            del ring[taps:]
            products[: len(ring) + 2, : len(ring) + 2] += _products([clip.latents[end], latents, *ring])
        known = steps[i::-1][:taps]
        a, *w = solve(schedule, known, end, products[: len(known) + 2, : len(known) + 2])
        jumps.append(Jump(step, end, a, tuple(w)))
        now = [weighted_sum((latents, *ring), (a, *w)) for latents, ring in zip(now, rings, strict=True)]
        progress(i + 1, len(steps))
    errors = [np.square(x.astype(np.float64) - clip.latents[-1]).mean() for x, clip in zip(now, clips, strict=True)]
    return Plan(tuple(jumps)), float(np.sqrt(np.mean(errors)))


def solve(schedule: Schedule, known: Sequence[int], end: int, products: Matrix) -> list[float]:
    """Weights (a, w_0, ...) of the latents at step known[0] and of the predictions at the known steps.

    Args:
        schedule: the DDIM steps.
        known: evaluated steps, the newest first.
        end: step that the move leads to.
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
    chosen = np.linalg.lstsq(free.T @ gram @ free, free.T @ (cross - gram @ base), rcond=1e-12)[0]
    return list((base + free @ chosen).tolist())


def search(schedule: Schedule, clips: Sequence[Recorded], evaluations: int, taps: int = TAPS) -> list[int]:
    """Steps whose moves, each fitted on the full runs, leave the least error in sum.

    The first and the last step are always among them: at the first nothing is known yet, and the last keeps the detail.
    """
    steps = len(schedule)
    if evaluations == 1:
        return [0]
    products = np.sum([_products([*clip.latents, *clip.predictions]) for clip in clips], axis=0)

    def error(known: Sequence[int], end: int) -> float:
        of = [end, known[0], *(steps + 1 + step for step in known)]
        chosen = products[np.ix_(of, of)]
        off = np.array([-1.0, *solve(schedule, known, end, chosen)])
        return float(off @ chosen @ off)

    # the best way to every pair of last two steps; what lies before them hardly counts for the next move
    best: dict[tuple[int, ...], tuple[float, tuple[int, ...]]] = {(0,): (0.0, (0,))}
    for done in range(1, evaluations):
        further: dict[tuple[int, ...], tuple[float, tuple[int, ...]]] = {}
        for cost, path in best.values():
            left = evaluations - 1 - done
            ends = [steps - 1] if left == 0 else range(path[-1] + 1, steps - 1 - (left - 1))
            for end in ends:
                found = (cost + error(path[::-1][:taps], end), (*path, end))
                key = found[1][-2:]
                if key not in further or found < further[key]:
                    further[key] = found
        best = further
    return list(min((cost + error(path[::-1][:taps], steps), path) for cost, path in best.values())[1])


def _products(arrays: Iterable[Array]) -> Matrix:
    """Scalar products of arrays of one shape with each other."""
    flat = np.stack([array.ravel() for array in arrays]).astype(np.float64)
    return flat @ flat.T
