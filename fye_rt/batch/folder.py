"""The folder of a run: it holds a record per finished item, so that an interrupted run continues there."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from fye_rt.errors import InputError, OutputError
from fye_rt.files import alone, remove_left_over, write_json

HEADER = "run.json"
Record = dict[str, Any]  # the outcome of an item, as JSON values


class RunFolder:
    """The folder of a run; a context manager that creates it and keeps other runs from writing there.

    Args:
        path: the folder; created if it does not exist.
        records: name of its subfolder for the records, NAME.json.
        others: names of more subfolders.
        header: settings that distinguish this run from others, for JSON in run.json; None: runs share the folder.

    Raises:
        InputError: on entering, if the folder belongs to a run with another header.
        OutputError: on entering, if the folder holds other files than a run's, cannot be written, or another run
            writes there.
    """

    kind, option = "run", ""  # for messages: the owner of the folder, and the option that chooses another one

    def __init__(
        self, path: Path, records: str, others: Sequence[str] = (), header: Mapping[str, Any] | None = None
    ) -> None:
        self.path, self.header = path, header or {}
        self._records, self._folders = path / records, [path / name for name in (records, *others)]
        self._lock = ExitStack()

    def __enter__(self) -> Self:
        header, file = json.loads(json.dumps(self.header)), self.path / HEADER
        try:
            is_run = file.is_file() if header else self._records.is_dir()
            if self.path.is_dir() and not is_run and any(self.path.iterdir()):
                raise OutputError(
                    f"{self.path} holds other files than a {self.kind}'s; choose a new folder{self.option}"
                )
            stored = _read(file) if header and is_run else header
            if others := [name for name in {**header, **stored} if header.get(name) != stored.get(name)]:
                raise InputError(
                    f"{self.path} has a run with another {', '.join(others)}; choose a new folder{self.option}, or "
                    "repeat that run's command to continue it"
                )
            for folder in self._folders:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(
                f"cannot write {self.path}: {error.strerror}; choose another folder{self.option}"
            ) from error
        with ExitStack() as opening:
            opening.enter_context(alone(self._records))
            self._clear()
            if header:
                write_json(file, header)
            self._lock = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()
        self._lock.close()

    def read(self, name: str) -> Record:
        """Return the record of an item; an empty one if it is damaged or missing."""
        return _read(self._records / f"{name}.json")

    def keep(self, name: str, record: Record) -> None:
        """Write the record of an item; raises OutputError if that fails."""
        write_json(self._records / f"{name}.json", record)

    def _clear(self) -> None:
        """Remove the temporary files of killed workers."""
        for folder in (self.path, *self._folders):
            remove_left_over(folder)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
