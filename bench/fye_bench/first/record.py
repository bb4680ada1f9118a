"""Results, a line of JSON each, written as they come: what is cut short has lost nothing."""

import json
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RESULTS = "results.jsonl"


def append(folder: Path, line: dict[str, Any]) -> None:
    """Add a line to the results in a folder."""
    with (folder / RESULTS).open("a") as file:
        file.write(json.dumps(line, default=str) + "\n")
        file.flush()
        os.fsync(file.fileno())


class Record:
    """Results of one stage.

    Attributes:
        failed: names of the parts that failed.
    """

    def __init__(self, folder: Path, stage: str) -> None:
        self.failed: list[str] = []
        self._folder, self._stage = folder, stage

    def write(self, part: str, status: str, seconds: float, result: Mapping[str, Any]) -> None:
        """Add the line of a part whose status is "ok", "failed" or "skipped"."""
        if status == "failed":
            self.failed.append(part)
        line = {"stage": self._stage, "part": part, "status": status, "seconds": seconds}
        append(self._folder, line | {name: value for name, value in result.items() if name not in line})
        shown = ", ".join(f"{name} {value}" for name, value in result.items())
        print(f"{self._stage}, {part}: {status} ({seconds:.1f} s) {shown[:400]}", flush=True)

    def skip(self, part: str, reason: str) -> None:
        """A part that cannot run on this machine."""
        self.write(part, "skipped", 0.0, {"reason": reason})

    @contextmanager
    def part(self, name: str) -> Iterator[dict[str, Any]]:
        """Run a part, whose failure ends nothing but itself; gives a dictionary for its result."""
        result: dict[str, Any] = {}
        start = time.perf_counter()
        try:
            yield result
        except Exception as error:
            traceback.print_exc()
            where = traceback.extract_tb(error.__traceback__)[-1]
            result |= {"error": f"{type(error).__name__}: {error}"[:2000], "where": f"{where.filename}:{where.lineno}"}
            self.write(name, "failed", time.perf_counter() - start, result)
        else:
            wrong = {} if result.pop("right", True) else {"error": "further away than allowed"}
            self.write(name, "failed" if wrong else "ok", time.perf_counter() - start, result | wrong)
