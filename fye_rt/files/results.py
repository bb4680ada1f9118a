"""Files and folders that appear whole or not at all.

While a process writes a file, the file has a hidden name beside its final one, and the process locks it. The hidden
name contains an identifier of the current boot. The next run removes only hidden files of this boot that no process
locks: all processes of one running system see each other's locks, across containers; another system's may not.
"""

import ctypes
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from fye_rt.errors import FyeError, OutputError

try:
    import fcntl
except ImportError:  # Windows: results appear whole there too, but files of killed writers stay
    fcntl = None  # type: ignore[assignment]

# errors of fsync that mean lost data; any other means that the file system has no fsync
_LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
_POINTER = b"version https://git-lfs.github.com/spec/"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_LONGEST = 64  # bytes of a name that its hidden name repeats; some file systems allow 143 in all
_MOUNTED = (errno.EBUSY, errno.EXDEV)  # errors of renaming a mount point, as a file in a container may be
_handles: dict[Path, int] = {}  # this process's hidden files, and the descriptors that lock them
_swept_folders: set[str] = set()


def atomic_file(path: str | os.PathLike[str], mode: int = 0o666) -> AbstractContextManager[Path]:
    """Yield a temporary path beside `path`, with the same suffix; rename it to `path` on success.

    The temporary file is removed on any exception. After kill -9 it may remain until the next run; the final name never
    has a partial file. A symbolic link is followed: its target is replaced.

    Args:
        path: path of the result.
        mode: access rights of the result, less the umask.

    Raises:
        OutputError: the folder is missing or read-only, the disk is full, or `path` is a folder or a device. If only
            the final rename fails, the file stays under another name, which the message gives.
    """
    return _result(Path(path), mode, folder=False)


def atomic_folder(path: str | os.PathLike[str], mode: int = 0o777) -> AbstractContextManager[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` on success, replacing an older folder.

    Two writers may race: the last to finish wins, and a reader always opens one writer's complete result.

    Raises:
        OutputError: as `atomic_file`, or `path` exists and is not a folder.
    """
    return _result(Path(path), mode, folder=True)


@contextmanager
def _result(path: Path, mode: int, *, folder: bool) -> Iterator[Path]:
    with ExitStack() as opened:
        try:
            final = followed(path)
            if final.exists() and not (final.is_dir() if folder else final.is_file()):
                raise OutputError(f"cannot write {path}: it exists and is not a {'folder' if folder else 'file'}")
            if folder:
                final.parent.mkdir(parents=True, exist_ok=True)
                remove_left_over(final.parent)
            name, suffix = (final.name, "") if folder else (final.stem, final.suffix)
            hidden = opened.enter_context(temporary(final.parent, name, suffix, folder=folder, mode=mode))
        except OutputError:
            raise
        except OSError as error:
            remedy = "choose a folder that " + ("is writable" if folder else "exists and is writable")
            raise OutputError(f"cannot write {path}: {error.strerror}; {remedy}") from error
        try:
            yield hidden
            for file in hidden.rglob("*") if folder else (hidden,):
                if file.is_file():
                    _sync(file)
            (_replace_folder if folder else _replace_file)(hidden, final)
        except OutputError:
            raise
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"cannot write {path}: {reason}; nothing was left under that name") from error


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write indented JSON as `atomic_file` does; raises OutputError if that fails."""
    with atomic_file(path) as hidden:
        hidden.write_text(json.dumps(content, indent=1) + "\n")


def followed(path: Path) -> Path:
    """Follow a symbolic link to its target, whether the target exists or not; return other paths unchanged."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def temporary(parent: Path, name: str, suffix: str = "", *, folder: bool = False, mode: int = 0o700) -> Iterator[Path]:
    """Create a hidden file or folder, and remove it at the end if it still exists.

    Args:
        parent: folder to create it in.
        name: name whose first 64 bytes become part of the hidden name.
        suffix: end of the hidden name.
        folder: create a folder, not a file.
        mode: access rights, less the umask; by default for this user alone.

    Raises:
        OSError: the disk is full, or permission is missing.
    """
    if (swept := os.path.abspath(parent)) not in _swept_folders:
        _swept_folders.add(swept)
        remove_left_over(parent)
    owner = f"{_this_start()}-" if _this_start() else ""
    hidden = _hidden(parent, name, owner, suffix)
    try:
        _make(hidden, folder, mode)
        if owner and (handle := _lock(hidden)) is not None:
            _handles[hidden] = handle
        elif owner:  # the file system has no locks, or another process took the file for a left-over
            _remove(hidden)
            hidden = _hidden(parent, name, "", suffix)
            _make(hidden, folder, mode)
        yield hidden
    finally:
        _remove(hidden)
        if (handle := _handles.pop(hidden, None)) is not None:
            os.close(handle)


def remove_left_over(folder: Path) -> None:
    """Remove the hidden files in a folder whose writers were killed since boot, where permissions allow."""
    owner = _this_start()
    if not owner:
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and f".{owner}-" in entry.name:
                path = Path(entry.path)
                if (handle := _lock(path)) is not None:
                    with suppress(OSError):
                        _remove(path)
                    os.close(handle)


@cache
def _this_start() -> str:
    """Return an identifier of the current boot; "" where the system has none."""
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


def _lock(path: Path) -> int | None:
    """Lock a hidden file or folder until the returned descriptor is closed; None if that fails or another holds it."""
    kind = os.O_DIRECTORY | os.O_RDONLY if path.is_dir() and not path.is_symlink() else os.O_RDWR
    try:
        handle = os.open(path, kind | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), path.lstat()):
            return handle
    os.close(handle)
    return None


def sha256(file: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal, at 1.5 GB/s; raises OSError if the file cannot be read."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def refuse_pointer(path: Path, error: type[FyeError]) -> None:
    """Raise `error` if a file is a Git LFS pointer: a few lines of text in place of a file that was not downloaded.

    A missing or unreadable file passes: its reader will report it.
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


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(file: Path) -> None:
    """Flush a file to disk, on file systems that can."""
    with file.open("rb") as handle:
        try:
            os.fsync(handle.fileno())
        except OSError as error:
            if error.errno in _LOST:
                raise


def _replace_file(hidden: Path, path: Path) -> None:
    try:
        hidden.replace(path)
    except OSError as error:
        if error.errno in _MOUNTED:
            with suppress(OSError):
                shutil.copyfile(hidden, path)
                return
        raise _rescue(hidden, path, error) from error
    if path in _handles and hidden in _handles:  # `path`, itself a hidden file, was replaced: lock the new file
        os.close(_handles[path])
        _handles[path] = _handles.pop(hidden)


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
                    with suppress(OSError):  # replace the folder's content
                        for child in path.iterdir():
                            _remove(child)
                        shutil.copytree(hidden, path, dirs_exist_ok=True)
                        return
                raise _rescue(hidden, path, error) from error
            try:
                hidden.rename(path)
                return
            except OSError as error:
                if path.exists():  # another writer's result
                    continue
                if moved:
                    retired.rename(path)
                raise _rescue(hidden, path, error) from error


def _exchanged(hidden: Path, path: Path) -> bool:
    """Exchange two names in one step, where Linux can: even a killed process leaves the older or the new result."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(hidden), here, os.fsencode(path), exchange) == 0)


def _rescue(hidden: Path, path: Path, error: OSError) -> OSError:
    """Give a finished result another name, since it cannot have its own; return the error to raise."""
    other = path.with_name(f"{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        hidden.rename(other)
    except OSError:
        return error
    return OutputError(f"cannot write {path}: {error.strerror}; it was written to {other}")
