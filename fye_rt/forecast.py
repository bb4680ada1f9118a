"""Which steps are evaluated, and with which weights the latents move from one evaluated step to the next.

Guidance, window blending, forecasting and DDIM (eta 0) are linear, so a move over any number of steps is one sum:

    q_0 = c v + d x            the forecast quantity at the evaluated step: v, x0 or epsilon
    x  <- a x + sum_j w_j q_j  q_j was written j evaluations ago

A method is a table of these host numbers, in float64; the loop in denoise.py runs any table.
"""

from dataclasses import dataclass

import numpy as np

from fye_rt.errors import OptionError
from fye_rt.options import FORECASTS
from fye_rt.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Jump:
    """One evaluation and the move that follows it.

    Attributes:
        step: index into the schedule of the evaluated step.
        a: weight of the latents.
        w: weights of the quantities in the ring, the newest first; as many as the move uses.
        c: weight of the prediction in the new quantity.
        d: weight of the latents in the new quantity.
    """

    step: int
    a: float
    w: tuple[float, ...]
    c: float = 1.0
    d: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The evaluated steps of one clip in order; all its windows follow it.

    Attributes:
        jumps: one for each evaluated step; the last one ends at the result.
    """

    jumps: tuple[Jump, ...]

    @property
    def ring(self) -> int:
        """How many quantities must be kept."""
        return max(len(jump.w) for jump in self.jumps)


def plan(schedule: Schedule, forecast: str = "off") -> Plan:
    """The table of a method.

    Args:
        schedule: the DDIM steps.
        forecast: "off" evaluates every step: plain DDIM.

    Raises:
        OptionError: an unknown method.
    """
    if forecast != "off":
        raise OptionError(f"forecast={forecast!r} is not valid; allowed: {', '.join(FORECASTS)}")
    # x0 = sqrt(p_t) x - sqrt(1 - p_t) v and epsilon = sqrt(p_t) v + sqrt(1 - p_t) x, put into
    # sqrt(p_prev) x0 + sqrt(1 - p_prev) epsilon (Song et al. 2021, "DDIM", eq. 12, with v-prediction)
    signal, noise = np.sqrt(schedule.alpha_bar_t), np.sqrt(1 - schedule.alpha_bar_t)
    next_signal, next_noise = np.sqrt(schedule.alpha_bar_prev), np.sqrt(1 - schedule.alpha_bar_prev)
    of_latents = next_signal * signal + next_noise * noise
    of_prediction = next_noise * signal - next_signal * noise
    return Plan(
        tuple(
            Jump(step, a, (w,))
            for step, (a, w) in enumerate(zip(of_latents.tolist(), of_prediction.tolist(), strict=True))
        )
    )
