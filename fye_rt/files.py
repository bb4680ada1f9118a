"""Files and folders that appear whole or not at all, and folders that one run at a time writes into.

While it is written, a file has a hidden name beside its final one, and is locked by its process. The hidden name holds
the identifier of this start of the system. The next run removes those of this start that nobody holds, and no others:
all processes of one running system see each other's locks, whatever their containers; another system's may not.
"""

import ctypes
import errno
import hashlib
import logging
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from fye_rt.errors import FyeError, OutputError

try:
    import fcntl
except ImportError:  # Windows; results appear whole there too, but who writes last wins
    fcntl = None  # type: ignore[assignment]

# what fsync says when data are lost; any other error says that the file system has no fsync
_LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)

_POINTER = b"version https://git-lfs.github.com/spec/"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_LONGEST = 64  # bytes of a name that its hidden name repeats; some file systems allow 143 in all
_MOUNTED = (errno.EBUSY, errno.EXDEV)  # what rename says of a file that is mounted by itself, as containers do
_locks: dict[Path, int] = {}  # of this process's hidden files: the descriptors that hold them
_swept: set[str] = set()
_unlocked: set[Path] = set()
logger = logging.getLogger("fye_rt")


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffix; rename it to `path` on success.

    The temporary file is removed on any exception. After kill -9 it may remain until the next run, never a partial
    file under the final name. A symbolic link is followed: its target is replaced.

    Raises:
        OutputError: the folder is missing or read-only, the disk is full, or `path` is a folder or a device. If the
            last step alone fails, the file stays under another name, which the message says.
    """
    path = Path(path)
    with ExitStack() as opened:
        try:
            final = followed(path)
            if final.exists() and not final.is_file():
                raise OutputError(f"cannot write {path}: it exists and is not a file")
            hidden = opened.enter_context(temporary(final.parent, final.stem, final.suffix, mode=0o666))
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(
                f"cannot write {path}: {error.strerror}; choose a folder that exists and is writable"
            ) from error
        try:
            yield hidden
            _publish(hidden, final)
        except OSError as error:
            raise _output_error(path, error) from error


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` on success, replacing a folder that is there.

    Two writers may race: the last to finish wins, and what a reader opens is always one writer's complete work.

    Raises:
        OutputError: as `atomic_file`, or `path` exists and is not a folder.
    """
    path = Path(path)
    with ExitStack() as opened:
        try:
            final = followed(path)
            if final.exists() and not final.is_dir():
                raise OutputError(f"cannot write {path}: it exists and is not a folder")
            final.parent.mkdir(parents=True, exist_ok=True)
            remove_left_over(final.parent)
            hidden = opened.enter_context(temporary(final.parent, final.name, folder=True, mode=0o777))
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"cannot write {path}: {error.strerror}; choose a folder that is writable") from error
        try:
            yield hidden
            for file in hidden.rglob("*"):
                if file.is_file():
                    _sync(file)
            _replace_folder(hidden, final)
        except OSError as error:
            raise _output_error(path, error) from error


def followed(path: Path) -> Path:
    """Where a result of this name lies: at the end of a symbolic link, whether anything is there or not."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def temporary(parent: Path, name: str, suffix: str = "", *, folder: bool = False, mode: int = 0o700) -> Iterator[Path]:
    """Make a hidden file or folder, and remove it at the end if it is still there.

    Args:
        parent: folder to make it in.
        name: its first 64 bytes are part of the hidden name.
        suffix: end of the hidden name.
        folder: make a folder, not a file.
        mode: its access rights, less the umask; by default this user's alone.

    Raises:
        OSError: disk or permission.
    """
    if (place := os.path.abspath(parent)) not in _swept:
        _swept.add(place)
        remove_left_over(parent)
    owner = f"{_this_start()}-" if _this_start() else ""
    hidden = _hidden(parent, name, owner, suffix)
    try:
        _make(hidden, folder, mode)
        if owner and not _hold(hidden, folder):  # no locks on this file system, or taken for a leftover a moment ago
            _remove(hidden)
            hidden = _hidden(parent, name, "", suffix)
            _make(hidden, folder, mode)
        yield hidden
    finally:
        _remove(hidden)
        if (handle := _locks.pop(hidden, None)) is not None:
            os.close(handle)


def remove_left_over(folder: Path) -> None:
    """Remove what writers that were killed on this system left in a folder; what cannot be removed stays."""
    owner = _this_start()
    if not owner:
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and f".{owner}-" in entry.name:
                with suppress(OSError):
                    _remove_if_dead(Path(entry.path), entry.is_dir(follow_symlinks=False))


def lock(file: int, *, wait: bool = False) -> bool | None:
    """Lock an open file or folder, until it is closed.

    Args:
        file: its descriptor.
        wait: until nobody else holds it.

    Returns:
        Whether it is locked now; None where there are no locks: on Windows, and on some network file systems.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def unlock(file: int) -> None:
    """Give back a lock, whoever else may have the file open."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)


def sync(file: int) -> None:
    """Bring a file to the disk, on file systems that can.

    Args:
        file: its descriptor.

    Raises:
        OSError: data are lost.
    """
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno in _LOST:
            raise


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder: a hidden file in it is locked, by its process and no longer.

    Where there are no locks, a warning on the logger "fye_rt" says so; on Windows nothing does.

    Raises:
        OutputError: another run writes there.
        OSError: the folder is missing or read-only.
    """
    with (folder / ".lock").open("wb") as file:
        held = lock(file.fileno())
        if held is False:
            raise OutputError(f"another run writes into {folder}; wait for it, or choose another folder")
        if held is None:
            warn_of_no_locks(folder)
        yield


def warn_of_no_locks(folder: Path) -> None:
    """Log, once a folder, that nobody is kept out of it; not on Windows, where it is always so."""
    if fcntl is not None and folder not in _unlocked:
        _unlocked.add(folder)
        logger.warning("%s lies where files cannot be locked; let no other run write there meanwhile", folder)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let signals that Python handles wait until the `with` block ends."""
    waiting: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows lacks one
            if number is not None and callable(signal.getsignal(number)):
                before[number] = signal.signal(number, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in waiting:
            before[number](number, None)


@cache
def _this_start() -> str:
    """Names this start of the system; "" where none can be told from another."""
    with suppress(OSError):
        if fcntl is not None:
            return "fye" + hashlib.sha256(_BOOT.read_bytes()).hexdigest()[:12]
    return ""


def _hidden(parent: Path, name: str, owner: str, suffix: str) -> Path:
    short = os.fsencode(name)[:_LONGEST].decode(errors="ignore")
    end = suffix if len(os.fsencode(suffix)) <= _LONGEST else ""
    return parent / f".{short}.{owner}{secrets.token_hex(4)}{end}"


def _make(path: Path, folder: bool, mode: int) -> None:
    if folder:
        path.mkdir(mode)
    else:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode & 0o666))


def _open(path: Path, folder: bool) -> int:
    return os.open(path, (os.O_RDONLY | os.O_DIRECTORY if folder else os.O_RDWR) | os.O_NOFOLLOW | os.O_NONBLOCK)


def _hold(path: Path, folder: bool) -> bool:
    """Lock a hidden file or folder that was just made; whether it is held now."""
    try:
        handle = _open(path, folder)
    except OSError:
        return False
    if lock(handle) and _is_at(handle, path):
        _locks[path] = handle
        return True
    os.close(handle)
    return False


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except OSError:
        return False


def _remove_if_dead(path: Path, folder: bool) -> None:
    handle = _open(path, folder)
    try:
        if lock(handle) and _is_at(handle, path):
            _remove(path)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _publish(hidden: Path, path: Path) -> None:
    _sync(hidden)
    try:
        hidden.replace(path)
    except OSError as error:
        if error.errno in _MOUNTED:
            with suppress(OSError):
                shutil.copyfile(hidden, path)
                return
        raise _kept(hidden, path, error) from error
    if path in _locks and hidden in _locks:  # `path` is a hidden file itself: it is a new one now, and held as before
        os.close(_locks[path])
        _locks[path] = _locks.pop(hidden)


def _replace_folder(hidden: Path, path: Path) -> None:
    if _exchanged(hidden, path):
        return
    while True:
        # rename() replaces an empty folder only, so an older result is first moved aside
        with temporary(path.parent, path.name, folder=True) as retired:
            try:
                path.rename(retired)
                moved = True
            except FileNotFoundError:
                moved = False
            except OSError as error:
                if error.errno in _MOUNTED:
                    with suppress(OSError):
                        _fill(path, hidden)
                        return
                raise _kept(hidden, path, error) from error
            try:
                hidden.rename(path)
                return
            except OSError as error:
                if path.exists():  # another writer's
                    continue
                if moved:
                    retired.rename(path)
                raise _kept(hidden, path, error) from error


def _exchanged(hidden: Path, path: Path) -> bool:
    """Exchange two names, where Linux can: a process that is killed leaves the older result or the new one there."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(hidden), here, os.fsencode(path), exchange) == 0)


def _fill(path: Path, source: Path) -> None:
    """Put the content of a folder in place of another's."""
    for child in path.iterdir():
        _remove(child)
    shutil.copytree(source, path, dirs_exist_ok=True)


def _kept(hidden: Path, path: Path, error: OSError) -> OSError:
    """Give a finished result another name where it cannot have its own; the error that says so."""
    other = path.with_name(f"{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        hidden.rename(other)
    except OSError:
        return error
    return OutputError(f"cannot write {path}: {error.strerror}; it was written to {other}")


def refuse_pointer(path: Path, error: type[FyeError]) -> None:
    """Raise `error` if a file is a Git LFS pointer: a few lines of text in place of a file that was not downloaded.

    A file that is missing or cannot be read passes: whoever reads it says so.
    """
    try:
        # 1,024 bytes: the specification's limit for pointers
        if not path.is_file() or path.stat().st_size > 1024:
            return
        with path.open("rb") as handle:
            start = handle.read(len(_POINTER))
    except OSError:
        return
    if start == _POINTER:
        raise error(f"{path} is a Git LFS pointer in place of the file itself; get the file with: git lfs pull")


def _sync(file: Path) -> None:
    with file.open("rb") as handle:
        sync(handle.fileno())


def _output_error(path: Path, error: OSError) -> OutputError:
    if isinstance(error, OutputError):
        return error
    return OutputError(f"cannot write {path}: {error.strerror or error}; nothing was left under that name")
