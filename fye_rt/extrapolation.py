"""Weights that forecast a quantity from its values at evaluated steps. They sum to 1."""

import math
from collections.abc import Callable, Sequence

import numpy as np

Weights = list[float]
Extrapolate = Callable[[Sequence[int], int], Weights]  # (evaluated steps, the newest first; a later step)

# the published cache: the first steps are evaluated, then every third; before the threshold plain reuse
PAPER_WARM_UP, PAPER_INTERVAL, PAPER_THRESHOLD = 2, 3, 25


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
