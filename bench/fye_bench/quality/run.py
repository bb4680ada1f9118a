"""Clips of the suite made by a bundle, kept on disk, and found again."""

import json
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fye_bench.metrics.truth import Drawn, Image
from fye_rt import backends
from fye_rt.animator import Animator
from fye_rt.errors import InputError, OutputError
from fye_rt.files import atomic_folder
from fye_rt.machine import write_json
from fye_rt.options import Options

FRAMES, RESULT = "frames.npz", "quality.json"


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A clip that was made.

    Attributes:
        frames: uint8 (F, H, W, 3).
        seconds: spent, by stage.
        evaluations: of the denoising network.
    """

    frames: Image
    seconds: Mapping[str, float]
    evaluations: int


def make(animator: Animator, drawn: Drawn, options: Options) -> Made:
    """Animate a case's portrait with its landmark images.

    Raises:
        FyeError: see `Animator`.
    """
    seconds: dict[str, float] = {}
    evaluations = 0

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - start

    def count(done: int, total: int) -> None:
        nonlocal evaluations
        evaluations = total

    with stage("encode_portrait"):
        portrait = animator.encode_portrait(drawn.portrait)
    with stage("encode_motion"):
        motion = animator.encode_motion(drawn.landmarks)
    with stage("denoise"):
        latents = animator.denoise(portrait, motion, options=options, progress=count)
    with stage("decode"):
        frames = animator.decode_pixels(latents)
    return Made(frames, seconds, evaluations)


def ceiling(animator: Animator, encoder: backends.Engine, drawn: Drawn) -> Image:
    """The true frames through the VAE and back: no denoiser can be expected to do better.

    Args:
        animator: with the decoder.
        encoder: the bundle's vae_encoder.
        drawn: the case.
    """
    pixels = drawn.frames.transpose(0, 3, 1, 2) / np.float32(255) * np.float32(2) - np.float32(1)
    encoded = [next(iter(encoder.run({"pixels": np.ascontiguousarray(frame[None])}).values())) for frame in pixels]
    return animator.decode_pixels(np.ascontiguousarray(np.stack(encoded, axis=2)))


def open_encoder(animator: Animator, settings: backends.Settings) -> backends.Engine:
    """The encoder of an animator's bundle."""
    return backends.load(animator.backend)(animator.bundle, "vae_encoder", settings)


def check_folder(folder: Path) -> None:
    """Raise OutputError unless a run may be kept there: in a new folder, an empty one, or in place of an older run."""
    if folder.exists() and not (folder.is_dir() and ((folder / RESULT).is_file() or not any(folder.iterdir()))):
        raise OutputError(f"{folder} is there and is no saved run, which could be replaced; choose another with --save")


def save(folder: Path, frames: Mapping[int, Image], result: Mapping[str, Any]) -> None:
    """Keep a run: the frames of each case by its number, and what was found.

    Raises:
        OutputError: the folder cannot be written.
    """
    with atomic_folder(folder) as temporary:
        named: dict[str, Any] = {str(number): clip for number, clip in frames.items()}
        np.savez_compressed(temporary / FRAMES, **named)
        write_json(temporary / RESULT, result)


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """A run from `save`: its frames by case number, and what made them."""

    frames: Mapping[int, Image]
    workload: Mapping[str, Any]


def load(folder: Path, workload: Mapping[str, Any], count: int) -> Saved:
    """Read a run to compare with.

    Args:
        folder: from `save`.
        workload: of the run that is to be compared with it.
        count: of its cases.

    Raises:
        InputError: there is none, or it's of other clips: another size, length or noise, or fewer cases.
    """
    try:
        theirs = dict(json.loads((folder / RESULT).read_text())["workload"])
        with np.load(folder / FRAMES, allow_pickle=False) as file:
            frames = {int(name): file[name] for name in file.files}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder} is not a saved run ({error}); make one with --save {folder}") from error
    for name in ("suite", "frames", "size", "seed"):
        if theirs.get(name) != workload[name]:
            what = f"{name} {theirs.get(name)}, this run {workload[name]}"
            raise InputError(f"{folder} has {what}; compare like with like")
    if len(frames) < count:
        raise InputError(f"{folder} has {len(frames)} cases, this run {count}; pass --cases {len(frames)}")
    return Saved(frames, theirs)
