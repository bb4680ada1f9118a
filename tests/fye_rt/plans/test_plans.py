import errno
import functools
import hmac
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fye_rt.errors import BackendError, OptionError, OutputError
from fye_rt.plans import PlanCache
from fye_rt.plans import files as plan_files
from fye_rt.plans import folder as plan_folder
from fye_rt.plans.files import PrivateRoot
from fye_rt.plans.key import PlanKey, profile
from tests.fye_rt.command_line import ROOT

Values = dict[str, Any]

BUILD = "fye build BUNDLE --backend tensorrt"
CONTENT = bytes(range(256)) * 40
NEWER = CONTENT[::-1]
NOBODY = 65534
DAY = 24 * 3600
KEY = PlanKey(
    graph="denoiser",
    sm="sm_90",
    tensorrt="10.16.1.11",
    driver="580.65.06",
    onnx="3f" * 32,
    weights="a7" * 32,
    profile=profile(
        {
            "latents": [(2, 4, 1, 64, 64), (2, 4, 16, 64, 64), (2, 4, 32, 64, 64)],
            "timestep": [(), (), ()],
            "clip_key.0": [(1, 257, 320), (1, 257, 320), (1, 257, 320)],
        }
    ),
    precision="fp16",
    flags=("refit", "opt_level=3"),
)
DEEP: list[Any] = functools.reduce(lambda inner, _: [inner], range(5000), [])
# another value of each field, and what a message says of the two: of the plan that is there, and of the one asked for
OTHERS: dict[str, tuple[Any, str, str]] = {
    "graph": ("guider", "", "no plan of guider"),
    "sm": ("sm_120", "GPU architecture sm_90", "GPU architecture sm_120"),
    "tensorrt": ("11.4.0.106", "TensorRT 10.16.1.11", "TensorRT 11.4.0.106"),
    "driver": ("590.10", "driver 580.65.06", "driver 590.10"),
    "onnx": ("5b" * 32, "ONNX file 3f3f3f3f3f3f", "ONNX file 5b5b5b5b5b5b"),
    "weights": ("", "weights a7a7a7a7a7a7", "weights none"),
    "profile": (
        (("latents", ((2, 4, 1, 8, 8), (2, 4, 2, 8, 8), (2, 4, 3, 8, 8))), *KEY.profile[::2]),
        "shapes latents 2x4x1x64x64 to 2x4x32x64x64, most often 2x4x16x64x64",
        "shapes latents 2x4x1x8x8 to 2x4x3x8x8, most often 2x4x2x8x8",
    ),
    "precision": ("bf16", "precision fp16", "precision bf16"),
    "flags": (("strip_plan", "refit"), "flags opt_level=3 refit", "flags refit strip_plan"),
}


def other(field: str) -> PlanKey:
    return replace(KEY, **{field: OTHERS[field][0]})


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "plans")


@pytest.fixture
def folder(cache: PlanCache) -> Path:
    """The folder of a plan that was published."""
    return cache.publish(KEY, CONTENT, {"seconds": 12.5})


def refusal(cache: PlanCache, key: PlanKey = KEY) -> str:
    with pytest.raises(BackendError) as caught:
        cache.open(key, BUILD)
    message = str(caught.value)
    assert "\n" not in message and BUILD in message and key.graph in message
    return message


def edit(folder: Path, change: Callable[[Values], object], *, sign: bool = True) -> None:
    """Change plan.json; sign it again as the owner of the cache would, as fye_rt.plans.folder describes it."""
    values = json.loads((folder / "plan.json").read_text())
    change(values)
    if sign:
        values.pop("signature")
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        values["signature"] = hmac.new((folder.parent / ".secret").read_bytes(), text.encode(), "sha256").hexdigest()
    (folder / "plan.json").write_text(json.dumps(values))


def flip(file: Path, position: int) -> None:
    raw = bytearray(file.read_bytes())
    raw[position] ^= 1
    file.write_bytes(raw)


def hidden(cache: PlanCache) -> list[str]:
    return sorted(path.name for path in cache.root.iterdir() if path.name.startswith("."))


def used_at(path: Path, age: float) -> None:
    moment = time.time() - age
    os.utime(path, (moment, moment))


class Python:
    """Processes that work on a cache beside this one; each is killed after a minute."""

    prelude = """
import json, os, sys, time
from pathlib import Path
from fye_rt.errors import BackendError
from fye_rt.plans import PlanCache, PlanKey
cache, key, argument = PlanCache(Path(sys.argv[1])), PlanKey.from_json(json.loads(sys.argv[2])), sys.argv[3]
"""

    def __init__(self, cache: PlanCache) -> None:
        self._cache = cache
        self._started: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def __call__(self, script: str, key: PlanKey = KEY, argument: str = "") -> subprocess.Popen[str]:
        given = [str(self._cache.root), json.dumps(key.to_json()), argument]
        command = [sys.executable, "-c", self.prelude + script, *given]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        timer = threading.Timer(60, process.kill)
        timer.start()
        self._started.append((process, timer))
        return process

    def end(self) -> None:
        for process, timer in self._started:
            timer.cancel()
            process.kill()
            with process:  # closes its pipes
                pass


@pytest.fixture
def python(cache: PlanCache) -> Iterator[Python]:
    started = Python(cache)
    yield started
    started.end()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# what is kept


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


def test_publishing_again_replaces_the_plan(cache: PlanCache, folder: Path) -> None:
    cache.publish(KEY, NEWER, {"seconds": 3})
    plan = cache.open(KEY, BUILD)
    assert plan.content == NEWER and plan.facts["seconds"] == 3
    assert hidden(cache) == [".locks", ".secret"]


def test_the_order_of_facts_flags_and_inputs_makes_no_difference(tmp_path: Path) -> None:
    turned = replace(KEY, profile=KEY.profile[::-1], flags=KEY.flags[::-1])
    assert turned == KEY and turned.digest == KEY.digest and hash(turned) == hash(KEY)
    facts = {"created": "then", "a": 1, "b": {"c": 2, "d": 3}}
    backwards = {"b": {"d": 3, "c": 2}, "a": 1, "created": "then"}
    written = []
    for key, noted in ((KEY, facts), (turned, backwards)):
        (tmp_path / ".secret").write_bytes(b"s" * 32)
        (tmp_path / ".secret").chmod(0o600)
        written.append((PlanCache(tmp_path).publish(key, CONTENT, noted) / "plan.json").read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("facts", [{"psnr": float("nan")}, {"engine": object()}, {1: "a", "b": 2}, {"deep": DEEP}])
def test_facts_that_json_cannot_hold_are_refused(facts: Any, cache: PlanCache) -> None:
    with pytest.raises(OptionError, match="facts"):
        cache.publish(KEY, CONTENT, facts)
    assert cache.entries() == [] and hidden(cache) == [".locks", ".secret"]


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


# what is refused


@pytest.mark.parametrize("field", OTHERS)
def test_a_key_that_differs_in_one_field_finds_nothing_and_is_told_which(field: str, cache: PlanCache) -> None:
    cache.publish(KEY, CONTENT, {})
    message = refusal(cache, other(field))
    _, there, here = OTHERS[field]
    assert here in message and there in message
    told = [word for name, (_, word, _) in OTHERS.items() if word and name != field and word.split()[0] in message]
    assert told == []
    assert refusal(cache, other(field)) == cache.missing_message(other(field), BUILD)


def test_every_field_of_a_key_is_tried_by_these_tests() -> None:
    assert list(OTHERS) == [field.name for field in fields(PlanKey)]


def test_the_message_is_about_the_plan_that_differs_least(cache: PlanCache) -> None:
    cache.publish(replace(KEY, sm="sm_80", driver="1", flags=()), CONTENT, {})
    cache.publish(replace(KEY, driver="2", precision="fp32"), CONTENT, {})
    cache.publish(replace(KEY, graph="guider"), CONTENT, {})
    message = refusal(cache)
    assert "there is one for driver 2, precision fp32; this is driver 580.65.06, precision fp16" in message


def test_shapes_of_more_or_fewer_inputs_are_told(cache: PlanCache) -> None:
    cache.publish(replace(KEY, profile=KEY.profile[:1]), CONTENT, {})
    message = refusal(cache)
    assert "shapes fewer inputs" in message and "and 1 more inputs" in message


def test_where_nothing_was_kept_nothing_is_made(cache: PlanCache) -> None:
    assert "has no plan of denoiser" in refusal(cache)
    assert cache.entries() == [] and cache.read_timing("sm_90", "10.16") is None
    assert not cache.root.exists()


@pytest.mark.parametrize("position", [0, 5000, -1])
def test_a_plan_with_one_changed_bit_is_refused(position: int, cache: PlanCache, folder: Path) -> None:
    flip(folder / "plan.trt", position)
    message = refusal(cache)
    assert "plan.trt differs from its hash" in message and str(folder) in message
    assert message.endswith(f"build it again with: {BUILD} --rebuild")  # nothing is said of trusting it


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


def test_plans_whose_contents_were_swapped_are_refused(cache: PlanCache, folder: Path) -> None:
    second = cache.publish(other("sm"), NEWER, {})
    shutil.copy(second / "plan.trt", folder / "plan.trt")
    assert "differs from its hash" in refusal(cache)


@pytest.mark.parametrize(
    ("name", "value"), [("format", "fye-bundle"), ("version", 2), ("version", "1"), ("version", [1] * 1000)]
)
def test_another_format_or_version_is_refused(name: str, value: object, cache: PlanCache, folder: Path) -> None:
    edit(folder, lambda values: values.update({name: value}))
    assert ("does not describe a fye-plan" if name == "format" else "format version") in (message := refusal(cache))
    assert len(message) < 600


def test_a_plan_that_was_signed_with_another_secret_is_refused(cache: PlanCache, tmp_path: Path) -> None:
    theirs = PlanCache(tmp_path / "theirs")
    folder = theirs.publish(KEY, CONTENT, {})
    cache.publish(other("sm"), CONTENT, {})
    shutil.copytree(folder, cache.root / KEY.digest)
    message = refusal(cache)
    assert "was not built here" in message
    assert f"if you trust it: fye build --trust {cache.root / KEY.digest}" in message
    (cache.root / ".secret").unlink()
    assert "was not built here" in refusal(cache)  # no secret is no reason to accept any signature


def test_without_a_secret_a_signature_that_needs_none_is_refused(cache: PlanCache, folder: Path) -> None:
    (cache.root / ".secret").write_bytes(b"")
    edit(folder, lambda values: None)
    (cache.root / ".secret").unlink()
    assert "was not built here" in refusal(cache)


@pytest.mark.parametrize("name", ["facts", "key", "bytes", "sha256", "more"])
def test_a_manifest_that_was_changed_without_signing_it_is_refused(name: str, cache: PlanCache, folder: Path) -> None:
    changed = {"facts": {}, "key": other("sm").to_json(), "bytes": 3, "sha256": "0" * 64, "more": 1}
    edit(folder, lambda values: values.update({name: changed[name]}), sign=False)
    assert "was not built here, or was changed" in refusal(cache)


def test_a_manifest_that_was_signed_again_is_as_good_as_new(cache: PlanCache, folder: Path) -> None:
    edit(folder, lambda values: values["facts"].update(seconds=13))
    assert cache.open(KEY, BUILD).facts["seconds"] == 13


DAMAGE: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"format": "fye-plan", "version": 1',
    "no object": b"[1]",
    "no text": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "large": b" " * (5 << 20) + b"{}",
    "no signature": b'{"format": "fye-plan", "version": 1}',
    "not a number": b'{"format": "fye-plan", "version": 1, "signature": "", "key": NaN}',
    "foreign letters": '{"format": "fye-plan", "version": 1, "signature": "é"}'.encode(),
    "half a letter": b'{"format": "fye-plan", "version": 1, "signature": "\\ud800"}',
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
        nested = '{"format": "fye-plan", "version": 1, "signature": "", "key": ' + "[" * depth + "]" * depth + "}"
        (folder / "plan.json").write_text(nested)
        refusal(cache)


def misshape(key: Values) -> None:
    key["profile"]["latents"] = [[1], [2]]


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
    "two shapes": lambda values: misshape(values["key"]),
    "flags not in order": lambda values: values["key"]["flags"].reverse(),
    "control characters": lambda values: values["key"].update(graph="\x1b[2Jdenoiser"),
    "infinite size": lambda values: values.update(bytes=float("inf")),
    "infinite shape": lambda values: values["key"]["profile"].update(latents=[[1], [1], [float("inf")]]),
    "not a number": lambda values: values["facts"].update(psnr=float("nan")),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_signed_manifest_that_makes_no_sense_is_refused(name: str, cache: PlanCache, folder: Path) -> None:
    edit(folder, BREAKS[name])
    assert "plan.json is damaged" in refusal(cache)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_one_changed_byte_of_the_manifest_is_refused_or_changes_nothing(data: st.DataObject, cache: PlanCache) -> None:
    folder = cache.root / KEY.digest
    if not folder.exists():
        cache.publish(KEY, CONTENT, {"created": "then"})
    raw = bytearray((folder / "plan.json").read_bytes())
    position, bits = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(1, 255))
    raw[position] ^= bits
    (folder / "plan.json").write_bytes(raw)
    try:
        plan = cache.open(KEY, BUILD)
        assert plan.key == KEY and plan.facts == {"created": "then"}  # it was white space
    except BackendError as error:
        assert "plan.json" in str(error) or "was changed" in str(error) or "format version" in str(error)
    finally:
        raw[position] ^= bits
        (folder / "plan.json").write_bytes(raw)


PRIVATE = ["", "DIGEST", "DIGEST/plan.trt", "DIGEST/plan.json", ".secret"]


def private(cache: PlanCache, name: str) -> Path:
    return cache.root / name.replace("DIGEST", KEY.digest)


@pytest.mark.parametrize("name", PRIVATE)
@pytest.mark.parametrize("bits", [0o020, 0o002])
def test_what_others_can_write_to_is_refused(name: str, bits: int, cache: PlanCache, folder: Path) -> None:
    path = private(cache, name)
    path.chmod(path.stat().st_mode | bits)
    message = refusal(cache)
    assert f"{path.name} can be written by others" in message
    path.chmod(path.stat().st_mode & ~bits)
    cache.open(KEY, BUILD)


@pytest.mark.parametrize("name", PRIVATE)
def test_what_belongs_to_another_user_is_refused(name: str, cache: PlanCache, folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    path = private(cache, name)
    os.chown(path, NOBODY, NOBODY)
    assert f"{path.name} belongs to another user (65534)" in refusal(cache)
    os.chown(path, 0, NOBODY)  # a group that may not write makes no difference
    cache.open(KEY, BUILD)


def test_what_belongs_to_root_is_refused_to_anybody_else(
    monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path
) -> None:
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert f"belongs to another user ({owner})" in refusal(cache)


def test_what_others_can_only_read_is_accepted_but_for_the_secret(cache: PlanCache, folder: Path) -> None:
    for path in (cache.root, folder, folder / "plan.trt", folder / "plan.json"):
        path.chmod(0o755)
    cache.open(KEY, BUILD)
    (cache.root / ".secret").chmod(0o644)
    assert ".secret can be read by others" in refusal(cache)


@pytest.mark.parametrize("secret", [b"", b"x" * 31, b"x" * 33])
def test_a_damaged_secret_signs_nothing(secret: bytes, cache: PlanCache, folder: Path) -> None:
    (cache.root / ".secret").write_bytes(secret)
    assert ".secret is damaged" in refusal(cache)
    with pytest.raises(BackendError, match="secret is damaged"):
        cache.publish(KEY, CONTENT, {})


@pytest.mark.parametrize("name", ["DIGEST", "DIGEST/plan.trt", "DIGEST/plan.json", ".secret"])
def test_a_symbolic_link_is_refused(name: str, cache: PlanCache, folder: Path, tmp_path: Path) -> None:
    path = private(cache, name)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert f"{path.name} is a symbolic link" in refusal(cache)
    if name == "DIGEST":
        cache.publish(KEY, NEWER, {})
        assert cache.open(KEY, BUILD).content == NEWER
        assert (tmp_path / "elsewhere" / "plan.trt").read_bytes() == CONTENT


def test_a_lock_is_not_taken_through_a_symbolic_link(cache: PlanCache, folder: Path, tmp_path: Path) -> None:
    (cache.root / ".locks" / KEY.digest).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="symbolic link"), cache.lock(KEY):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_the_root_itself_may_be_reached_through_a_link(cache: PlanCache, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(cache.root)
    assert PlanCache(tmp_path / "link").open(KEY, BUILD).content == CONTENT


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
@pytest.mark.parametrize("name", ["plan.trt", "plan.json"])
def test_what_is_not_a_file_is_refused_at_once(
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


def test_nothing_is_written_where_others_can_write(cache: PlanCache, folder: Path) -> None:
    cache.root.chmod(0o777)
    before = sorted(cache.root.rglob("*"))
    for write in (
        lambda: cache.publish(other("sm"), CONTENT, {}),
        lambda: cache.trust(folder),
        lambda: cache.lock(KEY).__enter__(),
        lambda: cache.prune(lambda _: False),
        lambda: cache.write_timing("sm_90", "10", b"timing"),
    ):
        with pytest.raises(BackendError, match="can be written by others"):
            write()
    assert sorted(cache.root.rglob("*")) == before


def test_nobody_reads_a_plan_before_its_hash_was_compared(
    monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path
) -> None:
    reads: list[str] = []

    def opened(name: str, within: int, *, mine: bool = True) -> BinaryIO:
        reads.append(name)
        return plan_files.opened_file(name, within, mine=mine)

    monkeypatch.setattr(plan_folder, "opened_file", opened)
    assert cache.open(KEY, BUILD).content == CONTENT
    assert reads == ["plan.json", "plan.trt"]  # each once: what was hashed is what was returned


def test_nothing_stays_open(cache: PlanCache, folder: Path) -> None:
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


# last use


def test_opening_a_plan_is_remembered(cache: PlanCache, folder: Path) -> None:
    used_at(folder / "plan.json", 3 * DAY)
    (before,) = cache.entries()
    cache.open(KEY, BUILD)
    (after,) = cache.entries(verify=True)
    assert time.time() - before.used > 2 * DAY and abs(time.time() - after.used) < 60


def test_a_disk_that_cannot_be_written_still_gives_its_plans(
    monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "utime", refuse)
    assert cache.open(KEY, BUILD).content == CONTENT


def test_a_user_who_may_not_write_gets_one_clear_line_and_may_still_read() -> None:
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


def test_a_full_disk_leaves_the_older_plan_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        cache.publish(KEY, NEWER, {})
    with pytest.raises(OutputError, match="No space left on device"):
        cache.write_timing("sm_90", "10.16", b"timing")
    assert cache.open(KEY, BUILD).content == CONTENT
    assert hidden(cache) == [".locks", ".secret"]


def test_an_older_plan_that_cannot_be_moved_stays_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path
) -> None:
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path == folder:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OutputError, match="Operation not permitted"):
        cache.publish(KEY, NEWER, {})
    assert cache.prune(lambda _: False).removed == ()
    assert cache.open(KEY, BUILD).content == CONTENT
    assert hidden(cache) == [".locks", ".secret"]


# several at once


def test_a_plan_goes_at_once_before_its_files_do(
    monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path
) -> None:
    remove, seen = shutil.rmtree, list[bool]()

    def watched(path: Path, ignore_errors: bool = False) -> None:
        seen.append(folder.exists())
        remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", watched)
    assert cache.prune(lambda _: False).removed == (folder,)
    assert seen and not any(seen)
    assert cache.entries() == []


def test_a_plan_that_is_replaced_while_it_is_opened_comes_whole(
    monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path
) -> None:
    replaced: list[str] = []

    def opened(name: str, within: int, *, mine: bool = True) -> BinaryIO:
        if name == "plan.trt" and not replaced:  # plan.json is open by now
            replaced.append(name)
            cache.publish(KEY, NEWER, {"seconds": 3})
        return plan_files.opened_file(name, within, mine=mine)

    monkeypatch.setattr(plan_folder, "opened_file", opened)
    plan = cache.open(KEY, BUILD)
    assert plan.content == NEWER and plan.facts["seconds"] == 3 and replaced


@pytest.mark.parametrize("late", [True, False])
def test_a_plan_that_is_evicted_while_it_is_opened_comes_whole_or_is_not_there(
    late: bool, monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path
) -> None:
    def opened(name: str, within: int, *, mine: bool = True) -> BinaryIO:
        file = plan_files.opened_file(name, within, mine=mine)
        if name == ("plan.trt" if late else "plan.json"):
            shutil.rmtree(folder)
        return file

    monkeypatch.setattr(plan_folder, "opened_file", opened)
    if late:
        assert cache.open(KEY, BUILD).content == CONTENT
    else:
        assert "has no plan of denoiser" in refusal(cache)


def test_a_plan_that_goes_while_all_are_listed_is_left_out(
    monkeypatch: pytest.MonkeyPatch, cache: PlanCache, folder: Path
) -> None:
    def opened(name: str, within: int, *, mine: bool = True) -> BinaryIO:
        shutil.rmtree(folder)
        return plan_files.opened_file(name, within, mine=mine)

    monkeypatch.setattr(plan_folder, "opened_file", opened)
    assert cache.entries() == []


@pytest.mark.parametrize("work", ["publish", "prune"])
def test_only_one_at_a_time_moves_folders(work: str, python: Python, cache: PlanCache, folder: Path) -> None:
    scripts = {"publish": "cache.publish(key, b'newer', {})", "prune": "cache.prune(lambda _: False)"}
    with PrivateRoot(cache.root, "").alone():
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
    assert len(cache.entries()) == 1 and hidden(cache) == [".locks", ".secret"]


def test_all_who_come_first_at_once_get_the_same_secret(python: Python, cache: PlanCache) -> None:
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


def test_of_two_builders_one_builds_and_the_other_finds_the_plan(python: Python, cache: PlanCache) -> None:
    first = python(BUILDER)
    assert line(first) == "building"
    second = python(BUILDER)
    assert line(second) == WAITING
    first_said, _ = first.communicate("\n")
    second_said, _ = second.communicate("\n")
    assert first_said.split() == ["built"]
    assert second_said.split() == ["found"]  # and nothing was told twice
    assert cache.open(KEY, BUILD).content == b"plan"


def test_a_builder_that_is_killed_lets_go(python: Python) -> None:
    first = python(BUILDER)
    assert line(first) == "building"
    second = python(BUILDER)
    assert line(second) == WAITING
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert line(second) == "building"
    said, _ = second.communicate("\n")
    assert said.split() == ["built"]


def test_a_lock_is_free_again_after_an_error_and_where_a_child_process_lives_on(cache: PlanCache) -> None:
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
            with pytest.raises(LookupError), cache.lock(KEY, tell):
                pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert told == [WAITING]


# how much is kept


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


def test_over_the_limit_the_plans_used_longest_ago_go(tmp_path: Path) -> None:
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
    assert hidden(cache) == [".locks", ".secret"]


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


def test_entries_say_what_is_there_and_what_is_wrong_with_it(tmp_path: Path) -> None:
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


def test_pruning_removes_what_is_not_kept_not_usable_or_left_over(tmp_path: Path) -> None:
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
    assert {path.name for path in pruned.removed} == gone and len(pruned.removed) == 5
    assert set(tmp_path.iterdir()) == others - {tmp_path / name for name in gone}
    assert pruned.freed == 2 * size + len(CONTENT) + 5 + 3
    assert there(cache) == {"1", "3"}


def test_what_is_left_over_and_cannot_be_removed_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    left = tmp_path / f".timing.sm_90.10.16.{'old':_<8}"
    left.write_bytes(b"123")
    used_at(left, 2 * DAY)

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == left:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    cache = PlanCache(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        assert cache.prune(lambda _: True).removed == ()
    assert cache.prune(lambda _: True).removed == (left,)


def test_pruning_to_a_limit_keeps_what_was_used_last(tmp_path: Path) -> None:
    keys, size = filled(tmp_path, 5)
    cache = PlanCache(tmp_path)
    with cache.lock(keys[0]):
        pruned = cache.prune(lambda _: True, limit=2 * size)
    assert there(cache) == {"0", "4"} and pruned.freed == 3 * size
    assert [path.name for path in pruned.removed] == [key.digest for key in keys[1:4]]
    assert cache.prune(lambda _: True).removed == ()


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


# plans of somebody else


def test_a_plan_that_is_trusted_is_this_users_own(cache: PlanCache, tmp_path: Path) -> None:
    theirs = PlanCache(tmp_path / "theirs").publish(KEY, CONTENT, {"created": "then", "seconds": 9})
    for path in (theirs, *theirs.iterdir()):
        path.chmod(0o777)  # what came from elsewhere may be anybody's
        if os.getuid() == 0:
            os.chown(path, NOBODY, NOBODY)
    before = {path.name: path.read_bytes() for path in theirs.iterdir()}
    assert cache.trust(theirs) == KEY
    plan = cache.open(KEY, BUILD)
    assert plan.content == CONTENT and plan.facts == {"created": "then", "seconds": 9}
    assert {path.name: path.read_bytes() for path in theirs.iterdir()} == before


def test_a_plan_can_be_trusted_where_it_lies(cache: PlanCache, folder: Path) -> None:
    (cache.root / ".secret").unlink()
    cache.publish(other("sm"), CONTENT, {})
    assert "was not built here" in refusal(cache)
    cache.trust(folder)
    assert cache.open(KEY, BUILD).facts["seconds"] == 12.5


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: flip(folder / "plan.trt", 3), "differs from its hash"),
        (lambda folder: (folder / "plan.trt").write_bytes(CONTENT[:9]), "has 9 bytes"),
        (lambda folder: (folder / "plan.trt").unlink(), "there is no plan.trt"),
        (lambda folder: (folder / "plan.json").write_bytes(b"{"), "is not JSON"),
        *((lambda folder, change=change: edit(folder, change), "is damaged") for change in BREAKS.values()),
        (lambda folder: shutil.rmtree(folder), "holds no plan"),
    ],
)
def test_a_damaged_plan_cannot_be_trusted(
    damage: Callable[[Path], object], reason: str, cache: PlanCache, tmp_path: Path
) -> None:
    theirs = PlanCache(tmp_path / "theirs").publish(KEY, CONTENT, {})
    damage(theirs)
    with pytest.raises(BackendError, match=reason) as caught:
        cache.trust(theirs)
    assert str(theirs) in str(caught.value) and "\n" not in str(caught.value)
    assert cache.entries() == []


# timing caches


def test_timing_caches_come_back_by_architecture_and_version(cache: PlanCache) -> None:
    cache.write_timing("sm_90", "10.16.1.11", b"first")
    cache.write_timing("sm_90", "10.16.1.11", memoryview(CONTENT))
    cache.write_timing("sm_120", "10.16.1.11", b"")
    assert cache.read_timing("sm_90", "10.16.1.11") == CONTENT
    assert cache.read_timing("sm_120", "10.16.1.11") == b""
    assert cache.read_timing("sm_90", "11.4.0.106") is None
    assert cache.entries() == [] and hidden(cache) == [".locks", ".secret"]


@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "seal", "content", "writable", "root", "link", "theirs"])
def test_a_damaged_timing_cache_counts_as_absent(damage: str, cache: PlanCache, tmp_path: Path) -> None:
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
    cache.root.chmod(0o700)
    cache.write_timing("sm_90", "10.16", CONTENT)
    assert cache.read_timing("sm_90", "10.16") == CONTENT


@pytest.mark.parametrize("name", ["", "../sm_90", "sm/90", "sm 90", "sm_90\n"])
def test_a_timing_cache_has_a_plain_name(name: str, cache: PlanCache) -> None:
    for names in ((name, "10.16"), ("sm_90", name)):
        with pytest.raises(OptionError):
            cache.write_timing(*names, b"timing")
        with pytest.raises(OptionError):
            cache.read_timing(*names)
    assert not cache.root.exists()


# keys


def test_what_is_no_key_is_no_key() -> None:
    damaged: list[Any] = [None, [], {}, {**KEY.to_json(), "profile": {"latents": [[1], [1], [float("inf")]]}}]
    for values in damaged:
        with pytest.raises(ValueError, match="not a plan's key"):
            PlanKey.from_json(values)


texts = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), max_size=5)
lengths = st.lists(st.integers(0, 9), max_size=3).map(tuple)
keys = st.builds(
    PlanKey,
    texts,
    *[texts] * 5,
    st.dictionaries(texts, st.tuples(lengths, lengths, lengths), max_size=3).map(profile),
    texts,
    st.lists(texts, max_size=3).map(tuple),
)


@settings(max_examples=50, deadline=None)
@given(keys)
def test_a_key_survives_json(key: PlanKey) -> None:
    read = PlanKey.from_json(json.loads(json.dumps(key.to_json())))
    assert read == key and read.digest == key.digest and hash(read) == hash(key)


@settings(max_examples=50, deadline=None)
@given(keys, keys, st.sampled_from(list(OTHERS)))
def test_different_keys_have_different_digests(first: PlanKey, second: PlanKey, field: str) -> None:
    close = replace(first, **{field: getattr(second, field)})
    for one, two in ((first, second), (first, close)):
        assert (one.digest == two.digest) == (one == two)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"graph": "den\noiser"}, "control characters"),
        ({"flags": ("refit\x1b",)}, "control characters"),
        ({"profile": (("x", ((1,), (1,))),)}, "x has 2 shapes"),
        ({"profile": (("x", ((1,), (1,), (1,))), ("x", ((2,), (2,), (2,))))}, "named twice"),
    ],
)
def test_a_key_that_cannot_be_told_in_a_line_or_makes_no_profile_is_refused(change: Any, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        replace(KEY, **change)
