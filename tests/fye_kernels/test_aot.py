"""Kernels compile without a GPU. In processes of their own: here Triton interprets."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TWO = "sm_80,sm_90a"

pytestmark = pytest.mark.slow


def aot(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "kernels")))
    return subprocess.run(
        [sys.executable, "-m", "fye_kernels.aot", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aot") / "kernels"
    run = aot("--arch", TWO, "--out", folder)
    assert run.returncode == 0, run.stderr
    return folder


def entries(folder: Path) -> list[dict[str, Any]]:
    kernels = json.loads((folder / "manifest.json").read_text())["kernels"]
    return [entry for architectures in kernels.values() for entry in architectures.values()]


def test_every_kernel_compiles_for_two_architectures_without_spilling(compiled: Path) -> None:
    kernels = json.loads((compiled / "manifest.json").read_text())["kernels"]
    kinds = {"reference", "temporal", "forecast", "norm", "geglu", "to"}  # to_uint8
    assert {name.partition("_")[0] for name in kernels} == kinds
    assert all(tuple(architectures) == ("sm_80", "sm_90a") for architectures in kernels.values())
    for entry in entries(compiled):
        cubin = (compiled / entry["file"]).read_bytes()
        assert cubin.startswith(b"\x7fELF") and hashlib.sha256(cubin).hexdigest() == entry["sha256"]
        assert entry["stack"] == 0 and 0 < entry["registers"] <= 255
        assert entry["shared_memory"] <= 99 * 1024  # what every architecture since sm_80 grants a block
        assert all(kind[0] == "*" or kind in ("i32", "fp32") for _, kind in entry["arguments"])


def test_kernels_take_no_more_registers_than_is_recorded(compiled: Path) -> None:
    recorded = json.loads((ROOT / "kernels" / "fye_kernels" / "resources.json").read_text())["registers"]
    kernels = json.loads((compiled / "manifest.json").read_text())["kernels"]
    assert set(recorded) == set(kernels)


def test_a_spill_or_a_register_too_many_is_an_error() -> None:
    code = """
from fye_kernels.aot import check
entry = {"registers": 100, "stack": 0}
assert check("a", "sm_80", entry, {"a": {"sm_80": 100}}) is None
assert "takes 100 registers, 99" in check("a", "sm_80", entry, {"a": {"sm_80": 99}})
assert "has no bound" in check("a", "sm_90a", entry, {"a": {"sm_80": 100}})
assert "spills 8 bytes" in check("a", "sm_80", entry | {"stack": 8}, {"a": {"sm_80": 100}})
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "kernels")))}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--arch", "sm_70"), "--arch sm_70 is not valid; allowed: sm_80"), (("--only", "nothing"), "names no kernel")],
)
def test_what_it_cannot_do_is_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    run = aot(*arguments, "--out", tmp_path / "out")
    assert run.returncode == 2 and message in run.stderr and run.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
