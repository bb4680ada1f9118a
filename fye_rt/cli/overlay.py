"""Draw landmarks on the video or picture in which they were detected."""

from collections.abc import Iterator
from pathlib import Path

from fye_rt import media
from fye_rt.clips.clip import Image
from fye_rt.errors import InputError
from fye_rt.landmarks import Motion, overlay


def write_overlay(path: Path, source: Path, motion: Motion) -> None:
    """Draw a motion on its source video or picture; a picture at `path` shows the first frame.

    Raises:
        InputError: `source` is neither a video nor a picture.
        OutputError: `path` could not be written.
    """
    marked = (
        overlay(image, points[:, :2] * image.shape[1::-1])
        for image, points in zip(_pictures(source, len(motion)), motion.points, strict=True)
    )
    if path.suffix.lower() == ".mp4":
        media.write_video(path, marked, motion.fps, times=motion.times.tolist())
    else:
        media.write_image(path, next(marked))


def _pictures(source: Path, frames: int) -> Iterator[Image]:
    match media.kind_of(source):
        case "motion" | "template":
            raise InputError(f"{source} has no pictures to draw landmarks on; leave --overlay out")
        case "picture":
            yield media.read_image(source)
        case "video":
            yield from (image for _, image in media.read_video(source, max_frames=frames))
