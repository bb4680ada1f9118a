"""What lies in a user's folder, and whether the runtime can use it. Files are only read."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fye_bench.suites.entries import MAX_PAIRS
from fye_bench.suites.manifest import MAX_TEXT, place
from fye_rt import media
from fye_rt.errors import BackendError, FaceNotFoundError, FyeError, InputError
from fye_rt.files import sha256, shown
from fye_rt.landmarks import Motion, detect_image, find_landmarker, load_template
from fye_rt.media.checks import check_file

PORTRAITS = ("portraits",)
MOTIONS = ("motions", "videos", "templates")
LANDMARKS = (".landmarks.npz", ".npz")  # beside a portrait, after its stem
SIDECARS = (".txt", ".md", ".json")  # no one's mistake
MAX_SIDECAR = 65536  # bytes

Report = Callable[[str], None]
Tell = Callable[[str, int, int], None]
Finder = Callable[[NDArray[np.uint8], str], bool]


@dataclass(frozen=True, slots=True)
class Found:
    """A file that the runtime can use.

    Attributes:
        path: inside the folder.
        group: the subfolder it lies in, or "".
        sha256: of the file.
        landmarks: a portrait's landmarks beside it, and their SHA-256; None for all others.
        driveable: False for a portrait in which there is no face to be found.
        filmed: True for a motion that is a video, whose frames can be seen.
        source: where it comes from, as a text beside it says, or "".
        licence: likewise.
    """

    path: Path
    group: str
    sha256: str
    landmarks: tuple[Path, str] | None = None
    driveable: bool = True
    filmed: bool = False
    source: str = ""
    licence: str = ""


def find_portraits(folder: Path, has_face: Finder | None, report: Report, tell: Tell) -> list[Found]:
    """The pictures of FOLDER/portraits, and of its subfolders.

    Args:
        folder: of the suite.
        has_face: tells of a picture and its name whether there is a face in it; None: nobody knows.
        report: called with a line for each file that cannot be used.
        tell: called with (stage, finished, all).

    Raises:
        InputError: more files than a suite may have.
    """
    files = _files(folder, PORTRAITS, report)
    landmarks = {path for path, _ in files if path.name.endswith(LANDMARKS)}
    pictures = [(path, group) for path, group in files if path not in landmarks]
    found: list[Found] = []
    used: set[Path] = set()
    for done, (path, group) in enumerate(pictures):
        tell("portraits", done, len(pictures))
        if path.suffix.lower() in SIDECARS:
            continue
        try:
            _check(folder, path)
            picture = media.read_image(path)
            beside = [path.with_name(path.stem + suffix) for suffix in LANDMARKS]
            own = _landmarks(folder, [one for one in beside if one in landmarks])
            used |= {own} if own else set()
            driveable = bool(own) or has_face is None or has_face(picture, str(path))
            if not driveable:
                report(
                    f"{path} is in no pair: no face is found in it; put its landmarks beside it, as {beside[0].name}"
                )
            kept = (own, sha256(own)) if own else None
            source, licence = _told(path)
            found.append(Found(path, group, sha256(path), kept, driveable, source=source, licence=licence))
        except (FyeError, OSError) as error:
            report(_line(path, error))
    for path in sorted(landmarks - used):
        report(f"{path} belongs to no portrait that can be used; call it as its picture, {LANDMARKS[0]} at the end")
    tell("portraits", len(pictures), len(pictures))
    return found


def find_motions(folder: Path, report: Report, tell: Tell) -> list[Found]:
    """The videos and motions of FOLDER/motions, FOLDER/videos and FOLDER/templates, and of their subfolders.

    Args:
        folder: of the suite.
        report: called with a line for each file that cannot be used.
        tell: called with (stage, finished, all).

    Raises:
        InputError: more files than a suite may have.
    """
    files = _files(folder, MOTIONS, report)
    found: list[Found] = []
    for done, (path, group) in enumerate(files):
        tell("motions", done, len(files))
        if path.suffix.lower() in SIDECARS:
            continue
        try:
            _check(folder, path)
            kind = media.kind_of(path)
            match kind:
                case "motion":
                    Motion.load(path)
                case "template":
                    load_template(path)
                case "video":
                    media.probe_video(path)
                case "picture":
                    raise InputError(f"{path} is a still picture, no motion; give a video, a .npz or a template .npy")
            source, licence = _told(path)
            filmed = kind == "video"
            found.append(Found(path, group, sha256(path), filmed=filmed, source=source, licence=licence))
        except (FyeError, OSError) as error:
            report(_line(path, error))
    tell("motions", len(files), len(files))
    return found


def face_finder(landmarker: Path | None, report: Report) -> Finder | None:
    """Tells whether there is a face in a picture; None, and a report, where MediaPipe or its model is missing.

    Args:
        landmarker: MediaPipe's model; None looks for it where `fye` does.
        report: called with a line that says why not.

    Raises:
        InputError: `landmarker` is not there, or is another file.
        BackendError: MediaPipe is missing, and `landmarker` was named.
    """
    try:
        model = find_landmarker(landmarker)
        _has_face(np.zeros((64, 64, 3), np.uint8), "", model)  # whether it opens
    except (InputError, BackendError) as error:
        if landmarker is not None:
            raise
        report(f"nobody has looked for faces in the portraits: {error}")
        return None
    return lambda picture, name: _has_face(picture, name, model)


def inside(folder: Path, path: Path) -> str:
    """A file's path relative to the folder, as a manifest has it.

    Raises:
        InputError: no manifest may name it: it is a link that leaves the folder, or its name is not printable.
    """
    relative = path.relative_to(folder).as_posix()
    try:
        place(relative, folder.resolve())
    except ValueError as error:
        raise InputError(f"the path is {shown(relative)}; {error}") from error
    return relative


def _check(folder: Path, path: Path) -> None:
    """Raise InputError unless a manifest may name the file and it can be read without surprise, as a pipe cannot."""
    inside(folder, path)
    check_file(path, media.LIMITS)


def _has_face(picture: NDArray[np.uint8], name: str, model: Path) -> bool:
    try:
        detect_image(picture, model, name)
    except FaceNotFoundError:
        return False
    return True


def _files(folder: Path, names: Sequence[str], report: Report) -> list[tuple[Path, str]]:
    """Files of these folders and of their subfolders, with the subfolder's name; hidden ones are left out."""
    found: list[tuple[Path, str]] = []
    for name in names:
        for path in _listed(folder / name, report):
            if path.is_dir():
                for inner in _listed(path, report):
                    if inner.is_dir():
                        report(
                            f"{inner} is left out: folders inside of {path.name} are not searched; move its files up"
                        )
                    else:
                        found.append((inner, path.name))
            else:
                found.append((path, ""))
    if len(found) > MAX_PAIRS:
        raise InputError(
            f"{folder} has {len(found):,} files in {', '.join(names)}; the limit is {MAX_PAIRS:,}: split it"
        )
    return found


def _listed(folder: Path, report: Report) -> Iterator[Path]:
    """What a folder holds, in order of names; nothing where there is none."""
    try:
        held = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return
    except OSError as error:
        report(f"{folder} cannot be searched: {error.strerror}")
        return
    yield from held


def _landmarks(folder: Path, beside: Sequence[Path]) -> Path | None:
    """The first of the files, if there is one.

    Raises:
        InputError: it does not hold the landmarks of one picture.
    """
    if not beside:
        return None
    _check(folder, beside[0])
    if (frames := len(Motion.load(beside[0]))) != 1:
        raise InputError(f"{beside[0]} has {frames} frames; a portrait's landmarks have one")
    return beside[0]


def _told(path: Path) -> tuple[str, str]:
    """Source and licence by the lines "source: ..." and "licence: ..." of NAME.txt beside a file, or ""."""
    beside = path.with_suffix(".txt")
    if not beside.is_file() or not beside.resolve().is_relative_to(path.resolve().parent):
        return "", ""
    with beside.open("rb") as file:
        lines = file.read(MAX_SIDECAR).decode("utf-8", "replace").splitlines()
    told = dict.fromkeys(("source", "licence"), "")
    for line in lines:
        if found := re.fullmatch(r"\s*(source|licen[cs]e)\s*:\s*(.*)", line, re.IGNORECASE):
            key = "source" if found[1].lower() == "source" else "licence"
            told[key] = "".join(c for c in found[2] if c.isprintable()).strip()[:MAX_TEXT]
    return told["source"], told["licence"]


def _line(path: Path, error: FyeError | OSError) -> str:
    if isinstance(error, OSError) and not isinstance(error, FyeError):
        return f"{path} cannot be read: {error.strerror}"
    return str(error) if str(path) in str(error) else f"{path}: {error}"
