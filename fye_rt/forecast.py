"""Jump tables: which steps are evaluated, and with which weights the latents move from one to the next.

Guidance, window blending, forecasting and DDIM (eta 0) are linear, so a move over any number of steps is one sum:

    q_0 = c v + d x                  the forecast quantity at the evaluated step: v, x0 or epsilon
    x  <- a x + b v + sum_j w_j q_j  q_j was written j evaluations ago

The steps between cost nothing. A forecaster gives these numbers, in float64; the loop in denoise.py follows any one.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np

from fye_rt.arrays import Array
from fye_rt.errors import OptionError
from fye_rt.schedule import Schedule

Weights = list[float]
Extrapolate = Callable[[Sequence[int], int], Weights]  # (evaluated steps, the newest first; a later step); sum to 1

# the published cache evaluates the first steps, then every third; before the threshold it only reuses
PAPER_WARM_UP, PAPER_INTERVAL, PAPER_THRESHOLD = 2, 3, 25


@dataclass(frozen=True, slots=True)
class Jump:
    """One evaluation and the move that follows it.

    Attributes:
        step: evaluated step, an index into the schedule.
        end: step at which the move ends: the next evaluated step, or the number of steps.
        a: weight of the latents.
        w: weights of the quantities in the ring, the newest first; as many as the move uses.
        c: weight of the prediction in the new quantity.
        d: weight of the latents in the new quantity.
        b: weight of the prediction where the quantity contains none of it: at pure noise, epsilon is the latents.
        outside: weights in place of `w` outside the face mask; None without a mask.
    """

    step: int
    end: int
    a: float
    w: tuple[float, ...]
    c: float = 1.0
    d: float = 0.0
    b: float = 0.0
    outside: tuple[float, ...] | None = None


class Evaluated(Protocol):
    """A clip at an evaluated step, for the decision where to go from there."""

    def prediction(self) -> Array:
        """Return the guided prediction of v, float32 (1, 4, F, h, w)."""

    def read(self) -> Array:
        """Return the latents, float32 (1, 4, F, h, w)."""


Decide = Callable[[int, Evaluated], Jump]  # (evaluated step, clip at that step) to the jump from there


class Forecaster(Protocol):
    """Gives the loop its jumps: from a fixed table, or decided while a clip is denoised."""

    @property
    def ring(self) -> int:
        """Number of quantities to keep."""

    @property
    def evaluations(self) -> int:
        """Largest number of evaluated steps."""

    @property
    def masked(self) -> bool:
        """Whether the face and the rest have different weights."""

    def start(self) -> Decide:
        """Start a clip; return the function that decides its jumps."""


@dataclass(frozen=True, slots=True)
class JumpTable:
    """A fixed table: one jump per evaluated step, the last one to the result. All windows of a clip follow it."""

    jumps: tuple[Jump, ...]

    @property
    def ring(self) -> int:
        """See `Forecaster`."""
        return max(len(row) for jump in self.jumps for row in (jump.w, jump.outside or ()))

    @property
    def evaluations(self) -> int:
        """See `Forecaster`."""
        return len(self.jumps)

    @property
    def masked(self) -> bool:
        """See `Forecaster`."""
        return any(jump.outside is not None for jump in self.jumps)

    def start(self) -> Decide:
        """See `Forecaster`."""
        jumps = {jump.step: jump for jump in self.jumps}
        return lambda step, evaluated: jumps[step]


def reuse(history: Sequence[int], at: int) -> Weights:
    """Weigh the newest quantity alone."""
    return [1.0]


def newton(order: int) -> Extrapolate:
    """Weigh by the polynomial through the newest `order` + 1 quantities; exact for that degree at any spacing."""

    def weights(history: Sequence[int], at: int) -> Weights:
        known = history[: order + 1]
        return [math.prod((at - other) / (node - other) for other in known if other != node) for node in known]

    return weights


def taylor(order: int) -> Extrapolate:
    """Weigh by the Taylor series at the newest quantity, with derivatives from differences of differences.

    The published cache does the same, but does not divide each difference by its interval. A backward difference is the
    derivative half an interval back, so from order 2 on the series is not exact, not even for a parabola; `newton` is.
    """

    def weights(history: Sequence[int], at: int) -> Weights:
        known = history[: order + 1]
        rows = np.eye(len(known))
        total, distance = rows[0].copy(), float(at - known[0])
        for degree in range(1, len(known)):
            intervals = -np.diff(known[: len(rows)]).astype(float)
            rows = (rows[:-1] - rows[1:]) / intervals[:, None]
            total += rows[0] * distance**degree / math.factorial(degree)
        return list(total.tolist())

    return weights


def published(threshold: int = PAPER_THRESHOLD) -> Extrapolate:
    """Weigh as the published cache does: reuse before step `threshold`, first order from there on."""
    first = taylor(1)

    def weights(history: Sequence[int], at: int) -> Weights:
        return reuse(history, at) if at < threshold else first(history, at)

    return weights


def jump_table(
    schedule: Schedule,
    evaluated: Iterable[int] | None = None,
    extrapolate: Extrapolate = reuse,
    quantity: str = "v",
    outside: Extrapolate | None = None,
) -> JumpTable:
    """Build the table of given evaluated steps, with weights that forecast the other steps.

    Args:
        schedule: the DDIM steps.
        evaluated: steps at which the network is evaluated, ascending from 0; by default all, which is plain DDIM.
        extrapolate: weights of the quantity at evaluated steps that forecast it at a later step; by default reuse.
        quantity: forecast quantity, "v", "x0" or "epsilon".
        outside: used in place of `extrapolate` outside the face mask.

    Raises:
        OptionError: the steps do not begin with 0, do not ascend, or exceed the schedule.
    """
    steps = list(range(len(schedule)) if evaluated is None else evaluated)
    if not steps or steps[0] != 0 or steps[-1] >= len(schedule) or any(b <= a for a, b in pairwise(steps)):
        raise OptionError(f"evaluated steps {steps} are not valid; they ascend from 0 to at most {len(schedule) - 1}")
    ends = [*steps[1:], len(schedule)]
    rows = [jump(schedule, steps[i::-1], end, extrapolate, quantity) for i, end in enumerate(ends)]
    if outside is not None:
        others = [jump(schedule, steps[i::-1], end, outside, quantity) for i, end in enumerate(ends)]
        rows = [replace(row, outside=other.w) for row, other in zip(rows, others, strict=True)]
    return JumpTable(tuple(rows))


def jump(schedule: Schedule, history: Sequence[int], end: int, extrapolate: Extrapolate, quantity: str) -> Jump:
    """Build the jump from the newest step of `history` to step `end` out of its DDIM steps."""
    step = history[0]
    c, d = conversion(float(schedule.alpha_bar_t[step]), quantity)
    a, b = move(schedule, step, "v")
    w = np.zeros(len(history))
    if c:  # v = (q - d x) / c
        a, b, w[0] = a - b * d / c, 0.0, b / c
    for skipped in range(step + 1, end):
        of_latents, of_quantity = move(schedule, skipped, quantity)
        forecast = extrapolate(history, skipped)
        a, b, w = of_latents * a, of_latents * b, of_latents * w
        w[: len(forecast)] += of_quantity * np.array(forecast)
    used = max(np.flatnonzero(w), default=0) + 1
    return Jump(step, end, float(a), tuple(w[:used].tolist()), c, d, float(b))


def conversion(power: float, quantity: str) -> tuple[float, float]:
    """Return (c, d) such that the quantity is c v + d x where alpha_bar is `power`."""
    signal, noise = math.sqrt(power), math.sqrt(1 - power)
    return {"v": (1.0, 0.0), "x0": (-noise, signal), "epsilon": (signal, noise)}[quantity]


def move(schedule: Schedule, step: int, quantity: str) -> tuple[float, float]:
    """Return the weights of the latents and of the quantity in one DDIM step.

    Substitutes x0 = sqrt(p) x - sqrt(1 - p) v and epsilon = sqrt(p) v + sqrt(1 - p) x into
    sqrt(p') x0 + sqrt(1 - p') epsilon (Song et al. 2021, "DDIM", eq. 12, with v-prediction).
    """
    power, to_power = float(schedule.alpha_bar_t[step]), float(schedule.alpha_bar_prev[step])
    signal, noise, to_signal, to_noise = map(math.sqrt, (power, 1 - power, to_power, 1 - to_power))
    if quantity == "v":
        return to_signal * signal + to_noise * noise, to_noise * signal - to_signal * noise
    if quantity == "x0":
        return to_noise / noise, to_signal - to_noise * signal / noise
    return to_signal / signal, to_noise - to_signal * noise / signal


def even(steps: int, evaluations: int, warm_up: int = 1, last: bool = True) -> list[int]:
    """Choose `evaluations` steps: the first `warm_up`, then evenly spaced ones to the last, or short of it."""
    start = min(warm_up, evaluations) - 1
    rest = evaluations - 1 - start
    end = steps - 1 if last else steps - 1 - (steps - 1 - start) // (rest + 1)
    return [*range(start + 1), *(start + round(i * (end - start) / rest) for i in range(1, rest + 1))]


def every(steps: int, interval: int, warm_up: int = 1, last: bool = True) -> list[int]:
    """Choose the first `warm_up` steps, all multiples of `interval`, and the last step if `last`, but not otherwise."""
    evaluated = {step for step in range(steps) if step < warm_up or step % interval == 0}
    return sorted(evaluated | {steps - 1} if last else evaluated - {steps - 1} | {0})
