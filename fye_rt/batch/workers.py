"""Tasks done by workers: in this process, in processes beside it, or as actors of a Ray cluster.

A worker is made once and does one task after another. Tasks of one group share what a worker remembers, so a worker
keeps to its group while it lasts. A task whose worker dies is given to another one, a few times at most.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from fye_rt.clips.write import uninterrupted
from fye_rt.errors import FyeError, OptionError, OutOfMemoryError, memory_for

TRIES = 3  # of a task whose workers die


class Task(Protocol):
    """What a worker is given; it can be pickled."""

    @property
    def group(self) -> str:
        """Tasks of one group share work."""


Worker = Callable[[Any], Any]  # does a task and gives its result
Make = Callable[[], Worker]  # opens what a worker needs, where it will work; can be pickled


@dataclass(frozen=True, slots=True)
class Died:
    """In place of a result: every worker that was given the task died, or it raised what nobody foresaw.

    Attributes:
        reason: in one line.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """In place of a result: a worker could not be made.

    Attributes:
        error: why.
    """

    error: FyeError


class Crew(Protocol):
    """Some workers; each is at most at one task, so that nothing piles up where it is not worked on."""

    @property
    def size(self) -> int:
        """How many workers there are."""

    def give(self, worker: int, task: Task) -> None:
        """Give an idle worker, 0 to size - 1, a task."""

    def take(self) -> Sequence[tuple[int, Any]]:
        """Wait until a worker is done: its number and its result, or `Died` or `Refused`."""

    def close(self) -> None:
        """Stop all workers, whatever they are at."""


def work(crew: Crew, tasks: Iterable[Task]) -> Iterator[tuple[Any, Any]]:
    """Have a crew do tasks.

    Args:
        crew: closed at the end, and when the iteration is given up.
        tasks: in any order; each group is done in its own order.

    Yields:
        (task, its result or `Died`), as they are done.

    Raises:
        FyeError: a worker could not be made.
    """
    queue = Queue(tasks)
    at: dict[int, Task] = {}
    with closing(crew):
        while True:
            for worker in range(crew.size):
                if worker not in at and (task := queue.next(worker)) is not None:
                    at[worker] = task
                    crew.give(worker, task)
            if not at:
                return
            for worker, result in crew.take():
                if isinstance(result, Refused):
                    raise result.error
                yield at.pop(worker), result


class Queue:
    """Which task a worker does next: of its own group while there are any, then of a group that nobody is at.

    When all groups are taken, it helps with the one that has most left.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._groups: dict[str, deque[Task]] = {}
        for task in tasks:
            self._groups.setdefault(task.group, deque()).append(task)
        self._untaken = deque(self._groups)
        self._own: dict[int, str] = {}

    def next(self, worker: int) -> Task | None:
        """The next task, or None if all are given out."""
        own = self._own.get(worker)
        if own not in self._groups:
            if self._untaken:
                own = self._untaken.popleft()
            elif self._groups:
                own = max(self._groups, key=lambda group: len(self._groups[group]))
            else:
                return None
            self._own[worker] = own
        tasks = self._groups[own]
        task = tasks.popleft()
        if not tasks:
            del self._groups[own]
        return task


class Alone:
    """One worker, in this process."""

    size = 1

    def __init__(self, make: Make) -> None:
        self._server = Server(make)
        self._result: Any = None

    def give(self, worker: int, task: Task) -> None:
        """Do it."""
        self._result = self._server.do(task)

    def take(self) -> Sequence[tuple[int, Any]]:
        """The result of the task that was given last."""
        return [(0, self._result)]

    def close(self) -> None:
        """Give back what the worker holds."""
        self._server.close()


class Processes:
    """Workers in processes of this machine.

    Args:
        make: makes a worker.
        size: how many.
        gpus: names of the devices that they share evenly, as CUDA_VISIBLE_DEVICES has them.
    """

    def __init__(self, make: Make, size: int, gpus: Sequence[str] = ()) -> None:
        self.size = size
        self._make, self._gpus = make, gpus
        self._context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks, not the threads
        self._started: dict[int, _Started] = {}

    def give(self, worker: int, task: Task) -> None:
        """Send it; the process is started at its first task."""
        if worker not in self._started:
            ours, theirs = self._context.Pipe()
            gpu = self._gpus[worker % len(self._gpus)] if self._gpus else None
            process = self._context.Process(target=_serve, args=(theirs, self._make, gpu), daemon=True)
            with uninterrupted(), _deaf_to_ctrl_c():
                process.start()
                self._started[worker] = _Started(process, ours)
            theirs.close()
        started = self._started[worker]
        started.task, started.tries = task, 0
        started.send()

    def take(self) -> Sequence[tuple[int, Any]]:
        """Results of those that are done; who died is replaced."""
        done: list[tuple[int, Any]] = []
        while not done:
            busy = {one.connection: worker for worker, one in self._started.items() if one.task is not None}
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                one = self._started[worker]
                try:
                    result = one.connection.recv()
                except (EOFError, OSError):
                    one.process.join()
                    again = self._replace(worker)
                    if again:
                        continue
                    result = Died(f"{one.tries} workers died of it, the last one with {_ending(one.process.exitcode)}")
                else:
                    one.task = None
                done.append((worker, result))
        return done

    def close(self) -> None:
        """End the processes at once; what they were writing has no final name yet."""
        for one in self._started.values():
            one.process.kill()
            one.connection.close()
        for one in self._started.values():
            one.process.join()
        self._started.clear()

    def _replace(self, worker: int) -> bool:
        """Start the task of a worker that died in a new process, unless it was tried often enough."""
        one = self._started.pop(worker)
        one.connection.close()
        one.tries += 1
        if one.tries >= TRIES or one.task is None:
            return False
        self.give(worker, one.task)
        self._started[worker].tries = one.tries
        return True


@dataclass(slots=True)
class _Started:
    process: Any
    connection: Connection
    task: Task | None = None
    tries: int = 0

    def send(self) -> None:
        """Its task; if it is dead already, reading its answer shows so."""
        with suppress(OSError):
            self.connection.send(self.task)


class Server:
    """A worker that is made when the first task comes; what it raises becomes a result.

    Args:
        make: makes it.
    """

    def __init__(self, make: Make) -> None:
        self._make = make
        self._worker: Worker | None = None

    def do(self, task: Task) -> Any:
        """The result, or `Died`, or `Refused`."""
        if self._worker is None:
            try:
                with memory_for("opening the model", "low_memory or fewer workers"):
                    self._worker = self._make()
            except OutOfMemoryError as error:  # others may have finished when the next task comes
                return Died(f"{error}")
            except FyeError as error:
                return Refused(error)
        try:
            return self._worker(task)
        except Exception as error:  # a bug of ours, or of a library with this one input: the other tasks go on
            return Died(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Close the worker, if it can be closed."""
        close = getattr(self._worker, "close", None)
        if close is not None:
            close()
        self._worker = None


def devices(count: int) -> list[str]:
    """Names of the GPUs that this process sees, as CUDA_VISIBLE_DEVICES has them.

    Args:
        count: how many the driver shows.
    """
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (named or [str(number) for number in range(count)])[:count]


def threads_each(threads: int, workers: int, cores: int | None) -> int:
    """Threads of one of several workers: as many as asked for, or its share of the cores that there are.

    Raises:
        OptionError: more workers than cores share them.
    """
    if workers == 1 or threads:
        return threads
    if not cores:
        return 1
    if workers > cores:
        raise OptionError(f"{workers} workers share {cores} cores; pass workers={cores} or less, or threads=1")
    return cores // workers


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started meanwhile don't hear of it until they ask to; what this process misses, it gets."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # which would let the signal through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, make: Make, gpu: str | None) -> None:
    """The life of a process: until its pipe is closed, or the process that started it has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the whole run's, which then ends this process
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
        return f"signal {-code}" + (", which is how a machine out of memory ends them" if code == -9 else "")
    return f"exit code {code}"
