"""Locks that go with the process that holds them, and folders that one run at a time writes into."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fye_rt.errors import OutputError

_unlocked: set[Path] = set()  # folders where a warning said that there are no locks
logger = logging.getLogger("fye_rt")


@contextmanager
def locked(file: Path, wait: Callable[[], object] | None = None, mode: int = 0o666) -> Iterator[bool]:
    """Hold a lock, until the `with` block ends or this process does, however it ends.

    Where there are no locks, as on some network file systems, a warning on the logger "fye_rt" says so once a folder.

    Args:
        file: of the lock; it is made, and stays.
        wait: called once if another holds it, before waiting for it; None: don't wait.
        mode: access rights of the file, less the umask.

    Yields:
        Whether no other holds it.

    Raises:
        OSError: the file cannot be made.
    """
    from filelock import FileLock, SoftFileLock, Timeout

    os.close(os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), mode))
    lock = FileLock(file, thread_local=False, fallback_to_soft=False)  # a soft lock outlives a killed process
    is_free = True
    try:
        if issubclass(FileLock, SoftFileLock):
            raise OSError("this system has no locks")
        lock.acquire(timeout=0)
    except Timeout:
        is_free = wait is not None
        if wait is not None:
            wait()
            lock.acquire()
    except OSError:
        if file.parent not in _unlocked:
            _unlocked.add(file.parent)
            message = "%s lies where files cannot be locked; let no other run write there meanwhile"
            logger.warning(message, file.parent)
    try:
        yield is_free
    finally:
        lock.release()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder: a hidden file in it is locked, by its process and no longer.

    Raises:
        OutputError: another run writes there.
        OSError: the folder is missing or read-only.
    """
    with locked(folder / ".lock") as is_free:
        if not is_free:
            raise OutputError(f"another run writes into {folder}; wait for it, or choose another folder")
        yield
