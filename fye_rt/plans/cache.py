"""The cache of a user's TensorRT plans: a folder, and what may be done with it."""

import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fye_rt.errors import BackendError, OptionError, OutputError
from fye_rt.files import atomic_folder, cache_folder, locked, remove_left_over, temporary
from fye_rt.plans import folder as plan_folder
from fye_rt.plans.folder import MANIFEST, Content, Plan, Unusable, check_folder, last_used, size_on_disk
from fye_rt.plans.key import PlanKey, differences

_LOCKS = ".locks"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PART_OF_NAME = re.compile(r"[A-Za-z0-9_.+-]+")
# left by a writer that was killed or could not rename its result; .secret: the signing key of plans, used formerly
_LEFT_OVER = re.compile(r"\.([0-9a-f]{64}|timing\..+|\.secret)\.[a-z0-9_]{8}|[0-9a-f]{64}-[0-9a-f]{8}|\.secret")
_LEFT_FOR = 24 * 3600.0  # seconds after which no writer can still be working on it
_ELSEWHERE = "choose another folder with FYE_PLANS"

logger = logging.getLogger("fye_rt")


@dataclass(frozen=True, slots=True)
class Entry:
    """A plan's folder in the cache, or the remains of one.

    Attributes:
        path: the folder.
        key: key of the plan; None if the plan is not usable.
        size: bytes on disk.
        used: time of the last opening, or else of publishing, in seconds since 1970.
        reason: why the plan is not usable, or "".
    """

    path: Path
    key: PlanKey | None
    size: int
    used: float
    reason: str


class PlanCache:
    """Plans of one user in one folder.

    Several processes may read, build, publish and prune at once; a reader finds a complete plan or none. Every method
    that writes raises OutputError if the root cannot be written, and BackendError if others can write to it.

    Args:
        root: folder, created with mode 0700 at the first write; default: $FYE_PLANS, else `plans` in the user's cache.
        limit: bytes on disk; publishing a plan evicts others until they fit.

    Raises:
        OptionError: the limit is negative.
    """

    def __init__(self, root: Path | None = None, limit: int = 32 << 30) -> None:
        if limit < 0:
            raise OptionError(f"limit: {limit} bytes of plans; give 0 or more")
        self.root = Path(root or os.environ.get("FYE_PLANS") or cache_folder() / "plans")
        self.limit = limit

    def publish(self, key: PlanKey, content: Content, facts: Mapping[str, Any]) -> Path:
        """Write a plan to the cache, in place of an older one with the same key.

        If the cache then exceeds its limit, the least recently used plans are removed, except this and locked ones.

        Args:
            key: what the plan was built for.
            content: the serialized engine.
            facts: anything else worth recording, as JSON values.

        Returns:
            The plan's folder.

        Raises:
            OptionError: JSON cannot hold the facts.
            OutputError: the plan cannot be written; an older plan stays.
        """
        folder = self.root / key.digest
        with self._writing(), ExitStack() as moving:
            if folder.is_symlink() or folder.is_file():
                folder.unlink()
            with atomic_folder(folder, mode=0o700) as hidden:
                plan_folder.write(hidden, key, content, facts)
                moving.enter_context(self._locked("root", lambda: None))
            self._fit(key)
        return folder

    def open(self, key: PlanKey, rebuild: str) -> Plan:
        """Read a plan, and check the very bytes that were read.

        Args:
            key: what the plan must have been built for.
            rebuild: command that builds it, for the message.

        Raises:
            BackendError: the plan is missing (see `missing_message`), damaged, owned by another user, or writable by
                others.
        """
        folder = self.root / key.digest
        try:
            plan = self._read(key.digest, whole=True)
        except FileNotFoundError:
            raise BackendError(self.missing_message(key, rebuild)) from None
        except Unusable as error:
            raise BackendError(
                f"the plan of {key.graph} in {folder} is refused: {error}; build it again with: {rebuild} --rebuild"
            ) from error
        with suppress(OSError):  # a read-only disk records no times
            os.utime(folder / MANIFEST, follow_symlinks=False)
        return plan

    def missing_message(self, key: PlanKey, rebuild: str) -> str:
        """Explain a missing plan: how the nearest plan of the same graph differs, and how to build one."""
        others = [entry.key for entry in self.entries() if entry.key is not None and entry.key.graph == key.graph]
        others = [other for other in others if differences(other, key)]  # it may have been published a moment ago
        if not others:
            return f"{self.root} has no plan of {key.graph}; build it with: {rebuild}"
        nearest = min(others, key=lambda other: (len(differences(other, key)), other.digest))
        nearest_fields, key_fields = zip(*differences(nearest, key), strict=True)
        return (
            f"{self.root} has no such plan of {key.graph}: there is one for {', '.join(nearest_fields)}; this is "
            f"{', '.join(key_fields)}; build it with: {rebuild}"
        )

    @contextmanager
    def lock(self, key: PlanKey, on_wait: Callable[[str], object] | None = None) -> Iterator[None]:
        """Lock a plan while building it. After a wait, check first whether the other process has built it.

        Don't enter it twice for a key. A process that dies releases it. A locked plan is neither evicted nor pruned.
        `on_wait` is called once with a line of text if another process holds the lock.
        """

        def waiting() -> None:
            if on_wait is not None:
                on_wait(f"another process is building the plan of {key.graph}; waiting for it")

        with ExitStack() as opened:
            with self._writing():
                opened.enter_context(self._locked(key.digest, waiting))
            yield

    def kernels(self, sm: str) -> Path | None:
        """Return the folder of this user's compiled kernels; None if it is missing or others can have written it."""
        folder = self.root / f"kernels.{sm}"
        try:
            check_folder(self.root, follow=True)
            check_folder(folder)
        except (OSError, Unusable):
            return None
        return folder

    def place_for_kernels(self, sm: str) -> Path:
        """Return the folder to write compiled kernels to; creates the root."""
        with self._writing():
            return self.root / f"kernels.{sm}"

    def entries(self, *, verify: bool = False) -> list[Entry]:
        """List all plans of the cache, usable or not, sorted by the names of their folders.

        Args:
            verify: also read every plan and compare its hash; everything else is always checked.

        Raises:
            BackendError: the root cannot be read.
        """
        entries = []
        for path in self._children():
            if not _DIGEST.fullmatch(path.name):
                continue
            size, used = size_on_disk(path), last_used(path)
            try:
                entries.append(Entry(path, self._read(path.name, verify).key, size, used, ""))
            except Unusable as error:
                entries.append(Entry(path, None, size, used, str(error)))
            except FileNotFoundError:
                pass  # removed meanwhile
        return entries

    def prune(self, keep: Callable[[PlanKey], bool], limit: int | None = None) -> list[Entry]:
        """Remove unusable and unwanted plans, and files that killed writers left a day ago or earlier.

        It reads every plan, to compare its hash.

        Args:
            keep: returns whether to keep a plan.
            limit: bytes on disk; the least recently used plans are removed until the others fit.

        Returns:
            The removed entries.
        """
        with self._writing(), self._locked("root", lambda: None):
            left = [path for path in self._children() if _LEFT_OVER.fullmatch(path.name)]
            entries = [Entry(path, None, size_on_disk(path), last_used(path), "left over") for path in left]
            removed = [entry for entry in entries if entry.used < time.time() - _LEFT_FOR and self._discard(entry.path)]
            bad = [entry for entry in self.entries(verify=True) if entry.key is None or not keep(entry.key)]
            removed += filter(self._remove, bad)
            if limit is not None:
                removed += self._evict(limit)
        return removed

    def read_timing(self, sm: str, tensorrt: str) -> bytes | None:
        """Return TensorRT's timing cache; None if it is missing, or, with a warning, if it cannot be used."""
        return self._read_sealed(self.root, f"timing.{_named(sm, tensorrt)}")

    def write_timing(self, sm: str, tensorrt: str, content: Content) -> None:
        """Write TensorRT's timing cache for a GPU architecture and a TensorRT version. The last writer wins.

        Raises:
            OptionError: `sm` or `tensorrt` has characters that its file name cannot have.
        """
        file = self.root / f"timing.{_named(sm, tensorrt)}"
        with self._writing():
            plan_folder.write_sealed(file, content)

    def read_runtime(self, key: PlanKey, sm: str) -> bytes | None:
        """Return what TensorRT-RTX compiled for a plan on a GPU of an architecture; None as `read_timing`."""
        return self._read_sealed(self.root / key.digest, f"runtime.{_named(sm)}")

    def write_runtime(self, key: PlanKey, sm: str, content: Content) -> None:
        """Write what TensorRT-RTX compiled beside the plan, whose size it counts to. The last writer wins.

        Other plans are evicted as by `publish`.

        Raises:
            OutputError: the plan was removed meanwhile.
        """
        file = self.root / key.digest / f"runtime.{_named(sm)}"
        with self._writing():
            plan_folder.write_sealed(file, content)
            with self._locked("root", lambda: None):
                self._fit(key)

    def _read_sealed(self, folder: Path, name: str) -> bytes | None:
        try:
            check_folder(self.root, follow=True)
            check_folder(folder, follow=folder == self.root)
            return plan_folder.read_sealed(folder / name)
        except FileNotFoundError:
            return None
        except (OSError, Unusable) as error:
            logger.warning("%s is not used, but made anew: %s", folder / name, error)
            return None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Create the root, and turn errors inside into errors for the user."""
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.root.mkdir(0o700, exist_ok=True)
            check_folder(self.root, follow=True)
            (self.root / _LOCKS).mkdir(0o700, exist_ok=True)
            remove_left_over(self.root)
            if not os.access(self.root, os.W_OK):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            yield
        except OutputError:
            raise
        except Unusable as error:
            raise BackendError(f"cannot use {self.root}: {error}; {_ELSEWHERE}") from error
        except OSError as error:
            raise OutputError(f"cannot write to {self.root}: {error.strerror or error}; {_ELSEWHERE}") from error

    def _locked(self, name: str, wait: Callable[[], object] | None) -> AbstractContextManager[bool]:
        return locked(self.root / _LOCKS / name, wait, 0o600)

    def _read(self, name: str, whole: bool) -> Plan:
        """Read and check a plan; raises FileNotFoundError or `Unusable`."""
        check_folder(self.root, follow=True)
        folder = self.root / name
        while True:
            state = check_folder(folder)
            try:
                plan = plan_folder.read(folder, whole=whole)
            except (OSError, Unusable) as error:
                if not os.path.samestat(state, check_folder(folder)):
                    continue  # the folder was replaced during the read
                if isinstance(error, Unusable):
                    raise
                missing = isinstance(error, FileNotFoundError)
                reason = "is missing" if missing else f"cannot be read: {error.strerror}"
                raise Unusable(f"{Path(error.filename).name} {reason}") from error
            if plan.key.digest != name:
                raise Unusable(f"the folder was renamed; it holds another plan of {plan.key.graph}")
            return plan

    def _children(self) -> list[Path]:
        try:
            return sorted(self.root.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BackendError(f"cannot read {self.root}: {error.strerror}; {_ELSEWHERE}") from error

    def _fit(self, key: PlanKey) -> None:
        """Evict plans other than this one until all fit; what was just written stays even if that fails."""
        with suppress(BackendError, OSError):
            self._evict(self.limit, spared=key.digest)

    def _evict(self, limit: int, spared: str = "") -> list[Entry]:
        entries = self.entries()
        total = sum(entry.size for entry in entries)
        removed = []
        for entry in sorted(entries, key=lambda entry: (entry.used, entry.path.name)):
            if total > limit and entry.path.name != spared and self._remove(entry):
                total -= entry.size
                removed.append(entry)
        return removed

    def _remove(self, entry: Entry) -> bool:
        """Remove a plan; False if it is locked or cannot be removed."""
        with self._locked(entry.path.name, None) as is_free:
            return is_free and self._discard(entry.path)

    def _discard(self, path: Path) -> bool:
        """Remove a file or folder, its name before its content; False if it cannot be removed."""
        try:
            if path.is_symlink() or path.is_file():
                path.unlink()
            else:
                with temporary(self.root, path.name, folder=True) as retired:
                    path.rename(retired)  # rename() replaces an empty folder
        except OSError:
            return False
        return True


def _named(*texts: str) -> str:
    for text in texts:
        if not _PART_OF_NAME.fullmatch(text):
            raise OptionError(f"{text!r} names no GPU architecture or TensorRT version")
    return ".".join(texts)
