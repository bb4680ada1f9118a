"""Draw landmarks on the video or picture in which they were detected, or on which they were fitted."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fye_rt import media
from fye_rt.clips.clip import Image
from fye_rt.errors import InputError
from fye_rt.landmarks import Motion, overlay
from fye_rt.landmarks.points_file import NamedPoints
from fye_rt.media.opencv import load_cv2
from fye_rt.options import ClipRequest

FIT_SIDE = 1280  # pixels of the longer side of a fit's overlay, enough for names beside points
SURROUNDINGS = 0.25  # of the face, on each side of it
LETTERS = 14  # pixels, height of the names
MESH, POINT, EDGE = (120, 200, 255), (255, 230, 0), (0, 0, 0)


def write_overlay(path: Path, request: ClipRequest, motion: Motion) -> None:
    """Draw a motion on the video or picture from which a request read it; a picture at `path` shows the first frame.

    Raises:
        InputError: the source is neither a video nor a picture.
        OutputError: `path` could not be written.
    """
    marked = (
        overlay(image, points[:, :2] * image.shape[1::-1])
        for image, points in zip(_pictures(request, len(motion)), motion.points, strict=True)
    )
    if path.suffix.lower() == ".mp4":
        media.write_video(path, marked, motion.fps, times=motion.times.tolist())
    else:
        media.write_image(path, next(marked))


def write_fit(path: Path, picture: Image, motion: Motion, named: NamedPoints, triangles: NDArray[np.int64]) -> None:
    """Draw the mesh that was fitted to named points, the features that the model sees, and the points' names.

    The picture is cropped to the face and its surroundings, and enlarged.

    Raises:
        OutputError: `path` could not be written.
    """
    from PIL import Image as Pictures
    from PIL import ImageDraw, ImageFont

    pixels = motion.points[0, :, :2] * picture.shape[1::-1]
    size = np.ptp(pixels, axis=0)
    low = np.floor(np.maximum(pixels.min(axis=0) - SURROUNDINGS * size, 0.0)).astype(int)
    high = np.ceil(np.minimum(pixels.max(axis=0) + SURROUNDINGS * size, picture.shape[1::-1])).astype(int)
    scale = FIT_SIDE / float((high - low).max())
    width, height = np.maximum(np.round((high - low) * scale), 1).astype(int).tolist()
    face = Pictures.fromarray(picture[low[1] : high[1], low[0] : high[0]])
    enlarged = np.array(face.resize((width, height), Pictures.Resampling.BICUBIC))
    pixels = (pixels - low) * scale
    cv2 = load_cv2()
    lines = enlarged.copy()
    cv2.polylines(lines, np.round(pixels[triangles]).astype(np.int32), True, MESH, 1, cv2.LINE_AA)
    sheet = Pictures.fromarray(overlay(cv2.addWeighted(enlarged, 0.5, lines, 0.5, 0.0), pixels))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LETTERS)
    for name, point in named.points.items():
        x, y = ((np.array(point) - low) * scale).tolist()
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=POINT, outline=EDGE)
        anchor, beside = ("rm", -7) if name.startswith("right_") or name == "mouth_right" else ("lm", 7)
        draw.text((x + beside, y), name, fill=POINT, font=font, anchor=anchor, stroke_width=2, stroke_fill=EDGE)
    media.write_image(path, np.array(sheet))


def _pictures(request: ClipRequest, frames: int) -> Iterator[Image]:
    source = Path(str(request.motion))
    pictures: Iterable[Image]
    match media.kind_of(source):
        case "picture":
            pictures = [media.read_image(source)]
        case "video":
            video = media.read_video(source, max_frames=frames, start=request.start, seconds=request.seconds)
            pictures = (image for _, image in video)
        case _:
            raise InputError(f"{source} has no pictures to draw landmarks on; leave --overlay out")
    for picture in pictures:
        yield np.ascontiguousarray(picture[:, ::-1]) if request.mirror else picture
