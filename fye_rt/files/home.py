"""The user's folder for what can be made or fetched again, with a home folder or without one."""

import os
import secrets
import stat
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path


def cache_folder() -> Path:
    """The cache of fye-rt: on Linux fye-rt in $XDG_CACHE_HOME, else ~/.cache/fye-rt; elsewhere where the system says.

    A user without a home folder has one of mode 0700 among the temporary files.
    """
    from platformdirs import user_cache_path

    with suppress(RuntimeError):  # versions of platformdirs differ in what they say of a user without a home
        folder = user_cache_path("fye-rt", appauthor=False)
        return folder if folder.is_absolute() else Path.home() / ".cache" / "fye-rt"
    return temporary_cache() / "fye-rt"


def ensure_home() -> None:
    """Let $HOME name `temporary_cache` where there is no home folder: libraries fail to import without."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(temporary_cache())


@cache
def temporary_cache() -> Path:
    """A folder of mode 0700 among the temporary files, which stays for the user's next process."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"fye-{user}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.lstat()
        if stat.S_ISDIR(state.st_mode) and state.st_uid == user and not state.st_mode & 0o022:
            return folder
    return folder.with_name(f"{folder.name}-{secrets.token_hex(8)}")  # nobody else can have filled it


def place_for_matplotlib() -> None:
    """Give Matplotlib, which MediaPipe imports, a folder where it would complain that it has none."""
    if "matplotlib" in sys.modules or not sys.platform.startswith("linux"):
        return
    ensure_home()
    if named := os.environ.get("MPLCONFIGDIR"):
        folders = [Path(named)]
    else:
        bases = (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache"))
        folders = [Path(os.environ.get(name) or Path.home() / hidden, "matplotlib") for name, hidden in bases]
    if not all(map(_writable, folders)):
        os.environ["MPLCONFIGDIR"] = str(temporary_cache() / "matplotlib")


def _writable(folder: Path) -> bool:
    """Whether files can be written into a folder, which is made if it isn't there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
