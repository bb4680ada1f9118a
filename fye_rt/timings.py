"""Measures of a clip: seconds per stage, network evaluations."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]  # (stage, done, total): the one signature of progress


def no_progress(stage: str, done: int, total: int) -> None:
    """Ignore progress."""


class Timings:
    """Seconds spent, by stage; `seconds` sums the turns of each."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the `with` block for a stage, less what other stages inside it count."""
        before, start = sum(self.seconds.values()), time.perf_counter()
        yield
        inside = sum(self.seconds.values()) - before
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start - inside


class Evaluations:
    """Counts the network evaluations of one clip in `number`; pass it to `Animator` as `progress`."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Record the progress of a stage."""
        if stage == "denoise":
            self.number = done
