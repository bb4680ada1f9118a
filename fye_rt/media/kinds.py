"""Tell what a file is from its content; its name counts only if the content says nothing."""

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fye_rt.media.checks import LIMITS, Limits, check_file

Kind = Literal["picture", "video", "motion", "template", "points"]

# Pillow's other readers are for formats that nobody photographs in, and one of them starts Ghostscript
_PICTURES = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
_OPTIONAL = {"JPEG": "jpg", "MPO": "jpg", "PNG": "zlib", "WEBP": "webp", "AVIF": "avif"}  # libraries Pillow may lack
_ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")  # formats whose further pictures are frames; others have pages or extras
_HEAD = 64  # bytes, enough for the brands of an ISO media file
_STILLS = {  # pictures that fye-rt cannot read, by their first bytes
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
# the start of a JSON object, or of a line of CSV with a name and a number, or the names of its columns
_POINTS = re.compile(rb"(\xef\xbb\xbf)?\s*(\{|\"?[a-z][a-z _-]*\"?\s*[,;\t]\s*\"?(x\b|-?\d))", re.IGNORECASE)
_VIDEOS = {b"\x1a\x45\xdf\xa3": "Matroska", b"FLV\x01": "Flash", b"OggS": "Ogg", b"\0\0\x01\xba": "MPEG"}


def readable_pictures() -> tuple[str, ...]:
    """Return the picture formats that this installation reads, by Pillow's names; it may lack WebP, AVIF or HEIF."""
    return (*_built_in(), "HEIF") if _register_heif() else _built_in()


def formats_for(path: Path) -> tuple[str, ...]:
    """Return the formats to try for a file; the plugin for HEIF is imported for files alone that begin like one."""
    return readable_pictures() if (named(_head(path)) or ("",))[0] == "HEIC" else _built_in()


def kind_of(path: str | os.PathLike[str], limits: Limits = LIMITS) -> Kind:
    """Tell what a portrait or a motion source is, whatever its name; nothing is decoded.

    Args:
        path: a file.
        limits: limits on its size.

    Returns:
        "motion" for a zip archive, as a .npz is, and "template" for a .npy; "video" also for an animated picture (GIF,
        WebP, PNG, AVIF); "picture" also for known formats that cannot be read here; "points" for a JSON object, or CSV
        of names and numbers. The suffix decides about any other file; with an unknown suffix the file is left to
        FFmpeg, as a "video".

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
    if known := named(head):
        return known[1]
    if _POINTS.match(head) and b"\0" not in head:
        return "points"
    by_suffix: dict[str, Kind] = {".npz": "motion", ".npy": "template", ".json": "points", ".csv": "points"}
    by_suffix |= dict.fromkeys(picture_suffixes() - {".gif"}, "picture")
    return by_suffix.get(path.suffix.lower(), "video")


def named(head: bytes) -> tuple[str, Kind] | None:
    """Name format and kind of a file that begins with `head` and is not a readable picture; None if unknown."""
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
    """List the pictures of a folder in natural order: 2 before 10, whatever zeros precede them.

    Hidden files are omitted, and files that are not pictures by content or name; a damaged picture is included.

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
    """Return the suffixes of pictures, with the dot, in lower case."""
    from PIL import Image

    Image.init()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in _PICTURES}
    return frozenset(known | {".heic", ".heif", ".avif", ".jxl"})


def natural(path: Path) -> tuple[Sequence[str | int], str]:
    """Return a sort key that orders the numbers in file names by value."""
    parts = re.split(r"([0-9]+)", path.stem.casefold())
    # texts and numbers alternate, a text first, so they are never compared with each other
    return [int(part) if k % 2 else part for k, part in enumerate(parts)], path.name


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _picture(path: Path) -> Literal["picture", "video"] | None:
    """Return what Pillow takes the file for: a picture, or a video if it is animated."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, which reading refuses
            image = Image.open(path, formats=formats_for(path))
        with image:
            animated = image.format in _ANIMATED and getattr(image, "is_animated", False)
    except UnidentifiedImageError:
        return None
    except Exception:  # a damaged or huge picture, which reading refuses
        return "picture"
    return "video" if animated else "picture"


def _built_in() -> tuple[str, ...]:
    from PIL import Image, features

    Image.init()
    known = (name for name in _PICTURES if name in Image.OPEN)
    return tuple(name for name in known if name not in _OPTIONAL or features.check(_OPTIONAL[name]))


def _register_heif() -> bool:
    """Add HEIF to Pillow's formats; return whether the plugin is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return True
