"""Memory that a process takes is seen from outside, whatever the process does meanwhile."""

import os
from pathlib import Path

import pytest

from fye_bench.speed import memory, process
from fye_bench.speed.worker import Worker
from fye_rt.errors import BackendError

MB = 1_000_000


def test_memory_growth_distinguishes_kept_and_temporary_memory() -> None:
    with Worker() as worker:
        worker.call(exec, "held = []")  # the interpreter's own first-time costs
        _, kept = worker.watch(exec, "import builtins, time; builtins.kept = bytearray(b'1') * 30_000_000")
        _, passing = worker.watch(exec, "import time; held = bytearray(b'1') * 50_000_000; time.sleep(1); del held")
    assert 30 * MB <= kept.added < 32 * MB and 50 * MB <= passing.peak < 52 * MB
    assert passing.added < MB


def test_peak_resident_memory_counts_mapped_files_and_anonymous_memory_does_not(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(40 * MB))
    with Worker() as worker:
        before, peak = memory.anonymous(worker.pid), memory.peak_resident(worker.pid)
        code = f"import mmap; f = open({str(file)!r}, 'rb'); m = mmap.mmap(f.fileno(), 0, prot=1); m.find(b'1')"
        worker.call(exec, code)
        assert memory.peak_resident(worker.pid) - peak > 30 * MB
        assert memory.anonymous(worker.pid) - before < 5 * MB


def test_measuring_an_ended_process_is_an_error() -> None:
    with Worker() as worker:
        pid = worker.pid
    with pytest.raises(BackendError, match=f"/proc/{pid}/status"):
        memory.anonymous(pid)


def test_a_killed_worker_is_reported() -> None:
    with Worker() as worker, pytest.raises(BackendError, match="want of memory"):
        worker.call(os._exit, 1)
    with Worker() as worker, pytest.raises(BackendError, match="want of memory"):
        worker.watch(os._exit, 1)  # and not that its memory cannot be read any more


def test_the_time_and_memory_of_a_command_are_measured(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run = process.run(["-c", "import time; x = bytearray(b'1') * 60_000_000; time.sleep(1); print('done')"], log)
    assert run.seconds > 1 and 60 * MB < run.peak_anonymous_bytes < 90 * MB
    assert run.peak_memory_bytes >= run.peak_anonymous_bytes and log.read_text() == "done\n"


def test_a_failed_command_is_reported_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"failed with 3: the disk is full; see .*log"):
        process.run(["-c", "import sys; print('the disk is full'); sys.exit(3)"], tmp_path / "log")
