"""JSON files of strangers: read, checked by pydantic models, and refused in one line that says what to do."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from fye_rt.errors import InputError
from fye_rt.files import parse_json, shown
from fye_rt.media.checks import Limits, check_file

_TYPES = {"model_type": "an object", "dict_type": "an object", "tuple_type": "a list", "list_type": "a list"}


class Strict(BaseModel):
    """A JSON object with these fields and no others, none of which is converted.

    A validator raises ValueError with advice about its value, or InputError with a whole sentence.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, value: Any) -> Any:
        # pydantic would collect an error for every unknown field, a kilobyte each
        fields = [field.alias or name for name, field in cls.model_fields.items()]
        unknown = next((key for key in value if key not in fields), None) if isinstance(value, dict) else None
        if unknown is not None and cls.model_config["extra"] == "forbid":
            context = {"field": shown(unknown), "fields": ", ".join(fields)}
            raise PydanticCustomError("unknown_field", "has {field}, which is not known; use {fields}", context)
        return value


Model = TypeVar("Model", bound=Strict)


def condition(valid: Callable[[str], object], advice: str) -> AfterValidator:
    """Refuse a text that is not valid with advice, such as "give one line"."""

    def check(value: str) -> str:
        if not valid(value):
            raise ValueError(advice)
        return value

    return AfterValidator(check)


def read_json(path: Path, max_bytes: int) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it is missing, too large, not JSON, nested too deeply, or has a key twice in one object.
    """
    try:
        return parse_json(check_file(path, Limits(max_file=max_bytes)).read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give a file that can") from error


def parse(model: type[Model], content: Any, items: Mapping[str, str], context: Any = None) -> Model:
    """Check the content of a JSON file.

    Args:
        model: what the content must be.
        content: as `read_json` returns it.
        items: what an entry of a field is called, such as {"pairs": "pair"}.
        context: for the model's validators.

    Raises:
        InputError: the content is not valid; the message says where, what is wrong, and what to do.
    """
    try:
        return model.model_validate(content, context=context)
    except ValidationError as error:
        raise InputError(_message(error.errors(include_url=False)[0], items)) from error


def _message(error: ErrorDetails, items: Mapping[str, str]) -> str:
    *parents, last = error["loc"] or ("",)
    where, kind, text = _place(error["loc"], items), error["type"], error["msg"]
    if kind == "missing":
        return f"{_place(parents, items)} has no {last!r}; add it"
    if kind == "unknown_field":
        return f"{where} {text}"
    if kind == "value_error":
        text = str(cause := error["ctx"]["error"])
        if isinstance(cause, InputError):
            return text
    elif kind in _TYPES:
        text = f"give {_TYPES[kind]}"
    verb = "are" if where.partition(" of ")[0].endswith("s") else "is"
    return f"{where} {verb} {shown(error['input'])}; {text.replace('Input should', 'it should')}"


def _place(location: Any, items: Mapping[str, str]) -> str:
    """Say ("portraits", "anna", "sha256") as "the sha256 of portrait 'anna'"."""
    words: list[str] = []
    parts = iter(location)
    for part in parts:
        entry = next(parts, None) if part in items else None
        if entry is not None:
            words.insert(0, f"{items[part]} {entry + 1 if isinstance(entry, int) else shown(entry)}")
        else:
            words.insert(0, "the name" if part == "[key]" else f"the {part}")
    return " of ".join(words) or "it"
