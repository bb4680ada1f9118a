"""Which steps are evaluated, and with which weights the latents move from one evaluated step to the next.

Guidance, window blending, forecasting and DDIM (eta 0) are linear, so a move over any number of steps is one sum:

    q_0 = c v + d x                  the forecast quantity at the evaluated step: v, x0 or epsilon
    x  <- a x + b v + sum_j w_j q_j  q_j was written j evaluations ago

The steps in between cost nothing at all. A forecaster is a table of these numbers, in float64; the loop in denoise.py
runs any table.
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

# the published cache: the first steps are evaluated, then every third; before the threshold plain reuse
PAPER_WARM_UP, PAPER_INTERVAL, PAPER_THRESHOLD = 2, 3, 25


@dataclass(frozen=True, slots=True)
class Jump:
    """One evaluation and the move that follows it.

    Attributes:
        step: index into the schedule of the evaluated step.
        end: step that the move leads to: the next one to be evaluated, or as many as the schedule has.
        a: weight of the latents.
        w: weights of the quantities in the ring, the newest first; as many as the move uses.
        c: weight of the prediction in the new quantity.
        d: weight of the latents in the new quantity.
        b: weight of the prediction itself, where the quantity has none of it: at pure noise, epsilon is the latents.
        outside: in place of `w`, outside of the face mask; None where there is no mask.
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
    """What a decision can be made from: the clip at a step that was evaluated."""

    def prediction(self) -> Array:
        """The guided prediction of v, float32 (1, 4, F, h, w)."""

    def read(self) -> Array:
        """The latents, float32 (1, 4, F, h, w)."""


Decide = Callable[[int, Evaluated], Jump]  # (step, what was evaluated there) to the move from there


class Forecaster(Protocol):
    """What the loop follows: a table that stands, or one that is made as the clip goes on."""

    @property
    def ring(self) -> int:
        """How many quantities must be kept."""

    @property
    def evaluations(self) -> int:
        """How often the network is evaluated, at most."""

    @property
    def masked(self) -> bool:
        """Whether it tells the face from the rest."""

    def start(self) -> Decide:
        """What decides in one clip."""


@dataclass(frozen=True, slots=True)
class JumpTable:
    """A table that stands: the evaluated steps in order; all windows of a clip follow it.

    Attributes:
        jumps: one for each evaluated step; the last one ends at the result.
    """

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
    """The newest one as it is."""
    return [1.0]


def newton(order: int) -> Extrapolate:
    """The polynomial through the newest `order` + 1, exact for polynomials of that degree at any spacing."""

    def weights(history: Sequence[int], at: int) -> Weights:
        known = history[: order + 1]
        return [math.prod((at - other) / (one - other) for other in known if other != one) for one in known]

    return weights


def taylor(order: int) -> Extrapolate:
    """The Taylor series at the newest one, its derivatives from differences of differences.

    That is how the published cache goes, but for dividing each difference by its interval. A backward difference is the
    derivative half an interval back, so from order 2 on it is not exact, not even for a parabola; `newton` is.
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
    """Reuse before step `threshold`, first order from there on."""
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
    """The table of evaluated steps and of weights that forecast the others.

    Args:
        schedule: the DDIM steps.
        evaluated: steps at which the network is evaluated, in order, from 0 on; by default all: plain DDIM.
        extrapolate: weights of the quantity at evaluated steps that forecast it at a later one; by default reuse.
        quantity: what is forecast, "v", "x0" or "epsilon".
        outside: in place of `extrapolate`, outside of the face mask.

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
    """Evaluate at the newest step of `history` and go on to step `end`, DDIM step by DDIM step."""
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
    """(c, d): the quantity is c v + d x where alpha_bar is `power`."""
    signal, noise = math.sqrt(power), math.sqrt(1 - power)
    return {"v": (1.0, 0.0), "x0": (-noise, signal), "epsilon": (signal, noise)}[quantity]


def move(schedule: Schedule, step: int, quantity: str) -> tuple[float, float]:
    """Weights of the latents and of the quantity in one DDIM step.

    x0 = sqrt(p) x - sqrt(1 - p) v and epsilon = sqrt(p) v + sqrt(1 - p) x, put into
    sqrt(p') x0 + sqrt(1 - p') epsilon (Song et al. 2021, "DDIM", eq. 12, with v-prediction).
    """
    signal, noise = (math.sqrt(power) for power in (schedule.alpha_bar_t[step], 1 - schedule.alpha_bar_t[step]))
    to_signal, to_noise = (
        math.sqrt(power) for power in (schedule.alpha_bar_prev[step], 1 - schedule.alpha_bar_prev[step])
    )
    if quantity == "v":
        return to_signal * signal + to_noise * noise, to_noise * signal - to_signal * noise
    if quantity == "x0":
        return to_noise / noise, to_signal - to_noise * signal / noise
    return to_signal / signal, to_noise - to_signal * noise / signal


def even(steps: int, evaluations: int, warm_up: int = 1, last: bool = True) -> list[int]:
    """That many steps: the first `warm_up`, and others as evenly as they go to the last one, which may be left out."""
    start = min(warm_up, evaluations) - 1
    rest = evaluations - 1 - start
    end = steps - 1 if last else steps - 1 - (steps - 1 - start) // (rest + 1)
    return [*range(start + 1), *(start + round(i * (end - start) / rest) for i in range(1, rest + 1))]


def every(steps: int, interval: int, warm_up: int = 1, last: bool = True) -> list[int]:
    """The first `warm_up` steps, those whose number the interval divides, and the last one unless it is left out."""
    chosen = {step for step in range(steps) if step < warm_up or step % interval == 0}
    return sorted(chosen | {steps - 1} if last else chosen - {steps - 1} | {0})
