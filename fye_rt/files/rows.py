"""Long arrays, row by row: in memory, or in a temporary file where they are large."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import OutputError

IN_MEMORY = 2**27  # bytes of one array: the points of 11,700 frames
PART = 512  # rows that are computed together


class Rows:
    """An array in the making, of any number of rows.

    Args:
        shape: shape of one row.
        dtype: type of its numbers.
    """

    def __init__(self, shape: tuple[int, ...], dtype: type[np.generic] = np.float64) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._count = self._bytes = 0
        self._kept: list[NDArray[Any]] = []
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return self._count

    def __del__(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # of a full disk, once more
                self._file.close()

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows, of any number.

        Raises:
            OutputError: there is no room left for the temporary file.
        """
        rows = np.array(rows, self._dtype, order="C")
        if rows.shape[1:] != self._shape:
            raise ValueError(f"rows have the shape {rows.shape[1:]}, expected {self._shape}")
        self._count, self._bytes = self._count + len(rows), self._bytes + rows.nbytes
        self._kept.append(rows)
        if not is_large(self._bytes):
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115  `array` closes it
            for kept in self._kept:
                self._file.write(kept.tobytes())
            self._file.flush()
        except OSError as error:
            raise no_room(str(error.strerror)) from error
        self._kept.clear()

    def array(self) -> NDArray[Any]:
        """Return all rows, which may be written to; nothing can be added any more.

        A large array is mapped from the temporary file, so that the system reads what is used and may forget it again.
        """
        if self._file is None:
            array, end = np.empty((self._count, *self._shape), self._dtype), self._count
            while self._kept:  # freed row by row, so that no moment holds them all twice
                rows = self._kept.pop()
                array[end - len(rows) : end] = rows
                end -= len(rows)
            return array
        with self._file as file:
            return np.asarray(np.memmap(file, self._dtype, "r+", shape=(self._count, *self._shape)))


def is_large(size: int) -> bool:
    """Return whether an array of `size` bytes is kept in a temporary file."""
    return size > IN_MEMORY


def check_room(size: int) -> None:
    """Raise OutputError unless the folder for temporary files has room for `size` bytes."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > free:
        raise no_room(f"it needs {size:,} bytes, and {free:,} are free")


def no_room(reason: str) -> OutputError:
    """Return the error for an array that finds no room in the folder for temporary files."""
    return OutputError(
        f"cannot keep a long motion's landmarks in {tempfile.gettempdir()} ({reason}); free some space there, or name "
        "another folder in the environment variable TMPDIR"
    )


def parts(count: int) -> Iterator[slice]:
    """Divide rows into slices of at most `PART`."""
    return (slice(start, min(start + PART, count)) for start in range(0, count, PART))


def by_parts(count: int, shape: tuple[int, ...], make: Callable[[slice], NDArray[Any]]) -> NDArray[Any]:
    """Return a float64 array (count, *shape) made part by part, so that nothing else has its length."""
    rows = Rows(shape)
    for part in parts(count):
        rows.append(make(part))
    return rows.array()
