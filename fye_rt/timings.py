"""Measures of a clip: seconds per stage, network evaluations."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

Progress = Callable[[str, int, int], None]  # (stage, done, total): the one signature of progress

Item = TypeVar("Item")


def no_progress(stage: str, done: int, total: int) -> None:
    """Ignore progress."""


def counted(items: Sequence[Item], stage: str, progress: Progress) -> Iterator[Item]:
    """Yield items, and report their number before each and after the last."""
    for done, item in enumerate(items):
        progress(stage, done, len(items))
        yield item
    progress(stage, len(items), len(items))


class Timings:
    """Seconds spent, by stage; `seconds` sums the turns of each."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the `with` block for a stage, less what other stages inside it count."""
        before, start = sum(self.seconds.values()), time.perf_counter()
        try:
            yield
        finally:
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
