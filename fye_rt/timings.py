"""What a clip takes: seconds of its stages, evaluations of the network."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]  # (stage, done, total): the one signature of progress


def no_progress(stage: str, done: int, total: int) -> None:
    """Take no note of progress."""


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


class Evaluations:
    """Counts the network's evaluations of one clip; to be given to `Animator` as `progress`.

    Attributes:
        number: of them, so far.
    """

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take note of how far a stage is."""
        if stage == "denoise":
            self.number = done
