"""Kernels compile without a GPU. In processes of their own: here Triton interprets."""

import hashlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fye_kernels import tiles
from fye_kernels.aot import ON_REQUEST, SHARED, check, variants
from fye_kernels.tiles import Tiles

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
        assert all(kind[0] == "*" or kind in ("i32", "fp32") for _, kind in entry["arguments"])


def test_the_manifest_says_how_every_kernel_is_launched(compiled: Path) -> None:
    kernels = json.loads((compiled / "manifest.json").read_text())["kernels"]
    for architecture in TWO.split(","):
        for variant in variants(architecture):
            order = [name for name in inspect.signature(variant.kernel.fn).parameters if name in variant.signature]
            entry = kernels[variant.name].pop(architecture)
            assert entry["symbol"].encode() in (compiled / entry["file"]).read_bytes()
            assert entry["arguments"] == [[name, variant.signature[name]] for name in order]
            assert entry["constants"] == variant.constants and entry["aligned"] == list(variant.aligned)
            assert entry["grid"] == list(variant.grid) and entry["warps"] == variant.warps
    assert not any(kernels.values())


@pytest.mark.parametrize("architecture", ON_REQUEST)
def test_relatives_of_an_architecture_are_compiled_if_named(architecture: str, tmp_path: Path) -> None:
    run = aot("--only", "to_uint8", "--arch", architecture.rstrip("a"), "--out", tmp_path / "kernels")
    assert run.returncode == 0, run.stderr
    assert list(json.loads((tmp_path / "kernels" / "manifest.json").read_text())["kernels"]["to_uint8"]) == [
        architecture
    ]


def test_a_report_without_a_file_is_only_printed(tmp_path: Path) -> None:
    chosen = ("--only", "to_uint8", "--arch", "sm_80")
    run, written = aot(*chosen, "--report"), aot(*chosen, "--report", tmp_path / "report.json")
    assert (run.returncode, run.stdout) == (0, written.stdout) and run.stdout.startswith("to_uint8 sm_80: ")
    assert list(json.loads((tmp_path / "report.json").read_text())["kernels"]) == ["to_uint8"]
    told = " ".join(aot("--help").stdout.split())
    assert "--report [FILE] measure the machine code and print it; with FILE also write it there, as JSON" in told


def test_a_spill_or_too_much_shared_memory_is_an_error() -> None:
    entry = {"stack": 0, "shared_memory": 99 << 10}
    assert all(check("a", architecture, entry) is None for architecture in SHARED)
    assert check("a", "sm_80", entry | {"stack": 8}) == "a for sm_80 spills 8 bytes"
    for architecture, limit in SHARED.items():
        assert check("a", architecture, entry | {"shared_memory": limit}) is None
        more = check("a", architecture, entry | {"shared_memory": limit + 1})
        assert more == f"a needs {limit + 1} bytes of shared memory, but a block of {architecture} gets {limit} at most"


def test_tiles_too_large_for_an_architecture_fail_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles.write(tmp_path / "tiles.json", {"reference_attention": {40: Tiles(128, 128, 8, 6)}})
    monkeypatch.setenv(tiles.FILE, str(tmp_path / "tiles.json"))
    for architecture, status in (("sm_90a", 0), ("sm_89", 1)):
        chosen = ("--only", "reference_attention_40_fp16", "--arch", architecture)
        run = aot(*chosen, "--out", tmp_path / architecture)
        assert run.returncode == status, run.stderr
        assert ("of shared memory, but a block of sm_89 gets 101376" in run.stderr) == bool(status)


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
