"""One table of metrics, in the same words everywhere."""

import math

import pytest

from fye_bench.evaluation.ranking import COMBINED, standings, worst_first
from fye_bench.metrics.expression import GROUPS
from fye_bench.metrics.measures import NAMES
from fye_bench.metrics.table import HEADLINES, METRICS, SECTIONS


def test_the_table_of_metrics_has_every_metric() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name and metric.section in SECTIONS and metric.better in ("less", "more", "one")
        assert metric.explanation.endswith(".")
    assert {f"{group}_{what}" for group in GROUPS for what in ("error", "correlation")} <= METRICS.keys()
    assert {*NAMES, "fvd"} <= METRICS.keys() and {name for row in HEADLINES for name in row} <= METRICS.keys()


def test_badness_grows_as_a_metric_gets_worse() -> None:
    assert METRICS["l1"].badness(3) > METRICS["l1"].badness(2)
    assert METRICS["identity_cosine"].badness(0.2) > METRICS["identity_cosine"].badness(0.9)
    assert METRICS["flicker"].badness(0.7) == pytest.approx(METRICS["flicker"].badness(1.3))
    assert METRICS["flicker"].badness(1) == 0


def test_values_are_printed_with_the_decimals_that_count() -> None:
    assert METRICS["psnr"].text(21.456) == "21.46" and METRICS["psnr"].text(-0.00001, "+", 1) == "+0.000"
    assert METRICS["psnr"].text(None) == METRICS["psnr"].text(math.nan) == "-"


def test_pairs_are_ranked_from_the_worst_on() -> None:
    badness = {"a": {"l1": 1.0, "psnr": -20.0}, "b": {"l1": 2.0, "psnr": -21.0}, "c": {"l1": 9.0, "psnr": -19.0}}
    assert next(pair for pair, _ in worst_first(badness)) == "c"
    assert worst_first(badness, "psnr") == [("c", -19.0), ("a", -20.0), ("b", -21.0)]


def test_one_extreme_metric_does_not_decide_the_ranking() -> None:
    badness = {
        str(n): {name: float((n * k) % 11) for name, k in (("l1", 1), ("ssim", 3), ("psnr", 5))} for n in range(11)
    }
    badness["wild"] = {"l1": 1e9, "ssim": 0.0, "psnr": 0.0}
    badness["bad"] = {"l1": 11.0, "ssim": 11.0, "psnr": 11.0}
    assert next(pair for pair, _ in worst_first(badness)) == "bad" and standings(badness)["wild"]["l1"] == 5.0


def test_pairs_are_ranked_by_the_metrics_that_they_have() -> None:
    badness = {"a": {"l1": 1.0}, "b": {"l1": 2.0, "psnr": 3.0}, "c": {"psnr": math.nan}, "d": {}}
    assert [pair for pair, _ in worst_first(badness)] == ["b", "a"]
    assert [pair for pair, _ in worst_first(badness, "psnr")] == ["b"]
    assert standings({"a": {"l1": 1.0}, "b": {"l1": 1.0}}) == {"a": {"l1": 0.0}, "b": {"l1": 0.0}}
    assert worst_first(badness, COMBINED) == worst_first(badness)
