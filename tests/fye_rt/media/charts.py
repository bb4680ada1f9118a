"""Colour charts coded exactly: each plane is computed here, so that FFmpeg's own conversion is not needed."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

# numbers in H.273 of matrix, primaries and transfer; weights of red and blue
STANDARDS = {
    "bt601": ((6, 6, 6), 0.299, 0.114),
    "bt709": ((1, 1, 1), 0.2126, 0.0722),
    "bt2020": ((9, 9, 14), 0.2627, 0.0593),
}
PATCHES = np.array(
    [[(220, 30, 30), (30, 200, 40), (40, 40, 210), (230, 210, 40)],
     [(128, 128, 128), (200, 140, 110), (16, 16, 16), (250, 250, 250)]],
    np.uint8,
)  # fmt: skip


def chart(height: int = 64, width: int = 64) -> np.ndarray:
    """Two rows of four patches, uint8 (height, width, 3)."""
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 4 // width
    return PATCHES[rows[:, None], columns]


def patches(image: np.ndarray) -> np.ndarray:
    """Colours in the middle of a chart's patches, (2, 4, 3), as integers."""
    rows, columns = ((np.arange(n) * 2 + 1) * size // (2 * n) for n, size in ((2, image.shape[0]), (4, image.shape[1])))
    return image[rows[:, None], columns].astype(int)


def planes(signal: np.ndarray, standard: str, full: bool, bits: int) -> list[np.ndarray]:
    """Y, Cb and Cr of RGB signals, 0 to 1, (H, W, 3), as H.273 defines them."""
    _, red, blue = STANDARDS[standard]
    y = signal @ np.array((red, 1 - red - blue, blue))
    chroma = [(signal[..., 2] - y) / (2 - 2 * blue), (signal[..., 0] - y) / (2 - 2 * red)]
    step, most = 1 << (bits - 8), (1 << bits) - 1
    if full:
        coded = [y * most, *(part * most + 128 * step for part in chroma)]
    else:
        coded = [(16 + 219 * y) * step, *((128 + 224 * part) * step for part in chroma)]
    return [plane.round().clip(0, most).astype(np.uint16) for plane in coded]


def coded_frame(signal: np.ndarray, pixels: str, standard: str, full: bool) -> av.VideoFrame:
    """A frame of RGB signals, 0 to 1, (H, W, 3), in a planar YCbCr format; patches have no edges within four pixels."""
    frame = av.VideoFrame(signal.shape[1], signal.shape[0], pixels)
    bits = 10 if "10" in pixels else 8
    for plane, values in zip(frame.planes, planes(signal, standard, full, bits), strict=False):
        dtype = np.uint8 if bits == 8 else np.uint16
        buffer = np.frombuffer(plane, dtype).reshape(plane.height, -1)
        down, across = signal.shape[0] // plane.height, signal.shape[1] // plane.width
        buffer[:, : plane.width] = values[down // 2 :: down, across // 2 :: across]
    for plane in frame.planes[3:]:  # opaque
        np.frombuffer(plane, np.uint16 if bits > 8 else np.uint8)[:] = (1 << bits) - 1
    return frame


def write_chart(
    path: Path,
    form: str,
    codec: str,
    pixels: str = "yuv420p",
    standard: str = "bt601",
    full: bool = False,
    *,
    signal: np.ndarray | None = None,
    transfer: int | None = None,
    tagged: bool = True,
    options: dict[str, str] | None = None,
    frames: int = 3,
) -> Path:
    """Write a film of a chart, or of other RGB signals, 0 to 1, (H, W, 3), that states its colours if `tagged`."""
    signal = chart() / 255 if signal is None else signal
    matrix, primaries, usual = STANDARDS[standard][0]
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = signal.shape[:2]
        stream.pix_fmt = pixels
        context = stream.codec_context
        if tagged:
            context.colorspace, context.color_primaries, context.color_trc = matrix, primaries, transfer or usual
            context.color_range = 2 if full else 1
        for index in range(frames):
            frame = coded_frame(signal, pixels, standard, full)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            if tagged:
                frame.colorspace, frame.color_range = matrix, 2 if full else 1
                frame.color_primaries, frame.color_trc = primaries, transfer or usual
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
