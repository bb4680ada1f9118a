import json
from pathlib import Path

import pytest

from fye_bench.studies.training_curve import main
from fye_rt import media

pytest.importorskip("matplotlib", reason="draws with it")


def test_a_run_s_logs_become_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [{"step": 50 * k, "loss": 1 / k} for k in range(1, 5)]
    sheets = [{"step": 100 * k, "psnr": 20.0 + k, "psnr_of_copying": 17.0} for k in range(1, 3)]
    (tmp_path / "image.jsonl").write_text("\n".join(map(json.dumps, entries + sheets)))
    out = tmp_path / "curve.png"
    assert main([str(tmp_path), "-o", str(out)]) == 0
    assert media.read_image(out).min() == 0
    (tmp_path / "image.jsonl").write_text("{")
    assert main([str(tmp_path), "-o", str(out)]) == 2
    assert main([str(tmp_path / "absent"), "-o", str(out)]) == 2
    assert "damaged" in (said := capsys.readouterr().err) and "holds no log" in said
