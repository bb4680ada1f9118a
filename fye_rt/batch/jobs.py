"""The jobs of a batch: one JSON object a line, one clip each.

    {"portrait": "anna.png", "motion": "wave.mp4"}
    {"portrait": "anna.png", "motion": "talk.npz", "name": "anna-talks", "seed": 7, "forecast": "quality"}
    {"portrait": "two.jpg", "faces": [{"face": "left", "motion": "talk.mp4"}, {"face": "right", "motion": "nod.mp4"}]}

Paths are relative to the file with the jobs. A line that is no job is a job that has failed already: the others don't
suffer from it.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fye_rt.bundle import Bundle
from fye_rt.clips.faces import check_faces
from fye_rt.errors import FyeError, InputError
from fye_rt.files import parse_json
from fye_rt.landmarks.builtin import is_builtin
from fye_rt.options import ClipRequest
from fye_rt.settings import CROP_SETTINGS, FORECAST_SETTINGS, SETTINGS, flattened, parse_request

MAX_LINE = 65536  # bytes
MAX_JOBS = 1_000_000
_LONGEST = 100  # letters of a job's name
_BYTES = 200  # of them; a file's name has 255 at most
_PART = 40  # letters, and _PART_BYTES, of a portrait's or motion's name in that of their clip
_PART_BYTES = 90

_PATHS = ("portrait", "motion", "portrait_landmarks", "audio")
_SHARED = ("compute", "landmarker")  # by all jobs: that of the command
FIELDS = (*(name for name in SETTINGS if name not in _SHARED), "name", "faces")
_OF_CLIP = ("portrait", "name", "faces", "size", "paste", "alpha", "audio", "crf")  # the same for all its faces
FACE_FIELDS = tuple(name for name in FIELDS if name not in _OF_CLIP)
_PASTED = {"crop": "face", "paste": True, "paste_mask": "face"}  # defaults of several faces


@dataclass(frozen=True, slots=True)
class Job:
    """One clip to make.

    Attributes:
        line: in its file, from 1.
        name: its files are called so.
        requests: the clip, or its faces, for `render_faces`; portrait, motions and landmarks are files.
    """

    line: int
    name: str
    requests: tuple[ClipRequest, ...]

    @property
    def group(self) -> str:
        """Jobs of one group share an encoded portrait."""
        return repr((self.requests[0].portrait, self.requests[0].size))

    @property
    def file(self) -> str:
        """Name of the clip's file."""
        return f"{self.name}.{'webm' if self.requests[0].crop.alpha else 'mp4'}"


@dataclass(frozen=True, slots=True)
class BadJob:
    """A line that is no job.

    Attributes:
        line: in its file, from 1.
        name: what it would have been called.
        error: what is wrong with it.
    """

    line: int
    name: str
    error: str


def read_jobs(path: Path, settings: Mapping[str, Any], bundle: Bundle) -> list[Job | BadJob]:
    """Read a file of jobs; empty lines are skipped.

    Args:
        path: the file.
        settings: of `fye_rt.settings.parse_request`, for jobs that do not set them.
        bundle: which says what is left open.

    Raises:
        InputError: it cannot be read, holds no line, or more than a million.
    """
    jobs: list[Job | BadJob] = []
    names: dict[str, int] = {}
    for number, line in _lines(path):
        job = _parse(number, line, path.parent, settings, bundle, names)
        if isinstance(job, Job):
            names[_folded(job.name)] = number
        jobs.append(job)
    if not jobs:
        raise InputError(f'{path} has no jobs; give one a line: {{"portrait": "face.png", "motion": "wave.mp4"}}')
    return jobs


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if number > MAX_JOBS:
                    raise InputError(f"{path} has more than {MAX_JOBS:,} lines; split it")
                rest = line
                while len(rest) > MAX_LINE and not rest.endswith(b"\n"):  # skip what is left of an endless line
                    rest = file.readline(MAX_LINE + 1)
                if line.strip():
                    yield number, line
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give a file with one job a line") from error


def _parse(
    line: int, raw: bytes, folder: Path, settings: Mapping[str, Any], bundle: Bundle, names: Mapping[str, int]
) -> Job | BadJob:
    name = f"line-{line}"
    try:
        if len(raw) > MAX_LINE:
            raise InputError(f"it has more than {MAX_LINE} bytes")
        fields = parse_json(raw)
        if not isinstance(fields, dict):
            raise InputError("it is not a JSON object")
        _check(fields, FIELDS, "a job")
        placed = [face | _paths(face, folder) for face in _faces(fields)]
        if missing := [key for key in ("portrait", "motion") if any(key not in face for face in placed)]:
            raise InputError(f"{missing[0]} is missing")
        name = _name(fields, line, placed[0]["portrait"], placed[0]["motion"], names)
        if fields.get("faces") is not None:
            settings = _PASTED | {key: value for key, value in settings.items() if value is not None}
        requests = tuple(_request(face, settings, bundle) for face in placed)
        if fields.get("faces") is not None:
            check_faces(requests)
        return Job(line, name, requests)
    except FyeError as error:
        return BadJob(line, name, in_settings(str(error)))


def in_settings(message: str) -> str:
    """Name fields of `Crop` in a message as a job's settings: `Crop.scale` becomes `crop_scale`."""
    names = {field: name for name, field in CROP_SETTINGS.items()}
    return re.sub(r"\bCrop\.(\w+)", lambda match: names.get(match[1], match[0]), message)


def _check(fields: Mapping[str, Any], known: Sequence[str], noun: str) -> None:
    if unknown := [key for key in fields if key not in known]:
        raise InputError(f"{', '.join(map(repr, unknown))} is not known; {noun} has {', '.join(known)}")


def _faces(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the settings of each face of a job's clip: its own, over those of the job."""
    faces = fields.get("faces")
    shared = _settings({key: value for key, value in fields.items() if key not in ("name", "faces")})
    if faces is None:
        return [shared]
    if not isinstance(faces, list) or not faces or not all(isinstance(face, dict) for face in faces):
        raise InputError('faces is not valid; give a list of one or more objects: [{"face": "left", "motion": ...}]')
    for face in faces:
        _check(face, FACE_FIELDS, "a face")
    return [_over(shared, _settings(face)) for face in faces]


def _settings(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of some fields, of which a null counts as left out, and an object as its fields."""
    return flattened({key: value for key, value in fields.items() if value is not None})


def _over(below: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Lay settings over others, of which they leave out those of another forecast or crop."""
    replaced: tuple[str, ...] = FORECAST_SETTINGS if "forecast" in settings else ()
    if settings.get("crop") not in (None, "auto", "face"):
        replaced += ("crop_scale", "crop_rotate")
    return {**{key: value for key, value in below.items() if key not in replaced}, **settings}


def _request(settings: Mapping[str, Any], defaults: Mapping[str, Any], bundle: Bundle) -> ClipRequest:
    """Parse a clip's or a face's settings, over those of the command."""
    request = parse_request(_over(defaults, settings))
    return replace(request, options=bundle.resolve(request.options))


def _paths(fields: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    names = [key for key in _PATHS if key in fields and not _is_word(key, fields[key])]
    return {key: _path(fields, key, folder) for key in names}


def _is_word(key: str, value: object) -> bool:
    """Return whether a field that names a file says something else: no sound, or a motion that fye-rt brings along."""
    return value == "none" if key == "audio" else key == "motion" and is_builtin(value)


def _path(fields: Mapping[str, Any], key: str, folder: Path) -> Path:
    value = fields[key]
    if not isinstance(value, str) or not value or "\0" in value:
        raise InputError(f"{key}={value!r} is not a path")
    return folder / value


def _name(fields: Mapping[str, Any], line: int, portrait: Path, motion: Path, names: Mapping[str, int]) -> str:
    name = fields.get("name")
    if name is None:
        name = "--".join(_part(path.stem) for path in (portrait, motion)).lstrip("._-")
        while not name or _folded(name) in names:
            name = f"{name or 'clip'}-{line}"
        return name
    if not isinstance(name, str) or not _is_name(name):
        raise InputError(f"name={name!r} is not valid; letters, digits, '.', '_' and '-', 1 to {_LONGEST} of them")
    if _folded(name) in names:
        raise InputError(f"line {names[_folded(name)]} has the name {name!r} already")
    return name


def _folded(name: str) -> str:
    """Some file systems don't tell A from a, nor an accented letter from a letter and an accent."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _is_name(name: str) -> bool:
    """Whether files can be called so everywhere."""
    allowed = len(name) <= _LONGEST and len(name.encode(errors="replace")) <= _BYTES
    return allowed and all(_is_letter(c) or c in "._-" for c in name) and name[:1].isalnum()


def _is_letter(character: str) -> bool:
    """Whether it is a letter, a digit, or a mark that belongs to one, of any script."""
    return unicodedata.category(character)[0] in "LMN"


def _part(stem: str) -> str:
    """What a portrait's or a motion's name adds to that of their clip."""
    stem = unicodedata.normalize("NFC", stem)
    safe = "".join(c if _is_letter(c) or c in "._-" else " " for c in stem)
    return re.sub(" +", "_", safe)[:_PART].encode()[:_PART_BYTES].decode(errors="ignore")
