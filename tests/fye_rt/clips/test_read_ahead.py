import threading
import time
from collections.abc import Iterator

import pytest

from fye_rt.clips.read_ahead import ReadAhead


def test_items_come_in_order_and_nothing_comes_after_the_last() -> None:
    feed = ReadAhead(range(10), 3)
    assert [feed.take(4), feed.take(4), feed.take(4), feed.take(4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], []]


def test_a_source_waits_while_its_queue_is_full() -> None:
    given: list[int] = []

    def source() -> Iterator[int]:
        for k in range(100):
            given.append(k)
            yield k

    feed = ReadAhead(source(), 3)
    for count in (4, 6):  # three in the queue, and one that waits for room
        while len(given) < count:
            time.sleep(0.01)
        time.sleep(0.2)
        assert len(given) == count
        feed.take(2)
    feed.close()


def test_a_stall_gives_the_items_so_far_but_at_least_one() -> None:
    stalls, go_on = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        yield from (1, 2)
        stalls.set()
        assert go_on.wait(60)
        time.sleep(0.5)  # longer than anybody's patience, but there is nothing to give yet
        yield 3

    feed = ReadAhead(source(), 8)
    assert stalls.wait(60)
    assert feed.take(3, patience=0.2) == [1, 2]
    go_on.set()
    assert feed.take(3, patience=0.2) == [3]
    assert feed.take(3, patience=0.2) == []


def test_an_error_of_the_source_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield from (1, 2)
        raise ValueError("camera lost")

    feed = ReadAhead(source(), 8)
    assert feed.take(5) == [1, 2]
    with pytest.raises(ValueError, match="camera lost"):
        feed.take(5)


def test_closing_the_feed_closes_its_source() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.set()

    feed = ReadAhead(source(), 2)
    assert feed.take(1) == [0]
    assert not closed.is_set()
    feed.close()
    assert closed.wait(60)
