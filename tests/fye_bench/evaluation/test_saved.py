"""A run's folder is read as it was written, or refused by name."""

from pathlib import Path
from typing import Any

import pytest

from fye_bench.evaluation.saved import SavedRun, line
from fye_rt.errors import InputError
from tests.fye_bench.evaluation.runs import edit, write_run


def test_a_saved_run_is_read_with_all_its_fields(tmp_path: Path) -> None:
    run = SavedRun.load(write_run(tmp_path / "run", pairs=10, failed={3: "no face"}, pictures=False))
    assert len(run.pairs) == 10 and [pair.error for pair in run.failed] == ["no face"]
    assert run.label == "onnxruntime, fp32, no forecast, mini"
    first = run.pairs[0]
    assert first.seconds == pytest.approx(2.0)  # without measuring
    assert "mouth_correlation" not in run.pairs[4].metrics and "mouth_correlation" in first.metrics
    assert run.summary["all"]["psnr"]["n"] == 9


def test_a_saved_run_is_read_without_its_timings(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", pairs=4, pictures=False)
    (folder / "performance.json").unlink()
    run = SavedRun.load(folder)
    assert run.pairs[0].seconds != run.pairs[0].seconds and not run.environment


def test_metrics_of_another_version_are_left_out_and_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", pairs=4, pictures=False)
    edit(folder, lambda found: found["pairs"][0]["metrics"].update({"sharpness": 3.0}))
    assert SavedRun.load(folder).left_out == ("sharpness",)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: run["pairs"][0].update(pair="../../secret"), r"pair 1 is '\.\./\.\./secret'; use letters"),
        (lambda run: run["pairs"][1].update(pair=run["pairs"][0]["pair"]), "two of one name"),
        (
            lambda run: run["pairs"][0]["metrics"].update(psnr="high"),
            "metric 'psnr' of pair 1 is 'high'; it should be a valid number",
        ),
        (lambda run: run["pairs"][0]["metrics"].update(psnr=10**400), "metric 'psnr' of pair 1 is 1000"),
        (lambda run: run["pairs"][0].pop("kind"), "pair 1 has no 'kind'; add it"),
        (lambda run: run.update(pairs=[]), "no pairs"),
        (lambda run: run.update(version=2), "format fye-eval 2, not fye-eval 1"),
    ],
    ids=["name", "double", "value", "endless", "missing", "none", "version"],
)
def test_a_damaged_run_is_refused(damage: Any, message: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", pairs=4, pictures=False)
    edit(folder, damage)
    with pytest.raises(InputError, match=message):
        SavedRun.load(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000])
def test_a_results_file_without_valid_json_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=r"results\.json"):
        SavedRun.load(tmp_path)
    with pytest.raises(InputError, match="is not a run"):
        SavedRun.load(tmp_path / "none")


def test_text_of_a_saved_run_becomes_one_printable_line() -> None:
    assert line("a\x1b[31m\nb") == "a [31m b" and len(line("x" * 1000)) == 300
    assert line(None) == "-"
