"""Landmark images of clips of any length, drawn or read on demand."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError
from fye_rt.landmarks.draw import draw

Images = NDArray[np.uint8]
_SAMPLES = 8  # pictures of a folder that are checked before work begins
_REGION_MARGIN = 2  # latent pixels, as the reference implementation dilates its face mask
# Thresholds that tell landmark images from others, in levels of 255. Of 558 by `draw` and the reference implementation,
# resized and compressed, 11 fail: nearly all were halved or quartered, then saved as JPEG of quality 50. Of 435
# photographs (some darkened) and sketches, 6 pass: darkened ones of stars and a rocket by night, a rainbow on black.
_BLACK = 24  # JPEG noise around thin lines stays below
_FAINT, _LEAST_LIGHT = 40, 2e-4  # level and share of pixels; lines thinner than a pixel are faint
_EYES = ((32, 75), (106, 139))  # hues of eyes and brows: yellow-green and teal
_IRISES_AND_LIPS = ((0, 9), (246, 256), (166, 196))  # hues: red and violet


class LandmarkImages(Protocol):
    """Landmark images of a clip, indexed by frame; a NumPy array of them is one, too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (F, H, W, 3)."""

    def __len__(self) -> int:
        """Return the number of frames."""

    def __getitem__(self, frames: Any, /) -> Images:
        """Return the frames of an index array int64 (f,) or of a slice, uint8 (f, H, W, 3)."""


class Drawn:
    """Landmark images drawn on demand.

    Args:
        points: float64 (F, 478, 2), x and y in pixels.
        size: height and width in pixels.
    """

    def __init__(self, points: NDArray[np.float64], size: tuple[int, int]) -> None:
        self.points, self._size = points, size

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (F, H, W, 3)."""
        return len(self.points), *self._size, 3

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, frames: Any) -> Images:
        return draw(self.points[frames], self._size)


class Pictures:
    """Landmark images read from files on demand.

    Args:
        files: one or more pictures, all of one size.

    Raises:
        InputError: a file is not a picture, sizes differ, or the pictures are not landmark images; later, on demand,
            also if a picture is damaged.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        from fye_rt import media

        self._read = media.read_image
        self._files = np.array(files, dtype=object)
        sizes = [media.image_size(file) for file in files]
        for file, size in zip(files, sizes, strict=True):
            if size != sizes[0]:
                raise InputError(
                    f"{file} is {size[0]}x{size[1]}, {files[0].name} is {sizes[0][0]}x{sizes[0][1]} (height x width); "
                    "give landmark images of one size"
                )
        self._size = media.read_image(files[0]).shape
        samples = self._files[np.linspace(0, len(files) - 1, min(_SAMPLES, len(files))).astype(int)]
        _check_drawn(samples, [self._checked(file) for file in samples])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (F, H, W, 3)."""
        return len(self._files), *self._size

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, frames: Any) -> Images:
        return np.stack([self._checked(file) for file in self._files[frames]])

    def _checked(self, file: Path) -> Images:
        image = self._read(file)
        if image.shape != self._size:
            size = f"{image.shape[0]}x{image.shape[1]}"
            raise InputError(f"{file} is {size}, unlike the first picture of its folder; give pictures of one size")
        return image


def has_landmark_colours(image: Images) -> bool:
    """Return whether a picture looks like an image by `draw`: a few lines on black, most of them in its colours.

    True for images of 96 pixels or more by `draw` and the reference implementation, also as JPEG (quality 40) or WebP
    (30), and resized by 0.5 to 3. False for photographs, dark ones included, and for sketches.

    Args:
        image: uint8 (H, W, 3).
    """
    from PIL import Image

    hue, saturation, value = np.moveaxis(np.asarray(Image.fromarray(image).convert("HSV"), np.int64), -1, 0)
    if not _is_black(image) or (value > _FAINT).mean() < _LEAST_LIGHT:
        return False
    chroma = np.where(value > _BLACK, saturation * value, 0)
    shares = np.bincount(hue.ravel(), chroma.ravel(), minlength=256) / max(chroma.sum(), 1)
    eyes, others = (sum(shares[low:high].sum() for low, high in hues) for hues in (_EYES, _IRISES_AND_LIPS))
    colourful = chroma.sum() / 255 >= 0.25 * value[value > _BLACK].sum()
    return bool(colourful and eyes >= 0.01 and eyes + others >= 0.45)


def _is_black(image: Images) -> bool:
    """Return whether nine tenths are black; of a landmark image, at least 94 % is."""
    return bool((image.max(axis=-1) <= _BLACK).mean() >= 0.9)


def _check_drawn(files: Sequence[Path], images: Sequence[Images]) -> None:
    """Refuse a picture that is not on black, and pictures none of which has the colours of landmarks."""
    misfit = next((file for file, image in zip(files, images, strict=True) if not _is_black(image)), None)
    lit = [(file, image) for file, image in zip(files, images, strict=True) if image.any()]
    if misfit is None and lit and not any(has_landmark_colours(image) for _, image in lit):
        misfit = lit[0][0]
    if misfit is not None:
        raise InputError(
            f"{misfit} is not a landmark image (eyes, brows and lips as coloured lines on black), and a folder must "
            "contain nothing else; make photographs into a video and give that"
        )


def face_region(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find the face in landmark images: the convex hull of the drawing, and two latent pixels around it.

    Args:
        images: uint8 (F, H, W, 3), H and W multiples of 8.

    Returns:
        bool (F, H/8, W/8); all False for an image without a drawing.
    """
    frames, height, width, _ = images.shape
    h, w = height // 8, width // 8
    angles = np.arange(32) * np.pi / 16
    normals = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    grid = np.indices((h, w)).transpose(1, 2, 0) @ normals.T
    drawn = images.reshape(frames, h, 8, w, 8, 3).max(axis=(2, 4, 5)) > 0
    face = np.zeros((frames, h, w), np.bool_)
    margin = _REGION_MARGIN * np.abs(normals).sum(axis=1)  # a square of that half-width
    for k in range(frames):
        if drawn[k].any():
            face[k] = (grid <= grid[drawn[k]].max(axis=0) + margin + 1e-9).all(axis=-1)
    return face


def movement(images: LandmarkImages) -> NDArray[np.float64]:
    """Measure how much landmark images change from each frame to the next, at an eighth of their size.

    Args:
        images: uint8 (F, H, W, 3), H and W multiples of 8; read one at a time.

    Returns:
        float64 (F - 1,), mean absolute difference in levels, the same on every machine.
    """
    height, width = images.shape[1:3]
    singles = (images[k : k + 1] for k in range(len(images)))
    small = (image.reshape(height // 8, 8, width // 8, 8, 3).sum(axis=(1, 3), dtype=np.int64) for image in singles)
    return np.array([np.abs(b - a).sum() / (height * width * 3) for a, b in pairwise(small)])
