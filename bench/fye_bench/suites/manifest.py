"""suite.json as it is read: JSON of strangers, each field of which is asked for by name and type."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from reprlib import Repr
from typing import Any

from fye_rt.errors import InputError
from fye_rt.media.checks import Limits, check_file

MANIFEST = "suite.json"
MAX_BYTES = 64 << 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MAX_LABEL, MAX_TEXT = 100, 1000  # characters
EVERYTHING = "all"  # the group of a report that all pairs are in

_short = Repr()
_short.maxstring = 120


def shown(value: object) -> str:
    """A value for a message, on one line and not too long."""
    return _short.repr(value)


def read_json(folder: Path) -> Any:
    """What suite.json holds.

    Raises:
        InputError: it is missing, too large, not JSON, or says one thing twice.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise InputError(f"{folder} is not a suite: it has no {MANIFEST}; make one with: fye suite init FOLDER")
    try:
        raw = check_file(path, Limits(max_file=MAX_BYTES)).read_bytes()
        return json.loads(raw, object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply; make the suite again") from error
    except InputError as error:
        raise InputError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error
    except ValueError as error:  # not JSON, not UTF-8, or an endless number
        raise InputError(f"{path} is not JSON ({error}); make the suite again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give a folder that can") from error


def fields(where: str, value: Any, required: Sequence[str], optional: Sequence[str] = ()) -> Mapping[str, Any]:
    """A JSON object with these fields and no others.

    Raises:
        InputError: it is no object, or has other fields.
    """
    if not isinstance(value, dict):
        raise InputError(f"{where} is {shown(value)}; give an object with {', '.join(required)}")
    if missing := [key for key in required if key not in value]:
        raise InputError(f"{where} has no {missing[0]!r}; add it: {', '.join(required)} are needed")
    if unknown := [key for key in value if key not in (*required, *optional)]:
        raise InputError(
            f"{where} has {shown(unknown[0])}, which is not known; use {', '.join((*required, *optional))}"
        )
    return value


def name(where: str, value: Any) -> str:
    """A name, which files are called by.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InputError(
            f"{where} is called {shown(value)}; use letters, digits, '.', '_' and '-', 1 to 100 of them, and begin "
            "with a letter or a digit"
        )
    return value


def text(where: str, value: Any, most: int = MAX_TEXT) -> str:
    """One line of text, empty or not.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise InputError(f"{where} is {shown(value)}; give one line of at most {most} printable characters")
    return value


def label(where: str, value: Any) -> str:
    """A family's or a kind's name, which groups of a report are called by.

    Raises:
        InputError: it is none.
    """
    found = text(where, value, MAX_LABEL)
    if not found.strip() or found != found.strip() or found == EVERYTHING:
        raise InputError(f"{where} is {shown(found)}; give it a name, without spaces around it, other than 'all'")
    return found


def digest(where: str, value: Any) -> str:
    """A SHA-256 in hexadecimal digits.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise InputError(f"{where} is {shown(value)}; give the file's SHA-256, 64 digits of 0-9 and a-f (sha256sum)")
    return value


def number(where: str, value: Any) -> int:
    """A seed.

    Raises:
        InputError: not a whole number from 0 to 2**63 - 1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise InputError(f"{where} is {shown(value)}; give a whole number, 0 or more")
    return value


def place(where: str, value: Any, folder: Path) -> Path:
    """The absolute path of a file that is named relative to `folder`, which is resolved, and lies inside of it.

    Raises:
        InputError: it names no such file.
    """
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT or not value.isprintable() or "\\" in value:
        raise InputError(
            f"{where} is {shown(value)}; give a path inside the suite's folder, with '/' between its parts"
        )
    parts = PurePosixPath(value).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise InputError(f"{where} is {shown(value)}, which leaves the suite's folder; copy the file into the folder")
    path = folder / value
    try:
        inside = path.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # a circle of symlinks, by the version of Python
        inside = False
    if not inside:
        raise InputError(
            f"{where} is {shown(value)}, a link that leaves the suite's folder; copy the file into the folder"
        )
    return path


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for key, value in pairs:
        if key in given:
            raise InputError(f"it says {shown(key)} twice; remove one")
        given[key] = value
    return given


def _no_constant(constant: str) -> Any:
    raise InputError(f"it holds {constant}, which is not JSON; make the suite again")
