"""What a suite lists: files, portraits, driving motions and pairs, and how they are read from its manifest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from fye_bench.suites import manifest as given
from fye_bench.suites.drawn import DrawnTruth
from fye_bench.suites.manifest import MANIFEST
from fye_rt.errors import InputError
from fye_rt.files import sha256
from fye_rt.media.checks import LIMITS, check_file

MODES = ("self", "cross")
MAX_PAIRS = 100_000  # and as many portraits and motions
WITHOUT_FRAMES = (".npz", ".npy")  # motions whose landmarks are known and whose pictures are not

Truth = DrawnTruth | Literal["driving"] | None
Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class File:
    """A file of the suite.

    Attributes:
        path: absolute, inside the suite's folder.
        sha256: what it held when the suite was made, hexadecimal digits.
    """

    path: Path
    sha256: str

    def check(self) -> None:
        """Raise InputError if it is missing or holds something else."""
        try:
            found = sha256(check_file(self.path, LIMITS))
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror}; put it back") from error
        if found != self.sha256:
            raise InputError(
                f"{self.path} is not the file that {MANIFEST} lists (SHA-256 {found[:12]}, not {self.sha256[:12]}); "
                "put that back, or make the suite again"
            )


@dataclass(frozen=True, slots=True)
class Portrait:
    """A picture of a face.

    Attributes:
        name: unique among the portraits.
        file: the picture.
        family: what kind of character it is, a group of the report.
        source: where it comes from.
        licence: under which it may be used.
        landmarks: a motion of one frame in place of detection, or None.
    """

    name: str
    file: File
    family: str
    source: str
    licence: str
    landmarks: File | None


@dataclass(frozen=True, slots=True)
class Driving:
    """What drives a portrait: a video, a motion .npz or a template .npy.

    Attributes:
        name: unique among the motions.
        file: the video or the motion.
        kind: of the motion, a group of the report.
        source: where it comes from.
        licence: under which it may be used.
    """

    name: str
    file: File
    kind: str
    source: str
    licence: str


@dataclass(frozen=True, slots=True)
class Pair:
    """One clip to make.

    Attributes:
        name: unique; the clip's files are called so.
        portrait: who is shown.
        motion: what moves it.
        mode: "self" if the portrait's own face moves it, else "cross".
        truth: what the clip ought to show: "driving", the driving video's own frames; what to draw; None if nobody
            knows.
    """

    name: str
    portrait: Portrait
    motion: Driving
    mode: str
    truth: Truth


def portraits_of(entries: Any, folder: Path) -> dict[str, Portrait]:
    """The portraits that a manifest lists, by name.

    Raises:
        InputError: an entry that is not valid; the message names it.
    """
    return _named("portrait", entries, partial(_portrait, folder))


def motions_of(entries: Any, folder: Path) -> dict[str, Driving]:
    """The motions that a manifest lists, by name.

    Raises:
        InputError: an entry that is not valid; the message names it.
    """
    return _named("motion", entries, partial(_motion, folder))


def pairs_of(entries: Any, portraits: Mapping[str, Portrait], motions: Mapping[str, Driving]) -> tuple[Pair, ...]:
    """The pairs that a manifest lists, in its order.

    Raises:
        InputError: none, too many, or one that is not valid; the message names it.
    """
    if not isinstance(entries, list):
        raise InputError(f"its pairs are {given.shown(entries)}; give a list")
    if not 1 <= len(entries) <= MAX_PAIRS:
        raise InputError(f"it has {len(entries):,} pairs; give 1 to {MAX_PAIRS:,}")
    found: list[Pair] = []
    places: dict[str, int] = {}
    for place, value in enumerate(entries, start=1):
        entry = given.fields(f"pair {place}", value, ("name", "portrait", "motion", "mode"), ("truth",))
        name = given.name(f"pair {place}", entry["name"])
        where = f"pair {place}, {name!r},"
        if (earlier := places.setdefault(name.lower(), place)) != place:
            raise InputError(f"{where} has the name of pair {earlier}; rename one (capitals make no difference)")
        found.append(_pair(where, name, entry, portraits, motions))
    return tuple(found)


def _named(what: str, entries: Any, parse: Callable[[str, str, Any], Entry]) -> dict[str, Entry]:
    if not isinstance(entries, dict) or len(entries) > MAX_PAIRS:
        raise InputError(f"its {what}s are not an object of at most {MAX_PAIRS:,} entries; list them by name")
    found: dict[str, Entry] = {}
    seen: dict[str, str] = {}
    for name, entry in entries.items():
        given.name(f"a {what}", name)
        if (other := seen.setdefault(name.lower(), name)) != name:
            raise InputError(f"{what}s {other!r} and {name!r} differ in capitals alone; rename one")
        found[name] = parse(f"{what} {name!r}", name, entry)
    return found


def _file(where: str, entry: Mapping[str, Any], folder: Path) -> File:
    path = given.place(f"the file of {where}", entry["file"], folder)
    return File(path, given.digest(f"the sha256 of {where}", entry["sha256"]))


def _portrait(folder: Path, where: str, name: str, value: Any) -> Portrait:
    entry = given.fields(where, value, ("file", "sha256", "family", "source", "licence"), ("landmarks",))
    landmarks = None
    if "landmarks" in entry:
        about = f"the landmarks of {where}"
        landmarks = _file(about, given.fields(about, entry["landmarks"], ("file", "sha256")), folder)
    family = given.label(f"the family of {where}", entry["family"])
    source, licence = (given.text(f"the {key} of {where}", entry[key]) for key in ("source", "licence"))
    return Portrait(name, _file(where, entry, folder), family, source, licence, landmarks)


def _motion(folder: Path, where: str, name: str, value: Any) -> Driving:
    entry = given.fields(where, value, ("file", "sha256", "kind", "source", "licence"))
    kind = given.label(f"the kind of {where}", entry["kind"])
    source, licence = (given.text(f"the {key} of {where}", entry[key]) for key in ("source", "licence"))
    return Driving(name, _file(where, entry, folder), kind, source, licence)


def _pair(
    where: str,
    name: str,
    entry: Mapping[str, Any],
    portraits: Mapping[str, Portrait],
    motions: Mapping[str, Driving],
) -> Pair:
    for what, named in (("portrait", portraits), ("motion", motions)):
        wanted = entry[what]
        if not isinstance(wanted, str) or wanted not in named:
            raise InputError(
                f"{where} names the {what} {given.shown(wanted)}, which the suite has not; add it to {what}s"
            )
    portrait, motion, mode = portraits[entry["portrait"]], motions[entry["motion"]], entry["mode"]
    if mode not in MODES:
        raise InputError(f"{where} has the mode {given.shown(mode)}; give {' or '.join(map(repr, MODES))}")
    return Pair(name, portrait, motion, mode, _truth(where, entry, motion))


def _truth(where: str, entry: Mapping[str, Any], motion: Driving) -> Truth:
    truth = entry.get("truth")
    if "truth" not in entry:
        return None
    if truth == "driving":
        if entry["mode"] != "self":
            raise InputError(f"{where} is driven by another face, whose frames are no truth; remove its truth")
        if motion.file.path.suffix.lower() in WITHOUT_FRAMES:
            raise InputError(f"{where} has a truth of frames, and {motion.name!r} is no video; remove its truth")
        return "driving"
    if isinstance(truth, dict) and list(truth) == ["drawn"]:
        return DrawnTruth.parse(f"the truth of {where.rstrip(',')}", truth["drawn"])
    raise InputError(f"{where} has the truth {given.shown(truth)}; give 'driving', {{'drawn': ...}} or leave it out")
