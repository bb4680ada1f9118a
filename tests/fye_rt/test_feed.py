import threading
import time
from collections.abc import Iterator

import pytest

from fye_rt.feed import Feed


def test_items_come_in_order_and_nothing_comes_after_the_last() -> None:
    feed = Feed(range(10), 3)
    assert [feed.take(4), feed.take(4), feed.take(4), feed.take(4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], []]


def test_a_source_that_is_not_emptied_has_to_wait() -> None:
    given: list[int] = []

    def source() -> Iterator[int]:
        for k in range(100):
            given.append(k)
            yield k

    feed = Feed(source(), 3)
    time.sleep(0.4)
    assert len(given) == 4  # three in the queue, and one that waits for room
    feed.take(2)
    time.sleep(0.4)
    assert len(given) == 6
    feed.close()


def test_a_stall_gives_what_there_is_but_never_nothing() -> None:
    go_on = threading.Event()

    def source() -> Iterator[int]:
        time.sleep(0.5)  # longer than anybody's patience, but there is nothing to give yet
        yield from (1, 2)
        go_on.wait(30)
        yield 3

    feed = Feed(source(), 8)
    assert feed.take(3, patience=0.2) == [1, 2]
    go_on.set()
    assert feed.take(3, patience=0.2) == [3]
    assert feed.take(3, patience=0.2) == []


def test_an_error_of_the_source_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield from (1, 2)
        raise ValueError("camera lost")

    feed = Feed(source(), 8)
    assert feed.take(5) == [1, 2]
    with pytest.raises(ValueError, match="camera lost"):
        feed.take(5)


def test_closing_closes_the_source() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.set()

    feed = Feed(source(), 2)
    assert feed.take(1) == [0]
    assert not closed.is_set()
    feed.close()
    assert closed.wait(5)
