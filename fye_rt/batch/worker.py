"""The worker of a batch: makes clip after clip with one Animator."""

import hashlib
import json
import multiprocessing
import os
import time
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from fye_rt import files, machine
from fye_rt.animator import Animator
from fye_rt.batch.folder import Record
from fye_rt.batch.jobs import Job, in_settings
from fye_rt.bundle import Bundle
from fye_rt.clips import write
from fye_rt.clips.cache import ClipCache
from fye_rt.clips.faces import render_faces
from fye_rt.errors import FyeError, InputError, OutOfMemoryError, memory_for
from fye_rt.files import atomic_file, followed
from fye_rt.landmarks.builtin import is_builtin
from fye_rt.options import ClipRequest
from fye_rt.timings import Evaluations
from fye_rt.version import __version__

RECORDS = "records"  # subfolder of a batch's folder


@dataclass(frozen=True, slots=True)
class AnimatorSpec:
    """Settings with which a worker opens its Animator.

    Attributes:
        bundle: folder of the bundle.
        backend, compute, threads, low_memory: see `Animator`.
    """

    bundle: Path
    backend: str = "auto"
    compute: str = "auto"
    threads: int = 0
    low_memory: bool = False

    def animator(self) -> Animator:
        """Open the Animator; raises FyeError if the bundle or the backend is at fault."""
        bundle = Bundle.load(self.bundle)
        return Animator(bundle, self.backend, compute=self.compute, threads=self.threads, low_memory=self.low_memory)


class ClipWorker:
    """Makes the clips of jobs; work that successive clips share is done once.

    Args:
        engine: the Animator that makes the clips.
        folder: folder for the clips, `Job.file`, and their records, records/NAME.json.
    """

    def __init__(self, engine: AnimatorSpec, folder: Path) -> None:
        self._engine, self._folder = engine, folder
        self._animator = engine.animator()
        self._cache = ClipCache()

    def __call__(self, job: Job) -> Record:
        """Make a clip and write its record; if the job fails, only return its record, and leave no clip behind."""
        start = time.perf_counter()
        record: Record = {"name": job.name, "line": job.line}
        try:
            record["key"] = key(job, self._animator.bundle.digest, self._engine)
            with memory_for("the clip", "a smaller size"):
                return self._make(job, record, start)
        except (FyeError, OSError) as error:
            (self._folder / job.file).unlink(missing_ok=True)  # a clip of an earlier job with this name
            beside_others = isinstance(error, OutOfMemoryError) and multiprocessing.parent_process() is not None
            said = f"{in_settings(str(error))}{', or fewer workers' if beside_others else ''}"
            return record | {"status": "failed", "error": said}

    def close(self) -> None:
        """Close the Animator, which frees its memory."""
        self._animator.close()

    def _make(self, job: Job, record: Record, start: float) -> Record:
        evaluations = Evaluations()
        if len(job.requests) == 1:
            rendering = self._animator.render(job.requests[0], progress=evaluations, cache=self._cache)
        else:
            rendering = render_faces(self._animator, job.requests, evaluations, self._cache)
        path = self._folder / job.file
        with atomic_file(path) as hidden:
            write.write_clip(rendering, hidden, None, None)
            frames, height, width, _ = rendering.shape
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
                "notices": [in_settings(notice) for notice in rendering.notices],
                "seconds": {**rendering.timings, "all": time.perf_counter() - start},
                "peak_memory_bytes": machine.peak_memory(),
                "worker": os.getpid(),
            }
            # a killed process must not leave a clip without its record, nor an older clip with this record
            followed(path).unlink(missing_ok=True)
            files.write_json(self._folder / RECORDS / f"{job.name}.json", record)
        return record


# fields of a request that a clip depends on, beside its files and what it composes
_APART = {"portrait", "motion", "portrait_landmarks", "landmarker", "audio", "options", "control", "crop"}
_KEYED = [field.name for field in fields(ClipRequest) if field.name not in _APART]


def key(job: Job, bundle: str, engine: AnimatorSpec) -> str:
    """Compute the SHA-256 of the input files and settings of a job's clip; raises InputError if a file is missing."""
    clips = [_facts(request) for request in job.requests]
    facts = {
        "fye_rt": __version__,
        "bundle": bundle,
        "engine": [engine.backend, engine.compute],
        **(clips[0] if len(clips) == 1 else {"faces": clips}),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _facts(request: ClipRequest) -> dict[str, Any]:
    """Collect what a clip depends on: the content of its files, and its settings."""
    sources = (request.portrait, request.motion, request.portrait_landmarks, request.audio)
    return {
        "inputs": [_content(Path(source)) if isinstance(source, str | os.PathLike) else None for source in sources],
        "options": request.options.as_dict(),
        "crop": asdict(request.crop),
        "control": request.control.as_dict(),
        **{name: getattr(request, name) for name in _KEYED},
    }


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, again only if it has changed; raises InputError if it cannot be read."""
    try:
        facts = path.stat()
        return _sha256(path, facts.st_size, facts.st_mtime_ns, facts.st_ino)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


@lru_cache(maxsize=100_000)  # many jobs share a portrait or a motion
def _sha256(path: Path, size: int, changed: int, node: int) -> str:
    return files.sha256(path)


def _content(path: Path) -> Any:
    """Return the SHA-256 of a file, or the names and SHA-256 of the files in a folder."""
    if str(path) == "none" or is_builtin(path):  # no file, but silence, or a motion that fye-rt brings along
        return str(path)
    if path.is_dir():
        return [[file.name, sha256(file)] for file in sorted(path.iterdir()) if file.is_file()]
    return sha256(path)
