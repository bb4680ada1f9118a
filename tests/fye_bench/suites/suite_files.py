"""Small suites for tests."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fye_bench.suites.suite import Suite

Change = Callable[[dict[str, Any]], object]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def content(folder: Path) -> dict[str, Any]:
    for name in ("a.png", "b.png", "b.npz", "talk.mp4", "nod.npz"):
        (folder / name).write_bytes(f"{name} of a test".encode())

    def entry(file: str, **labels: Any) -> dict[str, Any]:
        return {"file": file, "sha256": digest(folder / file), **labels, "source": "here", "licence": "CC0"}

    landmarks = {"file": "b.npz", "sha256": digest(folder / "b.npz")}
    drawn = {"drawn": {"family": "people", "identity": 7, "placement": 3}}
    head = {"format": "fye-suite", "version": 1, "name": "two faces", "note": ""}
    return head | {
        "portraits": {
            "a": entry("a.png", family="people"),
            "b": entry("b.png", family="animals") | {"landmarks": landmarks},
        },
        "motions": {"talk": entry("talk.mp4", kind="talking"), "nod": entry("nod.npz", kind="head turns")},
        "pairs": [
            {"name": "b--nod", "portrait": "b", "motion": "nod", "mode": "cross", "truth": drawn},
            {"name": "a--talk", "portrait": "a", "motion": "talk", "mode": "self", "truth": "driving"},
            {"name": "b--talk", "portrait": "b", "motion": "talk", "mode": "cross"},
        ],
    }


def written(folder: Path, change: Change = lambda manifest: None) -> Path:
    manifest = content(folder)
    change(manifest)
    (folder / "suite.json").write_text(json.dumps(manifest))
    return folder


def loaded(folder: Path) -> Suite:
    return Suite.load(written(folder))
