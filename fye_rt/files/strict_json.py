"""JSON of strangers: whatever a parser would have to guess at is refused."""

import json
from reprlib import Repr
from typing import Any

from fye_rt.errors import InputError

_short = Repr()
_short.maxstring = 120


def shown(value: object) -> str:
    """Shorten a value to what fits into a message of one line."""
    return _short.repr(value)


def parse_json(raw: bytes) -> Any:
    """Parse JSON.

    Raises:
        InputError: it is not JSON, nested too deeply, or an object has a key twice.
    """
    try:
        return json.loads(raw, object_pairs_hook=_object)
    except RecursionError as error:
        raise InputError("it is nested too deeply; remove brackets") from error
    except InputError:
        raise
    except ValueError as error:  # not JSON, not UTF-8, or an endless number
        raise InputError(f"it is not JSON ({error}); correct it, or make it again") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise InputError(f"it says {shown(key)} twice; remove one")
        content[key] = value
    return content
