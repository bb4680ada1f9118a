"""Colour profiles for tests, made of LittleCMS's own sRGB, and pictures of the same colours in other colour spaces."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageCms

# primaries, adapted to D50: columns of the published matrices
P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
# linear sRGB in linear values of these spaces, all of them with D65 as white
TO_P3 = np.array(((0.82246, 0.17754, 0.0), (0.03319, 0.96681, 0.0), (0.01708, 0.07240, 0.91052)))
TO_ADOBE = np.array(((0.71513, 0.28487, 0.0), (0.0, 1.0, 0.0), (0.0, 0.04117, 0.95883)))
ADOBE_GAMMA = 563 / 256


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def rgb(primaries: Any = None, gamma: float | None = None) -> bytes:
    """sRGB with other primaries, or with a power for its curve."""
    profile = bytearray(srgb())
    for tag, place, _ in _tags(profile):
        if primaries is not None and tag in (b"rXYZ", b"gXYZ", b"bXYZ"):
            values = (round(value * 65536) for value in primaries[b"rgb".index(tag[:1])])
            struct.pack_into(">3i", profile, place + 8, *values)
        elif gamma is not None and tag.endswith(b"TRC"):
            _put_gamma(profile, place, gamma)
    return bytes(profile)


def grey(gamma: float) -> bytes:
    """Of grey pictures."""
    profile = bytearray(srgb())
    profile[16:20] = b"GRAY"
    for tag, place, entry in _tags(profile):
        if tag == b"rTRC":
            profile[entry : entry + 4] = b"kTRC"
            _put_gamma(profile, place, gamma)
    return bytes(profile)


def inks() -> bytes:
    """Of a press whose four inks are all the same black: each takes a quarter of the lightness away."""
    corners = [255 - 255 * bin(corner).count("1") // 4 for corner in range(16)]
    ramp = bytes(range(256))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + struct.pack(">9i", *(np.eye(3, dtype=int) * 65536).ravel())
    table += ramp * 4 + b"".join(bytes((lightness, 128, 128)) for lightness in corners) + ramp * 3
    head = struct.pack(">I4sI4s4s4s12x4s28x3i", 144 + len(table), b"lcms", 2 << 24, b"prtr", b"CMYK", b"Lab ", b"acsp",
                       63190, 65536, 54061)  # fmt: skip
    return head.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table


def in_space(image: NDArray[np.uint8], matrix: NDArray[np.float64], gamma: float | None = None) -> NDArray[np.uint8]:
    """A picture of sRGB in another space's values; None is sRGB's own curve, which Display P3 has too."""
    values = image / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) @ matrix.T
    if gamma is not None:
        coded = linear ** (1 / gamma)
    else:
        coded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)
    return (coded * 255).round().clip(0, 255).astype(np.uint8)


def _tags(profile: bytearray) -> list[tuple[bytes, int, int]]:
    """(signature, place of its data, place of its entry) of each tag."""
    (count,) = struct.unpack_from(">I", profile, 128)
    return [(*struct.unpack_from(">4sI", profile, entry), entry) for entry in range(132, 132 + 12 * count, 12)]


def _put_gamma(profile: bytearray, place: int, gamma: float) -> None:
    struct.pack_into(">4sIIH", profile, place, b"curv", 0, 1, round(gamma * 256))
