"""Long arrays are the same in memory and in a temporary file."""

import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fye_rt.errors import OutputError
from fye_rt.files import rows
from fye_rt.files.rows import Rows, by_parts


def filled(count: int) -> Rows:
    made = Rows((2, 3))
    for k in range(count):
        made.append(np.full((1, 2, 3), k))
    return made


@pytest.mark.parametrize("most", [0, 100, 10**9])
def test_rows_are_what_was_added(most: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rows, "IN_MEMORY", most)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = filled(7)
    made.append(np.full((2, 2, 3), 7.5))
    assert len(made) == 9
    array = made.array()
    assert array.dtype == np.float64
    np.testing.assert_array_equal(array[:, 1, 2], [0, 1, 2, 3, 4, 5, 6, 7.5, 7.5])
    array[3] = -1
    assert (array[3] == -1).all()
    assert not list(tmp_path.iterdir())


def test_rows_are_kept_once() -> None:
    tracemalloc.start()
    try:
        made = filled(20_000)
        array = made.array()
        assert tracemalloc.get_traced_memory()[0] < 1.5 * array.nbytes
    finally:
        tracemalloc.stop()
    assert len(made) == len(array)


def test_no_rows_are_an_empty_array() -> None:
    assert Rows((2, 3)).array().shape == (0, 2, 3)


def test_rows_of_another_shape_are_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"rows have the shape \(3, 2\), expected \(2, 3\)"):
        Rows((2, 3)).append(np.zeros((1, 3, 2)))


@pytest.mark.parametrize("count", [0, 1, 4, 5, 9])
def test_an_array_is_made_part_by_part(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PART", 4)
    seen: list[int] = []

    def make(part: slice) -> Any:
        seen.append(part.stop - part.start)
        return np.arange(part.start, part.stop)[:, None] * (1, 10)

    np.testing.assert_array_equal(by_parts(count, (2,), make), np.arange(count)[:, None] * (1, 10))
    assert sum(seen) == count and max(seen, default=0) <= 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "IN_MEMORY", 100)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "w+b"))  # noqa: SIM115
    with pytest.raises(OutputError, match=r"No space left on device.*TMPDIR"):
        filled(9)
