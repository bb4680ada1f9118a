"""Kernels compile to code as good as committed, on any machine with the same Triton."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import triton

from fye_kernels import norm_silu
from fye_kernels.aot import ARCHITECTURES, SHARED, variants

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "bench" / "results" / "kernels_static.json"
# warp instructions per score of reference_attention on sm_90a, by head size
SCORE = {40: 0.25, 80: 0.27, 160: 0.42}
HOPPER = "sm_90a"
LOWER_IS_BETTER = ("registers", "shared_memory", "stack", "instructions", "bytes")


@cache
def committed() -> dict[str, Any]:
    return json.loads(FILE.read_text())


def test_the_committed_report_covers_every_kernel_and_architecture() -> None:
    kernels = committed()["kernels"]
    for architecture in ARCHITECTURES:
        names = {variant.name for variant in variants(architecture) if not variant.name.endswith("_bf16")}
        assert {name for name, rows in kernels.items() if architecture in rows} == names
    for rows in kernels.values():
        for architecture, row in rows.items():
            assert row["stack"] == 0 and row["shared_memory"] <= SHARED[architecture]
    for dim, bound in SCORE.items():
        for kind in ("", "_lse"):
            row = kernels[f"reference_attention_{dim}{kind}_fp16"]["sm_90a"]
            assert row["unit"] == "score" and row["instructions"] <= bound
            assert all(name.startswith("HGMMA.64x") for name in row["matrix"])


def test_the_committed_report_has_the_traffic_of_group_norms() -> None:
    for shape, row in committed()["norm_silu"].items():
        channels, positions = map(int, shape.split("@"))
        moved, least = norm_silu.traffic(positions, channels)
        assert (row["bytes"], row["least_bytes"]) == (moved, least) and row["ratio"] <= 1.1


def test_biases_of_temporal_attention_are_loaded_as_vectors() -> None:
    for name, rows in committed()["kernels"].items():
        if name.startswith("temporal_attention"):
            assert all("U16" not in access for row in rows.values() for access in row["access"]), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=[] if name == HOPPER else pytest.mark.full) for name in ARCHITECTURES],
)
def test_no_kernel_compiles_to_worse_code_than_committed(architecture: str, tmp_path: Path) -> None:
    if committed()["triton"] != triton.__version__:
        pytest.skip(f"{FILE.name} is of Triton {committed()['triton']}, and this is {triton.__version__}")
    environment = {name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "FYE_TILES")}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "kernels")))
    command = [sys.executable, "-m", "fye_kernels.aot", "--arch", architecture]
    run = subprocess.run(
        [*command, "--report", str(tmp_path / "report.json")], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    kernels = json.loads((tmp_path / "report.json").read_text())["kernels"]
    assert set(kernels) == {name for name, rows in committed()["kernels"].items() if architecture in rows}
    for name, rows in kernels.items():
        row, before = rows[architecture], committed()["kernels"][name][architecture]
        worse = {key: (row[key], before[key]) for key in LOWER_IS_BETTER if row[key] > before[key]}
        assert not worse, f"{name} for {architecture}: {worse}"
        assert row["matrix"] == before["matrix"] and row["stack"] == 0
    if architecture == HOPPER:
        for dim, bound in SCORE.items():
            assert kernels[f"reference_attention_{dim}_fp16"][architecture]["instructions"] <= bound
