"""Faults that tests cause."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


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
