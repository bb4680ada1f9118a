"""Ray's actors make the same clips as one process, also when one of them is killed."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from fye_rt.batch import ray
from fye_rt.batch.ray import _shares
from fye_rt.batch.run import RECORDS, RESULTS
from fye_rt.batch.workers import Died, work
from fye_rt.errors import BackendError, OptionError
from tests.fye_rt.batch.test_run import FAST, write_jobs
from tests.fye_rt.batch.workers import Chore, Hand, refuse
from tests.fye_rt.command_line import Fye


def nodes(*resources: dict[str, float]) -> list[dict[str, object]]:
    return [{"Alive": True, "Resources": one} for one in resources] + [{"Alive": False, "Resources": {"GPU": 8.0}}]


def test_a_worker_has_a_gpu_or_a_share_of_the_cores() -> None:
    gpus = nodes({"CPU": 16.0, "GPU": 2.0}, {"CPU": 16.0, "GPU": 1.0})
    assert _shares(gpus, 0, 0) == (3, {"num_gpus": 1, "num_cpus": 1})
    assert _shares(gpus, 2, 0) == (2, {"num_gpus": 1, "num_cpus": 1})
    cores = nodes({"CPU": 8.0}, {"CPU": 4.0})
    assert _shares(cores, 0, 0) == (1, {"num_cpus": 8})
    assert _shares(cores, 0, 4) == (3, {"num_cpus": 4})
    assert _shares(cores, 6, 0) == (6, {"num_cpus": 2})


@pytest.mark.parametrize(
    ("found", "size", "threads", "said"),
    [
        (({"GPU": 2.0, "CPU": 8.0},), 3, 0, "3 workers share 2 GPUs"),
        (({"CPU": 4.0},), 2, 4, "room for 1 workers of 4 cores"),
        (({"CPU": 4.0},), 5, 0, "room for 4 workers of 1 cores"),
        ((), 0, 0, "room for 0 workers"),
    ],
)
def test_too_many_workers_are_refused(found: tuple[dict[str, float], ...], size: int, threads: int, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        _shares(nodes(*found), size, threads)


def test_a_missing_ray_is_reported_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(BackendError, match=r"pip install 'fye-rt\[cluster\]'"):
        ray.Cluster(lambda threads: Hand, "local")


@pytest.fixture(scope="module")
def real_ray() -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'fye-rt[cluster]'")


@pytest.mark.slow
def test_a_cluster_does_all_tasks_when_some_kill_their_workers(real_ray: None, tmp_path: Path) -> None:
    tasks = [Chore("die once", tmp_path / "died"), Chore("die"), Chore("raise"), *(Chore(n) for n in "abc")]
    done = {task.what: result for task, result in work(ray.Cluster(lambda threads: Hand, "local", 1, 1), tasks)}
    assert done["die once"][0] == "die once" and (tmp_path / "died").exists()
    assert isinstance(done["die"], Died) and done["die"].reason.startswith("3 workers died at this task")
    assert done["raise"] == Died("ZeroDivisionError: nobody foresaw this")
    assert [done[n][0] for n in "abc"] == ["a", "b", "c"]
    with pytest.raises(BackendError, match="no engine here; install one"):
        list(work(ray.Cluster(lambda threads: refuse, "local", 1, 1), [Chore("a")]))


def test_an_address_where_nobody_answers_is_one_line(real_ray: None, tmp_path: Path, fye: Fye) -> None:
    jobs = write_jobs(tmp_path, {})
    said = fye.refuses("batch", jobs, "-o", tmp_path / "out", *FAST, "--ray", "127.0.0.1:1")
    assert "no Ray cluster at '127.0.0.1:1'" in said


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_a_killed_worker_does_not_change_the_results(real_ray: None, tmp_path: Path, fye: Fye, opencv: None) -> None:
    jobs = write_jobs(tmp_path, *({"name": f"clip{n}", "seed": n, "frames": 1 + n % 3} for n in range(10)))
    fye("batch", jobs, "-o", tmp_path / "one", *FAST)
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            for record in (tmp_path / "two" / RECORDS).glob("clip*.json"):
                killed.append(json.loads(record.read_text())["worker"])
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.005)

    thread = threading.Thread(target=kill)
    thread.start()
    said = fye("batch", jobs, "-o", tmp_path / "two", *FAST, "--ray", "local", "--workers", "2")
    thread.join()
    assert said.endswith(f"{tmp_path / 'two'}: 10 clips\n") and killed  # Ray tells of the killed worker before
    assert (tmp_path / "two" / RESULTS).read_bytes() == (tmp_path / "one" / RESULTS).read_bytes()
    records = [json.loads(path.read_text()) for path in (tmp_path / "two" / RECORDS).glob("*.json")]
    assert len(records) == 10 and len({record["worker"] for record in records}) >= 2
