"""A plan is read only if nobody but this user can have written it, and its bytes are those that were written."""

import functools
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fye_rt.errors import BackendError, OptionError, OutputError
from fye_rt.plans import PlanCache
from fye_rt.plans import folder as plan_folder
from fye_rt.plans.folder import open_file
from tests.fye_rt.faults import flip
from tests.fye_rt.plans.conftest import Python, line
from tests.fye_rt.plans.sample import (
    BUILD,
    CONTENT,
    DAY,
    KEY,
    NEWER,
    NOBODY,
    Values,
    edit,
    hidden,
    other,
    refusal,
    used_at,
)

DEEP: list[Any] = functools.reduce(lambda inner, _: [inner], range(5000), [])


@pytest.mark.parametrize("facts", [{"psnr": float("nan")}, {"engine": object()}, {1: "a", "b": 2}, {"deep": DEEP}])
def test_facts_that_json_cannot_hold_are_refused(facts: Any, cache: PlanCache) -> None:
    with pytest.raises(OptionError, match="facts"):
        cache.publish(KEY, CONTENT, facts)
    assert cache.entries() == [] and hidden(cache) == [".locks"]


@pytest.mark.parametrize("position", [0, 5000, -1])
def test_a_plan_with_one_changed_bit_is_refused(position: int, cache: PlanCache, folder: Path) -> None:
    flip(folder / "plan.trt", position)
    message = refusal(cache)
    assert "plan.trt differs from its hash" in message and str(folder) in message
    assert message.endswith(f"build it again with: {BUILD} --rebuild")


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"\0", b""])
def test_a_plan_of_another_length_is_refused(content: bytes, cache: PlanCache, folder: Path) -> None:
    (folder / "plan.trt").write_bytes(content)
    assert f"plan.trt has {len(content)} bytes, not {len(CONTENT)}" in refusal(cache)


@pytest.mark.parametrize("name", ["plan.trt", "plan.json"])
def test_a_plan_without_one_of_its_files_is_refused(name: str, cache: PlanCache, folder: Path) -> None:
    (folder / name).unlink()
    assert f"{name} is missing" in refusal(cache)


def test_plans_whose_folders_were_swapped_are_refused(cache: PlanCache, folder: Path) -> None:
    second = cache.publish(other("sm"), NEWER, {})
    folder.rename(cache.root / "aside")
    second.rename(folder)
    (cache.root / "aside").rename(second)
    for key in (KEY, other("sm")):
        assert "the folder was renamed; it holds another plan" in refusal(cache, key)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("format", "fye-bundle", "does not describe a fye-plan"),
        *(("version", value, "format version") for value in (2, "1", [1] * 1000)),
        ("key", other("sm").to_json(), "the folder was renamed; it holds another plan"),
        ("bytes", 3, f"plan.trt has {len(CONTENT)} bytes, not 3"),
        ("sha256", "0" * 64, "plan.trt differs from its hash in plan.json"),
    ],
)
def test_a_foreign_manifest_is_refused(name: str, value: object, reason: str, cache: PlanCache, folder: Path) -> None:
    edit(folder, lambda values: values.update({name: value}))
    message = refusal(cache)
    assert reason in message
    assert len(message) < 600


def test_a_plan_with_an_old_signature_is_read(cache: PlanCache, folder: Path) -> None:
    (cache.root / ".secret").write_bytes(b"s" * 32)
    edit(folder, lambda values: values.update(signature="5e" * 32))
    assert cache.open(KEY, BUILD).facts["seconds"] == 12.5
    used_at(cache.root / ".secret", 2 * DAY)
    assert [entry.path.name for entry in cache.prune(lambda _: True)] == [".secret"]
    assert cache.open(KEY, BUILD).content == CONTENT


def test_a_copied_plan_is_read_unless_others_can_write_to_it(cache: PlanCache, tmp_path: Path) -> None:
    theirs = PlanCache(tmp_path / "theirs").publish(KEY, CONTENT, {"created": "then"})
    for path in (theirs, *theirs.iterdir()):
        path.chmod(0o777)
    cache.publish(other("sm"), NEWER, {})
    shutil.copytree(theirs, cache.root / KEY.digest)
    assert "can be written by others" in refusal(cache)
    for path in (cache.root, cache.root / KEY.digest, *(cache.root / KEY.digest).iterdir()):
        path.chmod(0o755)
    assert cache.open(KEY, BUILD).content == CONTENT


DAMAGE: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"format": "fye-plan", "version": 1',
    "no object": b"[1]",
    "no text": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "large": b" " * (5 << 20) + b"{}",
    "nothing else": b'{"format": "fye-plan", "version": 1}',
    "not a number": b'{"format": "fye-plan", "version": 1, "key": NaN}',
    "half a letter": b'{"format": "fye-plan", "version": 1, "key": "\\ud800"}',
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_manifest_is_refused(damage: str, cache: PlanCache, folder: Path) -> None:
    (folder / "plan.json").write_bytes(DAMAGE[damage])
    message = refusal(cache)
    assert "plan.json" in message
    assert ("is over 4 MB" in message) == (damage == "large")
    (entry,) = cache.entries()
    assert entry.reason in message


def test_a_manifest_that_would_fill_the_memory_is_not_read(cache: PlanCache, folder: Path) -> None:
    os.truncate(folder / "plan.json", 1 << 40)  # of which the disk holds nothing
    assert "plan.json is over 4 MB" in refusal(cache)


def test_a_manifest_nested_however_deep_is_refused(cache: PlanCache, folder: Path) -> None:
    limit = sys.getrecursionlimit()
    for depth in range(limit - 300, limit):  # near the limit, what can be read can no longer be written
        nested = '{"format": "fye-plan", "version": 1, "key": ' + "[" * depth + "]" * depth + "}"
        (folder / "plan.json").write_text(nested)
        refusal(cache)


BREAKS: dict[str, Callable[[Values], object]] = {
    "no key": lambda values: values.pop("key"),
    "no size": lambda values: values.pop("bytes"),
    "no hash": lambda values: values.pop("sha256"),
    "no facts": lambda values: values.pop("facts"),
    "size in words": lambda values: values.update(bytes="many"),
    "key in words": lambda values: values.update(key="denoiser"),
    "number for a name": lambda values: values["key"].update(graph=7),
    "key with more": lambda values: values["key"].update(gpu=1),
    "key with less": lambda values: values["key"].pop("driver"),
    "two shapes": lambda values: values["key"]["profile"].update(latents=[[1], [2]]),
    "flags not in order": lambda values: values["key"]["flags"].reverse(),
    "control characters": lambda values: values["key"].update(graph="\x1b[2Jdenoiser"),
    "infinite size": lambda values: values.update(bytes=float("inf")),
    "infinite shape": lambda values: values["key"]["profile"].update(latents=[[1], [1], [float("inf")]]),
    "not a number": lambda values: values["facts"].update(psnr=float("nan")),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_manifest_that_makes_no_sense_is_refused(name: str, cache: PlanCache, folder: Path) -> None:
    edit(folder, BREAKS[name])
    assert "plan.json is damaged" in refusal(cache)


@given(data=st.data())
def test_a_changed_byte_of_the_manifest_changes_facts_at_most(data: st.DataObject, cache: PlanCache) -> None:
    folder = cache.root / KEY.digest
    if not folder.exists():
        cache.publish(KEY, CONTENT, {"created": "then"})
    raw = bytearray((folder / "plan.json").read_bytes())
    position, bits = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(1, 255))
    raw[position] ^= bits
    (folder / "plan.json").write_bytes(raw)
    try:
        plan = cache.open(KEY, BUILD)
        assert plan.key == KEY and plan.content == CONTENT  # it was white space, or a fact
    except BackendError as error:
        assert any(part in str(error) for part in ("plan.json", "plan.trt has", "format version", "renamed"))
    finally:
        raw[position] ^= bits
        (folder / "plan.json").write_bytes(raw)


PRIVATE = ["", "DIGEST", "DIGEST/plan.trt", "DIGEST/plan.json"]


def private(cache: PlanCache, name: str) -> Path:
    return cache.root / name.replace("DIGEST", KEY.digest)


@pytest.mark.parametrize("name", PRIVATE)
@pytest.mark.parametrize("bits", [0o020, 0o002])
def test_a_path_that_others_can_write_to_is_refused(name: str, bits: int, cache: PlanCache, folder: Path) -> None:
    path = private(cache, name)
    path.chmod(path.stat().st_mode | bits)
    message = refusal(cache)
    assert f"{path.name} can be written by others" in message
    path.chmod(path.stat().st_mode & ~bits)
    cache.open(KEY, BUILD)


@pytest.mark.parametrize("name", PRIVATE)
def test_a_path_of_another_user_is_refused(name: str, cache: PlanCache, folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    path = private(cache, name)
    os.chown(path, NOBODY, NOBODY)
    assert f"{path.name} belongs to another user (65534)" in refusal(cache)
    os.chown(path, 0, NOBODY)  # a group that may not write makes no difference
    cache.open(KEY, BUILD)


def test_a_plan_of_root_is_refused_to_others(monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path) -> None:
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert f"belongs to another user ({owner})" in refusal(cache)


@pytest.mark.parametrize("name", ["DIGEST", "DIGEST/plan.trt", "DIGEST/plan.json"])
def test_a_symbolic_link_is_refused(name: str, cache: PlanCache, folder: Path, tmp_path: Path) -> None:
    path = private(cache, name)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert f"{path.name} is a symbolic link" in refusal(cache)
    if name == "DIGEST":
        cache.publish(KEY, NEWER, {})
        assert cache.open(KEY, BUILD).content == NEWER
        assert (tmp_path / "elsewhere" / "plan.trt").read_bytes() == CONTENT


def test_the_root_itself_may_be_reached_through_a_link(cache: PlanCache, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(cache.root)
    assert PlanCache(tmp_path / "link").open(KEY, BUILD).content == CONTENT


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
@pytest.mark.parametrize("name", ["plan.trt", "plan.json"])
def test_a_pipe_or_folder_for_a_file_is_refused_at_once(
    make: Callable[[Path], None], name: str, cache: PlanCache, folder: Path, python: Python
) -> None:
    (folder / name).unlink()
    make(folder / name)
    (folder / name).chmod(0o700)
    process = python("cache.entries()\nprint('done', flush=True)")  # who opens a pipe may wait for ever
    timer = threading.Timer(10, process.kill)
    timer.start()
    assert line(process) == "done"
    timer.cancel()
    assert f"{name} is not a file" in refusal(cache)


def test_a_file_in_place_of_a_folder_is_refused(cache: PlanCache, folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder)
    folder.touch(0o600)
    assert f"{folder.name} is a symbolic link or a file, not a folder" in refusal(cache)
    (tmp_path / "file").touch(0o600)
    nowhere = PlanCache(tmp_path / "file")
    assert f"{nowhere.root} is a symbolic link or a file, not a folder" in refusal(nowhere)
    with pytest.raises(BackendError, match="cannot read"):
        nowhere.entries()
    with pytest.raises(OutputError, match="FYE_PLANS"):
        nowhere.publish(KEY, CONTENT, {})


def test_a_plan_is_read_once_and_hashed(monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path) -> None:
    reads: list[str] = []

    def opened(path: Path) -> BinaryIO:
        reads.append(path.name)
        return open_file(path)

    monkeypatch.setattr(plan_folder, "open_file", opened)
    assert cache.open(KEY, BUILD).content == CONTENT
    assert reads == ["plan.json", "plan.trt"]  # each once: what was hashed is what was returned


def test_no_file_stays_open(cache: PlanCache, folder: Path) -> None:
    def descriptors() -> list[str]:
        return sorted(os.listdir("/proc/self/fd"))

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    before = descriptors()
    cache.open(KEY, BUILD)
    with cache.lock(other("sm")):
        pass
    for path in (folder / "plan.trt", folder / "plan.json", folder, cache.root):
        path.chmod(0o722)
        refusal(cache)
        path.chmod(0o700)
    (folder / "plan.trt").unlink()
    (folder / "plan.trt").mkdir()
    refusal(cache)
    assert descriptors() == before
