"""Locks that end with the process that holds them, and folders that one run at a time writes to."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fye_rt.errors import OutputError

_unlockable: set[Path] = set()  # folders for which the warning about missing locks was given
logger = logging.getLogger("fye_rt")


@contextmanager
def locked(file: Path, wait: Callable[[], object] | None = None, mode: int = 0o666) -> Iterator[bool]:
    """Hold a lock until the `with` block ends, or this process does, in whatever way.

    If the file system has no locks, as some network file systems, the logger "fye_rt" warns once per folder.

    Args:
        file: file of the lock; it is created, and stays.
        wait: called once, before waiting, if another process holds the lock; None: don't wait.
        mode: access rights of the file, less the umask.

    Yields:
        False if another process holds the lock and `wait` is None, else True.

    Raises:
        OSError: the file cannot be created.
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
        if file.parent not in _unlockable:
            _unlockable.add(file.parent)
            logger.warning("files in %s cannot be locked; let no other run write there meanwhile", file.parent)
    try:
        yield is_free
    finally:
        lock.release()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder by locking a hidden file in it, at most until this process ends.

    Raises:
        OutputError: another run writes to the folder.
        OSError: the folder is missing or read-only.
    """
    with locked(folder / ".lock") as is_free:
        if not is_free:
            raise OutputError(f"another run writes into {folder}; wait for it, or choose another folder")
        yield
