"""Finished pieces of a long clip in a folder, so that an interrupted run can continue from there."""

import hashlib
import io
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError, OutputError
from fye_rt.files import atomic_file, remove_left_over
from fye_rt.forecast import Jump
from fye_rt.progressive import PieceRecord

FORMAT = 2
_INPUTS = "clip.json"
logger = logging.getLogger("fye_rt")


class PieceFolder:
    """A folder with the finished pieces of one clip.

    Pieces appear whole or not at all, and carry their hash in their names; a damaged piece counts as missing. A missing
    folder is created. `inputs` is everything that the clip depends on, as JSON-compatible values.

    Raises:
        InputError: the folder holds another clip, or other files.
        OutputError: the folder cannot be created or written.
    """

    def __init__(self, folder: str | os.PathLike[str], inputs: Mapping[str, Any]) -> None:
        self._folder = Path(folder)
        self._failed = False
        facts = {"format": FORMAT, **json.loads(json.dumps(inputs))}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror}; choose a folder that is writable") from error
        remove_left_over(self._folder)
        if (self._folder / _INPUTS).exists():
            self._compare(facts)
            return
        if any(not path.name.startswith(".") for path in self._folder.iterdir()):
            raise InputError(f"{folder} holds other files than a clip's finished pieces; choose a new folder")
        with atomic_file(self._folder / _INPUTS) as temporary:
            temporary.write_text(json.dumps(facts, indent=1) + "\n")

    def _compare(self, facts: Mapping[str, Any]) -> None:
        try:
            stored = json.loads((self._folder / _INPUTS).read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self._folder / _INPUTS} cannot be read; choose another folder") from error
        keys = dict.fromkeys((*facts, *stored)) if isinstance(stored, dict) else facts
        other = [key for key in keys if not isinstance(stored, dict) or stored.get(key) != facts.get(key)]
        if other:
            raise InputError(
                f"{self._folder} holds another clip, which differs in {', '.join(other)}; delete it, or choose another "
                "folder"
            )

    def read(self, number: int) -> PieceRecord | None:
        """Return a piece, or None if it is not stored."""
        for path in self._folder.glob(f"{number:05}.*.npz"):
            content = path.read_bytes()
            if path.name == _name(number, content):
                return _unpacked(content)
        return None

    def write(self, number: int, record: PieceRecord) -> None:
        """Store a piece. If the disk is full or the folder gone, log a warning, and let the clip continue without."""
        if self._failed:
            return
        content = _packed(record)
        try:
            with atomic_file(self._folder / _name(number, content)) as temporary:
                temporary.write_bytes(content)
        except OutputError as error:
            self._failed = True
            logger.warning("%s; the clip goes on, but from here on no piece of it is kept", error)


def digest(arrays: Iterable[NDArray[Any]]) -> str:
    """Return the SHA-256 of arrays in order, including their shapes and dtypes."""
    hashed = hashlib.sha256()
    for array in arrays:
        hashed.update(f"{array.dtype} {array.shape} ".encode())
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()


def _name(number: int, content: bytes) -> str:
    return f"{number:05}.{hashlib.sha256(content).hexdigest()}.npz"


def _packed(record: PieceRecord) -> bytes:
    frames = list(record.trajectories)
    steps = list(record.trajectories[frames[0]]) if frames else []
    file = io.BytesIO()
    np.savez(
        file,
        latents=record.latents,
        frames=np.array(frames, np.int64),
        steps=np.array(steps, np.int64),
        trajectories=np.array([[record.trajectories[k][step] for step in steps] for k in frames], np.float32),
        end=np.array([]) if record.end is None else record.end,
        jumps=np.array(json.dumps([asdict(jump) for jump in record.jumps])),
    )
    return file.getvalue()


def _unpacked(content: bytes) -> PieceRecord:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        steps = arrays["steps"].tolist()
        paths = (dict(zip(steps, path, strict=True)) for path in arrays["trajectories"])
        return PieceRecord(
            arrays["latents"],
            dict(zip(arrays["frames"].tolist(), paths, strict=True)),
            tuple(_jump(values) for values in json.loads(str(arrays["jumps"]))),
            arrays["end"] if arrays["end"].size else None,
        )


def _jump(values: dict[str, Any]) -> Jump:
    outside = values["outside"]
    return Jump(**{**values, "w": tuple(values["w"]), "outside": None if outside is None else tuple(outside)})
