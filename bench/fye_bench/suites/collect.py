"""`fye suite init`: a suite of the portraits and motions that lie in a folder; nothing is copied or moved."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from fye_bench.suites.entries import MAX_PAIRS
from fye_bench.suites.manifest import EVERYTHING, MANIFEST, MAX_LABEL
from fye_bench.suites.pairing import Plan, crossings, spread
from fye_bench.suites.probe import (
    MOTIONS,
    PORTRAITS,
    Found,
    Report,
    Tell,
    face_finder,
    find_motions,
    find_portraits,
    inside,
)
from fye_bench.suites.suite import FORMAT, VERSION, Suite
from fye_rt.errors import InputError, OutputError
from fye_training.drawing.character import FAMILIES
from fye_training.performance import KINDS

FAMILY, KIND = "portraits", "unsorted"  # of what lies in no subfolder
CROSSES = 3  # motions of others that a portrait gets
LONGEST = 48  # of a name; a pair's has two of them and "--"


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
    tell: Tell = lambda stage, done, total: None,
) -> Suite:
    """Make a suite of FOLDER/portraits and FOLDER/motions (or videos, or templates), and write its manifest.

    A subfolder's name is the family of its portraits, or the kind of its motions. A portrait and a motion that are
    called alike are one face: they make a pair of mode self, whose truth is the video, if it is one.

    Args:
        folder: of the suite.
        family: of portraits in no subfolder.
        kind: of motions in no subfolder.
        source: of files beside which no text names one.
        licence: likewise.
        pairs: "self", "cross" or "all" of them, or how many; None: all of mode self, and three others a portrait.
        landmarker: MediaPipe's model, which tells in which portraits there is a face.
        overwrite: replace a manifest that is there.
        report: called with a line for each file that cannot be used.
        tell: called with (stage, finished, all).

    Raises:
        InputError: there is nothing to make a suite of.
        OutputError: there is one already, or it cannot be written.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder; give one with pictures in {PORTRAITS[0]} and videos in {MOTIONS[0]}"
        )
    if (folder / MANIFEST).exists() and not overwrite:
        raise OutputError(f"cannot write {folder / MANIFEST}: it is there already; replace it with --overwrite")
    portraits = find_portraits(folder, face_finder(landmarker, report), report, tell)
    motions = find_motions(folder, report, tell)
    for what, found, places in (("portrait", portraits, PORTRAITS), ("motion", motions, MOTIONS)):
        if not found:
            searched = " and ".join(str(folder / name) for name in places)
            raise InputError(f"{folder} has no {what} that can be used; put some into {searched}")
    families = _labels([one.group or family for one in portraits], FAMILIES, "portraits", ())
    kinds = _labels([one.group or kind for one in motions], KINDS, "motions", families.values())
    faces, moves = _names(portraits), _names(motions)

    def entry(one: Found) -> dict[str, Any]:
        origin = {"source": one.source or source, "licence": one.licence or licence}
        return {"file": inside(folder, one.path), "sha256": one.sha256} | origin

    def landmarks(one: Found) -> dict[str, Any]:
        if one.landmarks is None:
            return {}
        path, digest = one.landmarks
        return {"landmarks": {"file": inside(folder, path), "sha256": digest}}

    content = {
        "format": FORMAT,
        "version": VERSION,
        "name": _label(folder.resolve().name, (), "suite", ()),
        "note": "",
        "portraits": {
            name: entry(one) | {"family": families[one.group or family]} | landmarks(one) for name, one in faces.items()
        },
        "motions": {name: entry(one) | {"kind": kinds[one.group or kind]} for name, one in moves.items()},
        "pairs": _pairs(faces, moves, families, kinds, pairs, report, (family, kind)),
    }
    if not content["pairs"]:
        raise InputError(f"{folder}: its portraits and motions make no pair; add some, or choose other --pairs")
    suite = Suite.of(folder, content)
    suite.save()
    return suite


def _pairs(
    faces: dict[str, Found],
    moves: dict[str, Found],
    families: dict[str, str],
    kinds: dict[str, str],
    wanted: str | int | None,
    report: Report,
    defaults: tuple[str, str],
) -> list[dict[str, Any]]:
    portraits = {name: families[one.group or defaults[0]] for name, one in faces.items() if one.driveable}
    motions = {name: kinds[one.group or defaults[1]] for name, one in moves.items()}
    own = _own({name: faces[name] for name in portraits}, moves, report)
    everyone = crossings(portraits, motions, [(plan.portrait, plan.motion) for plan in own])
    cross: Iterable[Plan] = ()
    if wanted in (None, "cross"):
        cross = islice(everyone, CROSSES * len(portraits))
    elif isinstance(wanted, int):
        cross = islice(everyone, max(0, wanted - len(own)))
    elif wanted == "all":
        cross = everyone
    plans = [*(() if wanted == "cross" else own), *islice(cross, MAX_PAIRS + 1)]
    if len(plans) > MAX_PAIRS:
        raise InputError(f"that makes more than {MAX_PAIRS:,} pairs; give their number with --pairs")
    ordered = spread(plans, portraits, motions)[: wanted if isinstance(wanted, int) else None]
    return [plan._asdict() | _named(plan, moves[plan.motion]) for plan in ordered]


def _named(plan: Plan, motion: Found) -> dict[str, str]:
    """The name of a pair and its truth."""
    filmed = {"truth": "driving"} if plan.mode == "self" and motion.filmed else {}
    return {"name": f"{plan.portrait}--{plan.motion}"} | filmed


def _own(faces: dict[str, Found], moves: dict[str, Found], report: Report) -> list[Plan]:
    """Pairs of a portrait and a motion whose files are called alike."""
    by_stem: dict[str, list[str]] = {}
    for name, one in faces.items():
        by_stem.setdefault(one.path.stem, []).append(name)
    plans: list[Plan] = []
    for motion, one in moves.items():
        called = by_stem.get(one.path.stem, [])
        if len(called) > 1:
            report(f"{one.path} may be the face of {', '.join(called)}: it makes no pair of mode self; rename one")
        plans += [Plan(portrait, motion, "self") for portrait in called if len(called) == 1]
    return plans


def _names(found: Sequence[Found]) -> dict[str, Found]:
    """Names made of those of the files: valid, unique whatever the capitals, and without "--", which joins two."""
    named: dict[str, Found] = {}
    taken: set[str] = set()
    numbers: Counter[str] = Counter()
    for one in found:
        stem = re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9._-]+", "_", one.path.stem)).strip("._-")
        stem = stem[:LONGEST].rstrip("._-") or "unnamed"
        name, short = stem, stem[: LONGEST - 7].rstrip("._-")
        while name.lower() in taken:
            numbers[short.lower()] += 1
            name = f"{short}-{numbers[short.lower()] + 1}"
        taken.add(name.lower())
        named[name] = one
    return named


def _labels(groups: Iterable[str], known: Sequence[str], what: str, others: Collection[str]) -> dict[str, str]:
    """By subfolder, what its group is called in reports."""
    return {group: _label(group, known, what, others) for group in sorted(set(groups))}


def _label(name: str, known: Sequence[str], what: str, others: Collection[str]) -> str:
    """A name for reports: one of those known, if it reads like one; none of the others, and not "all"."""
    plain = re.sub(r"[\s_-]+", " ", name).strip().lower()
    label = plain if plain in known else "".join(c for c in name if c.isprintable()).strip()
    label = label[: MAX_LABEL // 2].strip() or "unnamed"
    while label in others or label == EVERYTHING:
        label = f"{label} {what}"
    return label
