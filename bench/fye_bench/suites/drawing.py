"""`fye suite drawn`: draw a suite of characters from seeds. Their true frames are known.

Portrait i is character i of family i mod 4; motion m is of kind m mod 5, performed by character m. No training,
calibration or expression reader has used these characters and motions.
"""

from itertools import islice
from pathlib import Path
from typing import Any

from fye_bench.metrics.truth import FIRST_MOTION, STRIDE
from fye_bench.suites.drawn import DrawnTruth
from fye_bench.suites.entries import MAX_PAIRS
from fye_bench.suites.pairing import Pairing, crossings, spread
from fye_bench.suites.suite import FORMAT, VERSION, Suite
from fye_rt import media
from fye_rt.errors import OptionError, OutputError
from fye_rt.files import atomic_folder, sha256
from fye_rt.landmarks import MAX_FRAMES
from fye_rt.options import check_sides
from fye_rt.timings import Progress, counted, no_progress
from fye_training import face
from fye_training.identity import FAMILIES, held_out, identity
from fye_training.performance import FPS, KINDS, perform

FIRST_CHARACTER = 400_000  # the quality suite, calibration, expression reader and demo use those below
CHARACTERS = 100_000  # per seed
SEEDS = 10_000
ORIGIN = {"source": "drawn by fye-rt", "licence": "Apache-2.0"}


def draw_suite(
    folder: Path,
    portraits: int = 500,
    motions: int = 40,
    frames: int = 16,
    size: tuple[int, int] = (128, 128),
    seed: int = 0,
    progress: Progress = no_progress,
) -> Suite:
    """Write a suite: pictures, their landmarks, motions and the manifest. The same arguments give the same bytes.

    Every motion drives its own performer, and every portrait is driven by another one's motion.

    Args:
        folder: a new or empty folder, which is written whole or not at all.
        portraits: number of portraits, 1 to 49,999.
        motions: number of motions, 1 to 49,999.
        frames: number of frames per motion, at 25/3 frames per second; the first shows a neutral face.
        size: height and width of the portraits.
        seed: selects the characters and motions, 0 to 9,999.
        progress: called with (stage, done, total).

    Raises:
        OptionError: a number outside its range.
        InputError: a size that no clip can have.
        OutputError: the folder is not empty, or cannot be written.
    """
    for name, value, least, most in (
        ("portraits", portraits, 1, MAX_PAIRS // 2 - 1),
        ("motions", motions, 1, MAX_PAIRS // 2 - 1),
        ("frames", frames, 1, MAX_FRAMES // STRIDE),
        ("seed", seed, 0, SEEDS - 1),
    ):
        if not least <= value <= most:
            raise OptionError(f"--{name} {value} is not valid; give {least} to {most}")
    check_sides(size, "a portrait")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"cannot write {folder}: it exists and is not empty; choose a new or an empty folder")
    cast = [_truth(number, seed) for number in range(max(portraits, motions))]
    with atomic_folder(folder) as temporary:
        content = {
            "format": FORMAT,
            "version": VERSION,
            "name": "drawn" if seed == 0 else f"drawn-{seed}",
            "note": "Drawn characters, whose true frames are known.",
            "portraits": _draw_portraits(temporary, cast[:portraits], size, progress),
            "motions": _perform(temporary, cast[:motions], frames, size, seed, progress),
        }
        Suite.of(temporary, content | {"pairs": _pairs(content, cast)}).save()
    return Suite.load(folder)


def _truth(number: int, seed: int) -> DrawnTruth:
    place = seed * CHARACTERS + number
    family = FAMILIES[number % len(FAMILIES)]
    return DrawnTruth(family=family, identity=held_out(FIRST_CHARACTER + place), placement=place)


def _draw_portraits(folder: Path, cast: list[DrawnTruth], size: tuple[int, int], progress: Progress) -> dict[str, Any]:
    (folder / "portraits").mkdir()
    entries: dict[str, Any] = {}
    for number, truth in enumerate(counted(cast, "portraits", progress)):
        name = f"{truth.family}-{number:04d}"
        picture, landmarks = (folder / "portraits" / f"{name}{suffix}" for suffix in (".png", ".npz"))
        media.write_image(picture, truth.portrait(size))
        truth.landmarks(size).save(landmarks)
        entries[name] = _file(folder, picture) | {"family": truth.family} | ORIGIN
        entries[name]["landmarks"] = _file(folder, landmarks)
    return entries


def _perform(
    folder: Path, cast: list[DrawnTruth], frames: int, size: tuple[int, int], seed: int, progress: Progress
) -> dict[str, Any]:
    (folder / "motions").mkdir()
    entries: dict[str, Any] = {}
    for number, truth in enumerate(counted(cast, "motions", progress)):
        kind = KINDS[number % len(KINDS)]
        name = f"{kind.replace(' ', '-')}-{number:04d}"
        path = folder / "motions" / f"{name}.npz"
        acting = perform(FIRST_MOTION + FIRST_CHARACTER + seed * CHARACTERS + number, (frames - 1) * STRIDE + 1, kind)[
            ::STRIDE
        ]
        shape = identity(truth.identity, truth.family).shape
        place = face.placement(shape, size, truth.placement)
        face.motion(shape, acting, size, place, FPS / STRIDE).save(path)
        entries[name] = _file(folder, path) | {"kind": kind} | ORIGIN
    return entries


def _pairs(content: dict[str, Any], cast: list[DrawnTruth]) -> list[dict[str, Any]]:
    families = {name: entry["family"] for name, entry in content["portraits"].items()}
    kinds = {name: entry["kind"] for name, entry in content["motions"].items()}
    own = [Pairing(portrait, motion, "self") for portrait, motion in zip(families, kinds, strict=False)]
    cross = islice(crossings(families, kinds, [(pair.portrait, pair.motion) for pair in own]), len(families))
    truths = dict(zip(families, cast, strict=False))
    return [
        pair._asdict() | {"name": f"{pair.portrait}--{pair.motion}", "truth": truths[pair.portrait].entry()}
        for pair in spread([*own, *cross], families, kinds)
    ]


def _file(folder: Path, path: Path) -> dict[str, Any]:
    return {"file": path.relative_to(folder).as_posix(), "sha256": sha256(path)}
