import json
from pathlib import Path

import pytest

from fye_bench.speed import paste as bench


def test_every_pasting_is_timed_and_every_edge_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"SIDES": (512,), "ANGLES": (0.0,), "FEATHERS": (0.0, 0.3)}.items():
        monkeypatch.setattr(bench, name, value)
    assert bench.main(["--rounds", "1", "--json", str(tmp_path / "paste.json")]) == 0
    found = json.loads((tmp_path / "paste.json").read_text())
    assert [case["color"] for case in found["pasting"]] == ["none", "mean"]
    assert all(len(times) == 1 for case in found["pasting"] for times in case["seconds"].values())
    for edges in found["seam"].values():
        assert edges["0.3"] < edges["0"] and edges["0.3"] < 1.2  # a soft edge is as smooth as the picture
    assert "gradient at the edge" in capsys.readouterr().out
