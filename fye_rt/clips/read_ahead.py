"""A live source, read ahead in a thread while windows are denoised."""

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")
_POLL = 0.1  # seconds after which a reader that waits for room looks whether it is still wanted


@contextmanager
def closing_source(source: object) -> Iterator[None]:
    """Close a source that can be closed, as generators can, when the `with` block ends."""
    try:
        yield
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()


class ReadAhead(Generic[T]):
    """Items of a source in their order, a few of them ahead.

    When nobody takes them, the source has to wait; when the source stalls, the taker gets what there is. Close it when
    it is no longer wanted: the source is then asked for nothing more, and a generator is closed.

    Args:
        source: may block for as long as it likes between two items.
        ahead: how many items are read before they are asked for, 1 or more.
    """

    def __init__(self, source: Iterable[T], ahead: int) -> None:
        self._items: queue.Queue[T] = queue.Queue(ahead)
        self._closed, self._ended = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, args=(source,), name="fye-feed", daemon=True)
        self._thread.start()

    def take(self, count: int, patience: float | None = None) -> list[T]:
        """The next items.

        Args:
            count: how many at most.
            patience: seconds to wait for another item once there is one; None waits until there are `count`.

        Returns:
            Fewer than `count` if the source ends or stalls; none at its end.

        Raises:
            Exception: what the source raised, after the items before it were taken.
        """
        taken: list[T] = []
        waited = 0.0
        while len(taken) < count:
            over = self._ended.is_set()  # asked before the queue, which may be filled until then
            try:
                taken.append(self._items.get(timeout=_POLL) if not over else self._items.get_nowait())
                waited = 0.0
            except queue.Empty:
                if over:
                    break
                waited += _POLL
                if taken and patience is not None and waited >= patience:
                    break
        if not taken and self._error is not None:
            raise self._error
        return taken

    def close(self) -> None:
        """Ask for nothing more. A source that blocks at this moment is left as soon as it gives its next item."""
        self._closed.set()

    def _read(self, source: Iterable[T]) -> None:
        try:
            with closing_source(source):
                for item in source:
                    if not self._put(item):
                        break
        except BaseException as error:  # it belongs to whoever takes the items
            self._error = error
        finally:
            self._ended.set()

    def _put(self, item: T) -> bool:
        """Whether it was wanted."""
        while not self._closed.is_set():
            try:
                self._items.put(item, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False
