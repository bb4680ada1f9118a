import json
from pathlib import Path

import pytest

from fye_bench.studies.training_curve import main
from fye_rt import media
from fye_rt.errors import InputError

pytest.importorskip("matplotlib", reason="draws with it")


def test_training_logs_become_a_picture(tmp_path: Path) -> None:
    entries = [{"step": 50 * k, "loss": 1 / k} for k in range(1, 5)]
    sheets = [{"step": 100 * k, "psnr": 20.0 + k, "psnr_of_copying": 17.0} for k in range(1, 3)]
    (tmp_path / "image.jsonl").write_text("\n".join(map(json.dumps, entries + sheets)))
    out = tmp_path / "curve.png"
    assert main([str(tmp_path), "-o", str(out)]) == 0 and media.read_image(out).min() == 0
    (tmp_path / "image.jsonl").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        main([str(tmp_path), "-o", str(out)])
    with pytest.raises(InputError, match="holds no log"):
        main([str(tmp_path / "absent"), "-o", str(out)])
