"""`fye suite init`: make a suite of the portraits and motions in a folder, without copying or moving a file."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from fye_bench.suites.entries import MAX_PAIRS
from fye_bench.suites.manifest import EVERYTHING, MANIFEST, MAX_LABEL
from fye_bench.suites.pairing import Pairing, crossings, spread
from fye_bench.suites.probe import (
    MOTIONS,
    PORTRAITS,
    Found,
    Report,
    face_finder,
    find_motions,
    find_portraits,
    inside,
)
from fye_bench.suites.suite import FORMAT, VERSION, Suite
from fye_rt.errors import InputError, OutputError
from fye_rt.timings import Progress, no_progress
from fye_training.drawing.character import FAMILIES
from fye_training.performance import KINDS

FAMILY, KIND = "portraits", "unsorted"  # of files outside of subfolders
CROSSES = 3  # motions of other faces per portrait
LONGEST = 48  # characters of a name; a pair's name is two of them and "--"


def collect(
    folder: Path,
    *,
    family: str = FAMILY,
    kind: str = KIND,
    source: str = "",
    licence: str = "",
    pairs: str | int | None = None,
    landmarker: Path | None = None,
    overwrite: bool = False,
    report: Report = lambda line: None,
    progress: Progress = no_progress,
) -> Suite:
    """Make a suite of FOLDER/portraits and FOLDER/motions (or videos, or templates), and write its manifest.

    A subfolder's name is the family of its portraits, or the kind of its motions. A portrait and a motion of the same
    file name are one face: they make a pair of mode self. A video is the truth of such a pair.

    Args:
        folder: of the suite.
        family: of portraits outside of subfolders.
        kind: of motions outside of subfolders.
        source: of files without a text beside them that states it.
        licence: of files without a text beside them that states it.
        pairs: "self", "cross" or "all" pairs, or their number; None: all of mode self, and three others per portrait.
        landmarker: MediaPipe's model, which finds the portraits that have a face.
        overwrite: replace an existing manifest.
        report: called with a line for each file that cannot be used.
        progress: called with (stage, done, total).

    Raises:
        InputError: the folder has no usable portrait or motion, or they make no pair.
        OutputError: a manifest exists, or it cannot be written.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder; give one with pictures in {PORTRAITS[0]} and videos in {MOTIONS[0]}"
        )
    if (folder / MANIFEST).exists() and not overwrite:
        raise OutputError(f"cannot write {folder / MANIFEST}: it exists; replace it with overwrite=True (--overwrite)")
    portraits = find_portraits(folder, face_finder(landmarker, report), report, progress)
    motions = find_motions(folder, report, progress)
    for noun, files, names in (("portrait", portraits, PORTRAITS), ("motion", motions, MOTIONS)):
        if not files:
            searched = " and ".join(str(folder / name) for name in names)
            raise InputError(f"{folder} has no {noun} that can be used; put some into {searched}")
    families = _labels([file.group or family for file in portraits], FAMILIES, "portraits", ())
    kinds = _labels([file.group or kind for file in motions], KINDS, "motions", families.values())
    faces = _names([replace(file, group=families[file.group or family]) for file in portraits])
    moves = _names([replace(file, group=kinds[file.group or kind]) for file in motions])

    def entry(file: Found, label: str) -> dict[str, Any]:
        fields: dict[str, Any] = {"file": inside(folder, file.path), "sha256": file.sha256, label: file.group}
        fields |= {"source": file.source or source, "licence": file.licence or licence}
        if file.landmarks is None:
            return fields
        path, digest = file.landmarks
        return fields | {"landmarks": {"file": inside(folder, path), "sha256": digest}}

    content = {
        "format": FORMAT,
        "version": VERSION,
        "name": _label(folder.resolve().name, (), "suite", ()),
        "note": "",
        "portraits": {name: entry(file, "family") for name, file in faces.items()},
        "motions": {name: entry(file, "kind") for name, file in moves.items()},
        "pairs": _pairs(faces, moves, pairs, report),
    }
    if not content["pairs"]:
        raise InputError(f"{folder}: its portraits and motions make no pair; add some, or choose other --pairs")
    suite = Suite.of(folder, content)
    suite.save()
    return suite


def _pairs(
    faces: dict[str, Found], moves: dict[str, Found], wanted: str | int | None, report: Report
) -> list[dict[str, Any]]:
    portraits = {name: file.group for name, file in faces.items() if file.driveable}
    motions = {name: file.group for name, file in moves.items()}
    own = _own({name: faces[name] for name in portraits}, moves, report)
    everyone = crossings(portraits, motions, [(pair.portrait, pair.motion) for pair in own])
    cross: Iterable[Pairing] = ()
    if wanted in (None, "cross"):
        cross = islice(everyone, CROSSES * len(portraits))
    elif isinstance(wanted, int):
        cross = islice(everyone, max(0, wanted - len(own)))
    elif wanted == "all":
        cross = everyone
    pairs = [*(() if wanted == "cross" else own), *islice(cross, MAX_PAIRS + 1)]
    if len(pairs) > MAX_PAIRS:
        raise InputError(f"these files make more than {MAX_PAIRS:,} pairs; give their number with pairs (--pairs)")
    ordered = spread(pairs, portraits, motions)[: wanted if isinstance(wanted, int) else None]
    return [
        pair._asdict()
        | {"name": f"{pair.portrait}--{pair.motion}"}
        | ({"truth": "driving"} if pair.mode == "self" and moves[pair.motion].filmed else {})
        for pair in ordered
    ]


def _own(faces: dict[str, Found], moves: dict[str, Found], report: Report) -> list[Pairing]:
    """Pair portraits with motions of the same file name."""
    by_stem: dict[str, list[str]] = {}
    for name, file in faces.items():
        by_stem.setdefault(file.path.stem, []).append(name)
    pairs: list[Pairing] = []
    for motion, file in moves.items():
        namesakes = by_stem.get(file.path.stem, [])
        if len(namesakes) > 1:
            report(f"{file.path} may be the face of {', '.join(namesakes)}: it makes no pair of mode self; rename one")
        pairs += [Pairing(portrait, motion, "self") for portrait in namesakes if len(namesakes) == 1]
    return pairs


def _names(files: Sequence[Found]) -> dict[str, Found]:
    """Derive names from file names: valid, unique regardless of capitals, and without "--", which joins two names."""
    named: dict[str, Found] = {}
    taken: set[str] = set()
    numbers: Counter[str] = Counter()
    for file in files:
        stem = re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9._-]+", "_", file.path.stem)).strip("._-")
        stem = stem[:LONGEST].rstrip("._-") or "unnamed"
        name, short = stem, stem[: LONGEST - 7].rstrip("._-")
        while name.lower() in taken:
            numbers[short.lower()] += 1
            name = f"{short}-{numbers[short.lower()] + 1}"
        taken.add(name.lower())
        named[name] = file
    return named


def _labels(groups: Iterable[str], known: Sequence[str], noun: str, others: Collection[str]) -> dict[str, str]:
    """Map subfolders to the names of their groups in reports."""
    return {group: _label(group, known, noun, others) for group in sorted(set(groups))}


def _label(name: str, known: Sequence[str], noun: str, others: Collection[str]) -> str:
    """Name a group of reports: a known name if it reads like one, none of the others, and not "all"."""
    plain = re.sub(r"[\s_-]+", " ", name).strip().lower()
    label = plain if plain in known else "".join(c for c in name if c.isprintable()).strip()
    label = label[: MAX_LABEL // 2].strip() or "unnamed"
    while label in others or label == EVERYTHING:
        label = f"{label} {noun}"
    return label
