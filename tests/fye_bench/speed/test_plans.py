import json
from pathlib import Path

import pytest

from fye_bench.speed import plans
from fye_rt.bundle import GRAPHS

ROOT = Path(__file__).resolve().parents[3]
REQUEST = {"size": "512x512", "frames": "1:24:24", "precision": "fp16", "attention": "fused"}


@pytest.mark.slow
def test_time_bytes_and_memory_of_plans_are_recorded_with_what_was_asked_for(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install tensorrt-rtx-cu13")
    monkeypatch.setattr(plans, "GRAPHS", ("guider", "vae_encoder"))
    monkeypatch.setenv("FYE_PLANS", "")
    file = tmp_path / "plans.json"
    arguments = ["--size", "64x72", "--frames", "1:2:3", "--precision", "fp32", "--attention", "written-out"]
    assert plans.main([str(tiny_bundle), "--work", str(tmp_path / "work"), *arguments, "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    asked = {"size": "64x72", "frames": "1:2:3", "precision": "fp32", "attention": "written-out"}
    assert {name: result[name] for name in REQUEST} == asked
    assert list(result["plans"]) == ["guider", "vae_encoder"]
    for graph, plan in result["plans"].items():
        assert plan["plan_bytes"] > 100_000 and plan["seconds"] > 0 and plan["peak_memory_bytes"] > 1e8
        assert f"{graph}: built in" in (tmp_path / "work" / f"{graph}.log").read_text()
    assert "attention is written out" in (tmp_path / "work" / "vae_encoder.log").read_text()


def test_the_committed_plans_are_all_graphs_as_fye_build_makes_them_by_default() -> None:
    result = json.loads((ROOT / "bench" / "results" / "plans_full.json").read_text())
    assert {name: result[name] for name in REQUEST} == REQUEST
    assert set(result["plans"]) == set(GRAPHS)
    assert all(plan["plan_bytes"] > 1e6 for plan in result["plans"].values())
