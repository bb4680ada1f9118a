"""Frames of a clip, piece by piece, from an encoded portrait and landmark images."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt import backends, machine
from fye_rt.arrays import Array
from fye_rt.clips.resume import PieceFolder, digest
from fye_rt.errors import OptionError
from fye_rt.landmarks import LandmarkImages, movement
from fye_rt.network import PortraitState
from fye_rt.options import MAX_WINDOW, Options
from fye_rt.pieces import check_length, clip_pieces
from fye_rt.stages import GUIDER_CHUNK, Stages
from fye_rt.timings import Progress, Timings, no_progress
from fye_rt.version import __version__

Pixels = NDArray[np.uint8]


def frames_of(
    stages: Stages,
    portrait: PortraitState,
    landmark_images: LandmarkImages,
    options: Options,
    progress: Progress = no_progress,
    timings: Timings | None = None,
    resume: str | os.PathLike[str] | None = None,
) -> Iterator[Pixels]:
    """Make the frames of a clip, and yield them as they are finished.

    With progressive windows memory does not grow with the clip. All other windows need the whole clip at every step,
    and allow up to 600 frames. Between two pieces the stages serve other calls.

    An engine on a GPU may decode a piece while the next one is denoised, and then yields its frames only after that;
    with `low_memory` it does not.

    Args:
        stages: stages that hold the model.
        portrait: from `encode_portrait`.
        landmark_images: uint8 (F, H, W, 3) of the portrait's size, or an object that makes them on access.
        options: how to denoise.
        progress: called with (stage, done, total): network evaluations of "denoise", frames of "decode".
        timings: counts the seconds of each stage.
        resume: folder that stores this clip's finished pieces. If the same call was interrupted, it continues from
            there, with the same result. Requires progressive windows.

    Yields:
        uint8 (f, H, W, 3), one piece of the clip after the other.

    Raises:
        InputError: `resume` holds another clip, or other files.
        OptionError: `resume` with other windows.
        FyeError: any error of `encode_motion`, `denoise` and `decode`.
    """
    options, timings = stages.bundle.resolve(options), timings or Timings()
    if options.windows != "progressive":
        check_length(len(landmark_images), "the clip")
        if resume is not None:
            raise OptionError(f"resume keeps finished pieces; windows={options.windows!r} makes a clip in one")
    store = None if resume is None else PieceFolder(resume, _facts(stages, portrait, landmark_images, options))
    denoised = _latents(stages, portrait, landmark_images, options, progress, timings, store)
    size, total = landmark_images.shape[1:3], len(landmark_images)
    done, more = 0, True
    decoding: deque[Callable[[], Pixels]] = deque()
    while more or decoding:
        with stages.graphs.serving("denoiser" if more else "vae_decoder", size, options):
            if more:
                with timings.stage("denoise"):
                    latents = next(denoised, None)
                more = latents is not None
                if latents is not None:
                    progress("decode", done, total)
                    with timings.stage("decode"):
                        decoding.append(stages.begin_decoding(latents))
            # an engine that decodes beside the denoiser gets the next piece to denoise before its frames are awaited
            if not decoding or (more and len(decoding) == 1 and stages.decodes_beside):
                continue
            with timings.stage("decode"):
                frames = decoding.popleft()()
        done += len(frames)
        progress("decode", done, total)
        yield frames


def _latents(
    stages: Stages,
    portrait: PortraitState,
    images: LandmarkImages,
    options: Options,
    progress: Progress,
    timings: Timings,
    store: PieceFolder | None,
) -> Iterator[Array]:
    """Yield the latents of a clip as they are finished, at most `MAX_WINDOW` frames at once."""
    moved = None
    if options.windows == "progressive":
        with timings.stage("encode_motion"):
            moved = movement(images)
    pieces = clip_pieces(len(images), options, moved)

    def images_of(frames: NDArray[np.int64]) -> LandmarkImages:
        return images if len(pieces) == 1 else images[frames]

    encoding = partial(timings.stage, "encode_motion")
    for latents in stages.latents(portrait, images_of, pieces, options, progress, store, encoding):
        for start in range(0, latents.shape[2], MAX_WINDOW):
            yield latents[:, :, start : start + MAX_WINDOW]


def _facts(stages: Stages, portrait: PortraitState, images: LandmarkImages, options: Options) -> dict[str, Any]:
    """Collect everything that a clip's frames depend on."""
    versions = map(machine.installed_version, backends.distributions(stages.backend))
    chunks = (images[start : start + GUIDER_CHUNK] for start in range(0, len(images), GUIDER_CHUNK))
    return {
        "fye_rt": __version__,
        "cpu": machine.cpu()["model"],
        stages.backend: " ".join(version for version in versions if version),
        "threads": stages.graphs.settings.threads,
        "bundle": stages.bundle.digest,
        "portrait": digest(np.asarray(portrait.tensors[name]) for name in sorted(portrait.tensors)),
        "landmarks": digest(chunks),
        **options.as_dict(),
        "compute": [stages.graphs.settings.compute, options.compute],
    }
