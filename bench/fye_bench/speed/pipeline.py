"""One way of making a clip, stage by stage: the baseline, or the runtime with a backend.

`open_pipeline`, `time_stages` and `make_clip` run in a worker process, which holds one pipeline.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fye_bench.speed.workload import Inputs, Workload
from fye_rt.bundle import Bundle
from fye_rt.noise import frame_noise
from fye_rt.options import Options

STAGES = ("encode_portrait", "encode_motion", "denoise_step", "decode")
BASELINE = "baseline"
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Variant:
    """`backend` is "baseline" or one of `fye_rt.backends.BACKENDS`; `compute` its precision."""

    backend: str
    compute: str = "fp32"

    def __str__(self) -> str:
        """Name in tables and results."""
        return self.backend if self.backend == BASELINE else f"{self.backend} {self.compute}"


@dataclass(frozen=True, slots=True)
class TimedClip:
    """A whole clip.

    Attributes:
        seconds: from portrait and landmark images to all frames; nothing of it was computed before.
        first_frame_seconds: the same to the first frame, decoded alone.
        latents: float32 (1, 4, F, H/8, W/8).
        frames: float32 (F, H, W, 3).
    """

    seconds: float
    first_frame_seconds: float
    latents: Array
    frames: Array


class Stages(Protocol):
    """What `Baseline` and `fye_rt.Animator` have in common; a portrait and a motion are the affair of each."""

    def encode_portrait(self, image: NDArray[np.uint8], clip_pixels: Array) -> Any:
        """Once per portrait."""
        ...

    def encode_motion(self, landmark_images: NDArray[np.uint8]) -> Any:
        """Once per clip."""
        ...

    def denoise(self, portrait: Any, motion: Any, noise: Array, options: Options) -> Array:
        """All steps."""
        ...

    def decode(self, latents: Array) -> Array:
        """Once per clip."""
        ...


class Pipeline:
    """A variant with all its weights in memory, and what it is timed on.

    Attributes:
        stages: the baseline or an Animator.
        inputs: of the first two stages.
        noise: float32 (1, 4, F, H/8, W/8).
    """

    def __init__(self, variant: Variant, workload: Workload, bundle: Path, checkpoint: Path) -> None:
        opened = Bundle.load(bundle, verify=False)  # by `find_model`
        height, width = workload.size
        self.workload = workload
        self.inputs = Inputs.make(opened, workload)
        self.noise = frame_noise(0, range(workload.frames), height // 8, width // 8, opened.latent_channels())
        if variant.backend == BASELINE:
            self.stages = _baseline(opened, checkpoint, workload.threads)
        else:
            self.stages = _animator(opened, variant, workload.threads)

    def time_stages(self) -> dict[str, float]:
        """Seconds of each of `STAGES`; the step has all windows, guidance and the DDIM update."""
        inputs, seconds = self.inputs, {}

        def timed(stage: str, function: Callable[..., Any], *args: Any) -> Any:
            start = time.perf_counter()
            result = function(*args)
            seconds[stage] = time.perf_counter() - start
            return result

        portrait = timed("encode_portrait", self.stages.encode_portrait, inputs.image, inputs.clip_pixels)
        motion = timed("encode_motion", self.stages.encode_motion, inputs.landmark_images)
        one_step = self.workload.options(steps=1)
        latents = timed("denoise_step", self.stages.denoise, portrait, motion, self.noise, one_step)
        timed("decode", self.stages.decode, latents)
        return seconds

    def make_clip(self) -> TimedClip:
        """A clip from beginning to end."""
        start = time.perf_counter()
        portrait = self.stages.encode_portrait(self.inputs.image, self.inputs.clip_pixels)
        motion = self.stages.encode_motion(self.inputs.landmark_images)
        latents = self.stages.denoise(portrait, motion, self.noise, self.workload.options())
        denoised = time.perf_counter()
        self.stages.decode(latents[:, :, :1])
        first = time.perf_counter()
        frames = self.stages.decode(latents)
        end = time.perf_counter()
        return TimedClip(end - first + denoised - start, first - start, latents, frames)


def _baseline(bundle: Bundle, checkpoint: Path, threads: int) -> Stages:
    import torch

    from fye_bench.speed.baseline import Baseline
    from fye_export.checkpoint import Checkpoint
    from fye_export.config import NETWORKS

    torch.set_num_threads(threads)
    opened = Checkpoint.open(checkpoint)
    return Baseline({name: opened.load(name) for name in NETWORKS}, bundle.scheduler)


def _animator(bundle: Bundle, variant: Variant, threads: int) -> Stages:
    from fye_rt.animator import Animator

    return Animator(bundle, variant.backend, compute=variant.compute, threads=threads)


_pipeline: Pipeline


def open_pipeline(variant: Variant, workload: Workload, bundle: Path, checkpoint: Path) -> float:
    """Load everything and run every stage once; seconds."""
    global _pipeline
    start = time.perf_counter()
    _pipeline = Pipeline(variant, workload, bundle, checkpoint)
    _pipeline.time_stages()
    return time.perf_counter() - start


def time_stages() -> dict[str, float]:
    """See `Pipeline.time_stages`."""
    return _pipeline.time_stages()


def make_clip() -> TimedClip:
    """See `Pipeline.make_clip`."""
    return _pipeline.make_clip()
