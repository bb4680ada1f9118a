"""Judge whether one run may replace another, by the rule that calls a forecast lossless.

No metric may be more than 1 % worse at the worse end of its 95 % interval over the pairs, nor more than 3 % worse on
average in a family or a kind of motion. The rule compares with the truth, so only pairs with a truth count.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fye_bench.evaluation.saved import SavedPair, grouped
from fye_bench.metrics.statistics import Estimate, paired
from fye_bench.metrics.table import METRICS
from fye_bench.studies.lossless import MOST_WORSE, MOST_WORSE_SUBSET

FEWEST = 5  # pairs; intervals from fewer are too narrow
RULE = (
    f"No metric may be more than {100 * MOST_WORSE:.0f} % worse at the worse end of its 95 % interval, nor more than "
    f"{100 * MOST_WORSE_SUBSET:.0f} % worse on average in a family or a kind of motion. "
    "Only pairs with true frames count."
)

Both = tuple[SavedPair, SavedPair]  # one pair from two runs


def by_group(pairs: Sequence[Both]) -> dict[str, list[Both]]:
    """Sort pairs of two runs into groups; see `grouped`."""
    by_name = {pair_a.name: (pair_a, pair_b) for pair_a, pair_b in pairs}
    groups = grouped([pair_a for pair_a, _ in pairs])
    return {group: [by_name[pair.name] for pair in chosen] for group, chosen in groups.items()}


def difference(pairs: Sequence[Both], metric: str) -> dict[str, Any]:
    """Compare a metric between two runs, pair by pair.

    Returns:
        a, b: means over the pairs that have the metric in both runs. change: b - a, as `statistics.paired`. worse: how
        much worse b is as a share of a's mean, {mean, low, high}, negative if better, None without a pair or if that
        mean is 0. verdict: in words.
    """
    a, b = _values(pairs, metric)
    change = paired(b, a)
    before, worsening = change["of"], _worsening(metric, change, a, b)
    return {
        "a": before,
        "b": None if before is None else before + change["mean"],
        "change": change,
        "worse": {end: worsening[end] / abs(before) for end in ("mean", "low", "high")} if before else None,
        "verdict": _verdict(worsening),
    }


def judge(pairs: Sequence[Both]) -> dict[str, Any]:
    """Apply the rule to the pairs with true frames.

    Returns:
        accepted: a bool, or None with too few pairs. pairs: their number. against: objections, the worst first:
        {metric, group, relative, most}, relative None where A's mean is 0. text: the judgement in a sentence.
    """
    pairs = [both for both in pairs if both[0].truth != "none"]
    if len(pairs) < FEWEST:
        text = f"not judged: {len(pairs)} of the pairs have true frames, and the rule needs {FEWEST} or more"
        return {"accepted": None, "pairs": len(pairs), "against": [], "text": text}
    against = sorted(_against(pairs), key=_severity)
    if not against:
        text = "accepted: B may replace A"
    else:
        text = "not accepted: " + "; ".join(_objection(objection) for objection in against[:3])
        text += f"; and {len(against) - 3} more" if len(against) > 3 else ""
    return {"accepted": not against, "pairs": len(pairs), "against": against, "text": text}


def _against(pairs: Sequence[Both]) -> list[dict[str, Any]]:
    shares = []
    for metric in METRICS:
        whole = difference(pairs, metric)
        if whole["change"]["n"] >= FEWEST:
            shares.append(("all", metric, whole["worse"] and whole["worse"]["high"], whole["verdict"] == "worse"))
    for group, chosen in by_group(pairs).items():
        for metric in METRICS if group != "all" else ():
            shares.append((group, metric, _mean_share(chosen, metric), False))
    return [
        {"metric": metric, "group": group, "relative": share, "most": _most(group)}
        for group, metric, share, worse in shares
        # share None: the first run's mean is 0, so any worsening exceeds the limit
        if (worse if share is None else share > _most(group))
    ]


def _most(group: str) -> float:
    return MOST_WORSE if group == "all" else MOST_WORSE_SUBSET


def _severity(objection: Mapping[str, Any]) -> tuple[float, str, str]:
    share = math.inf if objection["relative"] is None else objection["relative"] / objection["most"]
    return -share, objection["metric"], objection["group"]


def _objection(objection: Mapping[str, Any]) -> str:
    label, group = METRICS[objection["metric"]].label, objection["group"]
    if objection["relative"] is None:
        return f"{label} is worse, and was 0"
    share = f"{100 * objection['relative']:.1f} % worse"
    return f"{label} may be {share}" if group == "all" else f"{label} of {group} is {share}"


def _values(pairs: Sequence[Both], metric: str) -> tuple[list[float], list[float]]:
    a, b = ([pair.metrics.get(metric, math.nan) for pair in column] for column in zip(*pairs, strict=True))
    return a, b


def _mean_share(pairs: Sequence[Both], metric: str) -> float | None:
    """Worsening as a share of the first run's mean; None without a pair or if that mean is 0."""
    known = [values for values in zip(*_values(pairs, metric), strict=True) if all(map(math.isfinite, values))]
    before = abs(sum(a for a, _ in known)) if known else 0.0
    badness = METRICS[metric].badness
    return sum(badness(b) - badness(a) for a, b in known) / before if before else None


def _worsening(metric: str, change: Estimate, a: Sequence[float], b: Sequence[float]) -> Estimate:
    """Change of the metric's badness."""
    better, badness = METRICS[metric].better, METRICS[metric].badness
    if better == "less" or change["mean"] is None:
        return change
    if better == "more":
        return {"mean": -change["mean"], "low": -change["high"], "high": -change["low"], "n": change["n"]}
    return paired(list(map(badness, b)), list(map(badness, a)))


def _verdict(worsening: Estimate) -> str:
    if worsening["mean"] is None:
        return "not measured"
    if worsening["n"] < FEWEST:
        return "too few pairs"
    if worsening["low"] > 0:
        return "worse"
    return "better" if worsening["high"] < 0 else "no difference seen"
