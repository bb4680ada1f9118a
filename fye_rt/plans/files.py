"""Files that nobody but this user can have written, in a folder with a secret and locks. POSIX alone."""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fye_rt import files
from fye_rt.errors import BackendError, OutputError

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows: `opened_folder` says so
    fcntl = None

Content = bytes | bytearray | memoryview
_SECRET, _LOCKS = ".secret", ".locks"
_SECRET_BYTES = 32


class Unusable(Exception):
    """What is wrong with a file or a folder; the message is the end of a sentence that begins with its name."""


@contextmanager
def opened_folder(path: str | os.PathLike[str], within: int | None = None, *, mine: bool = True) -> Iterator[int]:
    """Yield a descriptor of a folder, through which its files are opened: those of this very folder, whatever happens.

    Args:
        path: with `within`, a name in that folder, where a symbolic link is refused.
        within: descriptor of the folder above.
        mine: refuse a folder that belongs to another user, or that others can write to.

    Raises:
        FileNotFoundError: it is not there.
        Unusable: it is no folder, not to be read, or not private.
    """
    if fcntl is None:
        raise Unusable(f"{path} cannot be kept from other users on this system; use Linux or another POSIX system")
    handle = _open(path, os.O_DIRECTORY | (0 if within is None else os.O_NOFOLLOW), within, mine)
    try:
        yield handle
    finally:
        os.close(handle)


def opened_file(name: str, within: int, *, mine: bool = True) -> BinaryIO:
    """A regular file of a folder, for reading; arguments and errors as of `opened_folder`."""
    handle = _open(name, os.O_NOFOLLOW | os.O_NONBLOCK, within, mine)  # a pipe must not keep us waiting
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Unusable(f"{name} is not a file")
    return open(handle, "rb")


def _open(path: str | os.PathLike[str], flags: int, within: int | None, mine: bool) -> int:
    try:
        handle = os.open(path, os.O_RDONLY | flags, dir_fd=within)
    except FileNotFoundError:
        raise
    except OSError as error:
        reasons = {errno.ELOOP: "is a symbolic link", errno.ENOTDIR: "is a symbolic link or a file, not a folder"}
        raise Unusable(f"{path} {reasons.get(error.errno or 0, f'cannot be read: {error.strerror}')}") from error
    state = os.fstat(handle)
    reason = ""
    if mine and state.st_uid != os.getuid():
        reason = f"{path} belongs to another user ({state.st_uid})"
    elif mine and state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        reason = f"{path} can be written by others (mode {stat.S_IMODE(state.st_mode):o}); chmod go-w it"
    if reason:
        os.close(handle)
        raise Unusable(reason)
    return handle


def is_at(folder: int, name: str, within: int) -> bool:
    """Whether the folder that a descriptor stands for still has this name in the folder above."""
    try:
        return os.path.samestat(os.fstat(folder), os.stat(name, dir_fd=within, follow_symlinks=False))
    except FileNotFoundError:
        return False


def write_private(path: Path, content: Content) -> None:
    """Write a file that appears whole or not at all, with mode 0600 at every moment, whatever the umask.

    Raises:
        OSError: disk or permission.
    """
    with files.atomic_file(path, 0o600) as hidden:
        hidden.write_bytes(content)


def put_folder(source: Path, path: Path) -> None:
    """Rename a finished folder to `path`, in place of what may be there. One caller at a time.

    Raises:
        OSError: disk or permission.
    """
    with _set_aside(path):
        source.rename(path)


def discard(path: Path) -> None:
    """Remove a folder, file or link; its name is gone before anything in it is. One caller at a time.

    Raises:
        OSError: disk or permission.
    """
    with _set_aside(path):
        pass


@contextmanager
def _set_aside(path: Path) -> Iterator[None]:
    with files.temporary(path.parent, path.name, folder=True) as retired:
        if path.is_dir() and not path.is_symlink():
            path.rename(retired)  # rename() replaces an empty folder
        else:
            path.unlink(missing_ok=True)
        yield


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 if it is not there or not to be read. Links are not followed."""
    try:
        state = path.lstat()
        return sum(map(size, path.iterdir())) if stat.S_ISDIR(state.st_mode) else state.st_size
    except OSError:
        return 0


class PrivateRoot:
    """A folder that belongs to one user.

    Args:
        path: made with mode 0700 when it is first written to.
        elsewhere: how another folder is chosen, for messages.
    """

    def __init__(self, path: Path, elsewhere: str) -> None:
        self.path = path
        self._elsewhere = elsewhere

    def ready(self) -> bytes:
        """Make what is missing of it.

        Returns:
            The secret, made of 32 random bytes by the first who needs one.

        Raises:
            OutputError: it cannot be written.
            BackendError: others can write to it, or read its secret.
        """
        with self.writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(0o700, exist_ok=True)
            with opened_folder(self.path) as root:
                (self.path / _LOCKS).mkdir(0o700, exist_ok=True)
                files.remove_left_over(self.path)
                while (secret := self.secret(root)) is None:
                    with self.alone():
                        if self.secret(root) is None:
                            write_private(self.path / _SECRET, secrets.token_bytes(_SECRET_BYTES))
        return secret

    def secret(self, root: int) -> bytes | None:
        """The secret, or None if there is none yet.

        Raises:
            Unusable: it is damaged, or others can read it.
        """
        try:
            with opened_file(_SECRET, root) as file:
                secret, mode = file.read(_SECRET_BYTES + 1), os.fstat(file.fileno()).st_mode
        except FileNotFoundError:
            return None
        if mode & 0o077:
            raise Unusable(f"{_SECRET} can be read by others; delete it, and build the plans again")
        if len(secret) != _SECRET_BYTES:
            raise Unusable(f"{_SECRET} is damaged; delete it, and build the plans again")
        return secret

    @contextmanager
    def lock(self, name: str, wait: Callable[[], object] | None) -> Iterator[bool]:
        """Hold a lock, until the `with` block ends or this process does, however it ends.

        Its file stays: were it removed, a second process could lock another one of its name.

        Args:
            name: of the lock.
            wait: called once if another holds it, before waiting for it; None: don't wait.

        Yields:
            Whether it is held.

        Raises:
            OutputError: its file cannot be made.
        """
        with ExitStack() as opened:
            with self.writing():
                is_free = opened.enter_context(files.locked(self.path / _LOCKS / name, wait, 0o600))
            yield is_free

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one in whose hands folders come and go, for a moment."""
        with self.lock("root", lambda: None):
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn what goes wrong into errors for the user."""
        try:
            yield
        except OutputError:
            raise
        except Unusable as error:
            raise BackendError(f"{self.path} is not used: {error}; {self._elsewhere}") from error
        except OSError as error:
            raise OutputError(f"cannot write to {self.path}: {error.strerror or error}; {self._elsewhere}") from error
