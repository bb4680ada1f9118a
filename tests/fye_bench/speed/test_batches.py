"""`fye bench batch` times workers that make clips, and workers that do nothing."""

import json
from pathlib import Path

import pytest

from fye_bench.speed import batches
from fye_rt import machine
from fye_rt.cli.main import main
from fye_rt.errors import OptionError
from tests.fye_rt.command_line import TINY


@pytest.mark.slow
def test_every_way_has_its_rate_and_its_overhead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batches, "CHORES", 40)
    monkeypatch.setattr(machine, "cores", lambda: 2)  # a worker of the tests may have one
    path, cores = tmp_path / "batch.json", 2
    arguments = ["--bundle", str(TINY), "--jobs", "4", "--frames", "1", "--json", str(path), "--quiet"]
    assert main(["bench", "batch", *arguments]) == 0
    result = json.loads(path.read_text())
    ways = {"one process, one thread": 1, "one process, all cores": 1, f"{cores} processes": cores}
    assert {name: row["workers"] for name, row in result["clips"].items()} == ways
    for name in ways:
        row, overhead = result["clips"][name], result["overhead"][name]
        assert row["clips_per_hour"] > 0 and 0 < row["clips_in_the_rate"] < 4
        assert overhead["seconds_a_task"] > 0 and overhead["first_seconds"] > 0
    assert result["overhead"]["a record"]["seconds_a_task"] > 0 and result["bytes"]["task"] > 100
    assert str(tmp_path) not in path.read_text().replace(str(path), "")
    assert capsys.readouterr().out.count("\n") == 1 + len(ways) + 1


def test_one_core_is_refused_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 1)
    with pytest.raises(OptionError, match="no room for two workers"):
        batches.main(["--bundle", str(TINY), "--quiet"])
