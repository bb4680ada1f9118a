import json
from pathlib import Path

import pytest

from fye_bench import gpu

pytest.importorskip("triton", reason="kernels need Triton: pip install fye-rt[kernels]")


@pytest.mark.slow
def test_all_of_it_runs_on_a_small_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", "tiny", "--size", "64x64", "--frames", "3", "--steps", "7", "--compute", "fp32"]
    assert gpu.main([*arguments, "--rounds", "1", "--json", str(tmp_path / "gpu.json")]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    for name, difference in found["against_float32"].items():
        assert difference["relative_rms"] < 2e-3 and difference["cosine"] > 0.99999, name
    assert list(found["stages"]) == ["evaluation", "decode", "encode"]
    assert all(set(stage["median"]) == {"baseline", "runtime"} for stage in found["stages"].values())
    assert [(clip["way"], clip["evaluations"]) for clip in found["clips"]] == [
        ("baseline", 7),
        ("runtime", 7),
        ("runtime", 6),
        ("runtime", 5),
    ]
    assert "frames/s" in capsys.readouterr().out


def test_the_full_size_needs_a_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "--config tiny" in capsys.readouterr().err
