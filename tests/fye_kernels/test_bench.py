import json
from pathlib import Path

import pytest

from fye_bench import kernels


@pytest.mark.slow
def test_the_benchmark_runs_every_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels.main(["--small", "--rounds", "2", "--json", str(tmp_path / "kernels.json")]) == 0
    rows = json.loads((tmp_path / "kernels.json").read_text())["kernels"]
    assert {row["kernel"] for row in rows} == {
        "reference_attention",
        "temporal_attention",
        "forecast_step",
        "norm_silu",
        "geglu",
        "to_uint8",
    }
    # half precision: weights and results are rounded to 2**-11, and so is what the sums of norms start from
    assert all(row["error"] < 4e-3 for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == len(rows)
