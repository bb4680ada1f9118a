"""The entries of a suite: files, portraits, driving motions and pairs, as suite.json lists them."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
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


def _named(entries: dict[str, Entry], info: ValidationInfo) -> dict[str, Entry]:
    """Give entries their names, and list them for the pairs."""
    for name, entry in entries.items():
        entry._name = name
    (info.context or {})[info.field_name] = entries
    return entries


def _listed(value: Any, info: ValidationInfo) -> Any:
    entries = (info.context or {}).get(f"{info.field_name}s", {})
    if not isinstance(value, str) or value not in entries:
        raise ValueError(f"the suite has no such {info.field_name}: add it to {info.field_name}s")
    return entries[value]


def _truth(value: Any) -> Truth:
    if isinstance(value, dict) and list(value) == ["drawn"]:
        return DrawnTruth.model_validate(value["drawn"])
    if value != "driving":
        raise ValueError("give 'driving', {'drawn': ...} or leave it out")
    return "driving"


_BY_NAME = BeforeValidator(_listed), PlainSerializer(lambda entry: entry.name)
Portraits = Annotated[dict[Name, Portrait], AfterValidator(_named)]
Motions = Annotated[dict[Name, Driving], AfterValidator(_named)]


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
    truth: Annotated[Truth, BeforeValidator(_truth)] = None

    @property
    def kind_of_truth(self) -> str:
        """Kind of the truth: "drawn", "driving" or "none"."""
        return "drawn" if isinstance(self.truth, DrawnTruth) else self.truth or "none"

    @model_validator(mode="after")
    def _check_truth(self) -> Self:
        if self.truth == "driving" and self.mode != "self":
            fault = "is driven by another face, whose frames are no truth"
        elif self.truth == "driving" and self.motion.path.suffix.lower() in WITHOUT_FRAMES:
            fault = f"has a truth of frames, and {self.motion.name!r} is no video"
        else:
            return self
        raise InputError(f"pair {self.name!r} {fault}; remove its truth")
