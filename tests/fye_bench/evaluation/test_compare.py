"""Two runs are compared pair by pair, and only if they differ in nothing but how clips were made."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fye_bench.evaluation.command import main_compare
from fye_bench.evaluation.compare import compare as compare_runs
from fye_bench.evaluation.compare import overview as overview_runs
from fye_bench.evaluation.saved import SavedRun
from fye_rt.errors import InputError, OptionError
from tests.fye_bench.evaluation.runs import FAMILIES, KINDS, edit, write_run

PAIRS = 20


def compare(a: Path, b: Path, **settings: Any) -> dict[str, Any]:
    return compare_runs(SavedRun.load(a), SavedRun.load(b), **settings)


def overview(runs: Sequence[Path]) -> dict[str, Any]:
    return overview_runs([SavedRun.load(run) for run in runs])


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "first", pairs=PAIRS, failed={7: "no face"})


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "worse"
    return write_run(folder, pairs=PAIRS, failed={8: "no memory"}, worse=0.05, seed=1, seconds=0.5)


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As good as the first, twice as fast."""
    forecast = {"forecast": {"method": "balanced"}}
    folder = tmp_path_factory.mktemp("runs") / "same"
    return write_run(folder, pairs=PAIRS, seed=2, seconds=1.0, pictures=False, options=forecast)


def test_a_run_equals_itself(first: Path) -> None:
    found = compare(first, first)
    assert found["pairs"]["compared"] == PAIRS - 1
    for rows in found["change"].values():
        for one in rows.values():
            assert one["change"]["mean"] == one["change"]["low"] == one["change"]["high"] == 0.0
            assert one["verdict"] in ("no difference seen", "too few pairs")
    assert found["acceptance"]["accepted"] is True and found["acceptance"]["text"] == "accepted: B may replace A"
    assert found["distance"]["mean"] == found["distance"]["least"] == 100.0 and found["cost"]["speedup"] == 1.0


def test_a_comparison_takes_the_pairs_that_both_runs_have(first: Path, worse: Path) -> None:
    found = compare(first, worse)
    a, b = ({pair.name: pair for pair in SavedRun.load(run).succeeded} for run in (first, worse))
    both = [name for name in a if name in b]
    assert found["pairs"]["compared"] == len(both) == PAIRS - 2
    assert list(found["pairs"]["failed_a"].values()) == ["no face"]
    assert list(found["pairs"]["failed_b"].values()) == ["no memory"]
    off = np.array([b[name].metrics["psnr"] - a[name].metrics["psnr"] for name in both])
    one = found["change"]["all"]["psnr"]
    assert one["change"]["mean"] == pytest.approx(off.mean())
    assert one["change"]["low"] < off.mean() < one["change"]["high"] < 0
    assert one["worse"]["mean"] == pytest.approx(-off.mean() / one["a"])
    assert one["b"] - one["a"] == pytest.approx(off.mean())
    assert set(found["change"]) == {"all", *FAMILIES, *KINDS} and found["cost"]["speedup"] == pytest.approx(4.0)


def test_a_worse_metric_is_reported_whether_higher_or_lower_is_better(first: Path, worse: Path) -> None:
    for name, one in compare(first, worse)["change"]["all"].items():
        assert one["verdict"] == "worse", name
        assert one["worse"]["low"] > 0, name
    for one in compare(worse, first)["change"]["all"].values():
        assert one["verdict"] == "better"


def test_flicker_is_judged_by_its_distance_to_one(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / name, pairs=8, pictures=False) for name in "ab")
    for folder, value in ((a, 0.9), (b, 1.02)):
        edit(folder, lambda found, v=value: [row["metrics"].update(flicker=v) for row in found["pairs"]])
    one = compare(a, b)["change"]["all"]["flicker"]
    assert one["change"]["mean"] == pytest.approx(0.12) and one["verdict"] == "better"


def test_a_refused_run_is_reported_with_the_metrics_that_got_worse(first: Path, worse: Path, tmp_path: Path) -> None:
    judged = compare(first, worse)["acceptance"]
    assert judged["accepted"] is False and "% worse" in judged["text"]
    # one family alone: 4 of 20 pairs, so that the average over all hardly moves
    bent = write_run(tmp_path / "bent", pairs=PAIRS, noise=0.0, pictures=False)
    plain = write_run(tmp_path / "plain", pairs=PAIRS, noise=0.0, pictures=False)

    def bend(found: dict[str, Any]) -> None:
        for row in found["pairs"]:
            if row["family"] == "people":
                row["metrics"]["ssim"] *= 0.965

    edit(bent, bend)
    against = compare(plain, bent)["acceptance"]["against"]
    assert {"ssim"} == {one["metric"] for one in against} and "people" in {one["group"] for one in against}
    assert next(one["relative"] for one in against if one["group"] == "people") == pytest.approx(0.035, rel=1e-6)


def test_a_run_without_truth_or_with_few_pairs_is_not_accepted(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / name, pairs=8, without_truth=range(8), pictures=False) for name in "ab")
    found = compare(a, b)
    assert found["acceptance"]["accepted"] is None and "0 of the pairs have true frames" in found["acceptance"]["text"]
    assert "psnr" not in found["change"]["all"] and found["distance"] is None
    a, b = (write_run(tmp_path / f"few {name}", pairs=4, pictures=False, seed=n) for n, name in enumerate("ab"))
    assert compare(a, b)["change"]["all"]["psnr"]["verdict"] == "too few pairs"


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"suite": {"name": "other", "digest": "6" * 64}}, "differ in suite"),
        ({"frames": 5}, "differ in number of frames: 3 and 5"),
        ({"size": [64, 32]}, "differ in size"),
        ({"options": {"seed": 1}}, "differ in seed: 0 and 1"),
        ({"metrics": {"lpips": "2" * 64}}, "differ in lpips"),
    ],
)
def test_runs_of_different_things_are_refused(about: dict[str, Any], message: str, first: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", pairs=4, pictures=False, **about)
    with pytest.raises(InputError, match=message):
        compare(first, other)


def test_runs_without_a_common_pair_are_refused(first: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", pairs=4, pictures=False)
    edit(other, lambda found: [row.update(pair=f"x{n}") for n, row in enumerate(found["pairs"])])
    with pytest.raises(InputError, match="share no pair"):
        compare(first, other)


def test_pairs_of_one_run_alone_are_listed(first: Path, tmp_path: Path) -> None:
    part = write_run(tmp_path / "part", pairs=12, pictures=False)
    found = compare(first, part)["pairs"]
    assert found["compared"] == 11 and len(found["only_a"]) == 8 and found["only_b"] == []


def test_a_comparison_lists_the_worst_pairs_first(first: Path, worse: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", pairs=PAIRS, pictures=False)
    name = SavedRun.load(other).pairs[5].name

    def spoil(found: dict[str, Any]) -> None:
        found["pairs"][5]["metrics"] |= {"psnr": 12.0, "l1": 30.0, "lpips": 0.5}
        found["pairs"][6]["metrics"]["ssim"] = 0.1

    edit(other, spoil)
    found = compare(first, other)["worst"]
    assert found["pairs"][0]["pair"] == name and len(found["pairs"]) == 10
    assert list(found["pairs"][0]["metrics"])[:3] == ["l1", "lpips", "psnr"]
    by = compare(first, other, by="ssim")["worst"]
    assert by["pairs"][0]["pair"] == SavedRun.load(other).pairs[6].name
    assert next(iter(by["pairs"][0]["metrics"])) == "ssim"
    with pytest.raises(OptionError, match="by='fvd': no pair has it"):
        compare(first, other, by="fvd")


def test_a_comparison_shows_metrics_of_whole_sets_of_both_runs(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / name, pairs=6, pictures=False) for name in "ab")
    for n, folder in enumerate((a, b)):
        value = {"mean": 100.0 + n, "low": 100.0 + n, "high": 100.0 + n, "n": 6}
        edit(folder, lambda found, v=value: found["summary"]["all"].update(fvd=v))
    found = compare(a, b)
    assert [found["of_sets"]["fvd"][run]["mean"] for run in "ab"] == [100.0, 101.0]
    assert "fvd" not in found["change"]["all"]


def test_an_overview_recommends_the_fastest_accepted_run(first: Path, worse: Path, same: Path) -> None:
    found = overview([first, worse, same])
    assert [row["acceptance"] and row["acceptance"]["accepted"] for row in found["rows"]] == [None, False, True]
    assert found["use"].startswith("Use onnxruntime, fp32, balanced, mini: 2.00 times as fast")
    distances = [compare(first, run)["distance"] for run in (worse, same)]
    assert [row["distance"] for row in found["rows"]] == [None, *distances]
    # labels that are the same are told apart by their folders
    assert found["rows"][0]["label"] == "onnxruntime, fp32, no forecast, mini (first)"
    assert overview([same, first])["use"].startswith("Use onnxruntime, fp32, balanced, mini: no run")
    assert "no other run is accepted" in overview([first, worse])["use"]


def test_fye_compare_writes_its_json_and_its_page(
    first: Path, worse: Path, same: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--json", str(tmp_path / "c.json"), "--html", str(tmp_path / "c.html"), "--quiet"]
    assert main_compare([str(first), str(worse), "--by", "psnr", *files]) == 0
    text = capsys.readouterr().out
    assert "18 pairs compared" in text and "4.00 times as fast" in text and "not accepted" in text
    found = json.loads((tmp_path / "c.json").read_text(), parse_constant=pytest.fail)
    assert found["worst"]["by"] == "psnr" and found["a"]["folder"] == "first"
    assert main_compare([str(first), str(worse), str(same), *files]) == 0
    assert capsys.readouterr().out.strip().endswith("and accepted in its place.")
    assert len(json.loads((tmp_path / "c.json").read_text())["rows"]) == 3
    for arguments in ([str(first)], [str(first)] * 3 + ["--by", "psnr"], [str(first)] * 2 + ["--html", "c.txt"]):
        with pytest.raises(OptionError):
            main_compare(arguments)
