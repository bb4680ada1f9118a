"""Convert the colours of still images to sRGB by their profiles, over white, upright."""

import io
import logging
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError

if TYPE_CHECKING:
    from PIL import Image, ImageCms

PROFILE_NOISE = 2  # levels by which an sRGB profile may differ from sRGB, as its tables are rounded

logger = logging.getLogger("fye_rt")


class Colours:
    """Conversion of the pictures of one file to sRGB.

    Args:
        image: a picture of the file; its ICC profile, embedded or, of Adobe RGB, named by EXIF, holds for all of them.
        path: the file, for messages.
    """

    def __init__(self, image: "Image.Image", path: Path) -> None:
        self._path = path
        self._profile = image.info.get("icc_profile") or _adobe_rgb(image)

    def upright_rgb(self, image: "Image.Image") -> NDArray[np.uint8]:
        """Convert a decoded picture to uint8 RGB (H, W, 3): sRGB over white, turned as its EXIF data say.

        A profile that cannot be used is ignored with one warning on the logger "fye_rt".

        Raises:
            InputError: the pixels are of a kind whose range is unknown.
        """
        from PIL import ImageOps

        return np.array(self._rgb(ImageOps.exif_transpose(image)))

    def _rgb(self, image: "Image.Image") -> "Image.Image":
        from PIL import Image

        if image.mode == "F":
            raise InputError(f"{self._path} has floating-point pixels of unknown range; save it with 8 bits a channel")
        if image.mode.startswith("I"):
            values = np.asarray(image)
            if values.min() < 0 or values.max() > 65535:
                raise InputError(f"{self._path} has more than 16 bits a channel; save it with 8")
            image = Image.fromarray((values >> 8).astype(np.uint8))  # convert() would clip at 255
        alpha = None
        if image.has_transparency_data:
            grey = image.mode == "LA"
            image = image.convert("RGBA")
            alpha = image.getchannel("A")
            image = image.convert("L" if grey else "RGB")
        converted = _converted(image, self._path, self._profile) if self._profile else None
        if converted is None:
            self._profile = None  # not needed, or of no use: for further pictures, too
        rgb = converted or image.convert("RGB")
        if alpha is None:
            return rgb
        rgb.putalpha(alpha)
        return Image.alpha_composite(Image.new("RGBA", rgb.size, "white"), rgb).convert("RGB")


def _converted(image: "Image.Image", path: Path, profile: bytes) -> "Image.Image | None":
    """Convert an image to sRGB; None if it is sRGB already or, with a warning, if its profile cannot be used."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
        if mode is None or (image.mode == "CMYK") != (mode == "CMYK") or (mode == "L" and image.mode not in ("1", "L")):
            raise ValueError(f"it is for {space}, the image is {image.mode}")
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if mode != "CMYK" and _is_identity(transform, mode):
            return None
        return ImageCms.applyTransform(image.convert(mode), transform)
    except (ImportError, OSError, TypeError, ValueError, ImageCms.PyCMSError) as error:
        logger.warning("%s has a colour profile that cannot be used (%s); its colours are taken for sRGB", path, error)
        return None


def _is_identity(transform: "ImageCms.ImageCmsTransform", mode: str) -> bool:
    """Return whether a transform from "RGB" or "L" to "RGB" leaves a chart of shades unchanged, except for rounding."""
    from PIL import Image, ImageCms

    levels = np.arange(0, 256, 15, np.uint8)
    shades = np.stack(np.meshgrid(*[levels] * 3), axis=-1).reshape(1, -1, 3) if mode == "RGB" else levels[None]
    chart = Image.fromarray(shades)
    converted = np.asarray(ImageCms.applyTransform(chart, transform), np.int64)
    return bool(np.abs(converted - np.asarray(chart.convert("RGB"))).max() <= PROFILE_NOISE)


def _adobe_rgb(image: "Image.Image") -> bytes | None:
    """Return a profile of Adobe RGB (1998) if EXIF names that space, as cameras do without embedding a profile."""
    from PIL import ExifTags, ImageCms

    try:
        index = image.getexif().get_ifd(ExifTags.IFD.Interop).get(1)
    except KeyError:  # Pillow 11.0, if EXIF has no such part
        return None
    if image.mode != "RGB" or index != "R03":
        return None
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # replace sRGB's three primaries (adapted to D50) and gamma
    primaries = {b"rXYZ": (0.60974, 0.31111, 0.01947), b"gXYZ": (0.20528, 0.62567, 0.06087)}
    primaries[b"bXYZ"] = (0.14919, 0.06322, 0.74457)
    for entry in range(132, 132 + 12 * struct.unpack_from(">I", profile, 128)[0], 12):
        tag, place = struct.unpack_from(">4sI", profile, entry)
        if tag in primaries:
            struct.pack_into(">3i", profile, place + 8, *(round(value * 65536) for value in primaries[tag]))
        elif tag.endswith(b"TRC"):
            struct.pack_into(">4sIIH", profile, place, b"curv", 0, 1, 563)  # 563/256
    return bytes(profile)
