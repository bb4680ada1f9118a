"""Files and folders appear whole or not at all; what a killed process left goes, what a living one writes stays."""

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fye_rt.errors import OutputError
from fye_rt.files import alone, atomic_file, atomic_folder, locked, remove_left_over, results, temporary
from tests.fye_rt.command_line import ROOT
from tests.fye_rt.faults import failing

Writer = Callable[..., tuple["subprocess.Popen[str]", Path]]

WRITER = """
import sys, time
from pathlib import Path
from fye_rt import files
with getattr(files, sys.argv[1])(Path(sys.argv[2])) as hidden:
    if sys.argv[1] != "alone":
        (hidden / "file" if sys.argv[1] == "atomic_folder" else hidden).write_text("half")
    print(hidden, flush=True)
    time.sleep(600)
"""


def write(path: Path, text: str = "whole") -> None:
    with atomic_file(path) as hidden:
        hidden.write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def writer() -> Iterator[Writer]:
    """Starts a process that has half of a file or folder written, or locked a folder, and gives its hidden path."""
    processes: list[subprocess.Popen[str]] = []

    def start(function: str, path: Path) -> tuple["subprocess.Popen[str]", Path]:
        command = [sys.executable, "-c", WRITER, function, str(path)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        return process, Path(process.stdout.readline().rstrip("\n"))

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("function", ["atomic_file", "atomic_folder"])
def test_only_files_of_a_killed_process_are_removed(function: str, writer: Writer, tmp_path: Path) -> None:
    process, left = writer(function, tmp_path / "out.mp4")
    remove_left_over(tmp_path)
    assert names(tmp_path) == [left.name] and left.name.startswith(".out.")
    process.kill()
    process.wait()
    remove_left_over(tmp_path)
    assert names(tmp_path) == []


def test_only_hidden_names_since_the_last_boot_are_removed(tmp_path: Path) -> None:
    with temporary(tmp_path, "out", ".mp4") as hidden:
        own = hidden.name
    other = own.replace(results._this_start(), "fye" + 12 * "0")
    foreign = [other, ".out.0a1b2c3d.mp4", ".out.abcd_123.mp4", own.removeprefix("."), ".fye"]
    for name in (own, *foreign):
        (tmp_path / name).write_text("a film")
    target = tmp_path / "target"
    target.write_text("another's")
    (tmp_path / f".link{own}").symlink_to(target)
    remove_left_over(tmp_path)
    assert names(tmp_path) == sorted([*foreign, "target", f".link{own}"])


def test_a_folder_is_cleared_when_a_process_first_writes_into_it(writer: Writer, tmp_path: Path) -> None:
    process, _ = writer("atomic_file", tmp_path / "a.json")
    process.kill()
    process.wait()
    write(tmp_path / "b.json")
    assert names(tmp_path) == ["b.json"]


def test_a_hidden_file_stays_locked_when_it_is_replaced(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "out.mp4") as outer:
        write(outer)
        remove_left_over(tmp_path)
        assert names(tmp_path) == [outer.name]
    assert names(tmp_path) == ["out.mp4"] and (tmp_path / "out.mp4").read_text() == "whole"
    assert results._handles == {}


def test_without_locks_unfinished_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(results.fcntl, "flock", failing(errno.ENOLCK))
        with temporary(tmp_path, "out", ".mp4") as hidden:
            patch.undo()
            remove_left_over(tmp_path)
            assert hidden.exists()


def test_a_run_locks_its_folder_until_it_ends_in_any_way(writer: Writer, tmp_path: Path) -> None:
    for end in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        process, _ = writer("alone", tmp_path)
        with pytest.raises(OutputError, match="another run writes into"), alone(tmp_path):
            pass
        process.send_signal(end)
        process.wait()
        with alone(tmp_path):
            assert names(tmp_path) == [".lock"]


def test_a_lock_is_passed_to_one_waiter_alone(tmp_path: Path) -> None:
    file, order = tmp_path / ".lock", list[str]()

    def second() -> None:
        with locked(file, lambda: order.append("waits")) as is_free:
            order.append("second")
            with locked(file) as is_free_for_third:
                assert is_free and not is_free_for_third

    with locked(file) as is_free:
        assert is_free
        waiting = threading.Thread(target=second)
        waiting.start()
        while not order:
            time.sleep(0.01)
        order.append("first")
    waiting.join(60)
    assert order == ["waits", "first", "second"] and not waiting.is_alive()


def test_a_link_in_place_of_a_lock_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"), alone(tmp_path):
        pass
    assert names(tmp_path) == [".lock"]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_folder_that_cannot_be_locked_is_used_with_a_warning(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(results.fcntl, "flock", failing(code))
    with caplog.at_level(logging.WARNING, "fye_rt"):
        for _ in range(2):
            with alone(tmp_path):
                write(tmp_path / "a")
    (warning,) = caplog.messages
    assert str(tmp_path) in warning and "cannot be locked" in warning
    assert names(tmp_path) == [".lock", "a"]


def test_files_are_written_without_flock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "fcntl", None)
    results._this_start.cache_clear()
    write(tmp_path / "a.mp4")
    with atomic_folder(tmp_path / "b") as hidden:
        (hidden / "c").touch()
        assert "fye" not in hidden.name  # nobody may call it left over
    results._this_start.cache_clear()
    assert names(tmp_path) == ["a.mp4", "b"]


@pytest.mark.parametrize("refused", ["chmod", "fchmod", "fsync"])
@pytest.mark.parametrize("code", [errno.EPERM, errno.EINVAL, errno.ENOSYS])
def test_refused_calls_cost_no_result(refused: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, refused, failing(code))
    for _ in range(2):
        write(tmp_path / "a.mp4")
        with atomic_folder(tmp_path / "b") as hidden:
            write(hidden / "c")
    assert names(tmp_path) == ["a.mp4", "b"] and names(tmp_path / "b") == ["c"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_lost_data_leave_the_older_result(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.mp4", "older")
    monkeypatch.setattr(os, "fsync", failing(code))
    with pytest.raises(OutputError, match=rf"cannot write .*a.mp4: {os.strerror(code)}; nothing was left"):
        write(tmp_path / "a.mp4")
    assert names(tmp_path) == ["a.mp4"] and (tmp_path / "a.mp4").read_text() == "older"


def test_a_result_has_the_access_rights_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "a")
        with atomic_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o640, 0o750]


def test_a_file_that_cannot_be_renamed_gets_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing(errno.EACCES))  # on Windows: while another program has it open
        with pytest.raises(OutputError, match=r"out.mp4: Permission denied; it was written to .*out-.*\.mp4") as error:
            write(tmp_path / "out.mp4")
    (kept,) = tmp_path.iterdir()
    assert str(kept) in str(error.value) and kept.read_text() == "whole"


def test_a_folder_that_cannot_be_renamed_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name.startswith(".bundle.") and target.name == "bundle" and (path / "new").exists():
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return rename(path, target)

    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "old").touch()
    monkeypatch.setattr(results, "_exchanged", lambda hidden, path: False)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OutputError, match="it was written to"), atomic_folder(tmp_path / "bundle") as hidden:
        (hidden / "new").touch()
    assert names(tmp_path / "bundle") == ["old"]
    (kept,) = (path for path in tmp_path.iterdir() if path.name != "bundle")
    assert not kept.name.startswith(".") and names(kept) == ["new"]


@pytest.mark.parametrize("exchanging", [True, False])
def test_a_folder_replaces_an_older_one(exchanging: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchanging:
        monkeypatch.setattr(results, "_exchanged", lambda hidden, path: False)
    for name in ("old", "new"):
        with atomic_folder(tmp_path / "bundle") as hidden:
            (hidden / name).touch()
        assert names(tmp_path) == ["bundle"] and names(tmp_path / "bundle") == [name]


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EXDEV])
def test_a_mounted_file_or_folder_is_filled_in_place(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.mp4", "older and longer")
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "old")
    monkeypatch.setattr(results, "_exchanged", lambda hidden, path: False)
    monkeypatch.setattr(Path, "replace", failing(code))
    monkeypatch.setattr(Path, "rename", failing(code))
    file, folder = (tmp_path / "a.mp4").stat().st_ino, (tmp_path / "b").stat().st_ino
    write(tmp_path / "a.mp4")
    with atomic_folder(tmp_path / "b") as hidden:
        (hidden / "new").write_text("whole")
    assert names(tmp_path) == ["a.mp4", "b"] and names(tmp_path / "b") == ["new"]
    assert (tmp_path / "a.mp4").read_text() == "whole"
    assert ((tmp_path / "a.mp4").stat().st_ino, (tmp_path / "b").stat().st_ino) == (file, folder)


@pytest.mark.parametrize(
    "name",
    [82 * "像" + ".mp4", 62 * "😀" + ".mp4", 251 * "a" + ".mp4", "a." + 253 * "b", 255 * "a"],
    ids=["82 ideographs", "62 emoji", "251 letters", "a long suffix", "no suffix"],
)
def test_every_legal_name_can_be_written(name: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    with atomic_folder(tmp_path / "folders" / name) as hidden:
        (hidden / "file").touch()
    assert names(tmp_path) == sorted(["folders", name]) and names(tmp_path / "folders") == [name]


@pytest.mark.parametrize("link", ["other/real.mp4", "other/not-there-yet.mp4", "second.mp4"])
def test_a_link_stays_and_its_target_is_replaced(link: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "real.mp4", "older")
    (tmp_path / "second.mp4").symlink_to("other/real.mp4")
    (tmp_path / "out.mp4").symlink_to(link)
    write(tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").is_symlink() and (tmp_path / "out.mp4").read_text() == "whole"
    assert names(tmp_path) == ["other", "out.mp4", "second.mp4"]
    assert all(not path.is_symlink() for path in (tmp_path / "other").iterdir())


def test_a_link_to_a_folder_stays_and_the_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "bundle").symlink_to("disk/real")
    with atomic_folder(tmp_path / "bundle") as hidden:
        (hidden / "new").touch()
    assert (tmp_path / "bundle").is_symlink() and names(tmp_path / "disk" / "real") == ["new"]


def test_a_device_or_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to("/dev/null")
    (tmp_path / "folder.mp4").mkdir()
    for name in ("link.mp4", "folder.mp4"):
        with pytest.raises(OutputError, match=f"cannot write .*{name}: it exists and is not a file"):
            write(tmp_path / name)
    assert names(tmp_path) == ["folder.mp4", "link.mp4"] and Path("/dev/null").is_char_device()
