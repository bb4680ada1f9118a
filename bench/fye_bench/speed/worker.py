"""A separate process for each measurement.

Two engines in one process share its memory and disturb each other: threads of the engine that has just run still spin
on the cores when the other begins. An idle process waits for its next call without using the CPU.
"""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import ParamSpec, Self, TypeVar

from fye_bench.speed import memory
from fye_rt.errors import BackendError

P = ParamSpec("P")
R = TypeVar("R")


class Worker:
    """A fresh Python process that runs module-level functions, one at a time; use it as a context manager."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        self.pid = self.call(os.getpid)

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `function` in the process and return its result.

        Raises:
            BackendError: the process was killed, for instance for want of memory.
        """
        try:
            return self._pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool as error:
            raise BackendError(
                "a measuring process was killed, most likely for want of memory; choose a smaller workload"
            ) from error

    def watch(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> tuple[R, memory.Growth]:
        """Run `function` like `call`, and also return the growth of the process's anonymous memory meanwhile."""
        with memory.growth(self.pid) as growth:
            result = self.call(function, *args, **kwargs)
        return result, growth

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()
