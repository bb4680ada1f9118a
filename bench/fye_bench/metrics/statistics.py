"""Means and correlations over cases, with intervals from resampled cases.

A case's numbers are sums. A mean of cases is a ratio of two of them, and a correlation over all frames of all cases
follows from six; so a resampled suite is one sum over rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fye_training.topology import Array

RESAMPLES, LEVEL = 2000, 95.0
STILL = 0.01**2  # variance of an expression; a smaller movement is invisible
FLAT = 1e-12  # variance of read values that is rounding alone

Estimate = dict[str, Any]  # mean, low, high, n


def mean(values: Sequence[float]) -> Estimate:
    """Return the mean over cases with its 95 % bootstrap interval; cases without the number (NaN) are left out."""
    column = np.array(values, np.float64)
    known = np.isfinite(column)
    sums = np.stack((known, np.where(known, column, 0.0)), axis=-1)
    return _estimate(sums, lambda total: total[:, 1] / total[:, 0], int(known.sum()))


def correlation(truth: Sequence[Array], read: Sequence[Array]) -> Estimate:
    """Return Pearson's correlation over all frames of all cases, with its 95 % bootstrap interval over cases.

    Args:
        truth: true values of each case; constant ones have no correlation.
        read: as many values of each case; the correlation of constant ones is 0.
    """
    moving = sum(len(x) > 1 and float(np.var(x)) > STILL for x in truth)
    return _estimate(_sums(truth, read), _pearson, moving)


def paired(values: Sequence[float], others: Sequence[float]) -> Estimate:
    """Return the change of a metric from another run to this one, case by case, with its 95 % interval.

    Args:
        values: values of this run.
        others: values of the other run, of the same cases.

    Returns:
        `mean` of the differences, and `of`, the other run's mean over the same cases.
    """
    difference = np.array(values, np.float64) - np.array(others, np.float64)
    known = np.array(others, np.float64)[np.isfinite(difference)]
    return mean(list(difference)) | {"of": float(known.mean()) if len(known) else None}


def paired_correlation(truth: Sequence[Array], read: Sequence[Array], others: Sequence[Array]) -> Estimate:
    """Return the change of `correlation` (truth, read) from that of (truth, others), in the form of `paired`."""
    sums, other_sums = _sums(truth, read), _sums(truth, others)
    change = _estimate(
        np.concatenate((sums, other_sums), axis=1),
        lambda total: _pearson(total[:, :6]) - _pearson(total[:, 6:]),
        correlation(truth, read)["n"],
    )
    return change | {"of": correlation(truth, others)["mean"]}


def groups(cases: Sequence[Mapping[str, str]]) -> dict[str, list[int]]:
    """Group cases, which have `family` and `kind`: all, each family, each kind of motion."""
    members: dict[str, list[int]] = {"all": list(range(len(cases)))}
    for key in ("family", "kind"):
        for index, case in enumerate(cases):
            members.setdefault(case[key], []).append(index)
    return members


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
    """Estimate a statistic of the sum of all rows; the resamples are the same for every metric and every run."""
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
