"""`fye eval` measures every pair once, whatever happens to the run, and says what it could not measure."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fye_bench.evaluation.clips import read_clip
from fye_bench.evaluation.evaluator import Evaluator
from fye_bench.evaluation.run import summarise
from fye_bench.suites.drawing import draw_suite
from fye_bench.suites.suite import Suite
from fye_rt import media
from fye_rt.cli.main import main
from tests.fye_rt.command_line import ROOT, TINY

Evaluate = Callable[..., tuple[int, Path]]
FAST = ("--bundle", str(TINY), "--steps", "1", "--forecast", "off", "--threads", "1", "--size", "64x64", "--quiet")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four drawn portraits, five motions of two frames, nine pairs. Not to be written to."""
    folder = tmp_path_factory.mktemp("suites") / "drawn"
    draw_suite(folder, portraits=4, motions=5, frames=2, size=(64, 64))
    return folder


@pytest.fixture(scope="module")
def run(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of its pairs, evaluated. Not to be written to."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["eval", str(suite), "-o", str(folder), *FAST]) == 0
    return folder


@pytest.fixture
def evaluate(suite: Path, tmp_path: Path) -> Evaluate:
    """Evaluates a suite, by default the drawn one, into a folder."""

    def call(*arguments: str, of: Path = suite, into: str = "run") -> tuple[int, Path]:
        return main(["eval", str(of), "-o", str(tmp_path / into), *FAST, *arguments]), tmp_path / into

    return call


def results(run: Path) -> Any:
    return json.loads((run / "results.json").read_text())


def test_every_pair_has_metrics_a_clip_and_a_sheet(run: Path, suite: Path) -> None:
    found, pairs = results(run), Suite.load(suite).pairs
    assert [one["pair"] for one in found["pairs"]] == [pair.name for pair in pairs] and len(pairs) == 8
    for one in found["pairs"]:
        assert (one["error"], one["frames"], one["evaluations"], one["truth"]) == (None, 2, 1, "drawn")
        assert {"psnr", "face_psnr", "identity_error", "flicker", "mouth_error", "warp_error"} <= one["metrics"].keys()
        assert read_clip(run / "clips" / f"{one['pair']}.mkv").shape == (2, 64, 64, 3)
        assert media.read_image(run / "sheets" / f"{one['pair']}.jpg").shape == (192, 192, 3)
    assert found["run"]["suite"] == {"name": "drawn", "digest": Suite.load(suite).digest, "pairs": 8}
    assert (found["run"]["size"], found["run"]["options"]["steps"]) == ([64, 64], 1)
    assert (run / "report.html").stat().st_size > 1000


def test_summaries_are_means_over_their_groups(run: Path) -> None:
    found = results(run)
    for group, chosen in (("all", found["pairs"]), ("people", [p for p in found["pairs"] if p["family"] == "people"])):
        expected = np.mean([one["metrics"]["psnr"] for one in chosen])
        assert found["summary"][group]["psnr"]["mean"] == pytest.approx(expected)
        assert found["summary"][group]["psnr"]["n"] == len(chosen)
    assert {"all", "people", "cartoons", "sculptures", "animals", "calm", "gaze"} <= found["summary"].keys()


def test_results_hold_no_times(run: Path) -> None:
    text = (run / "results.json").read_text()
    assert "seconds" not in text and "environment" not in text and str(ROOT) not in text
    performance = json.loads((run / "performance.json").read_text())
    assert performance["pairs"].keys() == {one["pair"] for one in results(run)["pairs"]}
    for cost in performance["pairs"].values():
        assert {"read", "denoise", "decode", "measure"} <= cost["seconds"].keys() and cost["peak_memory_bytes"] > 0


def test_a_repeated_evaluation_evaluates_no_pair_again(
    run: Path, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "run")
    monkeypatch.setattr(Evaluator, "__call__", lambda *_: pytest.fail("evaluated again"))
    assert main(["eval", str(suite), "-o", str(tmp_path / "run"), *FAST]) == 0
    assert (tmp_path / "run" / "results.json").read_bytes() == (run / "results.json").read_bytes()


@pytest.mark.slow
def test_a_killed_evaluation_resumes_with_the_same_result(run: Path, suite: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    command = [sys.executable, "-m", "fye_rt", "eval", str(suite), "-o", str(cut), *FAST, "--workers", "2"]
    paths = os.pathsep.join(str(ROOT / name) for name in (".", "export", "bench", "training"))
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths})
    deadline = time.monotonic() + 120
    while not list(cut.glob("pairs/[a-z]*.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(cut.glob("pairs/[a-z]*.json"))) < 8
    assert main(["eval", str(suite), "-o", str(cut), *FAST]) == 0
    assert (cut / "results.json").read_bytes() == (run / "results.json").read_bytes()
    assert json.loads((cut / "performance.json").read_text())["evaluated_now"] < 8


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        lambda path: path.write_bytes(b"no picture"),
    ],
    ids=["missing", "changed", "corrupt"],
)
def test_a_bad_file_fails_its_own_pairs(
    spoil: Callable[[Path], object], suite: Path, evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(suite, tmp_path / "suite")
    bad = Suite.load(tmp_path / "suite").pairs[0].portrait
    spoil(bad.path)
    code, folder = evaluate("--pairs", "4", of=tmp_path / "suite")
    assert code == 1
    found = results(folder)
    failed = [one for one in found["pairs"] if one["error"]]
    assert [one["portrait"] for one in failed] == [bad.name] and len(found["pairs"]) == 4
    assert bad.path.name in failed[0]["error"] and found["summary"]["all"]["psnr"]["n"] == 3
    assert failed[0]["error"][:40] in capsys.readouterr().err
    assert failed[0]["pair"] in (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_pair_that_failed_is_tried_again(suite: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    shutil.copytree(suite, tmp_path / "suite")
    path = Suite.load(tmp_path / "suite").pairs[0].portrait.path
    content = path.read_bytes()
    path.unlink()
    assert evaluate("--pairs", "2", of=tmp_path / "suite")[0] == 1
    path.write_bytes(content)
    code, folder = evaluate("--pairs", "2", of=tmp_path / "suite")
    assert code == 0 and not any(one["error"] for one in results(folder)["pairs"])


def test_an_evaluation_whose_pairs_all_fail_has_results(suite: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    shutil.copytree(suite, tmp_path / "suite")
    shutil.rmtree(tmp_path / "suite" / "motions")
    code, folder = evaluate(of=tmp_path / "suite")
    assert code == 1 and results(folder)["summary"] == {}
    assert all("motions" in one["error"] for one in results(folder)["pairs"])


@pytest.mark.parametrize(
    ("change", "said"),
    [("--seed 1", "another options"), ("--size 72x72", "another size"), ("--frames 1", "another frames")],
)
def test_an_evaluation_with_other_options_is_refused_in_the_folder_of_a_run(
    change: str, said: str, run: Path, suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    assert main(["eval", str(suite), "-o", str(tmp_path / "run"), *FAST, *change.split()]) == 2
    assert said in capsys.readouterr().err


def test_an_evaluation_leaves_a_folder_with_other_files_alone(
    evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("keep me")
    assert evaluate()[0] == 2 and "holds other files than a run's" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--pairs 0", "0 pairs are nothing to evaluate"),
        ("--windows reference", "drops a frame"),
        ("--size 9", "--size 9"),
        ("--workers 0", "workers"),
        ("--frames 0", "frames"),
        ("--identity-model none.onnx", "none.onnx"),
        ("--beauty", "--beauty"),
    ],
)
def test_a_wrong_option_of_fye_eval_is_one_line(
    arguments: str, said: str, evaluate: Evaluate, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert evaluate(*arguments.split())[0] == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("fye: ") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_landmarks_of_another_shape_are_refused(suite: Path, evaluate: Evaluate) -> None:
    code, folder = evaluate("--pairs", "1", "--size", "64x72")
    assert code == 1
    assert "belongs to a picture of 64x64; give a size of the same shape" in results(folder)["pairs"][0]["error"]


def test_correlations_are_over_all_frames_of_all_clips() -> None:
    def record(truth: list[float], read: list[float]) -> dict[str, Any]:
        columns = [[value] * 9 for value in truth], [[value] * 9 for value in read]
        return {
            "metrics": {"psnr": 20.0, "flicker": None},
            "expression": {"truth": columns[0], "read": columns[1], "seen": [[1] * 9] * len(truth)},
        }

    found = summarise([record([0.0, 1.0, 2.0], [0.0, 2.0, 4.0]), record([1.0, 3.0], [2.0, 6.0])])
    assert found["mouth_correlation"]["mean"] == pytest.approx(1.0)
    assert found["psnr"]["n"] == 2 and "flicker" not in found


def test_fvd_is_one_number_of_all_clips() -> None:
    generator = np.random.default_rng(0)
    true = generator.normal(size=(40, 2))
    apart = np.array((3.0, 0.0))
    records = [{"metrics": {}, "features": {"made": (row + apart).tolist(), "true": row.tolist()}} for row in true]
    assert summarise(records)["fvd"]["mean"] == pytest.approx(9.0) and "fvd" not in summarise(records[:1])
