"""The loop's overhead is measured in both checkouts by turns."""

import json
from pathlib import Path

from fye_bench.speed import loop_overhead


def test_a_checkout_is_compared_with_another(tmp_path: Path) -> None:
    path = tmp_path / "overhead.json"
    assert loop_overhead.main(["--other", str(loop_overhead.ROOT), "--rounds", "1", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    assert result["seconds_of_a_step"]["this"]["n"] == result["ratio"]["n"] == 1
    assert result["workload"]["frames"] == 16 and result["ratio"]["p50"] > 0
