"""Find the files of a user's folder that the runtime can use. Files are only read."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_bench.suites.entries import MAX_PAIRS
from fye_bench.suites.manifest import MAX_TEXT, place
from fye_rt import media
from fye_rt.errors import BackendError, FaceNotFoundError, FyeError, InputError
from fye_rt.files import sha256, shown
from fye_rt.landmarks import Motion, detect_image, find_landmarker, load_template
from fye_rt.media.checks import check_file
from fye_rt.timings import Progress, counted

PORTRAITS = ("portraits",)
MOTIONS = ("motions", "videos", "templates")
LANDMARKS = (".landmarks.npz", ".npz")  # beside a portrait, after its stem
SIDECARS = (".txt", ".md", ".json")  # skipped without a report
MAX_SIDECAR = 65536  # bytes

Report = Callable[[str], None]
Finder = Callable[[NDArray[np.uint8], str], bool]


@dataclass(frozen=True, slots=True)
class Found:
    """A file that the runtime can use.

    Attributes:
        path: inside the folder.
        group: name of its subfolder, or "".
        sha256: hash of the file.
        landmarks: the file of a portrait's landmarks and its SHA-256, or None.
        driveable: False for a portrait without landmarks in which no face was found.
        filmed: True for a motion that is a video.
        source: origin as stated by a text beside the file, or "".
        licence: licence as stated by a text beside the file, or "".
    """

    path: Path
    group: str
    sha256: str
    landmarks: tuple[Path, str] | None = None
    driveable: bool = True
    filmed: bool = False
    source: str = ""
    licence: str = ""


def find_portraits(folder: Path, has_face: Finder | None, report: Report, progress: Progress) -> list[Found]:
    """Find the pictures of FOLDER/portraits and its subfolders.

    Args:
        folder: of the suite.
        has_face: whether a picture, given with its name, has a face; None: all count as faces.
        report: called with a line for each file that cannot be used.
        progress: called with (stage, done, total).

    Raises:
        InputError: the folders hold more files than a suite may have.
    """
    files = _files(folder, PORTRAITS, report)
    landmarks = {path for path, _ in files if path.name.endswith(LANDMARKS)}
    pictures = [(path, group) for path, group in files if path not in landmarks]
    used: set[Path] = set()

    def inspect(path: Path) -> dict[str, Any]:
        picture = media.read_image(path)
        beside = [path.with_name(path.stem + suffix) for suffix in LANDMARKS]
        own = next((path for path in beside if path in landmarks), None)
        if own is not None:
            _check(folder, own)
            if (frames := len(Motion.load(own))) != 1:
                raise InputError(f"{own} has {frames} frames; a portrait's landmarks have one")
            used.add(own)
        driveable = bool(own) or has_face is None or has_face(picture, str(path))
        if not driveable:
            report(f"{path} is in no pair: no face is found in it; put its landmarks beside it, as {beside[0].name}")
        return {"landmarks": (own, sha256(own)) if own else None, "driveable": driveable}

    portraits = _usable(folder, pictures, "portraits", inspect, report, progress)
    for path in sorted(landmarks - used):
        report(
            f"{path} belongs to no portrait that can be used; name it like its picture, with {LANDMARKS[0]} at the end"
        )
    return portraits


def find_motions(folder: Path, report: Report, progress: Progress) -> list[Found]:
    """Find the videos and motions of FOLDER/motions, FOLDER/videos, FOLDER/templates and their subfolders.

    Args:
        folder: of the suite.
        report: called with a line for each file that cannot be used.
        progress: called with (stage, done, total).

    Raises:
        InputError: the folders hold more files than a suite may have.
    """

    def inspect(path: Path) -> dict[str, Any]:
        kind = media.kind_of(path)
        match kind:
            case "motion":
                Motion.load(path)
            case "template":
                load_template(path)
            case "video":
                media.probe_video(path)
            case "points":
                raise InputError(f"{path} holds the points of a still face, no motion; give a video or a .npz")
            case "picture":
                raise InputError(f"{path} is a still picture, no motion; give a video, a .npz or a template .npy")
        return {"filmed": kind == "video"}

    return _usable(folder, _files(folder, MOTIONS, report), "motions", inspect, report, progress)


def face_finder(landmarker: Path | None, report: Report) -> Finder | None:
    """Return a function that finds faces; None, with a report, without MediaPipe or its model.

    Args:
        landmarker: MediaPipe's model; None: the model that `fye` downloads.
        report: called with the reason why no faces can be found.

    Raises:
        InputError: `landmarker` is missing, or another file.
        BackendError: MediaPipe is missing although `landmarker` is given.
    """

    def has_face(picture: NDArray[np.uint8], name: str) -> bool:
        try:
            detect_image(picture, model, name)
        except FaceNotFoundError:
            return False
        return True

    try:
        model = find_landmarker(landmarker)
        has_face(np.zeros((64, 64, 3), np.uint8), "")  # raises if the model does not open
    except (InputError, BackendError) as error:
        if landmarker is not None:
            raise
        report(f"nobody has looked for faces in the portraits: {error}")
        return None
    return has_face


def inside(folder: Path, path: Path) -> str:
    """Return a file's path relative to the folder, as a manifest holds it.

    Raises:
        InputError: a manifest may not list the file: it is a link that leaves the folder, or its name is not printable.
    """
    relative = path.relative_to(folder).as_posix()
    try:
        place(relative, folder.resolve())
    except ValueError as error:
        raise InputError(f"the path is {shown(relative)}; {error}") from error
    return relative


def _usable(
    folder: Path,
    files: Sequence[tuple[Path, str]],
    stage: str,
    inspect: Callable[[Path], dict[str, Any]],
    report: Report,
    progress: Progress,
) -> list[Found]:
    """List the files that `inspect` can open, which returns their further fields of `Found`; report the others."""
    usable = []
    for path, group in counted(files, stage, progress):
        if path.suffix.lower() in SIDECARS:
            continue
        try:
            _check(folder, path)
            fields = inspect(path)
            source, licence = _origin(path)
            usable.append(Found(path, group, sha256(path), source=source, licence=licence, **fields))
        except (FyeError, OSError) as error:
            report(_line(path, error))
    return usable


def _check(folder: Path, path: Path) -> None:
    """Raise InputError unless a manifest may list the file and it is a regular one, no pipe."""
    inside(folder, path)
    check_file(path, media.LIMITS)


def _files(folder: Path, names: Sequence[str], report: Report) -> list[tuple[Path, str]]:
    """List the files of folders and subfolders with the subfolder's name, without hidden files."""
    files: list[tuple[Path, str]] = []
    for name in names:
        for path in _listed(folder / name, report):
            if path.is_dir():
                for inner in _listed(path, report):
                    if inner.is_dir():
                        report(f"{inner} is left out: folders in {path.name} are not searched; move its files up")
                    else:
                        files.append((inner, path.name))
            else:
                files.append((path, ""))
    if len(files) > MAX_PAIRS:
        raise InputError(
            f"{folder} has {len(files):,} files in {', '.join(names)}; the limit is {MAX_PAIRS:,}: split it"
        )
    return files


def _listed(folder: Path, report: Report) -> Iterator[Path]:
    try:
        yield from sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return
    except OSError as error:
        report(f"{folder} cannot be searched: {error.strerror}")


def _origin(path: Path) -> tuple[str, str]:
    """Read the lines "source: ..." and "licence: ..." of NAME.txt beside a file; "" for a missing line."""
    beside = path.with_suffix(".txt")
    if not beside.is_file() or not beside.resolve().is_relative_to(path.resolve().parent):
        return "", ""
    with beside.open("rb") as file:
        lines = file.read(MAX_SIDECAR).decode("utf-8", "replace").splitlines()
    origin = {"source": "", "licence": ""}
    for line in lines:
        if match := re.fullmatch(r"\s*(source|licen[cs]e)\s*:\s*(.*)", line, re.IGNORECASE):
            key = "source" if match[1].lower() == "source" else "licence"
            origin[key] = "".join(c for c in match[2] if c.isprintable()).strip()[:MAX_TEXT]
    return origin["source"], origin["licence"]


def _line(path: Path, error: FyeError | OSError) -> str:
    if isinstance(error, OSError) and not isinstance(error, FyeError):
        return f"{path} cannot be read: {error.strerror}"
    return str(error) if str(path) in str(error) else f"{path}: {error}"
