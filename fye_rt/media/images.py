"""Read still images from untrusted files, write images, and lay out contact sheets."""

import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError, OptionError, OutOfMemoryError
from fye_rt.files import atomic_file
from fye_rt.media.checks import LIMITS, Limits, check_file, check_rgb, check_size
from fye_rt.media.kinds import formats_for, named, readable_pictures
from fye_rt.media.profiles import Colours

if TYPE_CHECKING:
    from PIL import Image

WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}

logger = logging.getLogger("fye_rt")


def read_image(path: str | os.PathLike[str], limits: Limits = LIMITS) -> NDArray[np.uint8]:
    """Read an image as uint8 RGB, (H, W, 3), the right way up.

    The size is checked before pixels are decoded. EXIF orientation is applied; transparent pixels are laid over white;
    16-bit grey keeps its high byte. Colours of an embedded profile, or of Adobe RGB by EXIF, become sRGB by relative
    colorimetric intent with black point compensation. A profile that cannot be used is ignored, and so are all but the
    first picture of a file (animation, pages); both are logged as warnings by "fye_rt".

    Raises:
        InputError: the file is missing, not an image, damaged, truncated, or outside `limits`.
        OutOfMemoryError: memory ran out.
    """
    with image_errors(path), opened_image(path, limits) as image:
        path = Path(path)
        if getattr(image, "is_animated", False) and image.format != "MPO":  # an MPO is a photograph with extras
            logger.warning("%s holds several pictures; the first one is taken", path)
        image.load()
        return Colours(image, path).upright_rgb(image)


def image_size(path: str | os.PathLike[str], limits: Limits = LIMITS) -> tuple[int, int]:
    """Return (height, width) of an image as it is stored, without decoding its pixels.

    Raises:
        InputError: the file is missing, not an image, or outside `limits`.
    """
    with image_errors(path), opened_image(path, limits) as image:
        return image.height, image.width


@contextmanager
def image_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn Pillow's errors on damaged files into an InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes, which `check_size` refuses
            yield
    except InputError:
        raise
    except MemoryError as error:
        raise OutOfMemoryError(f"not enough memory for {path}; use a smaller picture") from error
    except Exception as error:  # Pillow's readers raise nearly every type there is on a damaged file
        raise InputError(f"{path} is a damaged image ({error}); save it again as PNG or JPEG") from error


def write_image(path: str | os.PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write uint8 RGB (H, W, 3) as PNG, JPEG (quality 95) or WebP, by the suffix; the file appears whole or not at all.

    Raises:
        OptionError: `path` has another suffix.
        InputError: `image` is not uint8 (H, W, 3).
        OutputError: the file could not be written.
    """
    from PIL import Image

    check_rgb(image)
    form = WRITABLE.get(Path(path).suffix.lower())
    if form is None:
        raise OptionError(f"cannot write {path}: an image's name must end in one of {', '.join(WRITABLE)}")
    with atomic_file(path) as temporary:
        Image.fromarray(image).save(temporary, format=form, quality=95)


def contact_sheet(
    rows: Sequence[Sequence[NDArray[np.uint8]]], labels: Sequence[str] | None = None
) -> NDArray[np.uint8]:
    """Lay out rows of images on one dark sheet, uint8 (H, W, 3); every image keeps its size.

    Args:
        rows: images uint8 (H, W, 3), left to right, top to bottom; sizes may differ.
        labels: one line of text above each row; none above a row whose label is empty.

    Raises:
        InputError: no image, an image that is not uint8 (H, W, 3), or a number of labels other than that of rows.
    """
    from PIL import Image, ImageDraw, ImageFont

    gap, line = 8, 20
    if not any(rows):
        raise InputError("a contact sheet needs at least one image")
    if labels is not None and len(labels) != len(rows):
        raise InputError(f"{len(rows)} rows need as many labels, not {len(labels)}")
    for image in (image for row in rows for image in row):
        check_rgb(image)
    above = [line if label else 0 for label in labels or [""] * len(rows)]
    heights = [max((image.shape[0] for image in row), default=0) for row in rows]
    width = max(sum(image.shape[1] + gap for image in row) for row in rows) + gap
    sheet = Image.new("RGB", (width, sum(above) + sum(heights) + gap * (len(rows) + 1)), (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    y = gap
    for index, row in enumerate(rows):
        x = gap
        if labels:
            draw.text((x, y), labels[index], fill=(230, 230, 230), font=ImageFont.load_default(14))
        for image in row:
            sheet.paste(Image.fromarray(image), (x, y + above[index]))
            x += image.shape[1] + gap
        y += above[index] + heights[index] + gap
    return np.array(sheet)


class _Stored(io.BufferedReader):
    """A file whose `read` takes memory for existing bytes alone: damaged headers announce gigabytes."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > io.DEFAULT_BUFFER_SIZE:
            size = min(size, max(0, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


@contextmanager
def opened_image(path: str | os.PathLike[str], limits: Limits) -> Iterator["Image.Image"]:
    """Open an image and check its size; its pixels are not decoded yet."""
    from PIL import Image, UnidentifiedImageError

    path = check_file(path, limits)
    with _Stored(io.FileIO(path)) as file:
        try:
            image: Image.Image = Image.open(file, formats=formats_for(path))
        except UnidentifiedImageError as error:
            raise InputError(_refusal(path)) from error
        except Image.DecompressionBombError as error:
            raise InputError(
                f"{path} is far over the limit of {limits.max_pixels:,} pixels: make it smaller"
            ) from error
        with image:
            check_size(path, *image.size, limits)
            yield image


def _refusal(path: Path) -> str:
    """Word the error about a file that Pillow cannot read."""
    formats = readable_pictures()
    with path.open("rb") as file:
        name, kind = named(file.read(64)) or ("", None)
    if kind == "video":
        return f"{path} is a video ({name}), not an image; save one of its frames as PNG"
    if kind == "motion" or kind == "template":
        return f"{path} holds numbers ({name}), not an image; give one of {', '.join(formats)}"
    if name == "AVIF" and name not in formats:
        return f"{path} is an AVIF image, which this Pillow cannot read; save it as PNG or JPEG, or install Pillow 11.3"
    if name == "HEIC" and "HEIF" in formats:
        return f"{path} is a HEIC image, which is damaged; save it as PNG or JPEG"
    if name == "HEIC":
        remedy = "save it as PNG or JPEG, or run: pip install 'fye-rt[heif]'"
        return f"{path} is a HEIC image, which cannot be read here; {remedy}"
    if name and name not in formats:
        return f"{path} is a {name} image, which cannot be read here; save it as PNG or JPEG"
    return f"{path} is not an image that can be read; give one of {', '.join(formats)}"
