"""Draw the boxes of automatic crops on six kinds of pictures, and time the search for their faces.

The photographs are in the public domain: scikit-image's astronaut (NASA), and Grace Hopper (U.S. Navy) of Matplotlib.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from fye_bench.arguments import benchmark, option, run
from fye_bench.environment import environment
from fye_rt import ClipRequest, Crop, media
from fye_rt.bundle import shipped_bundles
from fye_rt.cli import terminal
from fye_rt.clips.cache import ClipCache
from fye_rt.clips.place import Place, place
from fye_rt.media.opencv import load_cv2
from fye_rt.options import FACE_SHARE

CLIP, TILE, COLUMNS = (512, 512), 256, 3
BOX, POINTS = (255, 210, 0), (0, 255, 120)

Image = NDArray[np.uint8]


def pictures() -> Iterator[tuple[str, Image, Crop]]:
    """Yield the name of each kind, a picture of it, and the crop that is asked for."""
    import matplotlib.cbook
    import skimage.data

    cv2 = load_cv2()
    astronaut = skimage.data.astronaut()
    hopper = media.read_image(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    yield "half figure", astronaut, Crop()
    yield "portrait: left alone", media.read_image(shipped_bundles() / "demo" / "people" / "portrait.png"), Crop()
    yield "turned by 90 degrees", np.ascontiguousarray(np.rot90(astronaut)), Crop(rotate=True)
    turn = cv2.getRotationMatrix2D((256, 256), 30, 0.9)
    tilted = cv2.warpAffine(astronaut, turn, (512, 512), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    yield "tilted by 30 degrees", np.asarray(tilted, np.uint8), Crop(rotate=True)
    side = np.concatenate([astronaut[:, 60:400], media.fit_image(hopper, 512, 420)], axis=1)
    yield "two people, --face right", np.ascontiguousarray(side), Crop(face="right")
    large = np.repeat(np.linspace(90, 160, 3648)[:, None, None], 5472, axis=1).repeat(3, axis=2).astype(np.uint8)
    large[2600:2856, 4100:4356] = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    yield "small in 20 megapixels", large, Crop()


def drawn(picture: Image, placed: Place) -> Image:
    """Draw the region's box into a picture, and return it as a tile beside what the clip shows of it."""
    cv2 = load_cv2()
    scale = TILE / max(picture.shape[:2])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    region = placed.region
    turn = math.radians(region.angle)
    axes = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    half = np.array([region.width, region.height]) / 2
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half @ axes.T + (region.left, region.top) + half
    cv2.polylines(small, [np.rint(corners * scale).astype(np.int32)], True, BOX, 2)
    shown = cv2.resize(placed.portrait, (TILE, TILE), interpolation=cv2.INTER_AREA)
    for x, y in np.rint(placed.landmarks().points[0, :, :2] * TILE).astype(int).tolist():
        cv2.circle(shown, (x, y), 0, POINTS, -1)
    return np.concatenate([media.fit_image(np.asarray(small, np.uint8), TILE, TILE), shown], axis=1)


@benchmark("python -m fye_bench.studies.crop_boxes")
def main(output: Annotated[Path, option("PICTURE", "Sheet to write.")]) -> dict[str, Any]:
    """Draw the boxes of automatic crops, and time the search for their faces."""
    cv2, tiles, searched = load_cv2(), [], []
    for name, picture, crop in pictures():
        request = ClipRequest(portrait=picture, motion="", crop=crop)
        start = time.perf_counter()
        placed = place(request, picture, CLIP, FACE_SHARE, ClipCache())
        seconds = time.perf_counter() - start
        searched.append({"picture": name, "size": list(picture.shape[:2]), "seconds": seconds})
        terminal.say(f"{name:<26} {seconds:6.2f} s  {' '.join(placed.notices)}")
        tile = cv2.copyMakeBorder(drawn(picture, placed), 26, 8, 8, 8, cv2.BORDER_CONSTANT, value=(24, 24, 24))
        cv2.putText(tile, name, (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (230, 230, 230), 1, cv2.LINE_AA)
        tiles.append(np.asarray(tile, np.uint8))
    rows = [np.concatenate(tiles[k : k + COLUMNS], axis=1) for k in range(0, len(tiles), COLUMNS)]
    media.write_image(output, np.concatenate(rows))
    return {"environment": environment(), "clip": list(CLIP), "searched": searched}


if __name__ == "__main__":
    run(main)
