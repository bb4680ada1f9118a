"""Files and folders that appear whole or not at all, and folders that one run at a time writes into."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fye_rt.errors import FyeError, OutputError

_POINTER = b"version https://git-lfs.github.com/spec/"
_asking = threading.Lock()


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffix; rename it to `path` on success.

    The temporary file is removed on any exception. After kill -9 a hidden `.NAME.XXXX.SUFFIX` may remain,
    never a partial file under the final name.

    Raises:
        OutputError: the folder is missing or read-only, or the disk is full.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; choose a folder that exists and is writable"
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        _publish(temporary, path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` on success, replacing a folder that is there.

    Two writers may race: the last to finish wins, and what a reader opens is always one writer's complete work.

    Raises:
        OutputError: as `atomic_file`, or `path` exists and is not a folder.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise OutputError(f"cannot write {path}: it exists and is not a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose a folder that is writable") from error
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        _replace_folder(temporary, path)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder: a hidden file in it is locked, by its process and no longer. POSIX alone.

    Raises:
        OutputError: another run writes there.
        OSError: the folder is missing or read-only.
    """
    try:
        import fcntl
    except ImportError:  # Windows; results appear whole there too, but who writes last wins
        yield
        return
    with (folder / ".lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"another run writes into {folder}; wait for it, or choose another folder") from error
        yield


def _umask() -> int:
    with _asking:  # it can be read only by setting it: two threads at once would leave 0 behind
        umask = os.umask(0)
        os.umask(umask)
    return umask


def _publish(temporary: Path, path: Path) -> None:
    temporary.chmod(0o666 & ~_umask())  # mkstemp makes 0600; the result gets what open() would have given it
    _sync(temporary)
    temporary.replace(path)


def _replace_folder(temporary: Path, path: Path) -> None:
    temporary.chmod(0o777 & ~_umask())
    while True:
        # rename() replaces an empty folder only, so an older result is first moved aside
        retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            try:
                path.rename(retired)
            except FileNotFoundError:
                pass
            temporary.rename(path)
            return
        except OSError:
            if not path.exists():  # not another writer's doing: disk or permission
                raise
        finally:
            shutil.rmtree(retired, ignore_errors=True)


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
        os.fsync(handle.fileno())


def _output_error(path: Path, error: OSError) -> OutputError:
    if isinstance(error, OutputError):
        return error
    return OutputError(f"cannot write {path}: {error.strerror or error}; nothing was left under that name")
