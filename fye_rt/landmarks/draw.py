"""Draw landmark images for the guider, and overlays by which a person can judge landmarks."""

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError
from fye_rt.landmarks.motion import POINTS, Motion
from fye_rt.landmarks.retarget import retarget
from fye_rt.media.opencv import load_cv2

Colour = tuple[int, int, int]

# (RGB, edges) in drawing order: where lines cross, the later one shows, so the order is part of the format.
# The face oval (without the forehead) is black on black, as in training.
FACE_OVAL = "176-149 150-136 356-454 58-132 152-148 361-288 251-389 132-93 389-356 400-377 136-172 377-152 323-361 "
FACE_OVAL += "172-58 454-323 365-379 379-378 148-176 93-234 397-365 149-150 288-397 234-127 378-400 127-162 162-21"
LEFT_EYE = "374-380 390-373 249-390 385-384 373-374 263-466 387-386 381-382 384-398 466-388 386-385 388-387 263-249 "
LEFT_EYE += "380-381 398-362 382-362"
LEFT_BROW = "334-296 276-283 293-334 295-285 296-336 282-295 283-282 300-293"
RIGHT_EYE = "154-155 33-7 246-161 159-158 144-145 173-133 158-157 163-144 153-154 7-163 161-160 157-173 33-246 160-159 "
RIGHT_EYE += "145-153 155-133"
RIGHT_BROW = "46-53 66-107 52-65 53-52 63-105 70-63 65-55 105-66"
INNER_LIP_LOWER_RIGHT = "78-95 95-88 88-178 178-87 87-14"
INNER_LIP_LOWER_LEFT = "14-317 317-402 402-318 318-324 324-308"
INNER_LIP_UPPER_RIGHT = "78-191 191-80 80-81 81-82 82-13"
INNER_LIP_UPPER_LEFT = "13-312 312-311 311-310 310-415 415-308"
FEATURES: tuple[tuple[Colour, str], ...] = (
    ((0, 0, 0), FACE_OVAL),
    ((180, 200, 10), LEFT_EYE),
    ((180, 220, 10), LEFT_BROW),
    ((10, 200, 180), RIGHT_EYE),
    ((10, 220, 180), RIGHT_BROW),
    ((100, 100, 30), INNER_LIP_LOWER_RIGHT),
    ((100, 150, 50), INNER_LIP_LOWER_LEFT),
    ((120, 100, 200), INNER_LIP_UPPER_RIGHT),
    ((150, 120, 100), INNER_LIP_UPPER_LEFT),
)
EDGES: tuple[tuple[int, int, Colour], ...] = tuple(
    (int(start), int(end), colour)
    for colour, edges in FEATURES
    for start, end in (edge.split("-") for edge in edges.split())
)
IRIS_POINTS = (473, 468)
IRIS_COLOUR: Colour = (255, 0, 0)
IRIS_HALF_WIDTH = 3


def landmark_images(
    portrait: Motion, motion: Motion, size: tuple[int, int], drop_first: bool = False
) -> NDArray[np.uint8]:
    """Draw the portrait's landmarks moved by the motion (`retarget`, then `draw`): uint8 (F, H, W, 3)."""
    return draw(retarget(portrait, motion, size, drop_first), size)


def draw(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw eyes, brows, inner lips and irises as the model was trained to read them.

    Args:
        points: float64 (F, 478, 2), x and y in pixels. Edges with either end outside the picture are omitted, and so
            is an iris whose square would cross the left or upper border.
        size: height and width in pixels.

    Returns:
        uint8 (F, H, W, 3), RGB on black.

    Raises:
        InputError: `points` has another shape.
    """
    if points.ndim != 3 or points.shape[1:] != (POINTS, 2):
        raise InputError(f"landmark points have shape {points.shape}, expected (F, {POINTS}, 2)")
    images = np.zeros((len(points), *size, 3), np.uint8)
    for image, frame in zip(images, points, strict=True):
        _draw_edges(image, frame, EDGES)
        for point in IRIS_POINTS:
            _draw_square(image, frame[point])
    return images


def overlay(image: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Copy a picture and draw its landmarks for viewing: a dot for each point, the edges, and a white oval.

    Args:
        image: uint8 (H, W, 3).
        points: float64 (478, 2), x and y in pixels.

    Returns:
        uint8 (H, W, 3).
    """
    height, width = image.shape[:2]
    marked = np.ascontiguousarray(image).copy()
    columns, rows = np.floor(points).T
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    marked[rows[inside].astype(int), columns[inside].astype(int)] = (0, 255, 0)
    _draw_edges(marked, points, tuple((a, b, colour if any(colour) else (255, 255, 255)) for a, b, colour in EDGES))
    for point in IRIS_POINTS:
        _draw_square(marked, points[point], half_width=1)
    return marked


def _draw_edges(
    image: NDArray[np.uint8], points: NDArray[np.float64], edges: tuple[tuple[int, int, Colour], ...]
) -> None:
    cv2 = load_cv2()
    height, width = image.shape[:2]
    # float32, as MediaPipe's normalised coordinates: this decides which pixel a point on a border falls into
    normalised = (points / (width, height)).astype(np.float32).astype(np.float64)
    inside: NDArray[np.bool_] = np.all((normalised >= 0.0) & (normalised <= 1.0), axis=1)
    pixels = np.minimum(np.floor(np.where(inside[:, None], normalised, 0.0) * (width, height)), (width - 1, height - 1))
    pixels = pixels.astype(int).tolist()
    for start, end, colour in edges:
        if inside[start] and inside[end]:
            cv2.line(image, pixels[start], pixels[end], colour, 1)


def _draw_square(image: NDArray[np.uint8], point: NDArray[np.float64], half_width: int = IRIS_HALF_WIDTH) -> None:
    height, width = image.shape[:2]
    x, y = point
    # beyond the left or upper border the reference slices from a negative start, which selects nothing
    if half_width <= x < width + half_width and half_width <= y < height + half_width:
        left, top = int(x) - half_width, int(y) - half_width
        image[top : top + 2 * half_width, left : left + 2 * half_width] = IRIS_COLOUR
