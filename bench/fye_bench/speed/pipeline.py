"""A pipeline that makes a clip, stage by stage: the baseline, or the runtime with a backend.

`open_pipeline`, `time_stages` and `make_clip` run in a worker process, which has one pipeline.
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
        seconds: time from portrait and landmark images to all frames, nothing of it computed before.
        first_frame_seconds: time to the first frame, decoded alone.
        latents: float32 (1, 4, F, H/8, W/8).
        frames: float32 (F, H, W, 3).
    """

    seconds: float
    first_frame_seconds: float
    latents: Array
    frames: Array


class Stages(Protocol):
    """Common stages of `Baseline` and `fye_rt.Animator`, each with its own types of portrait and motion."""

    def encode_portrait(self, image: NDArray[np.uint8], clip_pixels: Array) -> Any:
        """Encode a portrait."""

    def encode_motion(self, landmark_images: NDArray[np.uint8]) -> Any:
        """Encode the motion of a clip."""

    def denoise(self, portrait: Any, motion: Any, noise: Array, options: Options) -> Array:
        """Run all steps."""

    def decode(self, latents: Array) -> Array:
        """Decode a clip."""


class Pipeline:
    """A variant with all its weights in memory, and its inputs.

    Attributes:
        stages: the baseline or an Animator.
        inputs: inputs of the first two stages.
        noise: float32 (1, 4, F, H/8, W/8).
    """

    def __init__(self, variant: Variant, workload: Workload, bundle: Path, checkpoint: Path) -> None:
        opened = Bundle.load(bundle, verify=False)  # `find_model` has verified it
        height, width = workload.size
        self.workload = workload
        self.inputs = Inputs.make(opened, workload)
        self.noise = frame_noise(0, range(workload.frames), height // 8, width // 8, opened.latent_channels())
        if variant.backend == BASELINE:
            self.stages: Stages = _baseline(opened, checkpoint, workload.threads)
        else:
            from fye_rt.animator import Animator  # the baseline's process does without

            self.stages = Animator(opened, variant.backend, compute=variant.compute, threads=workload.threads)

    def time_stages(self) -> dict[str, float]:
        """Return the seconds of each of `STAGES`; the step has all windows, guidance and the DDIM update."""
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
        """Make a clip from beginning to end."""
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


_pipeline: Pipeline


def open_pipeline(variant: Variant, workload: Workload, bundle: Path, checkpoint: Path) -> float:
    """Load everything, run every stage once, and return seconds."""
    global _pipeline
    start = time.perf_counter()
    _pipeline = Pipeline(variant, workload, bundle, checkpoint)
    _pipeline.time_stages()
    return time.perf_counter() - start


def time_stages() -> dict[str, float]:
    """Call `Pipeline.time_stages` in a worker."""
    return _pipeline.time_stages()


def make_clip() -> TimedClip:
    """Call `Pipeline.make_clip` in a worker."""
    return _pipeline.make_clip()
