import pytest

from fye_bench.speed.summary import ratio, summary


def test_summary_has_number_mean_and_percentiles() -> None:
    assert summary([float(n) for n in range(101)]) == {"n": 101, "mean": 50, "p50": 50, "p95": 95, "p99": 99}


def test_ratio_compares_times_of_the_same_round() -> None:
    # the machine was three times slower in the second round: the medians' ratio would be 2.25
    assert ratio([2, 6, 2.5], [1, 3, 1]) == {"n": 3, "median": 2, "min": 2, "max": 2.5}


def test_rounds_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        ratio([1.0, 2.0, 3.0], [1.0, 2.0])
