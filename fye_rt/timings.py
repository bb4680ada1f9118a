"""Seconds that stages take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timings:
    """Seconds spent, by stage.

    Attributes:
        seconds: of each stage, summed over its turns.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What is done in the `with` block counts for that stage, less what counts for another one."""
        before, start = sum(self.seconds.values()), time.perf_counter()
        yield
        inside = sum(self.seconds.values()) - before
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start - inside
