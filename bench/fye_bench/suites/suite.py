"""A suite: portraits, driving motions, and pairs of them in the order in which they are evaluated.

The format is described in docs/development/suites.md.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from fye_bench.suites import manifest as given
from fye_bench.suites.drawn import DrawnTruth
from fye_bench.suites.entries import Driving, File, Pair, Portrait, Truth, motions_of, pairs_of, portraits_of
from fye_bench.suites.manifest import MANIFEST
from fye_rt.errors import InputError, OptionError
from fye_rt.files import atomic_file

__all__ = ["MANIFEST", "Driving", "File", "Pair", "Portrait", "Suite", "Truth", "faults", "notes"]

FORMAT = "fye-suite"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite whose manifest has been checked; its files have not: see `faults`.

    Attributes:
        folder: absolute.
        name: of the suite.
        note: a line about it, or "".
        portraits: by name.
        motions: by name.
        pairs: in the order of evaluation: any first ones are spread evenly, if `fye suite` has ordered them.
        digest: SHA-256 of the canonical manifest (keys sorted, no spaces); that of all pairs, even if some were left
            out.
    """

    folder: Path
    name: str
    note: str
    portraits: Mapping[str, Portrait]
    motions: Mapping[str, Driving]
    pairs: tuple[Pair, ...]
    digest: str

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Open a suite. Its files are not read.

        Raises:
            InputError: its manifest is missing or not valid; the message names the entry.
        """
        folder = Path(folder)
        return cls.of(folder, given.read_json(folder))

    @classmethod
    def of(cls, folder: str | os.PathLike[str], content: Any) -> Self:
        """The suite that a manifest describes.

        Args:
            folder: where its files lie.
            content: of suite.json, see docs/development/suites.md.

        Raises:
            InputError: as `load`.
        """
        try:
            return cls._parse(Path(folder).resolve(), content)
        except InputError as error:
            raise InputError(f"{Path(folder) / MANIFEST}: {error}") from error

    @classmethod
    def _parse(cls, folder: Path, content: Any) -> Self:
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"it does not describe a {FORMAT}; make one with: fye suite init FOLDER")
        version = content.get("version")
        if isinstance(version, bool) or version != VERSION:
            raise InputError(
                f"format version {given.shown(version)} is not known (only {VERSION}); install a later fye-rt"
            )
        listed = given.fields("it", content, ("format", "version", "name", "note", "portraits", "motions", "pairs"))
        portraits = portraits_of(listed["portraits"], folder)
        motions = motions_of(listed["motions"], folder)
        families = {portrait.family: portrait for portrait in portraits.values()}
        if shared := [motion for motion in motions.values() if motion.kind in families]:
            raise InputError(
                f"motion {shared[0].name!r} has the kind {shared[0].kind!r}, which is a family too; results are "
                "reported by both: rename one"
            )
        suite = cls(
            folder=folder,
            name=given.label("its name", listed["name"]),
            note=given.text("its note", listed["note"]),
            portraits=MappingProxyType(portraits),
            motions=MappingProxyType(motions),
            pairs=pairs_of(listed["pairs"], portraits, motions),
            digest="",
        )
        return replace(suite, digest=hashlib.sha256(_canonical(suite.manifest())).hexdigest())

    def manifest(self) -> dict[str, Any]:
        """What suite.json says of it."""

        def file(of: File) -> dict[str, Any]:
            return {"file": of.path.relative_to(self.folder).as_posix(), "sha256": of.sha256}

        def portrait(one: Portrait) -> dict[str, Any]:
            landmarks = {"landmarks": file(one.landmarks)} if one.landmarks else {}
            labels = {"family": one.family, "source": one.source, "licence": one.licence}
            return file(one.file) | labels | landmarks

        def motion(one: Driving) -> dict[str, Any]:
            return file(one.file) | {"kind": one.kind, "source": one.source, "licence": one.licence}

        def pair(one: Pair) -> dict[str, Any]:
            truth = one.truth.entry() if isinstance(one.truth, DrawnTruth) else one.truth
            named = {"name": one.name, "portrait": one.portrait.name, "motion": one.motion.name, "mode": one.mode}
            return named | ({"truth": truth} if truth else {})

        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "note": self.note,
            "portraits": {name: portrait(one) for name, one in self.portraits.items()},
            "motions": {name: motion(one) for name, one in self.motions.items()},
            "pairs": [pair(one) for one in self.pairs],
        }

    def save(self) -> Path:
        """Write suite.json into the folder, whole or not at all; the same suite gives the same bytes.

        Raises:
            OutputError: it cannot be written.
        """
        path = self.folder / MANIFEST
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(self.manifest(), indent=1) + "\n", encoding="ascii")
        return path

    def first(self, pairs: int) -> Self:
        """The suite with its first pairs alone.

        Raises:
            OptionError: none at all.
        """
        if pairs < 1:
            raise OptionError(f"{pairs} pairs are nothing to evaluate; give 1 or more")
        return replace(self, pairs=self.pairs[:pairs])

    def files(self) -> tuple[File, ...]:
        """Every file once, those of pairs or not."""
        portraits = [one for entry in self.portraits.values() for one in (entry.file, entry.landmarks) if one]
        return tuple(dict.fromkeys([*portraits, *(entry.file for entry in self.motions.values())]))


def faults(suite: Suite, tell: Callable[[int, int], None] = lambda done, total: None) -> Iterator[str]:
    """A line for each file that is missing, cannot be read or holds something else than when the suite was made.

    Args:
        suite: whose files.
        tell: called with the numbers of files that were checked, and of all.
    """
    files = suite.files()
    for done, file in enumerate(files, start=1):
        try:
            file.check()
        except InputError as error:
            yield str(error)
        tell(done, len(files))


def notes(suite: Suite) -> Iterator[str]:
    """A line for whatever is no fault and perhaps not meant: the same file as two portraits or two motions."""
    entries: tuple[tuple[str, Mapping[str, Portrait] | Mapping[str, Driving]], ...]
    entries = (("portraits", suite.portraits), ("motions", suite.motions))
    for what, named in entries:
        same: dict[str, list[str]] = {}
        for name, entry in named.items():
            same.setdefault(entry.file.sha256, []).append(name)
        for names in same.values():
            if len(names) > 1:
                yield f"{what} {', '.join(names)} are the same file"
    paired = {pair.portrait.name for pair in suite.pairs}
    if alone := [name for name in suite.portraits if name not in paired]:
        yield f"portraits in no pair: {', '.join(alone)}"


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")
