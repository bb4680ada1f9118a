"""Anti-aliased drawing of many frames: marks hold the geometry of all frames and draw one frame at a time.

OpenCV draws at twice the size with anti-aliased fills and sub-pixel coordinates; averaging down gives smoother edges
than either alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

SUPERSAMPLING = 2
SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates
FAR_OUTSIDE = 8000.0  # canvas pixels; beyond them OpenCV's fixed-point products would overflow

Colour = tuple[int, int, int]
Points = NDArray[np.float64]  # (F, n, 2), canvas pixels: x to the right, y down, the first pixel's centre at 0
Image = NDArray[np.uint8]


class Mark(Protocol):
    """A thing to draw on every frame."""

    def draw(self, canvas: "Canvas", frame: int) -> None:
        """Draw the mark's frame number `frame` on the canvas's image."""


@dataclass(slots=True)
class Canvas:
    """Buffers of the frame being drawn.

    Attributes:
        image: uint8 (H, W, 3), at SUPERSAMPLING times the final size.
        spare: same shape; target of `Inside` before it is cut out.
        mask: uint8 (H, W), all zero between marks.
        painted: by the id of a shading, the frame and its shading map at full size.
    """

    image: Image
    spare: Image
    mask: Image
    painted: dict[int, tuple[int, Image]]

    @classmethod
    def of_size(cls, size: tuple[int, int]) -> "Canvas":
        """A black canvas for pictures of `size`, height and width."""
        height, width = size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING
        image = np.zeros((height, width, 3), np.uint8)
        return cls(image, image.copy(), np.zeros((height, width), np.uint8), {})


def fixed(points: Points) -> NDArray[np.int32]:
    """Convert canvas pixels to OpenCV's fixed-point coordinates."""
    return np.rint(np.clip(points, -FAR_OUTSIDE, FAR_OUTSIDE) * (1 << SHIFT)).astype(np.int32, order="C")


class Fill:
    """A filled polygon (F, n, 2)."""

    def __init__(self, points: Points, colour: Colour) -> None:
        self.points, self.colour = fixed(points), colour

    def draw(self, canvas: Canvas, frame: int) -> None:
        """Fill the polygon."""
        cv2.fillPoly(canvas.image, [self.points[frame]], self.colour, cv2.LINE_AA, SHIFT)


class Stroke:
    """A line (F, n, 2), open or closed, with a width in canvas pixels."""

    def __init__(self, points: Points, colour: Colour, width: float, closed: bool = False) -> None:
        self.points, self.colour, self.closed = fixed(points), colour, closed
        self.width = max(1, round(width))

    def draw(self, canvas: Canvas, frame: int) -> None:
        """Draw the line."""
        cv2.polylines(canvas.image, [self.points[frame]], self.closed, self.colour, self.width, cv2.LINE_AA, SHIFT)


class Strokes:
    """Many lines (F, k, n, 2) of one colour and width."""

    def __init__(self, points: NDArray[np.float64], colour: Colour, width: float) -> None:
        self.points, self.colour, self.width = fixed(points), colour, max(1, round(width))

    def draw(self, canvas: Canvas, frame: int) -> None:
        """Draw the lines."""
        cv2.polylines(canvas.image, list(self.points[frame]), False, self.colour, self.width, cv2.LINE_AA, SHIFT)


class Discs:
    """Filled circles: centres (F, n, 2), radii (F, n) in canvas pixels."""

    def __init__(self, centres: Points, radii: NDArray[np.float64], colour: Colour) -> None:
        self.centres, self.colour = fixed(centres).tolist(), colour
        self.radii = np.rint(np.broadcast_to(radii, centres.shape[:2]) * (1 << SHIFT)).astype(int).tolist()

    def draw(self, canvas: Canvas, frame: int) -> None:
        """Draw the circles."""
        for centre, radius in zip(self.centres[frame], self.radii[frame], strict=True):
            cv2.circle(canvas.image, centre, radius, self.colour, -1, cv2.LINE_AA, SHIFT)


class Hull:
    """Convex hull of projected points (F, n, 2): the outline of a convex body in the picture."""

    def __init__(self, points: Points) -> None:
        # OpenCV's hull takes half the time in float32
        self.outlines = [fixed(cv2.convexHull(frame)[:, 0]) for frame in np.ascontiguousarray(points, np.float32)]


class HullFill:
    """A filled convex hull, outlined in ink if `width` is not 0."""

    def __init__(self, hull: Hull, colour: Colour, ink: Colour, width: float) -> None:
        self.outlines, self.colour, self.ink, self.width = hull.outlines, colour, ink, round(width)

    def draw(self, canvas: Canvas, frame: int) -> None:
        """Draw the outline, then fill the hull."""
        outline = [self.outlines[frame]]
        if self.width:
            cv2.polylines(canvas.image, outline, True, self.ink, self.width, cv2.LINE_AA, SHIFT)
        cv2.fillPoly(canvas.image, outline, self.colour, cv2.LINE_AA, SHIFT)


class Paint:
    """Polygons, each (F, n, 2) or a Hull, filled from a shading map (`Shading.picture`); `width` 0 has no outline."""

    def __init__(
        self, shading: "Shades", shapes: Sequence[Points | Hull], outline: Colour = (0, 0, 0), width: float = 0.0
    ) -> None:
        self.shading, self.outline, self.width = shading, outline, round(width)
        self.shapes: list[NDArray[np.int32] | list[NDArray[np.int32]]] = [
            shape.outlines if isinstance(shape, Hull) else fixed(shape) for shape in shapes
        ]

    def draw(self, canvas: Canvas, frame: int) -> None:
        """Draw the outlines, then fill the polygons."""
        outlines = [shape[frame] for shape in self.shapes]
        if self.width:
            for outline in outlines:
                cv2.polylines(canvas.image, [outline], True, self.outline, 2 * self.width, cv2.LINE_AA, SHIFT)
        for outline in outlines:
            cv2.fillPoly(canvas.mask, [outline], 255, cv2.LINE_8, SHIFT)
        cv2.copyTo(self.shading.picture(canvas, frame), canvas.mask, canvas.image)
        canvas.mask[:] = 0


class During:
    """Marks that are drawn only in the frames for which `frames` (F,) is true."""

    def __init__(self, frames: NDArray[np.bool_], marks: Sequence[Mark]) -> None:
        self.frames, self.marks = frames.tolist(), marks

    def draw(self, canvas: Canvas, frame: int) -> None:
        """Draw the marks if the frame is one of theirs."""
        if self.frames[frame]:
            for mark in self.marks:
                mark.draw(canvas, frame)


class Shades(Protocol):
    """Full-size pictures of shaded colours, one for every frame."""

    def picture(self, canvas: Canvas, frame: int) -> Image:
        """The frame's picture, uint8 at the canvas's size; valid until the next frame."""


class Inside:
    """Marks cut to a polygon (F, n, 2), with an opacity in [0, 1]."""

    def __init__(self, points: Points, marks: Sequence[Mark], opacity: float = 1.0) -> None:
        self.points, self.marks, self.opacity = fixed(points), marks, round(255 * opacity)
        self.low = (self.points.min(axis=1) >> SHIFT) - 2
        self.high = (self.points.max(axis=1) >> SHIFT) + 3

    def draw(self, canvas: Canvas, frame: int) -> None:
        """Draw the marks on a copy of the image, and blend that in inside the polygon."""
        height, width = canvas.mask.shape
        left, top = np.maximum(self.low[frame], 0).tolist()
        right, bottom = np.minimum(self.high[frame], (width, height)).tolist()
        if left >= right or top >= bottom:
            return
        box = np.s_[top:bottom, left:right]
        canvas.spare[box] = canvas.image[box]
        canvas.image, canvas.spare = canvas.spare, canvas.image
        for mark in self.marks:
            mark.draw(canvas, frame)
        canvas.image, canvas.spare = canvas.spare, canvas.image
        cv2.fillPoly(canvas.mask, [self.points[frame]], self.opacity, cv2.LINE_AA, SHIFT)
        mask = canvas.mask[box]
        below = canvas.image[box].astype(np.int16)
        change = (canvas.spare[box] - below).astype(np.int32) * mask[..., None]
        canvas.image[box] = below + ((change + 127) // 255)
        mask[:] = 0


@lru_cache(maxsize=8)
def unit_circle(corners: int = 20) -> NDArray[np.float64]:
    """Corners of a regular polygon on the unit circle, (n, 2)."""
    angle = np.arange(corners) * (2.0 * np.pi / corners)
    return np.stack((np.cos(angle), np.sin(angle)), axis=-1)


def draw_frames(background: Image, marks: Sequence[Mark], frames: int, size: tuple[int, int]) -> Image:
    """Draw all marks on a copy of the background for every frame: uint8 (F, H, W, 3)."""
    height, width = size
    canvas = Canvas.of_size(size)
    result = np.empty((frames, height, width, 3), np.uint8)
    for frame, picture in enumerate(result):
        canvas.image[:] = background
        for mark in marks:
            mark.draw(canvas, frame)
        cv2.resize(canvas.image, (width, height), dst=picture, interpolation=cv2.INTER_AREA)
    return result
