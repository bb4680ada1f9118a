"""The adaptive method, which decides after every evaluation how far to go without the next one.

It compares forecasts of two orders, as embedded Runge-Kutta pairs do. What order 1 adds to plain reuse bounds the
remaining error only if the two are in a fixed proportion, so that proportion is measured at every evaluation, where the
forecast of the quantity meets its true value. Decisions use the whole clip, and all its windows follow them.
"""

from dataclasses import dataclass

import numpy as np

from fye_rt.arrays import Array, weighted_sum
from fye_rt.forecast import Decide, Evaluated, Jump, conversion, jump, newton, reuse
from fye_rt.schedule import Schedule

GROWTH = 2  # longest jump, in units of the one before: a short distance tells little of a long one
MEMORY = 0.5  # weight of the earlier proportion; the newest measurement has the rest


@dataclass(frozen=True, slots=True, eq=False)
class Adaptive:
    """First order, from step to step as far as the estimated error stays within the tolerance.

    Attributes:
        schedule: the DDIM steps.
        tolerance: accepted error of a jump: root mean square over the clip's latents, whose noise has 1.
        max_evaluations: most network evaluations, at least 2. The last one is reserved for the last step.
        quantity: forecast quantity, "v", "x0" or "epsilon".
    """

    schedule: Schedule
    tolerance: float
    max_evaluations: int
    quantity: str = "epsilon"

    @property
    def ring(self) -> int:
        """See `fye_rt.forecast.Forecaster`."""
        return 2

    @property
    def evaluations(self) -> int:
        """See `fye_rt.forecast.Forecaster`."""
        return min(self.max_evaluations, len(self.schedule))

    @property
    def masked(self) -> bool:
        """See `fye_rt.forecast.Forecaster`."""
        return False

    def start(self) -> Decide:
        """See `fye_rt.forecast.Forecaster`."""
        return _Clip(self).decide


class _Clip:
    """State of the method in one clip."""

    def __init__(self, method: Adaptive) -> None:
        self._method = method
        self._steps: list[int] = []  # evaluated steps, the newest first
        self._quantities: list[Array] = []  # the newest two
        self._proportion = 1.0  # of the error of order 1 to what order 1 adds to order 0

    def decide(self, step: int, evaluated: Evaluated) -> Jump:
        """Use an evaluation, and decide the jump from there."""
        method = self._method
        weights = conversion(float(method.schedule.alpha_bar_t[step]), method.quantity)
        quantity = weighted_sum((evaluated.prediction(), evaluated.read()), weights)
        if len(self._steps) >= 2:
            self._measure(step, quantity)
        self._steps, self._quantities = [step, *self._steps], [quantity, *self._quantities[:1]]
        return self._jump(self._end())

    def _measure(self, step: int, quantity: Array) -> None:
        reused = self._quantities[0]
        forecast = weighted_sum(self._quantities, newton(1)(self._steps, step))
        added = _rms(forecast, reused)
        if added:
            self._proportion += (1 - MEMORY) * (_rms(quantity, forecast) / added - self._proportion)

    def _end(self) -> int:
        """Return the furthest step that the tolerance and the number of evaluations allow."""
        step, last = self._steps[0], len(self._method.schedule) - 1
        if step == last:
            return last + 1
        if len(self._steps) == self._method.evaluations - 1:
            return last
        if len(self._steps) < 2:
            return step + 1
        change = _rms(*self._quantities)
        furthest = min(last, step + GROWTH * (step - self._steps[1]))
        end = step + 1
        while end < furthest and self._error(end + 1, change) <= self._method.tolerance:
            end += 1
        return end

    def _error(self, end: int, change: float) -> float:
        """Estimate the error at `end`. Both orders weight the latents alike and differ in the quantities alone."""
        first = self._jump(end).w[0]
        zeroth = jump(self._method.schedule, self._steps[:1], end, reuse, self._method.quantity).w[0]
        return self._proportion * abs(first - zeroth) * change

    def _jump(self, end: int) -> Jump:
        return jump(self._method.schedule, self._steps[:2], end, newton(1), self._method.quantity)


def _rms(array: Array, other: Array) -> float:
    return float(np.sqrt(np.square(array.astype(np.float64) - other).mean()))
