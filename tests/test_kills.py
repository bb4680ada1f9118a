from pathlib import Path

import pytest

from tests import kills


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc, to see which processes there are")
@pytest.mark.usefixtures("opencv")
def test_killed_and_repeated_commands_leave_the_same_results_and_no_other_files(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    lines: list[str] = []
    faults = kills.run(kills.works(inputs), 8, 5, tmp_path / "out", lines.append)
    assert not faults, "\n".join([*faults, *lines])
