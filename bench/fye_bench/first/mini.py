"""The bundle that ships: the torch backend's frames against ONNX Runtime's, and 30 steps in half precision."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fye_bench.first.record import Record
from fye_rt.animator import Animator
from fye_rt.bundle import Bundle, shipped_bundles
from fye_rt.media.images import read_image
from fye_rt.options import Options

# of 255 levels, root mean square. Float32: sums in another order; half precision: rounding to 2**-11 or 2**-8 in every
# layer of every step, some tenths of a level in ONNX Runtime's own float16
BOUNDS = {"fp32": 0.25, "fp16": 2.0, "bf16": 8.0}


def run(record: Record, out: Path, small: bool) -> None:
    """See `fye_bench.first`."""
    name, frames, steps, threads = ("tiny", 2, 2, 1) if small else ("mini", 8, 10, 0)
    bundle = Bundle.load(shipped_bundles() / name)
    portrait, landmarks = _drawn(64 if small else 192, frames)
    options = Options(steps=steps, guidance=1.5)
    expected: Any = None
    with record.part("onnxruntime") as result:
        expected = frames_of(bundle, "onnxruntime", "fp32", portrait, landmarks, options, threads)
        result |= {"shape": list(expected.shape), "spread": float(expected.std())}
    for compute in BOUNDS if torch.cuda.is_available() else ("fp32",):
        with record.part(f"torch, {compute}") as result:
            levels = frames_of(bundle, "torch", compute, portrait, landmarks, options, threads)
            error = float(np.sqrt(np.mean((levels.astype(np.float64) - expected) ** 2)))
            largest = int(np.abs(levels.astype(int) - expected).max())
            result |= {"levels_rms": error, "levels_largest": largest, "bound": BOUNDS[compute]}
            result["right"] = error <= BOUNDS[compute]
    with record.part("finite over 30 steps") as result:  # the torch backend raises where it is not
        compute = "fp16" if torch.cuda.is_available() else "fp32"
        thirty = Options(steps=2 if small else 30, guidance=3.5)
        levels = frames_of(bundle, "torch", compute, portrait, landmarks, thirty, threads)
        result |= {"compute": compute, "spread": float(levels.std())}
        result["right"] = result["spread"] > 1


def frames_of(
    bundle: Bundle,
    backend: str,
    compute: str,
    portrait: NDArray[np.uint8],
    landmarks: NDArray[np.uint8],
    options: Options,
    threads: int = 0,
) -> NDArray[np.uint8]:
    """Frames uint8 (F, H, W, 3) by one backend, of every stage."""
    with Animator(bundle, backend, compute=compute, threads=threads) as animator:
        states = animator.encode_portrait(portrait), animator.encode_motion(landmarks)
        return animator.decode_pixels(animator.denoise(*states, options=options))


def _drawn(side: int, frames: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A portrait (H, W, 3) and landmark images (F, H, W, 3) of the demonstration, of that many pixels a side."""
    from PIL import Image

    folder = shipped_bundles() / "demo" / "people"
    files = [folder / "portrait.png", *sorted((folder / "landmarks").glob("*.png"))[:frames]]
    images = [np.asarray(Image.fromarray(read_image(file)).resize((side, side))) for file in files]
    return images[0], np.stack(images[1:])
