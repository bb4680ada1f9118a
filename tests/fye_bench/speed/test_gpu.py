import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from fye_bench.speed import gpu

pytest.importorskip("triton", reason="kernels need Triton: pip install fye-rt[kernels]")

SCRIPT = Path(__file__).parents[3] / "bench" / "gpu.sh"


def script(out: Path, *arguments: str, python: str = "echo") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": python, "OUT": str(out)}
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_gpu_sh_without_a_command_prints_its_commands(tmp_path: Path) -> None:
    run = script(tmp_path)
    assert run.returncode == 2 and not run.stdout
    for command in ("train", "first", "kernels", "model", "dry-run"):
        assert f"bench/gpu.sh {command} " in run.stderr
    assert run.stderr.splitlines()[-1].startswith("from .whl/")  # the whole of its head


def test_gpu_sh_passes_arguments_on(tmp_path: Path) -> None:
    tests, kernels = script(tmp_path, "kernels", "--only", "geglu").stdout.splitlines()
    assert tests.endswith("tests/fye_kernels")
    assert kernels == f"-m fye_bench.speed.kernels --json {tmp_path}/kernels.json --only geglu"
    (model,) = script(tmp_path, "model", "--rounds", "3").stdout.splitlines()
    assert model == f"-m fye_bench.speed.gpu --json {tmp_path}/gpu.json --rounds 3"


def test_the_first_run_has_what_is_left_of_590_seconds(tmp_path: Path) -> None:
    (first,) = script(tmp_path, "first", "--only", "kernels").stdout.splitlines()
    found = re.fullmatch(rf"-m fye_bench\.first --out {tmp_path} --seconds (\d+) --only kernels", first)
    assert found is not None and int(found[1]) <= 590


def test_gpu_sh_times_kernels_although_their_tests_fail(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho $2 $4; [ $2 != pytest ]\n")
    python.chmod(0o755)
    run = script(tmp_path, "kernels", python=str(python))
    assert [line.split()[0] for line in run.stdout.splitlines()] == ["pytest", "fye_bench.speed.kernels"]
    assert run.returncode == 1


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_a_small_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", "tiny", "--size", "64x64", "--frames", "3", "--steps", "7", "--compute", "fp32"]
    assert gpu.main([*arguments, "--rounds", "1", "--json", str(tmp_path / "gpu.json")]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    for name, difference in found["against_float32"].items():
        assert difference["relative_rms"] < 2e-3 and difference["cosine"] > 0.99999, name
    assert list(found["stages"]) == ["evaluation", "decode", "encode"]
    assert all(set(stage["median"]) == {"baseline", "runtime"} for stage in found["stages"].values())
    clips = [(clip["way"], clip["evaluations"]) for clip in found["clips"]]
    assert clips == [("baseline", 7), ("runtime", 7), ("runtime", 6), ("runtime", 5)]
    counted, rate = found["operations"], found["matrix_flop_per_second"]
    for clip in found["clips"]:
        floor = (clip["evaluations"] * counted["denoiser"] + counted["vae_decoder"]) / rate
        assert clip["floor_seconds"] == pytest.approx(floor)
        assert clip["frames_per_second"] == pytest.approx(3 / clip["seconds"])
        assert clip["faster"] == pytest.approx(found["clips"][0]["seconds"] / clip["seconds"])
    assert found["memory_bytes"]["runtime"]["weights"] > 1e6
    assert found["promised"] == {"faster": {"evaluation": 2.5, "clip": 7.0}, "frames_per_second": 25.0}
    assert "frames/s" in capsys.readouterr().out


def test_a_result_beyond_rounding_is_named() -> None:
    small = [f"{way}, {half}" for way in ("runtime", "baseline") for half in ("v_conditional", "v_unconditional")]
    checks = {"runtime, frames": 3e-3, "baseline, frames": 1.6e-3} | dict.fromkeys((*small, "runtime, replayed"), 1e-3)

    def beyond_rounding(**changed: float) -> list[str]:
        errors = checks | {f"runtime, {name}": error for name, error in changed.items()}
        return gpu.beyond_rounding({name: {"relative_rms": error, "cosine": 1.0} for name, error in errors.items()})

    assert beyond_rounding() == [] and beyond_rounding(v_unconditional=2.2e-3) == ["runtime, v_unconditional"]
    assert beyond_rounding(frames=3.4e-3, replayed=float("nan")) == ["runtime, frames", "runtime, replayed"]


def test_the_full_size_needs_a_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main([]) == 2 and "--config tiny" in capsys.readouterr().err
