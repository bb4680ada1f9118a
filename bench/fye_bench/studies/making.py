"""Make a drawn clip with the runtime."""

import time
from dataclasses import dataclass

from fye_bench.metrics.truth import Image
from fye_rt.animator import Animator
from fye_rt.network import MotionState, PortraitState
from fye_rt.options import Options
from fye_rt.timings import Evaluations


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A clip from the runtime.

    Attributes:
        frames: uint8 (F, H, W, 3).
        seconds: time of the denoising loop.
        evaluations: number of network evaluations.
    """

    frames: Image
    seconds: float
    evaluations: int


def make(animator: Animator, portrait: PortraitState, motion: MotionState, options: Options) -> Made:
    """Denoise and time a clip, and decode it.

    Raises:
        FyeError: see `Animator`.
    """
    evaluations = Evaluations()
    start = time.perf_counter()
    latents = animator.denoise(portrait, motion, options=options, progress=evaluations)
    seconds = time.perf_counter() - start
    return Made(animator.decode_pixels(latents), seconds, evaluations.number)
