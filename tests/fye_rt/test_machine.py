"""What a machine tells of itself, and that engines keep to the cores that their process was given."""

import os
from pathlib import Path

import pytest

from fye_rt import backends, machine
from fye_rt.engine import Settings
from tests.fye_rt.command_line import python

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux tells")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two cores with two processors each, all of them this process's, in a control group below two others."""
    for processor, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        topology = tmp_path / f"sys/devices/system/cpu/cpu{processor}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(siblings + "\n")
    (tmp_path / "sys/fs/cgroup/outer/inner").mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("3:cpuset:/elsewhere\n0::/outer/inner\n")
    monkeypatch.setattr(machine, "_SYS", tmp_path / "sys")
    monkeypatch.setattr(machine, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3})
    return tmp_path


def grant(system: Path, group: str, quota: str) -> None:
    (system / "sys/fs/cgroup" / group / "cpu.max").write_text(f"{quota} 100000\n")


def test_cores_count_once_however_many_processors_they_have(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.cores() == 2
    for allowed, cores in (({0, 2}, 1), ({0, 3}, 2), ({3}, 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, allowed=allowed: allowed)
        assert machine.cores() == cores


def test_a_machine_without_topology_counts_processors(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_SYS", system / "nothing")
    monkeypatch.setattr(machine, "_PROC", system / "nothing")
    assert machine.cores() == 4


@pytest.mark.parametrize(
    ("outer", "inner", "cores"),
    [("max", "max", 2), ("max", "150000", 1), ("100000", "max", 1), ("50000", "400000", 1), ("400000", "200000", 2)],
)
def test_a_control_group_s_quota_counts_wherever_it_is_set(system: Path, outer: str, inner: str, cores: int) -> None:
    grant(system, "outer", outer)
    grant(system, "outer/inner", inner)
    assert machine.cores() == cores


def test_an_engine_chooses_its_threads_where_cores_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cores() is None
    assert (Settings().threads, Settings(threads=3).threads) == (0, 3)


CONFINED = """
import os, sys
from pathlib import Path
own = {min(os.sched_getaffinity(0))}
os.sched_setaffinity(0, own)
from fye_rt import backends
from fye_rt.bundle import Bundle
from fye_rt.engine import Settings
engine = backends.load(sys.argv[2])(Bundle.load(Path(sys.argv[1])), "denoiser", Settings())
kept = [os.sched_getaffinity(int(thread)) == own for thread in os.listdir("/proc/self/task")]
print(Settings().threads, all(kept))
"""


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_no_thread_of_an_engine_leaves_its_process_s_cores(name: str, tiny_bundle: Path) -> None:
    if name not in backends.installed():
        pytest.skip(f"{name} is not installed")
    assert python("-c", CONFINED, tiny_bundle, name).stdout == "1 True\n"
