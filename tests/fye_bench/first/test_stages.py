"""Every stage of `bench/gpu.sh first`, on a small model without a GPU: `bench/gpu.sh dry-run`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="kernels need Triton: pip install fye-rt[kernels]")

from fye_bench.first import cubins
from fye_bench.first.kernels import fastest
from fye_bench.first.record import Record
from fye_bench.speed import kernels
from fye_kernels import reference_attention
from fye_kernels.aot import SHARED
from fye_kernels.tiles import Tiles
from fye_rt.backends.cubins import Kernels
from fye_rt.backends.cuda_memory import Gpu
from tests.fye_engines import fake_cuda_core
from tests.fye_engines.fake_gpu import FakeGpu, with_kernels

SCRIPT = Path(__file__).parents[3] / "bench" / "gpu.sh"


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def dry_run(out: Path, *arguments: str) -> tuple[int, dict[str, str], dict[tuple[str, str], dict[str, Any]]]:
    """The exit code, the status of each stage, and the lines of parts."""
    environment = os.environ | {"PYTHON": sys.executable, "OUT": str(out)}
    run = subprocess.run(
        ["bash", str(SCRIPT), "dry-run", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    found = lines(out)
    stages = {line["stage"]: line["status"] for line in found if line["part"] is None}
    parts = {(line["stage"], line["part"]): line for line in found if line["part"] is not None}
    assert all(line["seconds"] >= 0 for line in found), run.stderr
    return run.returncode, stages, parts


@pytest.mark.slow
def test_the_stages_environment_cubins_and_suite_record_their_results(tmp_path: Path) -> None:
    code, stages, parts = dry_run(tmp_path, "--only", "environment,cubins,suite")
    assert stages == dict.fromkeys(("environment", "cubins", "suite"), "ok") and code == 0
    assert parts["environment", "versions"]["installed"]["torch"] == torch.__version__
    assert parts["environment", "pytorch"]["available"] is False
    assert parts["environment", "ceilings, bfloat16"]["matrix_flop_per_second"] > 0
    compiled = Path(SCRIPT.parents[1] / parts["cubins", "kernels"]["folder"])
    assert set(cubins.NAMES) <= set(json.loads((compiled / "manifest.json").read_text())["kernels"])
    assert parts["cubins", "launches"]["status"] == "skipped" and parts["cubins", "launches"]["reason"]
    assert "passed" in parts["suite", "kernels"]["summary"] and parts["suite", "kernels"]["failures"] == []


@pytest.mark.slow
def test_the_stages_correctness_and_kernels_check_and_time_every_kernel(tmp_path: Path) -> None:
    code, stages, parts = dry_run(tmp_path, "--only", "correctness,kernels")
    assert stages == {"correctness": "ok", "kernels": "ok"} and code == 0
    checked = {part: line for (stage, part), line in parts.items() if stage == "correctness"}
    kinds = {"reference", "cross", "halves", "temporal", "norm", "geglu", "forecast", "uint8"}
    assert {part.split()[0] for part in checked} == kinds
    assert all(line["error_of_largest"] <= line["bound"] for line in checked.values())
    rows = {line["kernel"]: line for line in parts.values() if "kernel" in line}
    assert set(rows) == set(kernels.KERNELS)
    assert all(row["milliseconds"]["kernel"] > 0 and row["error"] < 4e-3 for row in rows.values())
    assert "two parts, flash" in rows["reference_attention"]["milliseconds"]
    tiles = json.loads((tmp_path / "tiles.json").read_text())["reference_attention"]
    assert set(tiles) == {"40"} == set(parts["kernels", "tiles"]["chosen"])


@pytest.mark.slow
def test_the_stages_model_profile_and_mini_check_time_and_profile_the_model(tmp_path: Path) -> None:
    code, stages, parts = dry_run(tmp_path, "--only", "model,profile,mini")
    assert stages == {"model": "ok", "profile": "ok", "mini": "ok"} and code == 0
    assert not parts["model", "against float32"]["beyond_rounding"]
    assert "plain, v_conditional" in parts["model", "against float32"]["checks"]
    for name in ("evaluation, kernels, captured", "evaluation, baseline", "decode of 1, eager"):
        assert parts["model", name]["milliseconds"]["median"] > 0
    assert parts["model", "clip, runtime, 5 evaluations"]["frames_per_second"] > 0
    for graph in ("denoiser", "vae_decoder"):
        table = parts["profile", graph]
        assert 0 <= table["idle"] < 1 and table["launches"] > len(table["top"]) > 5
        assert table["top"][0]["ms"] >= table["top"][1]["ms"]
    assert parts["mini", "torch, fp32"]["levels_rms"] <= 0.25 and parts["mini", "finite over 30 steps"]["spread"] > 1


@pytest.mark.slow
def test_a_failed_stage_or_a_timeout_does_not_stop_a_dry_run(tmp_path: Path) -> None:
    (tmp_path / "tiles.json").write_text("no tiles")  # which attention needs, and nothing else
    arguments = ("--only", "environment,correctness,suite", "--limit", "environment=0.01")
    code, stages, parts = dry_run(tmp_path, *arguments)
    assert stages == {"environment": "timeout", "correctness": "failed", "suite": "ok"} and code == 1
    failed = {part for (stage, part), line in parts.items() if line["status"] == "failed"}
    assert {part.split()[0] for part in failed} == {"reference", "cross", "halves"}
    assert all("FYE_TILES" in parts["correctness", part]["error"] for part in failed)
    assert parts["correctness", "geglu 2x8x64 float32"]["status"] == "ok"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Gpu:
    """A GPU of the imitated cuda-core, whose kernels NumPy computes."""
    fake = fake_cuda_core.Fake()
    fake.install(monkeypatch)
    with_kernels(monkeypatch, FakeGpu(None, fake, None), tmp_path / "kernels")  # type: ignore[arg-type]
    return Gpu()


def test_precompiled_kernels_are_launched_and_compared(gpu: Gpu, tmp_path: Path) -> None:
    compiled = Kernels.load(tmp_path, gpu.device)
    record = Record(tmp_path, "cubins")
    cubins.launches(record, gpu, compiled, small=True)
    assert not record.failed
    found = {line["part"]: line for line in lines(tmp_path)}
    assert len(found) == 7 and {line["status"] for line in found.values()} == {"ok"}
    assert found["to_uint8"]["flags"] == [0, 1, 1]


@pytest.mark.gpu(architecture=", ".join(SHARED))
def test_precompiled_kernels_are_launched_on_this_gpu(tmp_path: Path) -> None:
    pytest.importorskip("cuda.core", reason="needs cuda-core")
    gpu = Gpu()
    folder, _ = cubins.compiled(f"sm_{gpu.device.arch}", {})
    record = Record(tmp_path, "cubins")
    cubins.launches(record, gpu, Kernels.load(folder, gpu.device), small=True)
    assert not record.failed and {line["status"] for line in lines(tmp_path)} == {"ok"}


def test_a_precompiled_kernel_with_wrong_results_fails(gpu: Gpu, tmp_path: Path) -> None:
    class Idle:
        def launch(self, stream: Any, arguments: Any) -> None:
            """Nothing."""

    compiled = dict(Kernels.load(tmp_path, gpu.device))
    other = compiled["forecast_step_plain_fp32"]
    record = Record(tmp_path, "cubins")
    wrong = {"to_uint8": Idle(), "forecast_step_guided_fp32": Idle(), "forecast_step_plain_masked_fp32": other}
    cubins.launches(record, gpu, compiled | wrong, small=True)
    steps = [f"forecast_step{part}" for part in (", guided", ", plain_masked", " in a captured graph")]
    assert record.failed == ["to_uint8", *steps]


def test_precompiled_kernels_are_reused_if_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cubins, "_READY", tmp_path)
    asked: list[list[str]] = []

    def run(command: list[str], **settings: Any) -> Any:
        assert "TRITON_INTERPRET" not in settings["env"]
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(cubins.subprocess, "run", run)
    for names, architecture, ready in (
        (cubins.NAMES, "sm_90", True),
        (cubins.NAMES, "sm_90a", True),
        (cubins.NAMES, "sm_89", False),
        (cubins.NAMES[1:], "sm_90a", False),
    ):
        manifest = {"kernels": {name: {"sm_80": {}, "sm_90a": {}} for name in names}}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        assert cubins.compiled(architecture, {}) == ((tmp_path, False) if ready else (cubins._SPOT, True))
    (tmp_path / "manifest.json").unlink()
    assert cubins.compiled("sm_80", {})[1]
    assert [command[command.index("--arch") + 1] for command in asked] == ["sm_89", "sm_90a", "sm_80"]


def test_the_fastest_tiles_are_those_of_all_levels_together() -> None:
    one, other, broken = Tiles(64, 16, 4, 2), Tiles(64, 32, 4, 2), Tiles(128, 32, 4, 2)
    times = [{one: 1.0, other: 2.0, broken: 0.1}, {one: 4.0, other: 2.5}]
    levels = [{"dim": 160, "milliseconds": {kernels.named(t): ms for t, ms in table.items()}} for table in times]
    levels.append({"dim": 80, "milliseconds": {}})
    assert fastest(levels, {160: (one, other, broken), 80: (one,)}) == {160: other}


def test_tiles_with_wrong_results_or_errors_are_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = reference_attention.reference_attention
    good, wrong, large = Tiles(32, 16, 1, 1), Tiles(16, 16, 1, 1), Tiles(64, 16, 1, 1)

    def attend(*given: Any, tiles: Tiles) -> torch.Tensor:
        if tiles == large:
            raise RuntimeError("out of resource: shared memory")
        return right(*given, tiles=tiles) * (1.1 if tiles == wrong else 1.0)

    monkeypatch.setattr(kernels.reference_attention, "reference_attention", attend)
    bench = kernels.Bench("cpu", torch.float16, 1)
    (level,) = kernels.sweep(bench, {40: (wrong, large, good)}, small=True)
    assert level["tiles"] == good and list(level["milliseconds"]) == [kernels.named(good)]
    assert "away from float32" in level["failed"][kernels.named(wrong)]
    assert "shared memory" in level["failed"][kernels.named(large)]
