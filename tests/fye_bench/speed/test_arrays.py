import json
from pathlib import Path

import numpy as np
import pytest

from fye_bench.speed import arrays as bench
from fye_rt import arrays


def test_every_operation_is_timed_by_every_twin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, before = tmp_path / "arrays.json", arrays.native
    assert bench.main(["--rounds", "2", "--frames", "2", "--size", "64x64", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    twins = ["numpy", *([] if before is None else reversed(before.instruction_sets()))]
    assert len(found["seconds"]) == 4
    for times in found["seconds"].values():
        assert list(times) == twins and all(len(each) == 2 for each in times.values())
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(found["seconds"])
    assert arrays.native is before and (before is None or before.instruction_set() == before.instruction_sets()[0])


def test_all_twins_give_the_same_bits() -> None:
    if arrays.native is None:
        pytest.skip("the native module is not built here")
    for name, run in bench.operations(3, (72, 88)).items():
        results = []
        for twin in ("numpy", *arrays.native.instruction_sets()):
            with bench.twin(twin):
                assert arrays.native is None if twin == "numpy" else arrays.native.instruction_set() == twin
                results.append(run())
        for result in results[1:]:
            np.testing.assert_array_equal(result, results[0], err_msg=name)
