"""`fye calibrate`: clips that are recorded, plans that are fitted to them and put into the bundle."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fye_rt import __version__
from fye_rt.animator import Animator, MotionState, PortraitState
from fye_rt.arrays import Array
from fye_rt.clips.clip import MotionSource, Tell, prepare
from fye_rt.errors import OptionError
from fye_rt.forecasts.fitted import Fitted, read, write
from fye_rt.forecasts.fitting import Recorded, fit_all, record
from fye_rt.noise import frame_noise
from fye_rt.options import Options
from fye_rt.schedule import schedule


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A clip to fit to: what `Animator.animate` takes."""

    image: str | os.PathLike[str] | NDArray[np.uint8]
    motion: MotionSource


def calibrate_bundle(
    animator: Animator,
    sources: Sequence[Source],
    *,
    steps: int,
    guidance: Sequence[float],
    evaluations: Sequence[int],
    frames: int | None = None,
    tell: Tell = lambda stage, done, total: None,
) -> list[Fitted]:
    """Fit plans to a bundle and put them into it, in place of those for the same steps, guidance and evaluations.

    Args:
        animator: with the bundle.
        sources: one clip or more; two or more tell how the plans do on clips they were not fitted to.
        steps: of DDIM.
        guidance: guidance scales; every clip is recorded with each, and the plans hold for all between the extremes.
        evaluations: of the network, 2 to `steps`, for each plan.
        frames: use that many first ones of each clip.
        tell: called with (stage, finished, all).

    Raises:
        OptionError: a number of evaluations that cannot be, or no clip.
        FyeError: see `Animator.animate`.
    """
    options = [animator.bundle.suited(Options(steps=steps), guidance=scale) for scale in guidance]
    if not sources:
        raise OptionError("calibration needs a clip")
    for count in evaluations:
        if not 2 <= count <= steps:
            raise OptionError(f"evaluations={count} is not valid; allowed: 2 to {steps}, the steps")
    table = schedule(steps, animator.bundle.scheduler)
    total = len(sources) * len(options) * steps
    clips: list[Recorded] = []
    for number, source in enumerate(sources):
        prepared = prepare(animator, source.image, source.motion, options[0], frames=frames)
        motion = animator.encode_motion(prepared.landmarks[:])
        height, width = motion.features.shape[2:]
        channels = animator.bundle.latent_channels()
        noise = frame_noise(number, range(len(motion)), height, width, channels, options[0].shared_noise)
        for chosen in options:
            predict = partial(_predict, animator, prepared.portrait_state, motion, replace(chosen, seed=number))
            clips.append(record(table, predict, noise, partial(_tell_recorded, tell, len(clips) * steps, total)))
    scales = (min(guidance), max(guidance))
    made = fit_all(table, clips, scales, evaluations, progress=partial(tell, "fit"))
    replaced = {one.key for one in made}
    kept = [one for one in read(animator.bundle) if one.key not in replaced]
    facts = {"clips": len(sources), "guidance": list(guidance), "backend": animator.backend, "fye_rt": __version__}
    write(animator.bundle, kept + made, facts)
    return made


def fitted_clips(
    animator: Animator, sources: Sequence[Source], frames: int | None = None
) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Portraits uint8 (H, W, 3) as they are fitted, and their landmark images uint8 (F, H, W, 3).

    Args:
        animator: with the bundle.
        sources: a clip each.
        frames: use that many first ones of each clip.

    Raises:
        FyeError: see `Animator.animate`.
    """
    options = animator.bundle.suited(Options())
    found = []
    for source in sources:
        prepared = prepare(animator, source.image, source.motion, options, frames=frames)
        found.append((prepared.portrait, prepared.landmarks[:]))
    return found


def _tell_recorded(tell: Tell, before: int, total: int, done: int, _: int) -> None:
    tell("record", before + done, total)


def _predict(
    animator: Animator, portrait: PortraitState, motion: MotionState, options: Options, latents: Array, step: int
) -> Array:
    return animator.predict(portrait, motion, latents, step, options)
