"""Workers that do tasks: in this process, in other processes, or as actors of a Ray cluster.

A worker is made once and does one task after another. Tasks of one group share what a worker caches, so a worker
stays with its group until it is finished. A task whose worker dies goes to another worker, up to three tries in all.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from fye_rt.clips.write import uninterrupted
from fye_rt.errors import FyeError, OptionError, OutOfMemoryError, memory_for
from fye_rt.timings import Progress, no_progress

TRIES = 3  # largest number of workers that a task may kill


class Task(Protocol):
    """A unit of work for a worker; it can be pickled."""

    @property
    def group(self) -> str:
        """Name of the group; tasks of one group share work."""


Worker = Callable[[Any], Any]  # does a task and returns its result
Make = Callable[[], Worker]  # makes a worker in the process where it will work; can be pickled


@dataclass(frozen=True, slots=True)
class Died:
    """The result of a task that raised an unforeseen error or killed every worker that got it: a one-line reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The result of a task whose worker could not be made: the error."""

    error: FyeError


class WorkerPool(Protocol):
    """Several workers; each has at most one task, so that no task waits at a busy worker."""

    @property
    def size(self) -> int:
        """Number of workers."""

    def give(self, worker: int, task: Task) -> None:
        """Give a task to an idle worker, 0 to size - 1."""

    def take(self) -> Sequence[tuple[int, Any]]:
        """Wait for a worker; return the number and the result, `Died` or `Refused` of each that is done."""

    def close(self) -> None:
        """Stop all workers, even in the middle of a task."""


def work(
    pool: WorkerPool, tasks: Sequence[Task], stage: str = "work", progress: Progress = no_progress
) -> Generator[tuple[Any, Any]]:
    """Do tasks in a pool of workers.

    Args:
        pool: the workers; closed at the end, and when the iteration is abandoned.
        tasks: tasks in any order; each group keeps its own order.
        stage: name of the work for `progress`.
        progress: called with (stage, done, total) tasks.

    Yields:
        (task, its result or `Died`), as tasks are done.

    Raises:
        FyeError: a worker could not be made.
    """
    queue = Queue(tasks)
    running: dict[int, Task] = {}
    done = 0
    with closing(pool):
        progress(stage, done, len(tasks))
        while True:
            for worker in range(pool.size):
                if worker not in running and (task := queue.next(worker)) is not None:
                    running[worker] = task
                    pool.give(worker, task)
            if not running:
                return
            for worker, result in pool.take():
                if isinstance(result, Refused):
                    raise result.error
                done += 1
                progress(stage, done, len(tasks))
                yield running.pop(worker), result


class Queue:
    """Tasks by group: a worker gets the tasks of its own group, then those of a group that no worker has begun.

    When every group has been begun, the worker helps with the group that has the most tasks left.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._groups: dict[str, deque[Task]] = {}
        for task in tasks:
            self._groups.setdefault(task.group, deque()).append(task)
        self._new_groups = deque(self._groups)
        self._group_of: dict[int, str] = {}

    def next(self, worker: int) -> Task | None:
        """Return the worker's next task, or None if no task is left."""
        group = self._group_of.get(worker)
        if group not in self._groups:
            if self._new_groups:
                group = self._new_groups.popleft()
            elif self._groups:
                group = max(self._groups, key=lambda group: len(self._groups[group]))
            else:
                return None
            self._group_of[worker] = group
        tasks = self._groups[group]
        task = tasks.popleft()
        if not tasks:
            del self._groups[group]
        return task


class Alone:
    """One worker, in this process."""

    size = 1

    def __init__(self, make: Make) -> None:
        self._server = Server(make)
        self._result: Any = None

    def give(self, worker: int, task: Task) -> None:
        """Do the task at once."""
        self._result = self._server.do(task)

    def take(self) -> Sequence[tuple[int, Any]]:
        """Return the result of the last task."""
        return [(0, self._result)]

    def close(self) -> None:
        """Close the worker."""
        self._server.close()


class Processes:
    """Workers in processes of this machine.

    Args:
        make: makes a worker.
        size: number of workers.
        gpus: devices that the workers share evenly, by their names in CUDA_VISIBLE_DEVICES.
    """

    def __init__(self, make: Make, size: int, gpus: Sequence[str] = ()) -> None:
        self.size = size
        self._make, self._gpus = make, gpus
        self._context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks, not the threads
        self._started: dict[int, _Started] = {}

    def give(self, worker: int, task: Task) -> None:
        """Send a task to a worker; its process is started at its first task."""
        if worker not in self._started:
            parent_end, child_end = self._context.Pipe()
            gpu = self._gpus[worker % len(self._gpus)] if self._gpus else None
            process = self._context.Process(target=_serve, args=(child_end, self._make, gpu), daemon=True)
            with uninterrupted(), _blocked_sigint():
                process.start()
                self._started[worker] = _Started(process, parent_end)
            child_end.close()
        started = self._started[worker]
        started.task, started.tries = task, 0
        with suppress(OSError):  # if the process is dead, reading its answer will show that
            started.connection.send(task)

    def take(self) -> Sequence[tuple[int, Any]]:
        """Wait for a worker, and return the number and result of each that is done; replace those that died."""
        done: list[tuple[int, Any]] = []
        while not done:
            busy = {started.connection: worker for worker, started in self._started.items() if started.task is not None}
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                started = self._started[worker]
                try:
                    result = started.connection.recv()
                except (EOFError, OSError):
                    started.process.join()
                    if self._replace(worker):
                        continue
                    ending = _ending(started.process.exitcode)
                    result = Died(f"{started.tries} workers died at this task, the last one with {ending}")
                else:
                    started.task = None
                done.append((worker, result))
        return done

    def close(self) -> None:
        """Kill the processes; a file that they were writing does not have its final name yet."""
        for started in self._started.values():
            started.process.kill()
            started.connection.close()
        for started in self._started.values():
            started.process.join()
        self._started.clear()

    def _replace(self, worker: int) -> bool:
        """Give the task of a dead worker to a new process; False if the task has used up its tries."""
        dead = self._started.pop(worker)
        dead.connection.close()
        dead.tries += 1
        if dead.tries >= TRIES or dead.task is None:
            return False
        self.give(worker, dead.task)
        self._started[worker].tries = dead.tries
        return True


@dataclass(slots=True)
class _Started:
    process: Any
    connection: Connection
    task: Task | None = None
    tries: int = 0


class Server:
    """A worker that is made at its first task, and whose errors become results."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._worker: Worker | None = None

    def do(self, task: Task) -> Any:
        """Do a task and return its result, or `Died`, or `Refused`."""
        if self._worker is None:
            try:
                with memory_for("opening the model", "low_memory or fewer workers"):
                    self._worker = self._make()
            except OutOfMemoryError as error:  # other workers may have finished when the next task comes
                return Died(f"{error}")
            except FyeError as error:
                return Refused(error)
        try:
            return self._worker(task)
        except Exception as error:  # a bug, ours or a library's, at this one input: the other tasks go on
            return Died(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Close the worker, if it can be closed."""
        close = getattr(self._worker, "close", None)
        if close is not None:
            close()
        self._worker = None


def devices(count: int) -> list[str]:
    """Return the names in CUDA_VISIBLE_DEVICES of this process's GPUs; `count` is how many the driver shows."""
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (names or [str(number) for number in range(count)])[:count]


def threads_each(threads: int, workers: int, cores: int | None) -> int:
    """Return each worker's threads: `threads`, or its share of the cores; raises OptionError if these are too few."""
    if workers == 1 or threads:
        return threads
    if not cores:
        return 1
    if workers > cores:
        raise OptionError(f"{workers} workers share {cores} cores; pass workers={cores} or less, or threads=1")
    return cores // workers


@contextmanager
def _blocked_sigint() -> Iterator[None]:
    """Block SIGINT: processes started inside inherit the block, and this process gets a missed signal afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it inside would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, make: Make, gpu: str | None) -> None:
    """Do tasks from a pipe until the pipe is closed or the parent process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    server = Server(make)
    with suppress(EOFError, OSError):
        while True:
            connection.send(server.do(connection.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {-code}" + (", which the system sends when memory runs out" if code == -9 else "")
    return f"exit code {code}"
