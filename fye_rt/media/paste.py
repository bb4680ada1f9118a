"""Paste frames of a clip back into the picture that they were cropped from."""

import numpy as np
from numpy.typing import NDArray

from fye_rt.files.rows import parts
from fye_rt.media.crop import Region
from fye_rt.media.opencv import load_cv2

MAX_SIDE = 4096  # pixels of a pasted frame, which is as much as many players of H.264 show
_HULL_MARGIN = 0.15  # of the face's larger side, around all of its landmarks
_OPAQUE = 256  # a mask's weight of a pixel that is the frame's alone

_SAMPLES = 4096  # pixels of which a mean colour is taken
_AROUND = 5  # pixels, around which a change is averaged
# share of the picture's detail, in 255ths, by change in levels: all of it up to 4, nothing from 24 on
_KEPT = (255 * np.interp(np.arange(256), (4, 24), (1, 0))).round().astype(np.int16)

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]


def shape_of(kind: str, size: tuple[int, int], points: Points | None = None) -> NDArray[np.bool_]:
    """Return the part of a clip that is pasted, bool (H, W).

    Args:
        kind: "box": all of it; "oval": the ellipse that touches its sides; "face": the convex hull of the face's
            landmarks, and around it 15 % of its larger side.
        size: height and width of the clip.
        points: float64 (N, 2), landmarks of all frames in pixels, for "face".
    """
    height, width = size
    if kind == "box":
        return np.ones(size, np.bool_)
    if kind == "oval":
        y, x = np.ogrid[:height, :width]
        across, down = (2 * x + 1) / width - 1, (2 * y + 1) / height - 1
        inside: NDArray[np.bool_] = across**2 + down**2 <= 1
        return inside
    if points is None:
        raise ValueError("a mask around the face needs its landmarks")
    cv2 = load_cv2()
    hulls = [cv2.convexHull(points[part].round().astype(np.int32)) for part in parts(len(points))]
    hull = cv2.convexHull(np.concatenate(hulls))
    drawn = cv2.fillConvexPoly(np.zeros(size, np.uint8), hull, 1)
    margin = round(_HULL_MARGIN * float(np.ptp(points, axis=0).max()))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    return cv2.dilate(drawn, disc) > 0


def feathered(shape: NDArray[np.bool_], feather: float) -> NDArray[np.float32]:
    """Soften the edge of a shape, inwards.

    Args:
        shape: bool (H, W).
        feather: width of the soft edge as a share of half the shorter side of the shape's box, 0 to 1.

    Returns:
        float32 (H, W) in [0, 1]: 0 outside of the shape, rising smoothly from its edge.
    """
    cv2 = load_cv2()
    rows, columns = np.flatnonzero(shape.any(axis=1)), np.flatnonzero(shape.any(axis=0))
    width = feather * min(np.ptp(rows) + 1, np.ptp(columns) + 1) / 2
    if width < 1:
        return shape.astype(np.float32)
    framed = np.pad(shape.astype(np.uint8), 1)  # beyond the clip lies the picture
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    share = (depth / (width + 1)).clip(0, 1)
    smooth: NDArray[np.float32] = (share * share * (3 - 2 * share)).astype(np.float32)
    return smooth


def over(under: Pixels, layer: Pixels) -> Pixels:
    """Lay an image over another one of the same size, both uint8 RGBA (h, w, 4) with straight alpha."""
    composed = np.where(layer[..., 3:] > 0, layer, under)
    mixed = (layer[..., 3] > 0) & (layer[..., 3] < 255) & (under[..., 3] > 0)
    upper, lower = layer[mixed] / 255, under[mixed] / 255
    shares = upper[:, 3:], lower[:, 3:] * (1 - upper[:, 3:])
    alpha = shares[0] + shares[1]
    colors = (upper[:, :3] * shares[0] + lower[:, :3] * shares[1]) / alpha
    composed[mixed] = np.rint(255 * np.concatenate([colors, alpha], axis=1)).astype(np.uint8)
    return composed


class Paste:
    """Pastes frames of a clip into a picture; only the rectangle that the mask touches is computed.

    Detail of the picture that a clip of this size cannot hold stays wherever a frame does not differ from the portrait.

    Args:
        picture: uint8 RGB (h, w, 3).
        region: the part of the picture that the clip shows.
        portrait: uint8 RGB (H, W, 3), that part as it is animated.
        mask: float32 (H, W) in [0, 1], the frame's share of each pixel of the clip; see `feathered`.
        color: "mean" gives each frame the picture's mean colour along the mask's edge; "none" leaves its colours.
    """

    def __init__(
        self, picture: Pixels, region: Region, portrait: Pixels, mask: NDArray[np.float32], color: str = "none"
    ) -> None:
        cv2 = load_cv2()
        self.picture, self._region = picture, region
        self._left, self._top, self._right, self._bottom = _bounds(region, picture.shape[:2])
        weights = np.rint(self._placed(mask, cv2.INTER_LINEAR).clip(0, 1) * _OPAQUE).astype(np.int16)
        rows, columns = np.flatnonzero(weights.any(axis=1)), np.flatnonzero(weights.any(axis=0))
        if rows.size:  # shrink the rectangle to what the mask touches
            self._weights = np.ascontiguousarray(weights[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
            self._right, self._left = self._left + int(columns[-1]) + 1, self._left + int(columns[0])
            self._bottom, self._top = self._top + int(rows[-1]) + 1, self._top + int(rows[0])
        else:
            self._weights = weights[:0, :0]
            self._right, self._bottom = self._left, self._top
        self._part = np.ascontiguousarray(picture[self._rectangle])
        self._three = cv2.merge([self._weights] * 3) if self._weights.size else self._weights
        self._portrait = np.ascontiguousarray(self._placed(portrait, cv2.INTER_CUBIC))
        self._detail = cv2.subtract(self._part, self._portrait, dtype=cv2.CV_16S) if self._weights.size else None
        if self._detail is not None and not self._detail.any():
            self._detail = None
        self._edge = _edge(self._weights) if color == "mean" and self._weights.size else None
        self._color = None if self._edge is None else _mean(self._part, self._edge)

    @property
    def rectangle(self) -> tuple[int, int, int, int]:
        """Left, top, width and height of the touched rectangle, pixels; no width where the mask is empty."""
        return self._left, self._top, self._right - self._left, self._bottom - self._top

    @property
    def _rectangle(self) -> tuple[slice, slice]:
        return slice(self._top, self._bottom), slice(self._left, self._right)

    def __call__(self, frame: Pixels) -> Pixels:
        """Return a copy of the picture with a frame uint8 (H, W, 3) in it."""
        canvas = self.picture.copy()
        self.onto(canvas, frame)
        return canvas

    def onto(self, canvas: Pixels, frame: Pixels) -> None:
        """Paste a frame into a picture of the same size, in place, over what the touched rectangle holds there."""
        if not self._weights.size:
            return
        cv2 = load_cv2()
        under = np.ascontiguousarray(canvas[self._rectangle])
        difference = self._difference(frame, under)
        share = cv2.multiply(difference, self._three, scale=1 / _OPAQUE, dtype=cv2.CV_16S)
        canvas[self._rectangle] = cv2.add(under, share, dtype=cv2.CV_8U)

    def clear(self, canvas: Pixels) -> None:
        """Give the touched rectangle of a picture, in place, its own pixels again."""
        canvas[self._rectangle] = self._part

    def cut_out(self, frame: Pixels) -> Pixels:
        """Return a frame at its place in the picture, uint8 RGBA (h, w, 4), with the mask as straight alpha."""
        canvas = np.zeros((*self.picture.shape[:2], 4), np.uint8)
        if self._weights.size:
            rows, columns = self._rectangle
            canvas[rows, columns, :3] = (self._part + self._difference(frame, self._part)).clip(0, 255)
            canvas[rows, columns, 3] = (self._weights.astype(np.int32) * 255 + _OPAQUE // 2) // _OPAQUE
            canvas[canvas[..., 3] == 0] = 0
        return canvas

    def _difference(self, frame: Pixels, under: Pixels) -> NDArray[np.int16]:
        """Return by how much a frame, at its place and in its colours, differs from what lies under it."""
        cv2 = load_cv2()
        placed: Pixels = self._placed(frame, cv2.INTER_CUBIC).astype(np.uint8, copy=False)
        if self._detail is not None:
            channels = cv2.split(cv2.absdiff(placed, self._portrait))
            change = cv2.blur(cv2.max(channels[0], cv2.max(channels[1], channels[2])), (_AROUND, _AROUND))
            share = cv2.LUT(change, _KEPT)
            kept = cv2.multiply(self._detail, cv2.merge([share] * 3), scale=1 / 255, dtype=cv2.CV_16S)
            placed = cv2.add(placed, kept, dtype=cv2.CV_8U)
        difference: NDArray[np.int16] = cv2.subtract(placed, under, dtype=cv2.CV_16S)
        if self._edge is not None and self._color is not None:
            shift = np.rint(np.subtract(self._color, _mean(placed, self._edge)))
            difference = cv2.add(difference, (*shift.tolist(), 0))
        return difference

    def _placed(self, image: NDArray[np.generic], interpolation: int) -> NDArray[np.generic]:
        """Return the part of a clip's image that lies in the touched rectangle, resampled to the picture's pixels."""
        cv2 = load_cv2()
        image = _resized(image, (max(round(self._region.height), 1), max(round(self._region.width), 1)), interpolation)
        left, top = self._region.left, self._region.top
        if not self._region.angle and float(left).is_integer() and float(top).is_integer():
            x, y = int(left), int(top)
            return image[self._top - y : self._bottom - y, self._left - x : self._right - x]
        matrix = self._region.matrix((image.shape[0], image.shape[1]))
        matrix[:, 2] -= self._left, self._top
        size = self._right - self._left, self._bottom - self._top
        border = cv2.BORDER_REPLICATE if image.ndim == 3 else cv2.BORDER_CONSTANT
        placed: NDArray[np.generic] = cv2.warpAffine(image, matrix, size, flags=interpolation, borderMode=border)
        return placed


def _edge(weights: NDArray[np.int16]) -> NDArray[np.intp]:
    """Choose pixels where frame and picture mix, or just inside of a hard edge, as indices of the flat rectangle."""
    edge = (weights > 0) & (weights < _OPAQUE)
    if not edge.any():
        whole = np.pad(weights > 0, 1)
        inner = whole[:-2, 1:-1] & whole[2:, 1:-1] & whole[1:-1, :-2] & whole[1:-1, 2:]
        edge = whole[1:-1, 1:-1] & ~inner
    indices = np.flatnonzero(edge)
    return indices[:: max(len(indices) // _SAMPLES, 1)]


def _mean(image: Pixels, indices: NDArray[np.intp]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = image.reshape(-1, 3)[indices].mean(axis=0)
    return mean


def _bounds(region: Region, size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a region's pixels in a picture of `size`; an empty box if it has none."""
    corners = region.to_picture(np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * 1.0, (1, 1))
    low, high = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
    left, top = (int(max(value, 0)) for value in low)
    right, bottom = (int(min(value, side)) for value, side in zip(high, size[1::-1], strict=True))
    return left, top, max(right, left), max(bottom, top)


def _resized(image: NDArray[np.generic], size: tuple[int, int], interpolation: int) -> NDArray[np.generic]:
    """Resize an image: larger by `interpolation`, smaller by means over areas."""
    if image.shape[:2] == size:
        return image
    cv2 = load_cv2()
    smaller = size[0] < image.shape[0]
    resized: NDArray[np.generic] = cv2.resize(
        image, size[::-1], interpolation=cv2.INTER_AREA if smaller else interpolation
    )
    return resized
