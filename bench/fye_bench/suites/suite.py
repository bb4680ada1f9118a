"""A suite: portraits, driving motions, and pairs of them in the order of evaluation.

docs/development/suites.md describes the format.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import FailFast, Field, PrivateAttr, model_validator

from fye_bench.json_input import Strict, parse, read_json
from fye_bench.suites import manifest
from fye_bench.suites.drawn import DrawnTruth
from fye_bench.suites.entries import MAX_PAIRS, Driving, File, Motions, Pair, Portrait, Portraits, Truth
from fye_bench.suites.manifest import MANIFEST, Label, Text
from fye_rt import media
from fye_rt.errors import InputError, OptionError
from fye_rt.files import atomic_file, shown
from fye_rt.timings import Progress, no_progress

__all__ = ["MANIFEST", "Driving", "File", "Pair", "Portrait", "Suite", "Truth", "faults", "notes"]

FORMAT: Literal["fye-suite"] = "fye-suite"
VERSION: Literal[1] = 1
_ITEMS = {"portraits": "portrait", "motions": "motion", "pairs": "pair"}


class Suite(Strict):
    """A suite whose manifest is valid. `faults` checks its files.

    Attributes:
        format: "fye-suite".
        version: of the format.
        name: of the suite.
        note: a line about it, or "".
        portraits: by name.
        motions: by name.
        pairs: in the order of evaluation. `fye suite` orders them so that the first N are spread evenly, for every N.
    """

    format: Literal["fye-suite"]
    version: Literal[1]
    name: Label
    note: Text
    portraits: Portraits
    motions: Motions
    pairs: Annotated[tuple[Pair, ...], Field(strict=False), FailFast()]
    _folder: Path = PrivateAttr()
    _digest: str = PrivateAttr()

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Open a suite. Its files are not read.

        Raises:
            InputError: its manifest is missing or not valid; the message names the entry.
        """
        path = Path(folder) / MANIFEST
        if not path.exists():
            raise InputError(f"{folder} is not a suite: it has no {MANIFEST}; make one with: fye suite init FOLDER")
        return cls.of(folder, read_json(path, manifest.MAX_BYTES))

    @classmethod
    def of(cls, folder: str | os.PathLike[str], content: Any) -> Self:
        """Return the suite that a manifest describes.

        Args:
            folder: the suite's folder.
            content: of suite.json, see docs/development/suites.md.

        Raises:
            InputError: the manifest is not valid; the message names the entry.
        """
        path, absolute = Path(folder) / MANIFEST, Path(folder).resolve()
        try:
            _check_head(content)
            suite = parse(cls, content, _ITEMS, context={"folder": absolute})
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        suite._folder = absolute
        canonical = json.dumps(suite.manifest(), sort_keys=True, separators=(",", ":"))
        suite._digest = hashlib.sha256(canonical.encode("ascii")).hexdigest()
        return suite

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        pairs = [pair.name for pair in self.pairs]
        for section, names in (("portraits", self.portraits), ("motions", self.motions), ("pairs", pairs)):
            numbers: dict[str, int] = {}
            for number, name in enumerate(names, start=1):
                if (earlier := numbers.setdefault(name.lower(), number)) != number:
                    clash = f"{section} {earlier} and {number} have one name"
                    raise InputError(f"{clash}, {name!r} (capitals make no difference); rename one")
        families = {portrait.family for portrait in self.portraits.values()}
        if motion := next((motion for motion in self.motions.values() if motion.kind in families), None):
            raise InputError(
                f"motion {motion.name!r} has the kind {motion.kind!r}, which is a family too; results are "
                "reported by both: rename one"
            )
        return self

    @property
    def folder(self) -> Path:
        """Absolute path of the suite's folder."""
        return self._folder

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical manifest (keys sorted, no spaces); `first` keeps that of all pairs."""
        return self._digest

    def manifest(self) -> dict[str, Any]:
        """Return the content of suite.json."""
        return self.model_dump(by_alias=True, exclude_none=True, context=self._folder)

    def save(self) -> Path:
        """Write suite.json into the folder, whole or not at all; the same suite gives the same bytes.

        Raises:
            OutputError: the file cannot be written.
        """
        path = self.folder / MANIFEST
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(self.manifest(), indent=1) + "\n", encoding="ascii")
        return path

    def first(self, pairs: int) -> Self:
        """Return the suite with its first pairs only.

        Raises:
            OptionError: fewer than one pair.
        """
        if pairs < 1:
            raise OptionError(f"{pairs} pairs are nothing to evaluate; give 1 or more")
        return self.model_copy(update={"pairs": self.pairs[:pairs]})

    def files(self) -> tuple[File, ...]:
        """Return every file once, whether a pair uses it or not."""
        portraits = [file for entry in self.portraits.values() for file in (entry, entry.landmarks) if file]
        return tuple({(file.path, file.sha256): file for file in [*portraits, *self.motions.values()]}.values())


def faults(suite: Suite, progress: Progress = no_progress) -> Iterator[str]:
    """Yield a line for each file that is missing, cannot be read, or has changed since the suite was made.

    Args:
        suite: whose files are checked.
        progress: called with (stage, done, total) files.
    """
    files = suite.files()
    for done, file in enumerate(files, start=1):
        try:
            file.check()
        except InputError as error:
            yield str(error)
        progress("check the files", done, len(files))


def notes(suite: Suite) -> Iterator[str]:
    """Yield a line for what may be unintended: a file listed twice as portrait or motion, a portrait in no pair."""
    listed: tuple[tuple[str, Mapping[str, File]], ...] = (("portraits", suite.portraits), ("motions", suite.motions))
    for section, entries in listed:
        by_content: dict[str, list[str]] = {}
        for name, entry in entries.items():
            by_content.setdefault(entry.sha256, []).append(name)
        for names in by_content.values():
            if len(names) > 1:
                yield f"{section} {', '.join(names)} are the same file"
    paired = {pair.portrait.name for pair in suite.pairs}
    if alone := [name for name in suite.portraits if name not in paired]:
        yield f"portraits in no pair: {', '.join(alone)}"


def _check_head(content: Any) -> None:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"it does not describe a {FORMAT}; make one with: fye suite init FOLDER")
    version = content.get("version")
    if isinstance(version, bool) or version != VERSION:
        raise InputError(f"format version {shown(version)} is not known (only {VERSION}); install a later fye-rt")
    for section in _ITEMS:
        entries = content.get(section)
        if (section == "pairs" and entries == []) or (isinstance(entries, dict | list) and len(entries) > MAX_PAIRS):
            raise InputError(f"it has {len(entries):,} {section}; give 1 to {MAX_PAIRS:,}")


def drawn_otherwise(suite: Suite) -> Iterator[str]:
    """Yield a line for each family whose first drawn portrait differs from what this version of fye-rt draws.

    The truth of such a suite belongs to other characters than its portraits show.
    """
    first: dict[str, tuple[DrawnTruth, Portrait]] = {}
    for pair in suite.pairs:
        if isinstance(pair.truth, DrawnTruth):
            first.setdefault(pair.truth.family, (pair.truth, pair.portrait))
    for truth, portrait in first.values():
        image = media.read_image(portrait.path)
        if not np.array_equal(image, truth.portrait((image.shape[0], image.shape[1]))):
            yield (
                f"{portrait.path} differs from what this version of fye-rt draws; make the suite again with: "
                "fye suite drawn"
            )
