"""Crop a picture to the region that becomes a clip, upright or turned."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fye_rt.media.checks import check_rgb
from fye_rt.media.opencv import load_cv2

SHIFT = 0.125  # of a crop's side, by which its centre lies above that of the face: there is hair above, a neck below

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of a picture, in pixels; it may reach beyond the picture, whose border is repeated there.

    Attributes:
        left: left side of the rectangle before it is turned.
        top: its upper side.
        width: its width.
        height: its height.
        angle: degrees by which it is turned clockwise around its centre.
    """

    left: float
    top: float
    width: float
    height: float
    angle: float = 0.0

    @classmethod
    def around(
        cls, box: tuple[float, float, float, float], size: tuple[int, int], scale: float, angle: float = 0.0
    ) -> Self:
        """Return the region around a face.

        Args:
            box: left, top, width and height of the face, pixels; for a turned face, those of the face turned upright
                around the box's centre.
            size: height and width of the clip, whose shape the region has.
            scale: shorter side of the region divided by the longer side of the box.
            angle: degrees by which the face is turned clockwise.
        """
        left, top, width, height = box
        side = max(round(scale * max(width, height)), 1)
        region_height, region_width = (max(round(side * s / min(size)), 1) for s in size)
        turn = math.radians(angle)
        x = left + width / 2 + SHIFT * side * math.sin(turn)
        y = top + height / 2 - SHIFT * side * math.cos(turn)
        corner = x - region_width / 2, y - region_height / 2
        if not angle:  # whole pixels, which are cut out as they are
            corner = round(corner[0]), round(corner[1])
        return cls(*corner, region_width, region_height, angle)

    @classmethod
    def of_shape(cls, box: tuple[int, int, int, int], size: tuple[int, int]) -> Self:
        """Return the smallest region around `box` (left, top, width, height) with the shape of a clip of `size`."""
        left, top, width, height = box
        scale = max(height / size[0], width / size[1])
        wide, high = max(round(scale * size[1]), width), max(round(scale * size[0]), height)
        return cls(left - (wide - width) // 2, top - (high - height) // 2, wide, high)

    @classmethod
    def fitted(cls, picture: tuple[int, int], size: tuple[int, int]) -> Self:
        """Return the region that `fye_rt.media.fit_image` shows of a picture, whose height and width are given."""
        height, width = picture
        scale = min(size[1] / width, size[0] / height)
        wide, high = max(int(width * scale), 1), max(int(height * scale), 1)
        left, top = wide // 2 - size[1] // 2, high // 2 - size[0] // 2
        across, down = width / wide, height / high
        return cls(left * across, top * down, size[1] * across, size[0] * down)

    def covers(self, picture: tuple[int, int]) -> bool:
        """Return whether the region is exactly the whole picture of this height and width."""
        sides = (self.left, self.top, self.width, self.height, self.angle)
        return bool(np.allclose(sides, (0, 0, picture[1], picture[0], 0), atol=1e-6))

    def scaled(self, factor: float) -> "Region":
        """Return the same region of the picture scaled by `factor`."""
        left, top, width, height = (factor * side for side in (self.left, self.top, self.width, self.height))
        return Region(left, top, width, height, self.angle)

    def cut(self, picture: Pixels, size: tuple[int, int]) -> Pixels:
        """Cut the region out of a picture.

        Args:
            picture: uint8 RGB (h, w, 3).
            size: height and width of the result.

        Returns:
            uint8 RGB (H, W, 3): the picture's own pixels if the region is upright, of whole pixels, and has this size;
            else resampled by Lanczos filters, which average where the result is smaller.
        """
        from PIL import Image

        check_rgb(picture)
        if not self.angle:
            x, y = math.floor(self.left), math.floor(self.top)
            part = cut(picture, x, y, math.ceil(self.left + self.width) - x, math.ceil(self.top + self.height) - y)
            box = self.left - x, self.top - y, self.left - x + self.width, self.top - y + self.height
        else:
            cv2 = load_cv2()
            high, wide = max(math.ceil(self.height), 1), max(math.ceil(self.width), 1)
            part = cv2.warpAffine(
                picture,
                self.matrix((high, wide)),
                (wide, high),
                flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            box = 0.0, 0.0, float(wide), float(high)
        if part.shape[:2] == size:
            return part.copy()
        return np.array(Image.fromarray(part).resize(size[::-1], Image.Resampling.LANCZOS, box=box))

    def matrix(self, size: tuple[int, int]) -> Points:
        """Return the map of pixels of a clip of `size` to pixels of the picture, float64 (2, 3), for pixel centres."""
        turn = math.radians(self.angle)
        across, down = self.width / size[1], self.height / size[0]
        axes = np.array(
            [[math.cos(turn) * across, -math.sin(turn) * down], [math.sin(turn) * across, math.cos(turn) * down]]
        )
        centre = np.array([self.left + self.width / 2 - 0.5, self.top + self.height / 2 - 0.5])
        middle = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
        return np.column_stack([axes, centre - axes @ middle])

    def to_picture(self, points: Points, size: tuple[int, int]) -> Points:
        """Map points (..., 2) of a clip of `size`, x and y in pixels from its upper left corner, to the picture."""
        matrix = self.matrix(size)
        return (points - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5

    def from_picture(self, points: Points, size: tuple[int, int]) -> Points:
        """Map points (..., 2) of the picture to a clip of `size`; the inverse of `to_picture`."""
        matrix = self.matrix(size)
        return (points - 0.5 - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T + 0.5


def cut(picture: Pixels, left: int, top: int, width: int, height: int) -> Pixels:
    """Cut a rectangle of whole pixels out of a picture uint8 (h, w, 3), whose border is repeated beyond it.

    Within the picture it is a view, not a copy.
    """
    columns = np.arange(left, left + width).clip(0, picture.shape[1] - 1)
    rows = np.arange(top, top + height).clip(0, picture.shape[0] - 1)
    seen = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return seen if seen.shape[:2] == (height, width) else seen[rows - rows[0]][:, columns - columns[0]]
