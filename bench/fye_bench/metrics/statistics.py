"""Means and correlations over cases, with intervals from resampled cases.

A case's numbers are sums: a mean of cases is a ratio of two of them, a correlation over all frames of all cases follows
from six. So a resampled suite is one product of matrices.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fye_training.topology import Array

RESAMPLES, LEVEL = 2000, 95.0
STILL = 0.01**2  # variance of an expression below which nobody sees it move
FLAT = 1e-12  # variance of what is read that is rounding

Estimate = dict[str, Any]  # mean, low, high, n


def mean(values: Sequence[float]) -> Estimate:
    """Mean over cases with its 95 % bootstrap interval; cases without the number (NaN) are left out."""
    column = np.array(values, np.float64)
    known = np.isfinite(column)
    sums = np.stack((known, np.where(known, column, 0.0)), axis=-1)
    return _estimate(sums, lambda total: total[:, 1] / total[:, 0], int(known.sum()))


def correlation(truth: Sequence[Array], read: Sequence[Array]) -> Estimate:
    """Pearson's correlation over all frames of all cases, with its 95 % bootstrap interval over cases.

    Args:
        truth: for each case, its values; there is no correlation where they stand still.
        read: for each case, as many values. Where they never vary, they follow nothing: 0.
    """
    moving = sum(len(x) > 1 and float(np.var(x)) > STILL for x in truth)
    return _estimate(_sums(truth, read), _pearson, moving)


def paired(values: Sequence[float], others: Sequence[float]) -> Estimate:
    """Change of a metric from another run to this one, case by case, with its 95 % interval.

    Args:
        values: of this run.
        others: of the other one, of the same cases.

    Returns:
        As `mean`, of the differences, and `of`, the other run's mean over the same cases.
    """
    difference = np.array(values, np.float64) - np.array(others, np.float64)
    known = np.array(others, np.float64)[np.isfinite(difference)]
    return mean(list(difference)) | {"of": float(known.mean()) if len(known) else None}


def paired_correlation(truth: Sequence[Array], read: Sequence[Array], others: Sequence[Array]) -> Estimate:
    """As `paired`, for the correlation over all frames of all cases; see `correlation` for the arguments."""
    sums, other_sums = _sums(truth, read), _sums(truth, others)
    change = _estimate(
        np.concatenate((sums, other_sums), axis=1),
        lambda total: _pearson(total[:, :6]) - _pearson(total[:, 6:]),
        correlation(truth, read)["n"],
    )
    return change | {"of": correlation(truth, others)["mean"]}


def groups(cases: Sequence[Mapping[str, str]]) -> dict[str, list[int]]:
    """Which cases are reported together: all, each family, each kind of motion; each case has `family` and `kind`."""
    found: dict[str, list[int]] = {"all": list(range(len(cases)))}
    for key in ("family", "kind"):
        for index, case in enumerate(cases):
            found.setdefault(case[key], []).append(index)
    return found


def _sums(truth: Sequence[Array], read: Sequence[Array]) -> Array:
    rows = [(len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y) for x, y in zip(truth, read, strict=True)]
    return np.array(rows, np.float64)


def _pearson(total: Array) -> Array:
    n, x, y, xx, yy, xy = total.T
    with np.errstate(divide="ignore", invalid="ignore"):
        variances = np.maximum(xx / n - (x / n) ** 2, 0.0), np.maximum(yy / n - (y / n) ** 2, 0.0)
        r = (xy / n - x * y / n**2) / np.sqrt(variances[0] * variances[1])
    return np.where(variances[0] <= STILL, np.nan, np.where(variances[1] <= FLAT, 0.0, r))


def _estimate(sums: Array, statistic: Callable[[Array], Array], count: int) -> Estimate:
    """Of the sum of all rows, and of resampled rows: the same resamples for every metric and every run."""
    if not count:
        return {"mean": None, "low": None, "high": None, "n": 0}
    random = np.random.default_rng(0)
    chosen = random.integers(len(sums), size=(RESAMPLES, len(sums)))
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = statistic(sums[chosen].sum(axis=1))
        whole = float(statistic(sums.sum(axis=0)[None])[0])
    resampled = resampled[np.isfinite(resampled)]
    if not np.isfinite(whole) or not len(resampled):
        return {"mean": None, "low": None, "high": None, "n": 0}
    low, high = np.percentile(resampled, ((100 - LEVEL) / 2, (100 + LEVEL) / 2))
    return {"mean": whole, "low": float(low), "high": float(high), "n": count}
