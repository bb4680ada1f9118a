"""The fields of suite.json: their types, limits, and the paths of the suite's files."""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field

from fye_bench.json_input import condition

MANIFEST = "suite.json"
MAX_BYTES = 64 << 20
MAX_LABEL, MAX_TEXT = 100, 1000  # characters
EVERYTHING = "all"  # the group of a report that holds all pairs

Name = Annotated[
    str,
    condition(
        re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}").fullmatch,
        "use letters, digits, '.', '_' and '-', 1 to 100 of them, and begin with a letter or a digit",
    ),
]
Text = Annotated[
    str,
    condition(
        lambda text: len(text) <= MAX_TEXT and text.isprintable(),
        f"give one line of at most {MAX_TEXT} printable characters",
    ),
]
Label = Annotated[
    str,
    condition(
        lambda text: 1 <= len(text) <= MAX_LABEL and text.isprintable() and text == text.strip() != EVERYTHING,
        f"give a name of 1 to {MAX_LABEL} printable characters, without spaces around it, other than 'all'",
    ),
]
Digest = Annotated[
    str,
    condition(re.compile(r"[0-9a-f]{64}").fullmatch, "give the file's SHA-256, 64 digits of 0-9 and a-f (sha256sum)"),
]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def place(value: Any, folder: Path) -> Path:
    """Return the absolute path of a file inside of a folder.

    Args:
        value: path relative to the folder.
        folder: resolved.

    Raises:
        ValueError: the value is no such path; the message says what to do.
    """
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT or not value.isprintable() or "\\" in value:
        raise ValueError("give a path inside the suite's folder, with '/' between its parts")
    parts = PurePosixPath(value).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise ValueError("it leaves the suite's folder: copy the file into the folder")
    path = folder / value
    try:
        inside = path.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # a circle of links, depending on the version of Python
        inside = False
    if not inside:
        raise ValueError("it is a link that leaves the suite's folder: copy the file into the folder")
    return path
