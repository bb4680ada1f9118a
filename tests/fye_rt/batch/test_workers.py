"""Workers do all tasks, whatever happens to them."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fye_rt.batch.workers import TRIES, Alone, Died, Processes, Queue, WorkerPool, devices, threads_each, work
from fye_rt.errors import BackendError, OptionError
from tests.fye_rt.batch.workers import Chore, Hand, refuse

POOLS = {"alone": Alone, "two processes": partial(Processes, size=2)}


def chores(groups: str) -> list[Chore]:
    return [Chore(f"{group}{number}", group=group) for number, group in enumerate(groups)]


def names(queue: Queue, workers: list[int]) -> list[str | None]:
    tasks = [queue.next(worker) for worker in workers]
    return [task and task.what for task in tasks]  # type: ignore[attr-defined]


def test_a_group_stays_with_its_worker() -> None:
    queue = Queue(chores("ababba"))
    assert names(queue, [0, 1, 0, 1, 0, 1, 0]) == ["a0", "b1", "a2", "b3", "a5", "b4", None]


def test_an_idle_worker_takes_a_new_group_or_helps_with_the_longest() -> None:
    queue = Queue(chores("abbbcc"))
    assert names(queue, [0, 1, 0, 0, 0, 1, 1]) == ["a0", "b1", "c4", "c5", "b2", "b3", None]


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_every_task_is_done_once(pool: Callable[..., WorkerPool]) -> None:
    tasks = chores("abcabcabcd")
    done = list(work(pool(Hand), tasks))
    assert sorted(task.what for task, _ in done) == sorted(task.what for task in tasks)
    assert all(result[0] == task.what for task, result in done)


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_an_unforeseen_error_fails_its_own_task_alone(pool: Callable[..., WorkerPool]) -> None:
    done = {task.what: result for task, result in work(pool(Hand), [Chore("raise"), Chore("a"), Chore("b")])}
    assert done.pop("raise") == Died("ZeroDivisionError: nobody foresaw this")
    assert {what: result[0] for what, result in done.items()} == {"a": "a", "b": "b"}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_a_worker_that_cannot_be_made_ends_the_run_with_its_reason(pool: Callable[..., WorkerPool]) -> None:
    with pytest.raises(BackendError, match="no engine here; install one"):
        list(work(pool(refuse), chores("ab")))


def test_a_task_whose_worker_is_killed_is_done_by_another(tmp_path: Path) -> None:
    tasks = [Chore("die once", tmp_path / "died"), *chores("ab")]
    done = [(task.what, result[0]) for task, result in work(Processes(Hand, 2), tasks)]
    assert (tmp_path / "died").exists()
    assert sorted(done) == [("a0", "a0"), ("b1", "b1"), ("die once", "die once")]


def test_a_task_that_kills_every_worker_is_given_up_and_the_others_go_on() -> None:
    tasks = [Chore("die"), Chore("exit"), *chores("abc")]
    done = {task.what: result for task, result in work(Processes(Hand, 2), tasks)}
    assert done["die"].reason.startswith(f"{TRIES} workers died at this task, the last one with signal 9")
    assert done["exit"].reason == f"{TRIES} workers died at this task, the last one with exit code 7"
    assert {result[0] for result in done.values() if not isinstance(result, Died)} == {"a0", "b1", "c2"}


def test_giving_up_ends_the_processes(tmp_path: Path) -> None:
    pool = Processes(Hand, 1)
    pool.give(0, Chore("sleep", tmp_path / "begun"))
    process = pool._started[0].process
    deadline = time.monotonic() + 120
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline, "the worker has not begun"
        time.sleep(0.01)
    pool.close()
    assert not process.is_alive() and process.exitcode != 0


def test_processes_share_the_gpus() -> None:
    seen = [result[0] for _, result in work(Processes(Hand, 2, ["3", "5"]), [Chore("see gpu", group=g) for g in "ab"])]
    assert sorted(seen) == ["3", "5"]


def test_workers_are_other_processes() -> None:
    (_, (_, process)), *_ = work(Processes(Hand, 1), chores("a"))
    assert process != os.getpid()


@pytest.mark.parametrize(
    ("visible", "count", "found"),
    [(None, 2, ["0", "1"]), ("", 1, ["0"]), ("4, GPU-8f", 2, ["4", "GPU-8f"]), ("1", 1, ["1"]), (None, 0, [])],
)
def test_devices_are_the_visible_ones(
    visible: str | None, count: int, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices(count) == found


def test_workers_share_the_cores() -> None:
    asked = ((0, 1, 8), (0, 3, 8), (5, 9, 2), (0, 2, None))
    assert [threads_each(*each) for each in asked] == [0, 2, 5, 1]
    with pytest.raises(OptionError, match="3 workers share 2 cores; pass workers=2 or less, or threads=1"):
        threads_each(0, 3, 2)
