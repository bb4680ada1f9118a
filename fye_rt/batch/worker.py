"""What a worker of a batch does: one job after another, with one Animator."""

import hashlib
import json
import multiprocessing
import os
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fye_rt import files, machine
from fye_rt.animator import Animator
from fye_rt.batch.jobs import Job
from fye_rt.bundle import Bundle
from fye_rt.clips import write
from fye_rt.clips.cache import ClipCache
from fye_rt.errors import FyeError, InputError, OutOfMemoryError, memory_for
from fye_rt.files import atomic_file, followed
from fye_rt.timings import Evaluations
from fye_rt.version import __version__

RECORDS = "records"  # a folder in that of a batch
Record = dict[str, Any]  # of a job: what became of it, as JSON holds it


@dataclass(frozen=True, slots=True)
class AnimatorSpec:
    """How a worker opens its Animator.

    Attributes:
        bundle: folder of the model.
        backend, compute, threads, low_memory: see `Animator`.
    """

    bundle: Path
    backend: str = "auto"
    compute: str = "auto"
    threads: int = 0
    low_memory: bool = False

    def animator(self) -> Animator:
        """Open it.

        Raises:
            FyeError: the bundle or the backend is at fault.
        """
        return Animator(
            Bundle.load(self.bundle),
            self.backend,
            compute=self.compute,
            threads=self.threads,
            low_memory=self.low_memory,
        )


class ClipWorker:
    """Makes the clips of jobs; what is the same for clips one after another is done once.

    Args:
        engine: what makes them.
        folder: where they go, as NAME.mp4, and their records, as records/NAME.json.
    """

    def __init__(self, engine: AnimatorSpec, folder: Path) -> None:
        self._engine, self._folder = engine, folder
        self._animator = engine.animator()
        self._cache = ClipCache()

    def __call__(self, job: Job) -> Record:
        """Make a clip and write its record. A mistake in the job is returned alone; nothing is left of it then."""
        start = time.perf_counter()
        record: Record = {"name": job.name, "line": job.line}
        try:
            record["key"] = key(job, self._animator.bundle.digest, self._engine)
            with memory_for("the clip", "a smaller size"):
                return self._make(job, record, start)
        except (FyeError, OSError) as error:
            self._path(job).unlink(missing_ok=True)  # of a job that was another one before
            beside_others = isinstance(error, OutOfMemoryError) and multiprocessing.parent_process() is not None
            return record | {"status": "failed", "error": f"{error}{', or fewer workers' if beside_others else ''}"}

    def close(self) -> None:
        """Give the memory back."""
        self._animator.close()

    def _path(self, job: Job) -> Path:
        return self._folder / f"{job.name}.mp4"

    def _make(self, job: Job, record: Record, start: float) -> Record:
        evaluations = Evaluations()
        rendering = self._animator.render(job.request, progress=evaluations, cache=self._cache)
        path = self._path(job)
        with atomic_file(path) as hidden:
            write.write_clip(rendering, hidden, None, None)
            frames, height, width, _ = rendering.landmarks.shape
            record = record | {
                "status": "done",
                "error": None,
                "output": path.name,
                "sha256": sha256(hidden),
                "bytes": hidden.stat().st_size,
                "frames": frames,
                "size": [height, width],
                "network_evaluations": evaluations.number,
                "backend": self._animator.backend,
                "notices": list(rendering.notices),
                "seconds": {**rendering.timings, "all": time.perf_counter() - start},
                "peak_memory_bytes": machine.peak_memory(),
                "worker": os.getpid(),
            }
            # a process that is killed must leave no clip without its record, and no older clip with this one
            followed(path).unlink(missing_ok=True)
            files.write_json(record_path(self._folder, job.name), record)
        return record


def record_path(folder: Path, name: str) -> Path:
    """Where the record of a job is kept in a batch's folder."""
    return folder / RECORDS / f"{name}.json"


def key(job: Job, bundle: str, engine: AnimatorSpec) -> str:
    """SHA-256 of all that a job's clip is made from, files included.

    Raises:
        InputError: a file is missing.
    """
    request = job.request
    sources = (request.portrait, request.motion, request.portrait_landmarks)
    facts = {
        "fye_rt": __version__,
        "bundle": bundle,
        "engine": [engine.backend, engine.compute],
        "inputs": [_content(Path(source)) if isinstance(source, str | os.PathLike) else None for source in sources],
        "options": request.options.as_dict(),
        "frames": request.frames,
        "size": request.size,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        facts = path.stat()
        return _sha256(path, facts.st_size, facts.st_mtime_ns, facts.st_ino)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


@lru_cache(maxsize=100_000)
def _sha256(path: Path, size: int, changed: int, node: int) -> str:
    """Of a file in this state; many jobs share a portrait or a motion."""
    return files.sha256(path)


def _content(path: Path) -> Any:
    """Of a file, or of the files of a folder."""
    if path.is_dir():
        return [[file.name, sha256(file)] for file in sorted(path.iterdir()) if file.is_file()]
    return sha256(path)
