"""The loop over steps and windows of `fye_rt.denoise`, for a plan that stands, with latents that stay on a device.

A clip that is one window is evaluated and moved by one function (`Workspace.step`), which a GPU replays from one graph.
Of more windows the predictions are laid side by side, and blended in the pass of `forecast_step` that moves the clip.
"""

from collections.abc import Callable, Iterator, Sequence
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

# (latents float32 (1, 4, f, h, w), timestep int64 (1,), held inputs) to v of both halves, or None and the conditional
Network = Callable[..., tuple[Tensor | None, Tensor]]
Held = Callable[[NDArray[np.int64]], Sequence[Tensor]]
Evaluated = Callable[..., None]  # `Workspace.step` of one, as it is or replayed


class Workspace:
    """What lies on a device for clips of one shape.

    Attributes:
        latents: float32 (1, 4, F, h, w).
        timestep: int64 (1,), of the step that is evaluated.
        ring: float32 (slots, 1, 4, F, h, w), of the last quantities that are forecast.
        slot: int32 (1,), where the next one goes.
        numbers: float32 (2, ROW), of the jump (`fye_kernels.forecast_step.numbers`).
        face: bool (F, h, w), or None where all is moved alike.
        finite: bool (), whether the last predictions were.
    """

    def __init__(
        self,
        network: Network,
        operations: Any,
        device: torch.device,
        shape: tuple[int, ...],
        slots: int,
        masked: bool,
    ) -> None:
        """Takes the network and `fye_torch.modules.Operations`."""
        from fye_rt.backends.jump_row import ROW

        self._network, self._operations = network, operations
        self.latents, self.ring = torch.zeros(shape, device=device), torch.zeros((slots, *shape), device=device)
        self.timestep = torch.zeros(1, dtype=torch.int64, device=device)
        self.slot = torch.zeros(1, dtype=torch.int32, device=device)
        self.numbers = torch.zeros((2, ROW), device=device)
        self.face = torch.zeros(shape[2:], dtype=torch.bool, device=device) if masked else None
        self.finite = torch.ones((), dtype=torch.bool, device=device)

    def step(self, *held: Tensor) -> None:
        """Evaluate the network, whose other inputs are given, and move the latents."""
        unconditional, conditional = self._network(self.latents, self.timestep, *held)
        self.finite.copy_(_finite(unconditional, conditional))
        self.move(unconditional, conditional)

    def move(self, unconditional: Tensor | None, conditional: Tensor, blend: Any = None) -> None:
        """The latents to the next evaluated step; see `fye_kernels.forecast_step`."""
        halves = (None if each is None else each.contiguous() for each in (unconditional, conditional))
        self._operations.forecast_step(
            self.latents, *halves, self.ring, self.slot, self.numbers, self.face, *() if blend is None else (blend,)
        )


@torch.inference_mode()
def denoise(
    workspace_of: Callable[[tuple[int, ...], int, bool], tuple[Workspace, Evaluated]],
    network: Network,
    held: Held,
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
        workspace_of: gives what lies on the device for a shape, a number of slots, and a face mask or none.
        network: evaluates one window of several.
        held: gives the network's other inputs for some frames.
        schedule: the steps.
        plan: which of them are evaluated, over a ring of at most `fye_rt.backends.jump_row.SLOTS`.
        windows: of one length, cover every frame of the clip.
        noise: float32 (1, 4, F, h, w).
        guidance: classifier-free guidance scale.
        on_step: called after every evaluated step.
        progress: called after every evaluation.
        face: bool (F, h, w).
        pins: frames that go the way they went before.
    """
    from fye_kernels.forecast_step import numbers

    masked = any(jump.outside is not None for jump in plan.jumps)
    if masked and face is None:
        raise InputError("this method tells the face from the rest; give its region")
    work, evaluated = workspace_of(noise.shape, plan.ring, masked)
    device = work.latents.device
    work.latents.copy_(torch.tensor(noise))
    if work.face is not None:
        work.face.copy_(torch.tensor(face))
    slots = torch.arange(len(plan.jumps), dtype=torch.int32, device=device)[:, None] % plan.ring
    table = torch.stack([numbers(jump, guidance, k % plan.ring, plan.ring) for k, jump in enumerate(plan.jumps)])
    table = table.to(device)
    timesteps = torch.tensor(schedule.timesteps, dtype=torch.int64, device=device)
    finite = torch.ones((len(plan.jumps), len(windows)), dtype=torch.bool, device=device)
    positions = None if pins is None else torch.tensor(pins.positions, device=device)

    def told(jump: int, number: int) -> None:
        if progress is not None:
            _check(finite, schedule, plan, windows)
            progress(jump * len(windows) + number + 1, finite.numel())

    whole = len(windows) == 1 and np.array_equal(windows[0].frames, np.arange(noise.shape[2]))
    step = _whole(work, evaluated, held(windows[0].frames)) if whole else _blended(work, network, held, windows)
    for k, jump in enumerate(plan.jumps):
        work.timestep.copy_(timesteps[jump.step : jump.step + 1])
        work.slot.copy_(slots[k])
        work.numbers.copy_(table[k])
        for number in step(finite[k]):
            told(k, number)
        if pins is not None and jump.step in pins.after:
            work.latents[:, :, positions] = torch.tensor(pins.after[jump.step], device=device)
        if on_step is not None:
            _check(finite, schedule, plan, windows)
            copied = work.latents.cpu().numpy().copy()
            copied.flags.writeable = False
            on_step(jump.step, int(schedule.timesteps[jump.step]), copied)
    _check(finite, schedule, plan, windows)
    return work.latents.cpu().numpy().copy()


# moves a clip by one jump, after each evaluation tells the number of its window, and whether it was finite in `finite`
_Step = Callable[[Tensor], Iterator[int]]


def _whole(work: Workspace, evaluated: Evaluated, held: Sequence[Tensor]) -> _Step:
    def step(finite: Tensor) -> Iterator[int]:
        evaluated(*held)
        finite[0].copy_(work.finite)
        yield 0

    return step


def _blended(work: Workspace, network: Network, held: Held, windows: Sequence[Window]) -> _Step:
    from fye_kernels.forecast_step import Blend, blend

    device = work.latents.device
    shares = Blend(*(table.to(device) for table in blend(windows, work.latents.shape[2])))
    indices = [torch.tensor(window.frames, device=device) for window in windows]
    parts: list[Tensor | None] = []  # predictions of all windows, of both halves

    def step(finite: Tensor) -> Iterator[int]:
        for number, window in enumerate(windows):
            given = work.latents.index_select(2, indices[number])
            halves = network(given, work.timestep, *held(window.frames))
            if not parts:
                parts.extend(None if x is None else x.new_empty((len(windows), *x.shape[1:])) for x in halves)
            for part, half in zip(parts, halves, strict=True):
                if part is not None and half is not None:
                    part[number] = half[0]
            finite[number].copy_(_finite(*halves))
            yield number
        unconditional, conditional = parts
        assert conditional is not None
        work.move(unconditional, conditional, shares)

    return step


def _finite(unconditional: Tensor | None, conditional: Tensor) -> Tensor:
    found = conditional.isfinite().all()
    return found if unconditional is None else found & unconditional.isfinite().all()


def _check(finite: Tensor, schedule: Schedule, plan: Plan, windows: Sequence[Window]) -> None:
    """Raise NumericalError if a prediction, of any jump (row) and window (column), was not finite."""
    wrong = (~finite).nonzero().tolist()
    if wrong:
        jump, number = wrong[0]
        step = plan.jumps[jump].step
        raise NumericalError(not_finite(step, int(schedule.timesteps[step]), number, windows))
