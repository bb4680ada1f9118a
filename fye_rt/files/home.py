"""The user's cache folder, with or without a home folder."""

import os
import secrets
import stat
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path


def cache_folder() -> Path:
    """Return the cache folder: on Linux $XDG_CACHE_HOME/fye-rt, else ~/.cache/fye-rt; elsewhere the system's choice.

    A user without a home folder gets one of mode 0700 among the temporary files.
    """
    from platformdirs import user_cache_path

    with suppress(RuntimeError):  # without a home folder, some versions of platformdirs raise
        folder = user_cache_path("fye-rt", appauthor=False)
        return folder if folder.is_absolute() else Path.home() / ".cache" / "fye-rt"
    return temporary_cache() / "fye-rt"


def ensure_home() -> None:
    """Set $HOME to `temporary_cache` if the user has no home folder: without one, libraries fail to import."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(temporary_cache())


@cache
def temporary_cache() -> Path:
    """Return a folder of mode 0700 among the temporary files; the user's next process finds it again."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"fye-{user}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
        if stat.S_ISDIR(state.st_mode) and state.st_uid == user and not state.st_mode & 0o022:
            return folder
    return folder.with_name(f"{folder.name}-{secrets.token_hex(8)}")  # a name that nobody else can have used


def place_for_matplotlib() -> None:
    """Give Matplotlib, which MediaPipe imports, a writable folder, if it would otherwise warn that it has none."""
    if "matplotlib" in sys.modules or not sys.platform.startswith("linux"):
        return
    ensure_home()
    if configured := os.environ.get("MPLCONFIGDIR"):
        folders = [Path(configured)]
    else:
        bases = (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache"))
        folders = [Path(os.environ.get(name) or Path.home() / hidden, "matplotlib") for name, hidden in bases]
    if not all(map(_writable, folders)):
        os.environ["MPLCONFIGDIR"] = str(temporary_cache() / "matplotlib")


def _writable(folder: Path) -> bool:
    """Create a folder if it is missing, and return whether files can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
