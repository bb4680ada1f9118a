"""Solvers of the model's differential equation, as jump tables.

DPM-Solver++ and UniPC take fewer, longer steps instead of forecasting between short ones. Both predict x0 and
extrapolate it over the logarithm of the signal-to-noise ratio, like diffusers' schedulers of the same names.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fye_rt import forecast
from fye_rt.forecast import Jump, JumpTable, conversion
from fye_rt.schedule import Schedule

TERMINAL = 2.0**-24  # alpha_bar of pure noise, as in diffusers' versions of both: its logarithm is finite

Weights = NDArray[np.float64]  # (3,): of the newest x0, of the one before, and of the one before that


def ddim(schedule: Schedule) -> JumpTable:
    """DDIM (Song et al. 2021) with every step of the schedule."""
    return forecast.jump_table(schedule)


def dpm(schedule: Schedule) -> JumpTable:
    """DPM-Solver++ 2M, midpoint (Lu et al. 2022, algorithm 2); the first and the last step are first order."""
    levels = _Levels(schedule)
    return JumpTable(tuple(levels.jump(i, levels.predictor(i)) for i in range(len(schedule))))


def unipc(schedule: Schedule) -> JumpTable:
    """UniPC of order 2, B2(h) (Zhao et al. 2023); the first and the last step are first order.

    Its corrector repeats each step once the prediction at its end is known, and continues from there: a correction of
    the latents that is a sum of predictions.
    """
    levels = _Levels(schedule)
    jumps = [levels.jump(0, levels.predictor(0))]
    for i in range(1, len(schedule)):
        correction = levels.corrector(i - 1) - np.array([0, *levels.predictor(i - 1)[:2]])
        jumps.append(levels.jump(i, levels.predictor(i) + levels.ratio(i) * correction))
    return JumpTable(tuple(jumps))


SOLVERS: Mapping[str, Callable[[Schedule], JumpTable]] = {"ddim": ddim, "dpm": dpm, "unipc": unipc}


class _Levels:
    """Signal, noise and the logarithm of their ratio at the steps of a schedule, and at its end, which has no noise."""

    def __init__(self, schedule: Schedule) -> None:
        self._power = np.maximum(schedule.alpha_bar_t, TERMINAL)
        power = np.append(self._power, 1.0)
        self._signal, self._noise = np.sqrt(power), np.sqrt(1 - power)
        with np.errstate(divide="ignore"):
            self._h = np.diff(np.log(self._signal) - np.log(self._noise))  # the last one is infinite

    def jump(self, i: int, w: Weights) -> Jump:
        used = max(np.flatnonzero(w)) + 1
        return Jump(i, i + 1, self.ratio(i), tuple(w[:used].tolist()), *conversion(float(self._power[i]), "x0"))

    def ratio(self, i: int) -> float:
        """Return the noise after step i as a multiple of that before it: the weight of the latents."""
        return float(self._noise[i + 1] / self._noise[i])

    def gain(self, i: int) -> float:
        """Return what step i adds of a constant x0."""
        return float(-self._signal[i + 1] * np.expm1(-self._h[i]))

    def second_order(self, i: int) -> bool:
        return 0 < i < len(self._h) - 1

    def predictor(self, i: int) -> Weights:
        """Return the weights of step i from the x0 known before it: its own first."""
        if not self.second_order(i):
            return self.gain(i) * np.array([1.0, 0, 0])
        slope = self._h[i] / self._h[i - 1] / 2
        return self.gain(i) * np.array([1 + slope, -slope, 0])

    def corrector(self, i: int) -> Weights:
        """Return the weights of step i, repeated, from the x0 at its end, its own, and the one before."""
        if not self.second_order(i):
            return self.gain(i) * np.array([0.5, 0.5, 0])
        h, back = self._h[i], -self._h[i - 1] / self._h[i]
        # coefficients of B2(h): integrals of powers of the time under the exponential
        first = -math.expm1(-h) / h - 1
        second = -first / h - 1 / 2
        right = np.array([first, 2 * second]) / math.expm1(-h)
        of_past, of_end = np.linalg.solve(np.array([[1.0, 1], [back, 1]]), right)
        past = of_past / back
        return self.gain(i) * np.array([of_end, 1 - past - of_end, past])
