"""An evaluation on Ray finds what one process finds, also when one of its workers is killed."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from fye_bench.suites.drawing import draw_suite
from fye_rt.cli.main import main
from tests.fye_rt.command_line import TINY

FAST = ("--bundle", str(TINY), "--steps", "1", "--forecast", "off", "--threads", "1", "--size", "64x64", "--quiet")


def busy_workers() -> list[int]:
    """Processes of Ray's that do a task now; Ray says so in their titles."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = path.read_bytes()
        except OSError:  # it has ended
            continue
        if title.startswith(b"ray::Server.do"):
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(
    (os.cpu_count() or 1) < 2 or not Path("/proc/self/cmdline").exists(), reason="needs two cores, /proc"
)
def test_two_workers_of_which_one_is_killed_give_the_results_of_one_process(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'fye-rt[cluster]'")
    draw_suite(tmp_path / "suite", portraits=4, motions=4, frames=2, size=(64, 64))
    assert main(["eval", str(tmp_path / "suite"), "-o", str(tmp_path / "one"), *FAST]) == 0
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            if list((tmp_path / "two" / "pairs").glob("[a-z]*.json")):
                killed.extend(busy_workers()[:1])
                for process in killed:
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.002)

    thread = threading.Thread(target=kill)
    thread.start()
    arguments = [*FAST, "--ray", "local", "--workers", "2"]
    assert main(["eval", str(tmp_path / "suite"), "-o", str(tmp_path / "two"), *arguments]) == 0
    thread.join()
    assert killed
    assert (tmp_path / "two" / "results.json").read_bytes() == (tmp_path / "one" / "results.json").read_bytes()
    performance = json.loads((tmp_path / "two" / "performance.json").read_text())
    assert (performance["workers"], performance["evaluated_now"], len(performance["pairs"])) == (2, 8, 8)
