"""One folder keeps what can be made or fetched again, wherever the user's home is or is not."""

import os
import pwd
import tempfile
from pathlib import Path
from typing import Any

import pytest

from fye_rt.files import cache_folder, home


def homeless(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """Take $HOME and the entry in the list of users away; temporary files lie in `place`."""

    def unknown(user: int) -> Any:
        raise KeyError(user)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(place))
    home.temporary_cache.cache_clear()


def test_the_cache_lies_where_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "fye-rt"
    for value in ("", "relative"):  # which the standard says to ignore
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == tmp_path / ".cache" / "fye-rt"
    homeless(monkeypatch, tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "fye-rt"


@pytest.mark.parametrize("variable", [None, "", "relative"])
@pytest.mark.parametrize("planted", ["nothing", "a link", "a folder of all", "a file"])
def test_the_cache_of_a_user_without_a_home_is_private(
    planted: str, variable: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if variable is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", variable)
    homeless(monkeypatch, tmp_path)
    usual = tmp_path / f"fye-{os.getuid()}"
    match planted:
        case "a link":
            usual.symlink_to(tmp_path)
        case "a folder of all":
            usual.mkdir()
            usual.chmod(0o777)
        case "a file":
            usual.touch()
    folder = cache_folder().parent
    home.temporary_cache.cache_clear()
    assert cache_folder().name == "fye-rt"
    home.temporary_cache.cache_clear()
    if planted == "nothing":
        assert folder == usual and usual.stat().st_mode & 0o777 == 0o700
    else:
        assert folder.parent == tmp_path and folder.name.startswith(f"{usual.name}-") and not folder.exists()
