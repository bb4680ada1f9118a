"""The denoising loop over steps. A workspace, on the host or on a device, holds the latents and moves them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fye_rt.arrays import Array
from fye_rt.engine import Workspace
from fye_rt.errors import InputError, not_finite
from fye_rt.forecast import Forecaster
from fye_rt.schedule import Schedule
from fye_rt.timings import Progress
from fye_rt.windows import Window

OnStep = Callable[[int, int, Array], None]


@dataclass(frozen=True, slots=True, eq=False)
class Pins:
    """Frames that were denoised before, with the same forecaster.

    Attributes:
        positions: int64 (p,), indices of the frames.
        after: by evaluated step at which the frames are pinned: their latents after the move, float32 (1, 4, p, h, w).
    """

    positions: NDArray[np.int64]
    after: Mapping[int, Array]


def denoise(
    workspace: Workspace,
    schedule: Schedule,
    forecaster: Forecaster,
    windows: Sequence[Window],
    noise: Array,
    on_step: OnStep | None = None,
    progress: Progress | None = None,
    pins: Pins | None = None,
) -> Array:
    """Turn noise into latents.

    Args:
        workspace: holds the latents; made for these windows.
        schedule: the DDIM steps.
        forecaster: decides which steps are evaluated, and the weights between them; all windows follow it.
        windows: frames that the network sees together.
        noise: float32 (1, 4, F, h, w); not modified.
        on_step: called with (index, timestep, latents) after every evaluated step; the latents are a read-only copy,
            float32 (1, 4, F, h, w).
        progress: called with ("denoise", finished, all) after every network evaluation.
        pins: frames that are put back on their earlier path, where the other frames see them.

    Returns:
        float32 (1, 4, F, h, w).

    Raises:
        InputError: `noise` is not finite.
        NumericalError: a prediction is not finite.
    """
    if not np.isfinite(noise).all():
        raise InputError("noise contains NaN or infinity; give finite float32 numbers")
    workspace.load(np.ascontiguousarray(noise, dtype=np.float32))
    decide = forecaster.start()
    evaluated: list[int] = []
    done, total = 0, forecaster.evaluations * len(windows)
    step = 0
    while step < len(schedule):
        evaluated.append(step)
        for _ in workspace.evaluate(step):
            done += 1
            if progress is not None or workspace.immediate:
                _check(workspace, schedule, windows, evaluated)
            if progress is not None:
                progress("denoise", done, total)
        jump = decide(step, workspace)
        workspace.advance(jump)
        if pins is not None and step in pins.after:
            workspace.write(pins.positions, pins.after[step])
        if on_step is not None:
            _check(workspace, schedule, windows, evaluated)
            latents = workspace.read()
            latents.flags.writeable = False
            on_step(step, int(schedule.timesteps[step]), latents)
        step = jump.end
    _check(workspace, schedule, windows, evaluated)
    if progress is not None and done < total:  # the forecaster used fewer evaluations than its limit
        progress("denoise", done, done)
    return workspace.read()


def predict(workspace: Workspace, schedule: Schedule, windows: Sequence[Window], latents: Array, step: int) -> Array:
    """Compute the guided prediction of v that `denoise` uses at a step, an index into the schedule.

    `latents` and the result are float32 (1, 4, F, h, w). The other arguments are those of `denoise`.

    Raises:
        NumericalError: a prediction is not finite.
    """
    workspace.load(latents)
    for _ in workspace.evaluate(step):
        _check(workspace, schedule, windows, [step])
    return workspace.prediction()


def _check(workspace: Workspace, schedule: Schedule, windows: Sequence[Window], evaluated: Sequence[int]) -> None:
    """Raise NumericalError if a prediction was not finite."""
    fault = workspace.fault()
    if fault is None:
        return
    step, frames = evaluated[fault[0]], windows[fault[1]].frames
    raise not_finite(
        "the network",
        f" at step {step} (timestep {schedule.timesteps[step]}), window {fault[1] + 1} of {len(windows)} "
        f"(frames {frames[0]} to {frames[-1]})",
    )
