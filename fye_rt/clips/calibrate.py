"""Calibration: record clips, fit jump tables to them, and put these into the bundle."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fye_rt.clips.prepare import prepare
from fye_rt.errors import OptionError
from fye_rt.forecasts.fitted import Fitted, read, write
from fye_rt.forecasts.fitting import Recorded, fit_all, record
from fye_rt.noise import frame_noise
from fye_rt.options import ClipRequest, Options
from fye_rt.schedule import schedule
from fye_rt.stages import Stages
from fye_rt.timings import Progress, no_progress
from fye_rt.version import __version__


def calibrate_bundle(
    animator: Stages,
    requests: Sequence[ClipRequest],
    *,
    steps: int,
    guidance: Sequence[float],
    evaluations: Sequence[int],
    progress: Progress = no_progress,
) -> list[Fitted]:
    """Fit jump tables to a bundle and store them in it, replacing those for the same steps, guidance and evaluations.

    Args:
        animator: stages that hold the bundle.
        requests: one or more clips, whose options do not count; with two or more, each table's error is measured on
            held-out clips.
        steps: number of DDIM steps.
        guidance: guidance scales; every clip is recorded with each, and the tables hold for all scales between the
            extremes.
        evaluations: network evaluations of each table, 2 to `steps`.
        progress: called with ("record", done, total) and ("fit", done, total) network evaluations.

    Raises:
        OptionError: there is no clip, or a number of evaluations is out of range.
        FyeError: any error of `Animator.animate`.
    """
    options = [animator.bundle.resolve(Options(steps=steps, guidance=scale)) for scale in guidance]
    if not requests:
        raise OptionError("calibration needs a clip")
    for count in evaluations:
        if not 2 <= count <= steps:
            raise OptionError(f"evaluations={count} is not valid; allowed: 2 to {steps}, the steps")
    table = schedule(steps, animator.bundle.scheduler)
    clips: list[Recorded] = []

    def recorded(stage: str, done: int, total: int) -> None:
        progress(stage, len(clips) * steps + done, len(requests) * len(options) * steps)

    for number, request in enumerate(requests):
        prepared = prepare(animator, replace(request, options=options[0]))
        motion = animator.encode_motion(prepared.landmarks[:])
        height, width = motion.features.shape[2:]
        channels, shared_noise = animator.bundle.latent_channels(), options[0].shared_noise or 0.0
        noise = frame_noise(number, range(len(motion)), height, width, channels, shared_noise)
        for setting in options:
            predict = partial(animator.predict, prepared.portrait_state, motion, options=replace(setting, seed=number))
            clips.append(record(table, predict, noise, recorded))
    fitted = fit_all(table, clips, (min(guidance), max(guidance)), evaluations, progress=progress)
    replaced = {table.key for table in fitted}
    retained = [table for table in read(animator.bundle) if table.key not in replaced]
    facts = {"clips": len(requests), "guidance": list(guidance), "backend": animator.backend, "fye_rt": __version__}
    write(animator.bundle, retained + fitted, facts)
    return fitted


def fitted_clips(
    animator: Stages, requests: Sequence[ClipRequest]
) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Return each clip's fitted portrait uint8 (H, W, 3) and landmark images uint8 (F, H, W, 3).

    The options of the requests do not count. Errors are those of `Animator.animate`.
    """
    clips = [prepare(animator, replace(request, options=animator.bundle.resolve(Options()))) for request in requests]
    return [(clip.place.portrait, clip.landmarks[:]) for clip in clips]
