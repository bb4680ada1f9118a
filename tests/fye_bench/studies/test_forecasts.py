"""`fye bench forecast` compares ways to fewer evaluations, goes on where it stopped, and judges what is lossless."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fye_bench.metrics.judge import Scores
from fye_bench.studies.forecasts import ways
from fye_bench.studies.lossless import FULL, Measured, summarise, table
from fye_rt import media
from fye_rt.cli.main import main
from fye_rt.forecasts.choose import choose_forecast
from fye_rt.options import Options
from fye_rt.schedule import SchedulerConfig, schedule

SHORT = ["--cases", "1", "--seeds", "1", "--frames", "2", "--steps", "6", "--budgets", "3", "--threads", "1", "--quiet"]


def measured(case: int, seed: int, way: str, ssim: float, error: float = 0.1, distance: float = 50.0) -> Measured:
    generator = np.random.default_rng((case, seed))
    truth = generator.normal(size=(4, 9))
    numbers = {"ssim": ssim, "psnr": 20.0, "mouth_error": error, "flicker": float("nan")}
    scores = Scores(numbers, truth, truth + 0.01, np.ones((4, 9), np.bool_))
    return Measured(case, seed, way, 6, 1.0, 5.0, distance, scores)


def judged(**more: Any) -> dict[str, Any]:
    clips = [(case, seed) for case in range(5) for seed in range(2)]
    full = [measured(*clip, FULL, 0.8) for clip in clips]
    found = summarise([*full, *(measured(*clip, "some @ 6", **more) for clip in clips)])
    row: dict[str, Any] = found["some"][0]
    return row


def test_a_forecast_is_lossless_only_if_no_metric_is_worse() -> None:
    assert judged(ssim=0.8)["lossless"]
    assert judged(ssim=0.795)["lossless"]  # 0.6 %
    worse = judged(ssim=0.79)
    assert not worse["lossless"] and worse["worst"]["metric"] == "ssim"
    assert worse["worst"]["relative"] == pytest.approx(0.0125)
    assert not judged(ssim=0.8, error=0.102)["lossless"]  # errors are better small
    assert judged(ssim=0.8, error=0.05)["lossless"] and not judged(ssim=0.8, distance=34.0)["lossless"]
    assert judged(ssim=0.8)["clips"] == 10 and judged(ssim=0.8)["speedup"] == 5.0


def test_a_forecast_that_is_worse_for_one_family_is_not_lossless() -> None:
    clips = [(case, seed) for case in range(40) for seed in range(1)]
    full = [measured(*clip, FULL, 0.8) for clip in clips]
    found = [measured(*clip, "some @ 6", 0.77 if clip[0] % 4 == 2 else 0.82) for clip in clips]
    row = summarise([*full, *found])["some"][0]
    assert row["worst"]["relative"] <= 0.01 and not row["lossless"]
    assert row["worst_subset"]["metric"] == "ssim, sculptures"


def test_a_logged_measurement_is_read_back_unchanged() -> None:
    one = measured(3, 1, "some @ 6", 0.7)
    again = Measured.parse(one.line())
    assert again.key == one.key and again.evaluations == 6 and again.distance == 50.0
    assert again.scores.numbers["ssim"] == 0.7 and np.isnan(again.scores.numbers["flicker"])
    np.testing.assert_allclose(again.scores.read, one.scores.read, atol=1e-5)


def test_every_forecast_keeps_its_budget_of_evaluations() -> None:
    config = SchedulerConfig()
    found = list(ways(Options(), (4, 8, 12)))
    assert len({str(way) for way in found}) == len(found) > 40
    for way in found:
        if way.method != "adaptive":
            chosen = choose_forecast(schedule(way.options.steps, config), way.options)
            assert chosen.evaluations == way.budget, way
    assert {way.options.solver for way in found} == {"ddim", "dpm", "unipc"}


@pytest.fixture(scope="module")
def log(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("front")
    files = ["--log", str(folder / "log.jsonl"), "--json", str(folder / "r.json"), "--plot", str(folder / "r.png")]
    assert main(["bench", "forecast", "--bundle", str(tiny_bundle), *SHORT, *files]) == 0
    return folder / "log.jsonl"


@pytest.mark.slow
def test_the_forecast_study_measures_and_plots_every_method(log: Path) -> None:
    expected = [*map(str, ways(Options(steps=6), (3,))), FULL]
    lines = log.read_text().splitlines()
    assert sorted(json.loads(line)["way"] for line in lines[1:]) == sorted(expected)
    result = json.loads((log.parent / "r.json").read_text())
    assert result["clips"] == 1 and result["methods"]["calibrated"][0]["evaluations"] == 3
    assert len(list(table(result["methods"]))) == len(expected)
    assert media.read_image(log.parent / "r.png").std() > 5


@pytest.mark.slow
def test_a_resumed_forecast_study_measures_the_missing_methods(log: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    whole = log.read_text().splitlines(keepends=True)
    (tmp_path / "part.jsonl").write_text("".join(whole[:5]))
    arguments = ["bench", "forecast", "--bundle", str(tiny_bundle), *SHORT, "--log", str(tmp_path / "part.jsonl")]
    assert main(arguments) == 0
    ours = [Measured.parse(line) for line in (tmp_path / "part.jsonl").read_text().splitlines()[1:]]
    theirs = {one.way: one for one in map(Measured.parse, whole[1:])}
    assert {one.way for one in ours} == set(theirs) and len(ours) == len(theirs)
    for one in ours:
        assert one.scores.numbers["psnr"] == theirs[one.way].scores.numbers["psnr"]


def test_the_forecast_study_measures_only_the_requested_methods(tiny_bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    chosen = ["--log", str(log), "--methods", "UniPC 2", "calibrated"]
    assert main(["bench", "forecast", "--bundle", str(tiny_bundle), *SHORT, *chosen]) == 0
    lines = log.read_text().splitlines()[1:]
    assert {json.loads(line)["way"] for line in lines} == {FULL, "UniPC 2 @ 3", "calibrated @ 3"}


@pytest.mark.slow
def test_the_forecast_study_refuses_the_log_of_another_run(
    log: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", "forecast", "--bundle", str(tiny_bundle), *SHORT, "--log", str(log), "--guidance", "2"]
    assert main(arguments) == 2 and "another run" in capsys.readouterr().err
