"""The folder of plans: what is kept, what goes, and several processes that work on it at once."""

import errno
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from fye_rt.errors import BackendError, OptionError, OutputError
from fye_rt.files import locked, results
from fye_rt.plans import PlanCache
from fye_rt.plans import folder as plan_folder
from fye_rt.plans.folder import open_file
from fye_rt.plans.key import PlanKey
from tests.fye_rt.faults import failing, flip
from tests.fye_rt.plans.conftest import Python, line
from tests.fye_rt.plans.sample import BUILD, CONTENT, DAY, KEY, NEWER, NOBODY, hidden, other, refusal, used_at


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda raw: memoryview(raw).cast("I")])
def test_a_plan_comes_back_with_its_key_and_facts(kind: Callable[[bytes], bytes], cache: PlanCache) -> None:
    folder = cache.publish(KEY, kind(CONTENT), {"seconds": 12.5, "checks": {"psnr": [51.0, None]}})
    plan = PlanCache(cache.root).open(KEY, BUILD)
    assert plan.content == CONTENT and plan.key == KEY
    assert plan.facts["seconds"] == 12.5 and plan.facts["checks"] == {"psnr": [51.0, None]}
    assert plan.facts["created"].endswith("+00:00")
    assert folder == cache.root / KEY.digest
    assert sorted(path.name for path in folder.iterdir()) == ["plan.json", "plan.trt"]
    assert (folder / "plan.trt").read_bytes() == CONTENT


def test_everything_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        cache = PlanCache(tmp_path / "new" / "plans")
        cache.publish(KEY, CONTENT, {})
        cache.write_timing("sm_90", "10.16.1.11", b"timing")
        with cache.lock(KEY):
            pass
    finally:
        os.umask(before)
    paths = [cache.root, *cache.root.rglob("*")]
    modes = {str(path.relative_to(cache.root)): path.stat().st_mode & 0o777 for path in paths}
    assert len(modes) >= 8
    assert modes == {name: 0o700 if (cache.root / name).is_dir() else 0o600 for name in modes}


def test_the_root_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("FYE_PLANS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert PlanCache().root == tmp_path / "home" / ".cache" / "fye-rt" / "plans"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert PlanCache().root == tmp_path / "xdg" / "fye-rt" / "plans"
    monkeypatch.setenv("FYE_PLANS", str(tmp_path / "mine"))
    assert PlanCache().root == tmp_path / "mine"
    assert list(tmp_path.iterdir()) == []  # it is made when there is something to keep


def test_reading_an_empty_cache_makes_no_folder(cache: PlanCache) -> None:
    assert "has no plan of denoiser" in refusal(cache)
    assert cache.entries() == [] and cache.read_timing("sm_90", "10.16") is None
    assert not cache.root.exists()


def test_nothing_is_written_where_others_can_write(cache: PlanCache, folder: Path) -> None:
    cache.root.chmod(0o777)
    before = sorted(cache.root.rglob("*"))
    for write in (
        lambda: cache.publish(other("sm"), CONTENT, {}),
        lambda: cache.lock(KEY).__enter__(),
        lambda: cache.prune(lambda _: False),
        lambda: cache.write_timing("sm_90", "10", b"timing"),
    ):
        with pytest.raises(BackendError, match="can be written by others"):
            write()
    assert sorted(cache.root.rglob("*")) == before


def test_opening_a_plan_updates_its_time_of_use(cache: PlanCache, folder: Path) -> None:
    used_at(folder / "plan.json", 3 * DAY)
    (before,) = cache.entries()
    cache.open(KEY, BUILD)
    (after,) = cache.entries(verify=True)
    assert time.time() - before.used > 2 * DAY and abs(time.time() - after.used) < 60


def test_a_read_only_disk_still_gives_its_plans(
    monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path
) -> None:
    monkeypatch.setattr(os, "utime", failing(errno.EROFS))
    assert cache.open(KEY, BUILD).content == CONTENT


def test_a_user_without_write_access_may_still_read() -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        cache = PlanCache(Path(place) / "plans")
        paths = [cache.publish(KEY, CONTENT, {}), cache.root / ".locks", cache.root]
        if os.getuid() == 0:
            for path in (*cache.root.rglob("*"), cache.root):
                os.chown(path, NOBODY, NOBODY)
        for path in paths:
            path.chmod(0o500)
        child = os.fork()
        if child == 0:  # nothing of pytest may run in the child
            try:
                if os.getuid() == 0:
                    os.setuid(NOBODY)
                assert cache.open(KEY, BUILD).content == CONTENT
                for write in (lambda: cache.publish(KEY, CONTENT, {}), lambda: cache.lock(other("sm")).__enter__()):
                    try:
                        write()
                        os._exit(2)
                    except OutputError as error:
                        assert "Permission denied" in str(error) and "FYE_PLANS" in str(error)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        for path in paths:
            path.chmod(0o700)


def test_a_full_disk_leaves_the_older_plan(monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    with pytest.raises(OutputError, match="No space left on device"):
        cache.publish(KEY, NEWER, {})
    with pytest.raises(OutputError, match="No space left on device"):
        cache.write_timing("sm_90", "10.16", b"timing")
    assert cache.open(KEY, BUILD).content == CONTENT
    assert hidden(cache) == [".locks"]


def test_an_older_plan_that_cannot_move_stays(monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path) -> None:
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path == folder:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(results, "_exchanged", lambda hidden, path: False)
    with pytest.raises(OutputError, match="Operation not permitted; it was written to"):
        cache.publish(KEY, NEWER, {})
    assert cache.prune(lambda _: False) == []
    (newer,) = cache.root.glob(f"{KEY.digest}-*")
    used_at(newer / "plan.json", 2 * DAY)
    assert [entry.path for entry in cache.prune(lambda _: True)] == [newer]
    assert cache.open(KEY, BUILD).content == CONTENT
    assert hidden(cache) == [".locks"]


def test_a_plan_goes_before_its_files_do(monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path) -> None:
    remove, seen = shutil.rmtree, list[bool]()

    def watched(path: Path, ignore_errors: bool = False) -> None:
        seen.append(folder.exists())
        remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", watched)
    assert [entry.path for entry in cache.prune(lambda _: False)] == [folder]
    assert seen and not any(seen)
    assert cache.entries() == []


def test_a_plan_replaced_during_open_is_whole(monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path) -> None:
    replaced: list[str] = []

    def opened(path: Path) -> BinaryIO:
        if path.name == "plan.trt" and not replaced:  # plan.json is open by now
            replaced.append(path.name)
            cache.publish(KEY, NEWER, {"seconds": 3})
        return open_file(path)

    monkeypatch.setattr(plan_folder, "open_file", opened)
    plan = cache.open(KEY, BUILD)
    assert plan.content == NEWER and plan.facts["seconds"] == 3 and replaced


@pytest.mark.parametrize("late", [True, False])
def test_a_plan_evicted_during_open_is_whole_or_absent(
    late: bool, monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path
) -> None:
    def opened(path: Path) -> BinaryIO:
        file = open_file(path)
        if path.name == ("plan.trt" if late else "plan.json"):
            shutil.rmtree(folder)
        return file

    monkeypatch.setattr(plan_folder, "open_file", opened)
    if late:
        assert cache.open(KEY, BUILD).content == CONTENT
    else:
        assert "has no plan of denoiser" in refusal(cache)


def test_a_plan_evicted_in_a_listing_is_absent(monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path) -> None:
    def opened(path: Path) -> BinaryIO:
        shutil.rmtree(folder)
        return open_file(path)

    monkeypatch.setattr(plan_folder, "open_file", opened)
    assert cache.entries() == []


@pytest.mark.parametrize("work", ["publish", "prune"])
def test_only_one_process_at_a_time_moves_folders(work: str, python: Python, cache: PlanCache, folder: Path) -> None:
    scripts = {"publish": "cache.publish(key, b'newer', {})", "prune": "cache.prune(lambda _: False)"}
    with locked(cache.root / ".locks" / "root"):
        process = python(f"print('begins', flush=True)\n{scripts[work]}\nprint('done', flush=True)")
        assert line(process) == "begins"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        assert cache.open(KEY, BUILD).content == CONTENT
    assert line(process) == "done"
    assert len(cache.entries()) == (work == "publish")


PUBLISHER = """
os.umask(0)
print("ready", flush=True)
for k in range(40):
    cache.publish(key, argument.encode() * 100_000, {"content": argument})
"""


def test_readers_beside_two_publishers_find_complete_plans_only(python: Python, cache: PlanCache) -> None:
    publishers = [python(PUBLISHER, argument=letter) for letter in "ab"]
    assert [line(process) for process in publishers] == ["ready", "ready"]
    seen = {"a": 0, "b": 0, "none": 0}
    while any(process.poll() is None for process in publishers) or seen["a"] + seen["b"] == 0:
        try:
            plan = cache.open(KEY, BUILD)
            letter = plan.facts["content"]
            assert plan.content == letter.encode() * 100_000
            seen[letter] += 1
        except BackendError as error:
            assert "has no plan of denoiser" in str(error) or "has no such plan" in str(error)
            seen["none"] += 1
    assert [process.wait() for process in publishers] == [0, 0]
    assert cache.open(KEY, BUILD).facts["content"] in ("a", "b")
    assert len(cache.entries()) == 1 and hidden(cache) == [".locks"]


def test_six_first_publishers_at_once_succeed(python: Python, cache: PlanCache) -> None:
    script = """
print("ready", flush=True)
sys.stdin.readline()
cache.publish(key, b"plan", {})
cache.open(key, "")
"""
    keys = [replace(KEY, driver=str(number)) for number in range(6)]
    processes = [python(script, key) for key in keys]
    assert {line(process) for process in processes} == {"ready"}
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait() for process in processes] == [0] * 6
    assert [cache.open(key, BUILD).content for key in keys] == [b"plan"] * 6


BUILDER = """
with cache.lock(key, lambda line: print(line, flush=True)):
    try:
        cache.open(key, "")
        print("found", flush=True)
    except BackendError:
        print("building", flush=True)
        sys.stdin.readline()
        cache.publish(key, b"plan", {})
        print("built", flush=True)
"""
WAITING = "another process is building the plan of denoiser; waiting for it"


def test_the_second_of_two_builders_finds_the_plan(python: Python, cache: PlanCache) -> None:
    first = python(BUILDER)
    assert line(first) == "building"
    second = python(BUILDER)
    assert line(second) == WAITING
    first_said, _ = first.communicate("\n")
    second_said, _ = second.communicate("\n")
    assert first_said.split() == ["built"]
    assert second_said.split() == ["found"]  # and nothing was told twice
    assert cache.open(KEY, BUILD).content == b"plan"


def test_a_killed_builder_releases_its_lock(python: Python) -> None:
    first = python(BUILDER)
    assert line(first) == "building"
    second = python(BUILDER)
    assert line(second) == WAITING
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert line(second) == "building"
    said, _ = second.communicate("\n")
    assert said.split() == ["built"]


def test_a_lock_is_free_after_an_error_and_beside_a_child_process(cache: PlanCache) -> None:
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        raise LookupError(text)

    with pytest.raises(ZeroDivisionError), cache.lock(KEY, tell):
        raise ZeroDivisionError
    with cache.lock(KEY, tell), cache.lock(other("sm"), tell):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
    try:
        with cache.lock(KEY, tell):
            assert told == []
            with pytest.raises(LookupError, match=WAITING), cache.lock(KEY, tell):
                pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert told == [WAITING]


def filled(root: Path, count: int) -> tuple[list[PlanKey], int]:
    """Plans of one size, the first of them used longest ago; their keys, and the bytes of one."""
    keys = [replace(KEY, driver=str(number)) for number in range(count)]
    for number, key in enumerate(keys):
        folder = PlanCache(root).publish(key, CONTENT, {"created": "then"})
        used_at(folder / "plan.json", DAY - 60 * number)
    (size,) = {entry.size for entry in PlanCache(root).entries()}
    return keys, size


def there(cache: PlanCache) -> set[str]:
    return {entry.key.driver for entry in cache.entries() if entry.key is not None}


def test_the_least_recently_used_plans_go_over_the_limit(tmp_path: Path) -> None:
    keys, size = filled(tmp_path, 4)
    cache = PlanCache(tmp_path, limit=3 * size)
    cache.open(keys[0], BUILD)
    with cache.lock(keys[2]):
        cache.publish(replace(KEY, driver="9"), CONTENT, {"created": "then"})
    assert there(cache) == {"0", "2", "9"}  # 1 and 3 were used longest ago, of those that may go
    cache.publish(replace(KEY, driver="9"), CONTENT, {"created": "then"})
    assert there(cache) == {"0", "2", "9"}  # a plan that is replaced needs no more room
    cache.publish(replace(KEY, driver="8"), CONTENT, {"created": "then"})
    assert there(cache) == {"0", "8", "9"}
    assert hidden(cache) == [".locks"]


def test_a_plan_over_the_limit_is_kept_alone(tmp_path: Path) -> None:
    keys, size = filled(tmp_path, 2)
    cache = PlanCache(tmp_path, limit=size // 2)
    cache.publish(replace(KEY, driver="9"), CONTENT, {})
    assert there(cache) == {"9"}
    with cache.lock(replace(KEY, driver="9")):
        cache.publish(keys[0], CONTENT, {})
    assert there(cache) == {"9", "0"}
    with pytest.raises(OptionError, match="limit"):
        PlanCache(tmp_path, limit=-1)


def test_entries_list_every_plan_with_its_fault(tmp_path: Path) -> None:
    keys, size = filled(tmp_path, 4)
    cache = PlanCache(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    flip(tmp_path / keys[1].digest / "plan.trt", 7)
    (tmp_path / keys[2].digest / "plan.json").unlink()
    shutil.rmtree(tmp_path / keys[3].digest)
    (tmp_path / keys[3].digest).symlink_to(tmp_path / keys[0].digest)
    cheap = {entry.path.name: entry for entry in cache.entries()}
    assert list(cheap) == sorted(key.digest for key in keys)
    for key in keys[:2]:
        entry = cheap[key.digest]
        assert (entry.path, entry.key, entry.size, entry.reason) == (tmp_path / key.digest, key, size, "")
        assert entry.size == sum(file.stat().st_size for file in entry.path.iterdir())
    broken = cheap[keys[2].digest]
    assert (broken.key, broken.size, broken.reason) == (None, len(CONTENT), "plan.json is missing")
    assert "symbolic link" in cheap[keys[3].digest].reason and cheap[keys[3].digest].size < 1000
    verified = {entry.path.name: entry.reason for entry in cache.entries(verify=True)}
    assert verified[keys[0].digest] == "" and "differs from its hash" in verified[keys[1].digest]


def test_pruning_removes_unwanted_broken_and_left_over_plans(tmp_path: Path) -> None:
    keys, size = filled(tmp_path, 5)
    cache = PlanCache(tmp_path)
    (tmp_path / keys[0].digest / "plan.json").write_bytes(b"")
    flip(tmp_path / keys[4].digest / "plan.trt", 7)
    for name, age in (("old", 2 * DAY), ("new", DAY / 2)):
        left = tmp_path / f".{keys[0].digest}.{name:_<8}"
        left.mkdir()
        (left / ".plan.trt.abcdefgh").write_bytes(b"12345")
        used_at(left, age)
        (tmp_path / f".timing.sm_90.10.16.{name:_<8}").write_bytes(b"123")
        used_at(tmp_path / f".timing.sm_90.10.16.{name:_<8}", age)
    for name in (".mine", ".config.abcdefgh", "notes.txt", "folder"):
        (tmp_path / name).write_bytes(b"not ours")
        used_at(tmp_path / name, 9 * DAY)
    cache.write_timing("sm_90", "10.16", b"timing")
    others = set(tmp_path.iterdir())
    with cache.lock(keys[1]):
        pruned = cache.prune(lambda key: key.driver not in ("1", "2"))
    gone = {f".{keys[0].digest}.old_____", ".timing.sm_90.10.16.old_____", *(keys[n].digest for n in (0, 2, 4))}
    assert {entry.path.name for entry in pruned} == gone and len(pruned) == 5
    assert set(tmp_path.iterdir()) == others - {tmp_path / name for name in gone}
    assert sum(entry.size for entry in pruned) == 2 * size + len(CONTENT) + 5 + 3
    assert there(cache) == {"1", "3"}


def test_a_left_over_file_that_cannot_be_removed_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    left = tmp_path / f".timing.sm_90.10.16.{'old':_<8}"
    left.write_bytes(b"123")
    used_at(left, 2 * DAY)

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == left:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    cache = PlanCache(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        assert cache.prune(lambda _: True) == []
    assert [entry.path for entry in cache.prune(lambda _: True)] == [left]


def test_pruning_to_a_limit_keeps_the_most_recently_used_plans(tmp_path: Path) -> None:
    keys, size = filled(tmp_path, 5)
    cache = PlanCache(tmp_path)
    with cache.lock(keys[0]):
        pruned = cache.prune(lambda _: True, limit=2 * size)
    assert there(cache) == {"0", "4"} and sum(entry.size for entry in pruned) == 3 * size
    assert [entry.path.name for entry in pruned] == [key.digest for key in keys[1:4]]
    assert cache.prune(lambda _: True) == []


def test_a_publisher_that_is_killed_leaves_no_plan_and_is_cleared_away(python: Python, cache: PlanCache) -> None:
    script = """
def stop(handle):
    print("writing", flush=True)
    time.sleep(60)
os.fsync = stop
cache.publish(key, b"plan", {})
"""
    cache.write_timing("sm_90", "10", b"timing")
    process = python(script)
    assert line(process) == "writing"
    cache.write_timing("sm_90", "10", b"of another build meanwhile")
    (left,) = cache.root.glob(f".{KEY.digest}.*")
    process.kill()
    process.wait()
    assert "has no plan" in refusal(cache) and cache.entries() == [] and left.exists()
    cache.write_timing("sm_90", "10", b"of the next build")
    assert not left.exists()


def test_timing_caches_come_back_by_architecture_and_version(cache: PlanCache) -> None:
    cache.write_timing("sm_90", "10.16.1.11", b"first")
    cache.write_timing("sm_90", "10.16.1.11", memoryview(CONTENT))
    cache.write_timing("sm_120", "10.16.1.11", b"")
    assert cache.read_timing("sm_90", "10.16.1.11") == CONTENT
    assert cache.read_timing("sm_120", "10.16.1.11") == b""
    assert cache.read_timing("sm_90", "11.4.0.106") is None
    assert cache.entries() == [] and hidden(cache) == [".locks"]


@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "seal", "content", "writable", "root", "link", "theirs"])
def test_a_damaged_timing_cache_counts_as_absent(
    damage: str, cache: PlanCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_timing("sm_90", "10.16", CONTENT)
    (file,) = cache.root.glob("timing.*")
    raw = file.read_bytes()
    if damage in ("cut", "longer", "empty"):
        file.write_bytes({"cut": raw[:-1], "longer": raw + b"\0", "empty": b""}[damage])
    elif damage in ("seal", "content"):
        flip(file, 0 if damage == "seal" else -1)
    elif damage == "link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    elif damage in ("writable", "root"):
        (file if damage == "writable" else cache.root).chmod(0o777)
    elif os.getuid() == 0:
        os.chown(file, NOBODY, NOBODY)
    else:
        pytest.skip("only root can give files away")
    assert cache.read_timing("sm_90", "10.16") is None
    (message,) = caplog.messages
    assert message.startswith(f"{file} is not used, but made anew: ")
    cache.root.chmod(0o700)
    cache.write_timing("sm_90", "10.16", CONTENT)
    assert cache.read_timing("sm_90", "10.16") == CONTENT and len(caplog.messages) == 1


def test_compiled_kernels_count_to_their_plan_and_evict_others(tmp_path: Path) -> None:
    keys, size = filled(tmp_path, 4)
    cache = PlanCache(tmp_path, limit=4 * size)
    assert cache.read_runtime(keys[0], "sm_89") is None
    cache.write_runtime(keys[0], "sm_89", CONTENT)  # its plan was used longest ago, and stays
    assert there(cache) == {"0", "2", "3"} and cache.read_runtime(keys[0], "sm_89") == CONTENT
    with cache.lock(keys[2]):
        cache.write_runtime(keys[0], "sm_120", CONTENT)
    assert there(cache) == {"0", "2"}
    PlanCache(tmp_path, limit=0).write_runtime(keys[2], "sm_89", CONTENT)
    assert there(cache) == {"2"} and hidden(cache) == [".locks"]
    with pytest.raises(OutputError, match=r"runtime\.sm_89: No such file"):  # evicted meanwhile
        cache.write_runtime(keys[0], "sm_89", CONTENT)
    assert there(cache) == {"2"} and hidden(cache) == [".locks"]


@pytest.mark.parametrize("name", ["", "../sm_90", "sm/90", "sm 90", "sm_90\n"])
def test_a_timing_cache_has_a_plain_name(name: str, cache: PlanCache) -> None:
    for names in ((name, "10.16"), ("sm_90", name)):
        with pytest.raises(OptionError, match="names no GPU architecture or TensorRT version"):
            cache.write_timing(*names, b"timing")
        with pytest.raises(OptionError, match="names no GPU architecture or TensorRT version"):
            cache.read_timing(*names)
    assert not cache.root.exists()
