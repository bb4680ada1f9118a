"""The full-size script: its steps on the tiny bundle, and all of it on the full-size model when asked for."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from fye_bench.speed import full_size, process
from fye_rt.errors import BackendError


@pytest.fixture
def no_export(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports take a minute of tracing even for the tiny model; in their place the shipped bundle is copied."""

    def run(arguments: Sequence[str], log: Path) -> process.Run:
        if "export" not in arguments:
            return process.run(arguments, log)
        shutil.copytree(tiny_bundle, arguments[arguments.index("-o") + 1])
        return process.Run(seconds=1, peak_memory_bytes=100, peak_anonymous_bytes=50)

    monkeypatch.setattr(full_size, "run", run)


@pytest.mark.slow
@pytest.mark.usefixtures("no_export")
def test_every_step_of_the_full_size_run_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    assert full_size.main(["--work", str(tmp_path / "work"), "--config", "tiny", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert list(result["steps"]) == ["write", "export", "verify", "animate", "evaluate", "compare"]
    for name in ("write", "verify", "animate", "evaluate", "compare"):
        step = result["steps"][name]
        assert step["seconds"] > 0 and step["peak_memory_bytes"] > 20e6
        assert step["peak_anonymous_bytes"] > 10e6
    assert result["peak_memory_bytes"] < result["memory_limit_bytes"] == 20_000_000_000
    assert result["disk_bytes"]["checkpoint"] > 1e6 and result["disk_bytes"]["bundle"] > 1e6
    animated = result["steps"]["animate"]["report"]
    assert (animated["frames"], animated["size"], animated["network_evaluations"]) == (2, [256, 256], 2)
    evaluated = result["steps"]["evaluate"]
    assert (evaluated["frames"], evaluated["size"]) == (2, [512, 512])
    assert 0 < result["steps"]["compare"]["difference"] < 1e-4
    printed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert printed == [*result["steps"], "checkpoint", "torch"]


@pytest.mark.slow
def test_a_failed_step_ends_the_full_size_run_and_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"fye_rt export .* is not a complete checkpoint.*; see .*export\.log"):
        full_size.main(["--work", str(tmp_path), "--checkpoint", str(tmp_path)])


def test_a_full_size_run_beyond_its_memory_limit_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_size, "_steps", lambda *_: iter([("export", _facts(19)), ("compare", _facts(21))]))
    assert full_size.main(["--work", str(tmp_path)]) == 1
    monkeypatch.setattr(full_size, "_steps", lambda *_: iter([("compare", _facts(19))]))
    assert full_size.main(["--work", str(tmp_path)]) == 0


def test_a_full_size_run_with_disagreeing_backends_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_size, "_steps", lambda *_: iter([("compare", _facts(1, difference=2e-4))]))
    assert full_size.main(["--work", str(tmp_path)]) == 1


def _facts(gigabytes: int, difference: float = 1e-6) -> dict[str, float]:
    peak = gigabytes * 10**9
    return {"seconds": 60, "peak_memory_bytes": peak, "peak_anonymous_bytes": 10**9, "difference": difference}


@pytest.mark.full
def test_the_full_size_model_is_exported_and_run_within_20_gigabytes(tmp_path: Path) -> None:
    assert full_size.main(["--work", str(tmp_path)]) == 0
