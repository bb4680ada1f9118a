"""The entries of a suite: files, portraits, driving motions and pairs, as suite.json lists them."""

from collections.abc import Sized
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    ValidationInfo,
    model_validator,
)

from fye_bench.json_input import Strict, condition
from fye_bench.suites.drawn import DrawnTruth
from fye_bench.suites.manifest import MANIFEST, Digest, Label, Name, Text, place
from fye_rt.errors import InputError
from fye_rt.files import sha256
from fye_rt.media.checks import LIMITS, check_file

MAX_PAIRS = 100_000  # the limit of portraits and of motions too
WITHOUT_FRAMES = (".npz", ".npy")  # suffixes of motions that hold landmarks and no pictures

Truth = DrawnTruth | Literal["driving"] | None
Entry = TypeVar("Entry", bound="_Named")


class File(Strict):
    """A file of the suite.

    Attributes:
        path: absolute, inside the suite's folder.
        sha256: hash of the content when the suite was made, hexadecimal digits.
    """

    path: Annotated[
        Path,
        BeforeValidator(lambda value, info: place(value, info.context["folder"])),
        PlainSerializer(lambda path, info: path.relative_to(info.context).as_posix()),
    ] = Field(alias="file")
    sha256: Digest

    def check(self) -> None:
        """Raise InputError if the file is missing or its content has changed."""
        try:
            digest = sha256(check_file(self.path, LIMITS))
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror}; put it back") from error
        if digest != self.sha256:
            raise InputError(
                f"{self.path} is not the file that {MANIFEST} lists (SHA-256 {digest[:12]}, not {self.sha256[:12]}); "
                "put that back, or make the suite again"
            )


class _Named(File):
    _name: str = PrivateAttr("")

    @property
    def name(self) -> str:
        """Name, unique among the portraits or the motions."""
        return self._name


class Portrait(_Named):
    """A picture of a face.

    Attributes:
        family: kind of character, a group of the report.
        source: origin of the picture.
        licence: licence of the picture.
        landmarks: a motion of one frame in place of detection, or None.
    """

    family: Label
    source: Text
    licence: Text
    landmarks: Annotated[
        File | None, BeforeValidator(lambda value, info: File.model_validate(value, context=info.context))
    ] = None


class Driving(_Named):
    """A motion that drives portraits: a video, a motion .npz or a template .npy.

    Attributes:
        kind: kind of motion, a group of the report.
        source: origin of the file.
        licence: licence of the file.
    """

    kind: Label
    source: Text
    licence: Text


def _listed(value: Any, info: ValidationInfo) -> Any:
    what = info.field_name
    entries = (info.context or {}).get(f"{what}s", {})
    if not isinstance(value, str) or value not in entries:
        raise ValueError(f"the suite has no such {what}: add it to {what}s")
    return entries[value]


def _truth(value: Any) -> Truth:
    if isinstance(value, dict) and list(value) == ["drawn"]:
        return DrawnTruth.model_validate(value["drawn"])
    if value != "driving":
        raise ValueError("give 'driving', {'drawn': ...} or leave it out")
    return "driving"


_BY_NAME = PlainValidator(_listed), PlainSerializer(lambda entry: entry.name)


class Pair(Strict):
    """One clip to make.

    Attributes:
        name: unique; the clip's files are named after it.
        portrait: the face that is shown.
        motion: the motion that drives it.
        mode: "self" if the portrait's own face drives it, else "cross".
        truth: what the clip should show: "driving", the driving video's own frames; a character to draw; None if
            unknown.
    """

    name: Name
    portrait: Annotated[Portrait, *_BY_NAME]
    motion: Annotated[Driving, *_BY_NAME]
    mode: Annotated[str, condition(("self", "cross").__contains__, "give 'self' or 'cross'")]
    truth: Annotated[
        Truth,
        PlainValidator(_truth),
        PlainSerializer(lambda truth: truth.entry() if isinstance(truth, DrawnTruth) else truth),
    ] = None

    @model_validator(mode="after")
    def _has_such_a_truth(self) -> Self:
        if self.truth == "driving" and self.mode != "self":
            raise InputError(
                f"pair {self.name!r} is driven by another face, whose frames are no truth; remove its truth"
            )
        if self.truth == "driving" and self.motion.path.suffix.lower() in WITHOUT_FRAMES:
            raise InputError(
                f"pair {self.name!r} has a truth of frames, and {self.motion.name!r} is no video; remove its truth"
            )
        return self


def _count(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, Sized) and len(value) > MAX_PAIRS:
        raise InputError(f"it has {len(value):,} {info.field_name}; give 1 to {MAX_PAIRS:,}")
    return value


def _name(entries: dict[str, Entry], info: ValidationInfo) -> dict[str, Entry]:
    """Give the entries their names, and make them known to the pairs."""
    names: dict[str, str] = {}
    for name, entry in entries.items():
        if (other := names.setdefault(name.lower(), name)) != name:
            raise InputError(f"{info.field_name} {other!r} and {name!r} differ in capitals alone; rename one")
        entry._name = name
    if info.context is not None:
        info.context[info.field_name] = entries
    return entries


def _distinct(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    if not pairs:
        raise InputError(f"it has no pairs; give 1 to {MAX_PAIRS:,}")
    numbers: dict[str, int] = {}
    for number, pair in enumerate(pairs, start=1):
        if (earlier := numbers.setdefault(pair.name.lower(), number)) != number:
            raise InputError(
                f"pair {number}, {pair.name!r}, has the name of pair {earlier} (capitals make no difference); "
                "rename one"
            )
    return pairs


Portraits = Annotated[dict[Name, Portrait], BeforeValidator(_count), AfterValidator(_name)]
Motions = Annotated[dict[Name, Driving], BeforeValidator(_count), AfterValidator(_name)]
Pairs = Annotated[tuple[Pair, ...], Field(strict=False), BeforeValidator(_count), AfterValidator(_distinct)]
