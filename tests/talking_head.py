"""tests/data/media/astronaut.mp4: a short clip of a face, for tests that need a driving video.

    python -m tests.talking_head    write it again

The face is scikit-image's astronaut (NASA's portrait of Eileen Collins, public domain), which turns, moves and comes
nearer; FFmpeg's H.264 encoder with B-frames and its AAC encoder wrote the file.
"""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

PATH = Path(__file__).parent / "data" / "media" / "astronaut.mp4"
SIZE = (144, 176)  # height, width: CIF's quarter
FPS = Fraction(30000, 1001)
FRAMES = 40
SAMPLE_RATE = 48000
FACE = (224.0, 120.0)  # x, y of the nose in the picture of 512x512


def frames() -> list[NDArray[np.uint8]]:
    """The pictures before they were encoded: uint8 (144, 176, 3), RGB."""
    image = skimage.data.astronaut()
    height, width = SIZE
    pictures = []
    for phase in 2 * np.pi * np.arange(FRAMES) / FRAMES:
        turn = cv2.getRotationMatrix2D(FACE, 8 * np.sin(phase), 0.62 + 0.04 * np.sin(2 * phase))
        turn[:, 2] += (width / 2 + 6 * np.sin(phase) - FACE[0], height / 2 + 4 * np.cos(phase) - FACE[1])
        pictures.append(cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_AREA))
    return pictures


def tone() -> NDArray[np.float32]:
    """A tone of 440 Hz as long as the clip: float32 (1, samples) in [-0.2, 0.2]."""
    samples = round(FRAMES / FPS * SAMPLE_RATE)
    return (0.2 * np.sin(2 * np.pi * 440 * np.arange(samples) / SAMPLE_RATE)).astype(np.float32)[None]


def write(path: Path) -> None:
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "slow", "bf": "2"})
        video.height, video.width = SIZE
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for picture in frames():
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        samples = av.AudioFrame.from_ndarray(tone(), format="fltp", layout="mono")
        samples.sample_rate = SAMPLE_RATE
        container.mux(sound.encode(samples))
        container.mux(video.encode())
        container.mux(sound.encode())


if __name__ == "__main__":
    write(PATH)
