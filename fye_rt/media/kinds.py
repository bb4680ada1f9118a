"""What a file is, told from its content; names are only asked where the content says nothing."""

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fye_rt.media.checks import LIMITS, Limits, check_file

Kind = Literal["picture", "video", "motion", "template"]

# Pillow's other readers are for formats nobody photographs in, and one of them starts Ghostscript
_PICTURES = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
_OPTIONAL = {"JPEG": "jpg", "MPO": "jpg", "PNG": "zlib", "WEBP": "webp", "AVIF": "avif"}  # libraries Pillow may lack
_HEAD = 64  # bytes, enough for the brands of an ISO media file
_STILLS = {  # pictures that fye-rt has no reader for, by how they begin
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"gimp xcf": "GIMP",
    b"<svg": "SVG",
    b"v/1\x01": "OpenEXR",
}
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_VIDEOS = {b"\x1a\x45\xdf\xa3": "Matroska", b"FLV\x01": "Flash", b"OggS": "Ogg", b"\0\0\x01\xba": "MPEG"}


def readable_pictures() -> tuple[str, ...]:
    """The picture formats that this installation reads, by Pillow's names; a Pillow may come without WebP or AVIF."""
    from PIL import Image, features

    Image.init()
    known = (name for name in _PICTURES if name in Image.OPEN)
    return tuple(name for name in known if name not in _OPTIONAL or features.check(_OPTIONAL[name]))


def kind_of(path: str | os.PathLike[str], limits: Limits = LIMITS) -> Kind:
    """Tell what a portrait or a motion source is, whatever it is called; nothing is decoded.

    Args:
        path: a file.
        limits: of its size.

    Returns:
        "motion" for a zip archive, as a .npz is, and "template" for a .npy; "video" also for an animated GIF;
        "picture" also for formats that are known and cannot be read here. What is none of these is what its suffix
        says; with any other suffix it is left to FFmpeg, as a "video".

    Raises:
        InputError: as `check_file`.
    """
    path = check_file(path, limits)
    head = _head(path)
    if head.startswith(b"PK\x03\x04"):
        return "motion"
    if head.startswith(b"\x93NUMPY"):
        return "template"
    if (picture := _picture(path)) is not None:
        return picture
    known = named(head)
    return known[1] if known else _by_suffix(path)


def named(head: bytes) -> tuple[str, Kind] | None:
    """Name the format of a file that begins with `head` and is no picture that can be read; None if it is unknown."""
    if head[4:8] == b"ftyp":
        brands = [head[k : k + 4] for k in range(8, len(head) - 3, 4)]
        if {b"avif", b"avis"} & set(brands):
            return "AVIF", "picture"
        return ("HEIC", "picture") if set(_HEIF) & set(brands[:1]) else ("MP4", "video")
    if head[:4] == b"RIFF":
        return ("AVI", "video") if head[8:12] == b"AVI " else None
    if head.startswith(b"PK\x03\x04"):
        return "zip", "motion"
    if head.startswith(b"\x93NUMPY"):
        return "NumPy", "template"
    for start, name in _STILLS.items():
        if head.startswith(start):
            return name, "picture"
    return next(((name, "video") for start, name in _VIDEOS.items() if head.startswith(start)), None)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order: 2 before 10, whatever zeros stand before them.

    Hidden files and files that neither are pictures nor are called so are left out; a damaged picture is not.

    Raises:
        OSError: the folder cannot be read.
    """
    suffixes = picture_suffixes()
    return [
        path
        for path in sorted(folder.iterdir(), key=natural)
        if not path.name.startswith(".")
        and path.is_file()
        and (path.suffix.lower() in suffixes or _picture(path) or (named(_head(path)) or ("", ""))[1] == "picture")
    ]


def picture_suffixes() -> frozenset[str]:
    """What names of pictures end in, with the dot, in lower case."""
    from PIL import Image

    Image.init()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in _PICTURES}
    return frozenset(known | {".heic", ".heif", ".avif", ".jxl"})


def natural(path: Path) -> tuple[Sequence[str | int], str]:
    """Key that sorts file names as people count: numbers by their value."""
    parts = re.split(r"([0-9]+)", path.stem.casefold())
    # texts and numbers take turns, a text first: they are never compared with each other
    return [int(part) if k % 2 else part for k, part in enumerate(parts)], path.name


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _picture(path: Path) -> Literal["picture", "video"] | None:
    """What Pillow takes the file for: a picture, or as an animated GIF, which FFmpeg reads whole, a video."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that reading refuses
            image = Image.open(path, formats=readable_pictures())
        with image:
            animated = image.format == "GIF" and getattr(image, "is_animated", False)
    except UnidentifiedImageError:
        return None
    except Exception:  # a damaged or huge picture: reading it says so
        return "picture"
    return "video" if animated else "picture"


def _by_suffix(path: Path) -> Kind:
    kinds: dict[str, Kind] = {".npz": "motion", ".npy": "template"}
    kinds |= dict.fromkeys(picture_suffixes() - {".gif"}, "picture")
    return kinds.get(path.suffix.lower(), "video")
