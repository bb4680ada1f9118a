"""Landmark images of clips of any length, made when they are asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError
from fye_rt.landmarks.draw import draw

Images = NDArray[np.uint8]


class LandmarkImages(Protocol):
    """What a clip's landmark images can be asked for; an array of them can, too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(F, H, W, 3)."""

    def __len__(self) -> int:
        """Number of frames."""

    def __getitem__(self, frames: Any, /) -> Images:
        """The frames of an index array int64 (f,) or of a slice, uint8 (f, H, W, 3)."""


class Drawn:
    """Landmarks that are drawn when they are asked for.

    Args:
        points: float64 (F, 478, 2), x and y in pixels.
        size: height and width in pixels.
    """

    def __init__(self, points: NDArray[np.float64], size: tuple[int, int]) -> None:
        self._points, self._size = points, size

    @property
    def shape(self) -> tuple[int, ...]:
        """(F, H, W, 3)."""
        return len(self._points), *self._size, 3

    def __len__(self) -> int:
        return len(self._points)

    def __getitem__(self, frames: Any) -> Images:
        return draw(self._points[frames], self._size)


class Pictures:
    """Pictures in files that are read when they are asked for.

    Args:
        files: one or more, all of one size.

    Raises:
        InputError: a file is no picture; later, when they are asked for, also that one is of another size.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        from fye_rt import media

        self._read = media.read_image
        self._files = np.array(files, dtype=object)
        self._size = media.read_image(files[0]).shape

    @property
    def shape(self) -> tuple[int, ...]:
        """(F, H, W, 3)."""
        return len(self._files), *self._size

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, frames: Any) -> Images:
        return np.stack([self._checked(file) for file in self._files[frames]])

    def _checked(self, file: Path) -> Images:
        image = self._read(file)
        if image.shape != self._size:
            raise InputError(f"{file} is {image.shape[0]}x{image.shape[1]}, the first picture of its folder is not")
        return image
