"""A live source that a thread reads ahead while windows are denoised."""

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")
_POLL = 0.1  # seconds between two looks of a blocked reader whether it was closed


@contextmanager
def closing_source(source: object) -> Iterator[None]:
    """Close a source, if it has a `close` as generators do, when the `with` block ends."""
    try:
        yield
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()


class ReadAhead(Generic[T]):
    """Reads the items of a source in order, a few ahead.

    If nobody takes them, the source has to wait; if the source stalls, the taker gets the items so far. Close it when
    it is no longer needed: it then reads no more items, and closes a generator.

    Args:
        source: may block for any time between two items.
        ahead: number of items to read before they are taken, 1 or more.
    """

    def __init__(self, source: Iterable[T], ahead: int) -> None:
        self._items: queue.Queue[T] = queue.Queue(ahead)
        self._closed, self._ended = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, args=(source,), name="fye-read-ahead", daemon=True)
        self._thread.start()

    def take(self, count: int, patience: float | None = None) -> list[T]:
        """Return the next items.

        Args:
            count: most items to return.
            patience: seconds to wait for another item once there is one; None waits until there are `count`.

        Returns:
            Fewer than `count` items if the source ends or stalls; none at its end.

        Raises:
            Exception: the source's own, after the items before it were taken.
        """
        items: list[T] = []
        waited = 0.0
        while len(items) < count:
            ended = self._ended.is_set()  # read before the queue, which may be filled until then
            try:
                items.append(self._items.get(timeout=_POLL) if not ended else self._items.get_nowait())
                waited = 0.0
            except queue.Empty:
                if ended:
                    break
                waited += _POLL
                if items and patience is not None and waited >= patience:
                    break
        if not items and self._error is not None:
            raise self._error
        return items

    def close(self) -> None:
        """Stop reading. A source that blocks at this moment is released when it gives its next item."""
        self._closed.set()

    def _read(self, source: Iterable[T]) -> None:
        try:
            with closing_source(source):
                for item in source:
                    if not self._put(item):
                        break
        except BaseException as error:  # for whoever takes the items
            self._error = error
        finally:
            self._ended.set()

    def _put(self, item: T) -> bool:
        """Queue an item; return False if closed before there was room."""
        while not self._closed.is_set():
            try:
                self._items.put(item, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False
