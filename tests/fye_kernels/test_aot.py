"""Kernels compile without a GPU. In processes of their own: here Triton interprets."""

import hashlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fye_kernels.aot import ARCHITECTURES, RESOURCES, variants

ROOT = Path(__file__).resolve().parents[2]
TWO = "sm_80,sm_90a"

pytestmark = pytest.mark.slow


def aot(*arguments: object, start: tuple[str, ...] = ("-m", "fye_kernels.aot")) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "kernels")))
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aot") / "kernels"
    run = aot("--arch", TWO, "--out", folder)
    assert run.returncode == 0, run.stderr
    return folder


def test_every_kernel_compiles_for_two_architectures_without_spilling(compiled: Path) -> None:
    kernels = json.loads((compiled / "manifest.json").read_text())["kernels"]
    kinds = {"reference", "temporal", "forecast", "norm", "geglu", "to"}  # to_uint8
    assert {name.partition("_")[0] for name in kernels} == kinds
    assert all(tuple(architectures) == ("sm_80", "sm_90a") for architectures in kernels.values())
    for entry in (entry for architectures in kernels.values() for entry in architectures.values()):
        cubin = (compiled / entry["file"]).read_bytes()
        assert cubin.startswith(b"\x7fELF") and hashlib.sha256(cubin).hexdigest() == entry["sha256"]
        assert entry["stack"] == 0 and 0 < entry["registers"] <= 255
        assert entry["shared_memory"] <= 99 * 1024  # what every architecture since sm_80 grants a block
        assert all(kind[0] == "*" or kind in ("i32", "fp32") for _, kind in entry["arguments"])


def test_the_manifest_says_how_every_kernel_is_launched(compiled: Path) -> None:
    kernels = json.loads((compiled / "manifest.json").read_text())["kernels"]
    for variant in variants():
        order = [name for name in inspect.signature(variant.kernel.fn).parameters if name in variant.signature]
        for entry in kernels.pop(variant.name).values():
            assert entry["symbol"].encode() in (compiled / entry["file"]).read_bytes()
            assert entry["arguments"] == [[name, variant.signature[name]] for name in order]
            assert entry["constants"] == variant.constants and entry["aligned"] == list(variant.aligned)
            assert entry["grid"] == list(variant.grid) and entry["warps"] == variant.warps
    assert not kernels


def test_every_kernel_has_a_bound_for_every_architecture(compiled: Path) -> None:
    recorded = json.loads(RESOURCES.read_text())["registers"]
    kernels = json.loads((compiled / "manifest.json").read_text())["kernels"]
    assert set(recorded) == set(kernels)
    assert all(set(bounds) == set(ARCHITECTURES) for bounds in recorded.values())


def test_a_kernel_that_takes_more_registers_than_recorded_fails_the_build(tmp_path: Path) -> None:
    recorded = json.loads(RESOURCES.read_text())
    bounds = recorded["registers"]["geglu_fp16"]
    lower = recorded | {"registers": {"geglu_fp16": bounds | {"sm_80": bounds["sm_80"] - 1}}}
    (tmp_path / "resources.json").write_text(json.dumps(lower))
    code = f"""
import sys
from pathlib import Path
from fye_kernels import aot
aot.RESOURCES = Path({str(tmp_path / "resources.json")!r})
sys.exit(aot.main(sys.argv[1:]))
"""
    for arch, status in (("sm_80", 1), ("sm_86", 0)):
        run = aot("--only", "geglu_fp16", "--arch", arch, "--out", tmp_path / arch, start=("-c", code))
        assert run.returncode == status, run.stderr
        assert ("geglu_fp16 for sm_80 uses" in run.stderr) == bool(status)
    run = aot("--only", "geglu_bf16", "--arch", "sm_80", "--out", tmp_path / "bf16", start=("-c", code))
    assert run.returncode == 1 and "geglu_bf16 for sm_80 has no bound" in run.stderr


def test_a_spill_or_a_register_too_many_is_an_error() -> None:
    code = """
from fye_kernels.aot import check
entry = {"registers": 100, "stack": 0}
assert check("a", "sm_80", entry, {"a": {"sm_80": 100}}) is None
assert "uses 100 registers, but resources.json allows 99" in check("a", "sm_80", entry, {"a": {"sm_80": 99}})
assert "has no bound" in check("a", "sm_90a", entry, {"a": {"sm_80": 100}})
assert "spills 8 bytes" in check("a", "sm_80", entry | {"stack": 8}, {"a": {"sm_80": 100}})
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "kernels")))}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--arch", "sm_70"), "--arch sm_70 is not valid; allowed: sm_80"), (("--only", "nothing"), "names no kernel")],
)
def test_a_wrong_argument_of_the_kernel_compiler_is_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    run = aot(*arguments, "--out", tmp_path / "out")
    assert run.returncode == 2 and message in run.stderr and run.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
