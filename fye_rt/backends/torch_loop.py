"""The loop over steps and windows of `fye_rt.denoise`, for a plan that stands, with latents that stay on a device.

Windows that overlap are blended as they come, before the one pass of `forecast_step`: a window's prediction lies where
the next one's will, so that keeping them all for that pass would take the copies that it spares.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fye_rt.arrays import Array
from fye_rt.denoise import OnStep, Pins, Progress, not_finite
from fye_rt.errors import InputError, NumericalError
from fye_rt.forecast import Plan
from fye_rt.schedule import Schedule
from fye_rt.windows import Window

# (latents float32 (1, 4, f, h, w), timestep int64 (1,), frame indices) to v of both halves, or None and the conditional
Call = Callable[[Tensor, Tensor, NDArray[np.int64]], tuple[Tensor | None, Tensor]]


@torch.inference_mode()
def denoise(
    call: Call,
    operations: Any,
    device: torch.device,
    schedule: Schedule,
    plan: Plan,
    windows: Sequence[Window],
    noise: Array,
    guidance: float,
    on_step: OnStep | None = None,
    progress: Progress | None = None,
    face: NDArray[np.bool_] | None = None,
    pins: Pins | None = None,
) -> Array:
    """Turn noise into latents; see `fye_rt.denoise.denoise`.

    Nothing waits for the device until the end, but for `on_step` and `progress`, which tell what is finished.

    Args:
        call: the network.
        operations: `fye_kernels.modules.Operations`.
        device: where latents are kept.
        schedule: the steps.
        plan: which of them are evaluated, over a ring of at most `fye_kernels.jump_row.SLOTS`.
        windows: cover every frame of the clip.
        noise: float32 (1, 4, F, h, w).
        guidance: classifier-free guidance scale.
        on_step: called after every evaluated step.
        progress: called after every evaluation.
        face: bool (F, h, w).
        pins: frames that go the way they went before.
    """
    from fye_kernels.forecast_step import numbers

    guided = guidance > 1
    latents = torch.tensor(noise, device=device)
    ring = torch.zeros((plan.ring, *latents.shape), device=device)
    slots = torch.arange(len(plan.jumps), dtype=torch.int32, device=device)[:, None] % plan.ring
    rows = [numbers(jump, guidance, k % plan.ring, plan.ring) for k, jump in enumerate(plan.jumps)]
    table = torch.stack(rows).to(device)
    timesteps = torch.tensor(schedule.timesteps, dtype=torch.int64, device=device)
    masked = any(jump.outside is not None for jump in plan.jumps)
    if masked and face is None:
        raise InputError("this method tells the face from the rest; give its region")
    mask = torch.tensor(face, device=device).contiguous() if masked and face is not None else None
    indices = [torch.tensor(window.frames, device=device) for window in windows]
    weights = [torch.tensor(window.weights, dtype=torch.float32, device=device)[:, None, None] for window in windows]
    whole = len(windows) == 1 and np.array_equal(windows[0].frames, np.arange(noise.shape[2]))
    positions = None if pins is None else torch.tensor(pins.positions, device=device)
    finite: list[Tensor] = []
    done, total = 0, len(plan.jumps) * len(windows)

    def evaluate(number: int, step: int) -> tuple[Tensor | None, Tensor]:
        nonlocal done
        given = latents if whole else latents.index_select(2, indices[number])
        unconditional, conditional = call(given, timesteps[step : step + 1], windows[number].frames)
        finite.append(conditional.isfinite().all())
        if guided and unconditional is not None:
            finite[-1] = finite[-1] & unconditional.isfinite().all()
        done += 1
        if progress is not None:
            _check(finite, schedule, plan, windows)
            progress(done, total)
        return (unconditional.contiguous() if guided and unconditional is not None else None), conditional.contiguous()

    for k, jump in enumerate(plan.jumps):
        if whole:
            unconditional, conditional = evaluate(0, jump.step)
        else:
            unconditional, conditional = None, torch.zeros_like(latents)
            for number in range(len(windows)):
                u, c = evaluate(number, jump.step)
                v = c.float() if u is None else torch.lerp(u.float(), c.float(), guidance)
                conditional.index_add_(2, indices[number], v * weights[number])
        operations.forecast_step(latents, unconditional, conditional, ring, slots[k], table[k], mask)
        if pins is not None and jump.step in pins.after:
            latents[:, :, positions] = torch.tensor(pins.after[jump.step], device=device)
        if on_step is not None:
            _check(finite, schedule, plan, windows)
            copied = latents.cpu().numpy().copy()
            copied.flags.writeable = False
            on_step(jump.step, int(schedule.timesteps[jump.step]), copied)
    _check(finite, schedule, plan, windows)
    return latents.cpu().numpy()


def _check(finite: list[Tensor], schedule: Schedule, plan: Plan, windows: Sequence[Window]) -> None:
    """Raise NumericalError if a prediction, of every window of every jump so far, was not finite."""
    wrong = (~torch.stack(finite)).nonzero().flatten().tolist()
    if wrong:
        jump, number = divmod(wrong[0], len(windows))
        step = plan.jumps[jump].step
        raise NumericalError(not_finite(step, int(schedule.timesteps[step]), number, windows))
