"""Faults that tests cause."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fye_rt.bundle import MANIFEST, sealed


def failing(code: int) -> Callable[..., Any]:
    """A function that fails with this number of errno."""

    def fail(*_: object, **__: object) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


def flip(file: Path, position: int) -> None:
    """Change one bit of the byte at a position."""
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a bundle's manifest and give it the right hash again, as somebody who means harm would."""
    manifest = json.loads((bundle / MANIFEST).read_bytes())
    manifest.pop("sha256")
    change(manifest)
    (bundle / MANIFEST).write_text(sealed(manifest))
