"""One TensorRT plan in its folder, and the check that no other user can have written it. POSIX only.

plan.trt    the serialized engine
plan.json   format and version, key, size and SHA-256 of plan.trt, and facts
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from fye_rt.errors import OptionError
from fye_rt.files import atomic_file
from fye_rt.plans.key import PlanKey, canonical

FORMAT = "fye-plan"
VERSION = 1
PLAN, MANIFEST = "plan.trt", "plan.json"
_MAX_MANIFEST = 4 << 20
_SEAL = hashlib.sha256().digest_size

Content = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A plan that has passed all checks.

    Attributes:
        key: what the plan was built for.
        content: the serialized engine; these very bytes were checked.
        facts: facts recorded by the builder; `created` is the time in UTC.
    """

    key: PlanKey
    content: bytes
    facts: Mapping[str, Any]


class Unusable(Exception):
    """A file or folder that must not be used; its message names the file and what is wrong."""


def check_folder(path: Path, *, follow: bool = False) -> os.stat_result:
    """Refuse a folder that another user can have written to.

    Args:
        path: the folder.
        follow: whether `path` may be a symbolic link.

    Raises:
        FileNotFoundError: `path` does not exist.
        Unusable: `path` is not a folder, cannot be read, or is not private.
    """
    if not hasattr(os, "getuid"):
        raise Unusable(f"{path} cannot be protected from other users on this system; use Linux or a POSIX system")
    try:
        state = path.stat() if follow else path.lstat()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from error
    name = path if follow else path.name
    if not stat.S_ISDIR(state.st_mode):
        raise Unusable(f"{name} is a symbolic link or a file, not a folder")
    _check_owner(name, state)
    return state


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading, unless another user can have written it.

    Raises:
        OSError: the file is missing or cannot be read.
        Unusable: `path` is not a regular file, or not private.
    """
    if path.is_symlink():
        raise Unusable(f"{path.name} is a symbolic link")
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # never wait for a pipe
    try:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            raise Unusable(f"{path.name} is not a file")
        _check_owner(path.name, state)
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def write(folder: Path, key: PlanKey, content: Content, facts: Mapping[str, Any]) -> None:
    """Write a plan and its manifest to an empty folder.

    Args:
        folder: the folder.
        key: what the plan was built for.
        content: the serialized engine.
        facts: JSON values; `created` is added if it is missing.

    Raises:
        OptionError: JSON cannot hold the facts.
        OutputError: the disk is full, or permission is missing.
    """
    created = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        recorded = json.loads(canonical({"created": created, **facts}))
    except (RecursionError, TypeError, ValueError) as error:
        raise OptionError(f"facts: JSON cannot hold them ({error})") from error
    view = memoryview(content).cast("B")
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "key": key.to_json(),
        "bytes": view.nbytes,
        "sha256": hashlib.sha256(view).hexdigest(),
        "facts": recorded,
    }
    for name, data in ((PLAN, view), (MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())):
        with atomic_file(folder / name, mode=0o600) as hidden:
            hidden.write_bytes(data)


def read(folder: Path, *, whole: bool = True) -> Plan:
    """Read and check a plan.

    Args:
        folder: the plan's folder; the caller checks it with `check_folder`.
        whole: read the content and compare its hash; otherwise the content is left empty.

    Raises:
        OSError: a file is missing or cannot be read; `filename` says which.
        Unusable: a file is damaged, not private, or of another format.
    """
    with open_file(folder / MANIFEST) as manifest, open_file(folder / PLAN) as plan:
        values = _parsed(manifest.read(_MAX_MANIFEST + 1))
        try:
            canonical(values["facts"])
            key, facts = PlanKey.from_json(values["key"]), MappingProxyType(dict(values["facts"]))
            size, sha256 = int(values["bytes"]), str(values["sha256"])
        except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise Unusable(f"{MANIFEST} is damaged ({error!r:.200})") from error
        length = os.fstat(plan.fileno()).st_size
        if length != size:
            raise Unusable(f"{PLAN} has {length} bytes, not {size}")
        content = plan.read() if whole else b""
        if whole and hashlib.sha256(content).hexdigest() != sha256:
            raise Unusable(f"{PLAN} differs from its hash in {MANIFEST}")
        return Plan(key, content, facts)


def write_sealed(file: Path, content: Content) -> None:
    """Write a file whose damage `read_sealed` notices; raises OSError or OutputError if it cannot be written."""
    if file.is_symlink():  # atomic_file would follow it
        file.unlink()
    with atomic_file(file, mode=0o600) as hidden:
        hidden.write_bytes(hashlib.sha256(content).digest() + bytes(content))


def read_sealed(file: Path) -> bytes:
    """Read a file that `write_sealed` wrote.

    Raises:
        OSError: it is missing or cannot be read.
        Unusable: it is damaged or not private.
    """
    with open_file(file) as opened:
        raw = opened.read()
    seal, content = raw[:_SEAL], raw[_SEAL:]
    if seal != hashlib.sha256(content).digest():
        raise Unusable(f"{file.name} differs from its hash")
    return content


def size_on_disk(path: Path) -> int:
    """Count the bytes of a file, or of all files in a folder, without following links; 0 if it cannot be read."""
    try:
        if path.is_dir() and not path.is_symlink():
            return sum(map(size_on_disk, path.iterdir()))
        return path.lstat().st_size
    except OSError:
        return 0


def last_used(path: Path) -> float:
    """Return when a plan was last opened, or else published, in seconds since 1970; now, if it is being removed."""
    for file in (path / MANIFEST, path):
        with suppress(OSError):
            return file.lstat().st_mtime
    return time.time()


def _check_owner(name: str | Path, state: os.stat_result) -> None:
    if state.st_uid != os.getuid():
        raise Unusable(f"{name} belongs to another user ({state.st_uid})")
    if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = f"{stat.S_IMODE(state.st_mode):o}"
        raise Unusable(f"{name} can be written by others (mode {mode}); chmod go-w it")


def _parsed(raw: bytes) -> dict[str, Any]:
    if len(raw) > _MAX_MANIFEST:
        raise Unusable(f"{MANIFEST} is over {_MAX_MANIFEST >> 20} MB")
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{MANIFEST} is not JSON") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise Unusable(f"{MANIFEST} does not describe a {FORMAT}")
    if values.get("version") != VERSION:
        raise Unusable(f"it has format version {values.get('version')!r:.20}, this fye-rt reads {VERSION}")
    return values
