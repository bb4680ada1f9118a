"""The folder of a user's plans."""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fye_rt.errors import BackendError, FyeError, OptionError
from fye_rt.files import temporary
from fye_rt.home import cache_folder
from fye_rt.plans import files as plan_files
from fye_rt.plans import folder as plan_folder
from fye_rt.plans.files import Content, PrivateRoot, Unusable
from fye_rt.plans.folder import MANIFEST, Plan, Unsigned
from fye_rt.plans.key import PlanKey, differences

_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIMING_NAME = re.compile(r"[A-Za-z0-9_.+-]+")
_LEFT_OVER = re.compile(r"\.([0-9a-f]{64}|timing\..+|\.secret)\.[a-z0-9_]{8}")  # of a writer that was killed
_LEFT_FOR = 24 * 3600.0  # seconds after which no writer can still be at work on it
_ELSEWHERE = "choose another folder with FYE_PLANS"
_BUILD = "fye build BUNDLE"


@dataclass(frozen=True, slots=True)
class Entry:
    """A folder in the cache.

    Attributes:
        path: the folder.
        key: None where the plan is not usable.
        size: bytes on disk.
        used: when it was last opened or else published, seconds since 1970.
        reason: why it is not usable, or "".
    """

    path: Path
    key: PlanKey | None
    size: int
    used: float
    reason: str


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `PlanCache.prune` removed, and how many bytes that were."""

    removed: tuple[Path, ...]
    freed: int


class PlanCache:
    """Plans of one user in one folder.

    Several processes may read, build, publish and prune at once. A reader finds a complete plan or none.

    Args:
        root: made when first written to, with mode 0700; by default $FYE_PLANS, else fye-rt/plans in $XDG_CACHE_HOME
            or ~/.cache.
        limit: bytes on disk; publishing a plan evicts others until it is met.

    Raises:
        OptionError: a negative limit.
    """

    def __init__(self, root: Path | None = None, limit: int = 32 << 30) -> None:
        if limit < 0:
            raise OptionError(f"limit: {limit} bytes of plans; give 0 or more")
        self.root = _default_root() if root is None else Path(root)
        self._private = PrivateRoot(self.root, _ELSEWHERE)
        self.limit = limit

    def publish(self, key: PlanKey, content: Content, facts: Mapping[str, Any]) -> Path:
        """Sign a plan and keep it, in place of an older one of the same key.

        If the limit is exceeded then, plans go whose last use is longest ago; not this one, and none that is locked.

        Args:
            key: what it was built for.
            content: the serialized engine.
            facts: anything worth knowing later that JSON can hold.

        Returns:
            Its folder.

        Raises:
            OptionError: JSON cannot hold the facts.
            OutputError: it cannot be written; nothing is left then, and an older plan stays.
            BackendError: others can write to the root.
        """
        secret = self._private.ready()
        folder = self.root / key.digest
        with self._private.writing(), temporary(self.root, key.digest, folder=True) as stage:
            plan_folder.write(stage, secret, key, content, facts)
            with self._private.alone():
                plan_files.put_folder(stage, folder)
                with suppress(FyeError):  # the plan is there: another one's eviction must not cost it
                    self._evict(self.limit, spared=key.digest)
        return folder

    def open(self, key: PlanKey, rebuild: str) -> Plan:
        """Read a plan, once, and check what was read before anybody may use it.

        Args:
            key: what it must have been built for.
            rebuild: the command that builds it, for the message.

        Raises:
            BackendError: there is none (see `missing_message`), it is damaged, was altered or renamed, was built by
                somebody else, or others can write to it.
        """
        folder = self.root / key.digest
        try:
            plan = self._read(key.digest, whole=True)
        except FileNotFoundError:
            raise BackendError(self.missing_message(key, rebuild)) from None
        except Unusable as error:
            trust = f", or if you trust it: fye build --trust {folder}" if isinstance(error, Unsigned) else ""
            raise BackendError(
                f"the plan of {key.graph} in {folder} is refused: {error}; build it again with: {rebuild} --rebuild"
                f"{trust}"
            ) from error
        try:
            os.utime(folder / MANIFEST, follow_symlinks=False)
        except OSError:
            pass  # a disk that cannot be written keeps no times
        return plan

    def missing_message(self, key: PlanKey, rebuild: str) -> str:
        """Why there is no plan for a key: in what the nearest plan of the same graph differs, and how to build one."""
        others = [entry.key for entry in self.entries() if entry.key is not None and entry.key.graph == key.graph]
        others = [other for other in others if other != key]  # it may have been published a moment ago
        if not others:
            return f"{self.root} has no plan of {key.graph}; build it with: {rebuild}"
        nearest = min(others, key=lambda other: (len(differences(other, key)), other.digest))
        there, here = zip(*differences(nearest, key), strict=True)
        return (
            f"{self.root} has no such plan of {key.graph}: there is one for {', '.join(there)}; this is "
            f"{', '.join(here)}; build it with: {rebuild}"
        )

    def trust(self, folder: Path) -> PlanKey:
        """Take over a plan that somebody else built, and sign it as this user's own.

        A plan can do whatever this user can. Its size and hash are checked, which says that it is complete, not that
        it is harmless.

        Args:
            folder: with plan.trt and plan.json; it is left as it is.

        Returns:
            What it was built for.

        Raises:
            BackendError: it holds no plan, or a damaged one.
            OutputError: as `publish`.
        """
        try:
            with plan_files.opened_folder(folder, mine=False) as handle:
                plan = plan_folder.read(handle, None, mine=False)
        except FileNotFoundError as error:
            raise BackendError(f"{folder} holds no plan: there is no {error.filename}; build one: {_BUILD}") from error
        except Unusable as error:
            raise BackendError(f"{folder} is not imported: {error}; copy it again, or build one: {_BUILD}") from error
        self.publish(plan.key, plan.content, plan.facts)
        return plan.key

    @contextmanager
    def lock(self, key: PlanKey, tell: Callable[[str], object] | None = None) -> Iterator[None]:
        """Be the only one who builds a plan. Who had to wait should look first whether it is there now.

        Not to be entered twice for a key. A process that dies lets go. A locked plan is neither evicted nor pruned.

        Args:
            key: of the plan.
            tell: called with a line, once, if another process has to be waited for.

        Raises:
            OutputError: the root cannot be written.
            BackendError: others can write to the root.
        """
        self._private.ready()

        def waiting() -> None:
            if tell is not None:
                tell(f"another process is building the plan of {key.graph}; waiting for it")

        with self._private.lock(key.digest, waiting):
            yield

    def kernels(self, sm: str) -> Path | None:
        """The folder of this user's compiled kernels; None where there is none that nobody else can have written."""
        name = f"kernels.{sm}"
        try:
            with plan_files.opened_folder(self.root) as root, plan_files.opened_folder(name, root):
                return self.root / name
        except (OSError, Unusable):
            return None

    def place_for_kernels(self, sm: str) -> Path:
        """Where they are to be written to; the root is made.

        Raises:
            OutputError: the root cannot be written.
            BackendError: others can write to the root.
        """
        self._private.ready()
        return self.root / f"kernels.{sm}"

    def entries(self, *, verify: bool = False) -> list[Entry]:
        """All plans of the cache, usable or not, by the names of their folders.

        Args:
            verify: compare the hash of every plan, which reads it; all else is checked in any case.

        Raises:
            BackendError: the root cannot be read.
        """
        found = []
        for path in self._children():
            if _DIGEST.fullmatch(path.name):
                try:
                    found.append(self._entry(path, verify))
                except FileNotFoundError:
                    continue  # removed meanwhile
        return found

    def prune(self, keep: Callable[[PlanKey], bool], limit: int | None = None) -> Pruned:
        """Remove plans that are not usable, those not to be kept, and what killed writers left a day ago or earlier.

        Every plan is read, to compare its hash.

        Args:
            keep: whether a plan is to be kept.
            limit: bytes on disk; of those kept, the ones go whose last use is longest ago until it is met.

        Raises:
            OutputError: the root cannot be written.
            BackendError: others can write to the root or read its secret; nothing is removed.
        """
        self._private.ready()
        with self._private.alone():
            removed = self._remove_left_over()
            for entry in self.entries(verify=True):
                if (entry.key is None or not keep(entry.key)) and self._remove(entry):
                    removed.append((entry.path, entry.size))
            if limit is not None:
                removed += self._evict(limit)
        return Pruned(tuple(path for path, _ in removed), sum(size for _, size in removed))

    def read_timing(self, sm: str, tensorrt: str) -> bytes | None:
        """TensorRT's timing cache, or None where there is none, a damaged one, or one that others can write to.

        Raises:
            OptionError: as `write_timing`.
        """
        name = _timing_name(sm, tensorrt)
        try:
            with plan_files.opened_folder(self.root) as root, plan_files.opened_file(name, root) as file:
                raw = file.read()
        except (OSError, Unusable):
            return None
        seal, content = raw[:32], raw[32:]
        return content if seal == hashlib.sha256(content).digest() else None

    def write_timing(self, sm: str, tensorrt: str, content: Content) -> None:
        """Keep TensorRT's timing cache for a GPU architecture and a TensorRT version. The last writer wins.

        Raises:
            OptionError: a name that is no file name.
            OutputError: the root cannot be written.
            BackendError: others can write to the root.
        """
        name = _timing_name(sm, tensorrt)
        self._private.ready()
        with self._private.writing():
            plan_files.write_private(self.root / name, hashlib.sha256(content).digest() + bytes(content))

    def _read(self, name: str, whole: bool) -> Plan:
        """As `open`, but raises FileNotFoundError and `Unusable`."""
        while True:
            with plan_files.opened_folder(self.root) as root, plan_files.opened_folder(name, root) as folder:
                try:
                    plan = plan_folder.read(folder, self._private.secret(root), whole=whole)
                except FileNotFoundError as error:
                    if plan_files.is_at(folder, name, root):
                        raise Unusable(f"{error.filename} is missing") from error
                    continue  # it was replaced or removed while it was being opened
            if plan.key.digest != name:
                raise Unusable(f"the folder was renamed; it holds another plan of {plan.key.graph}")
            return plan

    def _entry(self, path: Path, verify: bool) -> Entry:
        size, used = plan_files.size(path), _used(path)
        try:
            return Entry(path, self._read(path.name, verify).key, size, used, "")
        except Unusable as error:
            return Entry(path, None, size, used, str(error))

    def _children(self) -> list[Path]:
        try:
            return sorted(self.root.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BackendError(f"cannot read {self.root}: {error.strerror}; {_ELSEWHERE}") from error

    def _evict(self, limit: int, spared: str = "") -> list[tuple[Path, int]]:
        entries = self.entries()
        total = sum(entry.size for entry in entries)
        removed = []
        for entry in sorted(entries, key=lambda entry: (entry.used, entry.path.name)):
            if total > limit and entry.path.name != spared and self._remove(entry):
                total -= entry.size
                removed.append((entry.path, entry.size))
        return removed

    def _remove(self, entry: Entry) -> bool:
        """Whether it is gone: it stays where it is locked, or may not be removed."""
        with self._private.lock(entry.path.name, None) as held:
            try:
                if held:
                    plan_files.discard(entry.path)
            except OSError:
                return False
            return held

    def _remove_left_over(self) -> list[tuple[Path, int]]:
        removed = []
        for path in self._children():
            if _LEFT_OVER.fullmatch(path.name) and 0 < _used(path) < time.time() - _LEFT_FOR:
                size = plan_files.size(path)
                try:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                except OSError:
                    continue
                removed.append((path, size))
        return removed


def _default_root() -> Path:
    if root := os.environ.get("FYE_PLANS"):
        return Path(root)
    return cache_folder() / "plans"


def _used(path: Path) -> float:
    for file in (path / MANIFEST, path):
        try:
            return file.lstat().st_mtime
        except OSError:
            continue
    return 0.0


def _timing_name(sm: str, tensorrt: str) -> str:
    for text in (sm, tensorrt):
        if not _TIMING_NAME.fullmatch(text):
            raise OptionError(f"{text!r} names no GPU architecture or TensorRT version")
    return f"timing.{sm}.{tensorrt}"
