"""Still images: reading what strangers send, writing, contact sheets."""

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError, OptionError
from fye_rt.files import atomic_file
from fye_rt.media.checks import LIMITS, Limits, check_file, check_rgb, check_size

if TYPE_CHECKING:
    from PIL import Image

# Pillow's other readers are for formats nobody photographs in, and one of them starts Ghostscript
READABLE = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}

logger = logging.getLogger("fye_rt")


def read_image(path: str | os.PathLike[str], limits: Limits = LIMITS) -> NDArray[np.uint8]:
    """Read an image as uint8 RGB, (H, W, 3), the right way up.

    The size is checked before pixels are decoded. EXIF orientation is applied; transparent pixels are laid over
    white; 16-bit grey keeps its high byte; colour profiles are ignored; of several pictures in one file (animation,
    pages) the first is taken, with a warning on the logger "fye_rt".

    Raises:
        InputError: missing, not an image, damaged, truncated, or outside `limits`.
    """
    path = check_file(path, limits)
    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes that are refused a line below, in words of ours
            warnings.simplefilter("ignore")
            return _decode(path, limits)
    except InputError:
        raise
    except Exception as error:  # Pillow's readers raise nearly every type there is on a damaged file
        raise InputError(f"{path} is a damaged image ({error}); save it again as PNG or JPEG") from error


def write_image(path: str | os.PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write uint8 RGB (H, W, 3) as PNG, JPEG (quality 95) or WebP, by the suffix; the file appears whole or not at all.

    Raises:
        OptionError: another suffix.
        InputError: `image` is not uint8 (H, W, 3).
        OutputError: it could not be written.
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
        InputError: no image at all, an image that is not uint8 (H, W, 3), or not one label a row.
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


def _decode(path: Path, limits: Limits) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.init()
    try:
        image: Image.Image = Image.open(path, formats=[name for name in READABLE if name in Image.OPEN])
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image that can be read; give one of {', '.join(READABLE)}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is far over the limit of {limits.max_pixels:,} pixels: make it smaller") from error
    with image:
        check_size(path, *image.size, limits)
        if getattr(image, "is_animated", False) and image.format != "MPO":  # an MPO is a photograph with extras
            logger.warning("%s holds several pictures; the first one is taken", path)
        image.load()
        return np.array(_to_rgb(ImageOps.exif_transpose(image), path))


def _to_rgb(image: "Image.Image", path: Path) -> "Image.Image":
    from PIL import Image

    if image.mode == "F":
        raise InputError(f"{path} has floating-point pixels of unknown range; save it with 8 bits a channel")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"{path} has more than 16 bits a channel; save it with 8")
        image = Image.fromarray((values >> 8).astype(np.uint8))  # convert() would clip at 255
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
