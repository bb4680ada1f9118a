"""Parse a `Control` from JSON, from a file of it, and from texts such as "smile=0.6,yaw=10"."""

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from fye_rt.errors import InputError, OptionError
from fye_rt.files.strict_json import parse_json
from fye_rt.landmarks.control import ARKIT, Control, Keyframe

MAX_BYTES = 1 << 22  # of a file


def parse_control(settings: Any, edits: Any = None) -> Control:
    """Build a control from what the command line and files hold.

    Args:
        settings: values by the names of `Control`, where keyframes are objects of time, values and easing; a JSON file
            of them; or a control.
        edits: values that come on top, by the same names or ARKit's: an object, "smile=0.6,yaw=10" or several texts.

    Raises:
        InputError: the file is missing, too large or not JSON.
        OptionError: an unknown name, a value of the wrong type or outside its range.
    """
    if isinstance(settings, str | os.PathLike):
        settings = _read(settings)
    elif isinstance(settings, Control):
        settings = settings.as_dict()
    if not isinstance(settings, Mapping):
        raise OptionError(f"control={settings!r} is not valid; give an object of settings by name")
    names = [f.name for f in fields(Control)]
    values = _edits(edits or {})
    weights = {name: value for name, value in values.items() if name in ARKIT}
    known = {**settings, **{name: value for name, value in values.items() if name not in weights}}
    if unknown := [name for name in known if name not in names]:
        raise OptionError(f"control has no {', '.join(map(repr, unknown))}; allowed: {', '.join(map(str, names))}")
    if weights:
        arkit = known.get("arkit", {})
        known["arkit"] = {**arkit, **weights} if isinstance(arkit, Mapping) else arkit
    if "keyframes" in known:
        known["keyframes"] = _keyframes(known["keyframes"])
    return Control(**known)


def _read(path: str | os.PathLike[str]) -> Any:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise InputError(f"it has more than {MAX_BYTES:,} bytes; give fewer keyframes")
        return parse_json(raw)
    except OSError as error:
        raise InputError(f"{os.fspath(path)}: {error.strerror}; give a JSON file of a control's settings") from error
    except InputError as error:
        raise InputError(f"{os.fspath(path)}: {error}") from error


def _edits(edits: Any) -> dict[str, Any]:
    if isinstance(edits, Mapping):
        return dict(edits)
    texts = [edits] if isinstance(edits, str) else edits
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise OptionError(f"edit={edits!r} is not valid; give values by name, as in smile=0.6,yaw=10")
    values: dict[str, Any] = {}
    for part in (part for text in texts for part in text.split(",")):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not (name and equals and value):
            raise OptionError(f"edit={part!r} is not valid; give values by name, as in smile=0.6,yaw=10")
        values[name] = _value(value)
    return values


def _value(text: str) -> str | float | bool:
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        return text


def _keyframes(entries: object) -> tuple[Keyframe, ...]:
    if not isinstance(entries, list | tuple):
        raise OptionError("keyframes is not valid; give a list of objects: time, values, easing")
    keyframes = []
    for entry in entries:
        if isinstance(entry, Keyframe):
            keyframes.append(entry)
            continue
        if not isinstance(entry, Mapping) or not {"time", "values"} <= set(entry) <= {"time", "values", "easing"}:
            raise OptionError(f"a keyframe {entry!r} is not valid; give an object of time, values and easing")
        keyframes.append(Keyframe(**entry))
    return tuple(keyframes)
