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


def damage(what: str) -> Any:
    def change(found: dict[str, Any]) -> None:
        if what == "name":
            found["pairs"][0]["pair"] = "../../secret"
        elif what == "double":
            found["pairs"][1]["pair"] = found["pairs"][0]["pair"]
        elif what == "value":
            found["pairs"][0]["metrics"]["psnr"] = "high"
        elif what == "endless":
            found["pairs"][0]["metrics"]["psnr"] = 10**400
        elif what == "missing":
            del found["pairs"][0]["kind"]
        elif what == "none":
            found["pairs"] = []
        else:
            found["version"] = 2

    return change


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("name", r"pair 1 is '\.\./\.\./secret'; use letters"),
        ("double", "two of one name"),
        ("value", "metric 'psnr' of pair 1 is 'high'; it should be a valid number"),
        ("endless", "metric 'psnr' of pair 1 is 1000"),
        ("missing", "pair 1 has no 'kind'; add it"),
        ("none", "no pairs"),
        ("version", "format fye-eval 2, not fye-eval 1"),
    ],
)
def test_a_damaged_run_is_refused(what: str, message: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", pairs=4, pictures=False)
    edit(folder, damage(what))
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
    assert line("a\x1b[31m\nb") == "a [31m b"
    assert len(line("x" * 1000)) == 300
    assert line(None) == "-"
