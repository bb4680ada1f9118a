"""Workspace of the torch backend: latents stay on the device while they are denoised.

One function evaluates a clip of a single window, and a GPU replays it from one graph. Predictions of several windows
are stored side by side; the `forecast_step` that moves the latents also blends them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fye_kernels.forecast_tables import Blend, blend, numbers
from fye_rt.arrays import Array, accumulate, guide
from fye_rt.backends.jump_row import ROW
from fye_rt.engine import Denoising
from fye_rt.forecast import Jump

# (latents float32 (1, 4, f, h, w), timestep int64 (1,), held inputs) -> v of both halves, or None and conditional v
Network = Callable[..., tuple[Tensor | None, Tensor]]


class Buffers:
    """Device tensors for clips of one shape, at fixed addresses.

    Attributes:
        latents: float32 (1, 4, F, h, w).
        timestep: int64 (1,), timestep of the evaluated step.
        ring: float32 (slots, 1, 4, F, h, w), the last forecast quantities.
        slot: int32 (1,), slot for the next quantity.
        numbers: float32 (2, ROW), coefficients of the jump (`fye_kernels.forecast_tables.numbers`).
        face: bool (F, h, w), or None if the whole frame is moved alike.
    """

    def __init__(self, device: torch.device, shape: tuple[int, ...], slots: int, masked: bool) -> None:
        self.latents, self.ring = torch.zeros(shape, device=device), torch.zeros((slots, *shape), device=device)
        self.timestep = torch.zeros(1, dtype=torch.int64, device=device)
        self.slot = torch.zeros(1, dtype=torch.int32, device=device)
        self.numbers = torch.zeros((2, ROW), device=device)
        self.face = torch.zeros(shape[2:], dtype=torch.bool, device=device) if masked else None


class TorchWorkspace:
    """A `fye_rt.engine.Workspace` on a device; only `prediction`, `read` and `fault` wait for the device.

    Args:
        buffers: tensors for clips of this shape.
        whole: evaluates a clip of one window from the buffers; returns v of both halves.
        network: evaluates one window of several.
        forecast_step: moves the latents; see `fye_kernels.forecast_step`.
        held: converts the clip's named inputs to the network's held inputs.
        denoising: the clip.
        running: context of all work on the device.
    """

    immediate = False

    def __init__(
        self,
        buffers: Buffers,
        whole: Callable[..., tuple[Tensor | None, Tensor]],
        network: Network,
        forecast_step: Callable[..., None],
        held: Callable[[Mapping[str, Any]], Sequence[Tensor]],
        denoising: Denoising,
        running: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._buffers, self._whole, self._network, self._held_inputs = buffers, whole, network, held
        self._forecast_step, self._denoising, self._running = forecast_step, denoising, running
        frames = [window.frames for window in denoising.windows]
        self._is_one_window = len(frames) == 1 and np.array_equal(frames[0], np.arange(denoising.shape[2]))
        with running():
            device = buffers.latents.device
            self._timesteps = torch.tensor(denoising.timesteps, dtype=torch.int64, device=device)
            self._indices = [torch.tensor(indices, device=device) for indices in frames]
            self._blend = None
            if not self._is_one_window:
                tables = blend(denoising.windows, denoising.shape[2])
                self._blend = Blend(*(table.to(device) for table in tables))

    def load(self, noise: Array) -> None:
        """Begin a clip with noise float32 (1, 4, F, h, w)."""
        buffers, denoising = self._buffers, self._denoising
        inputs = denoising.inputs(denoising.windows[0].frames) if self._is_one_window else {}
        with self._running():
            buffers.latents.copy_(torch.tensor(noise))
            if buffers.face is not None:
                buffers.face.copy_(torch.tensor(denoising.face))
            self._inputs = self._held_inputs(inputs) if self._is_one_window else ()
        self._finite: list[Tensor] = []  # flag of each window evaluated since the last `fault`
        self._checked = 0  # number of windows evaluated before them, all finite
        self._moves = 0
        self._halves: tuple[Tensor | None, ...] = ()  # predictions of the last evaluation, windows side by side

    def evaluate(self, step: int) -> Iterator[None]:
        """Evaluate the network at a step, window by window; yields after each."""
        with self._running():
            self._buffers.timestep.copy_(self._timesteps[step : step + 1])
        for number, window in enumerate(self._denoising.windows):
            inputs = {} if self._is_one_window else self._denoising.inputs(window.frames)
            with self._running():
                if self._is_one_window:
                    self._halves = halves = self._whole(*self._inputs)
                else:
                    halves = self._window(number, inputs)
                self._finite.append(_finite(*halves))
            yield

    def _window(self, number: int, inputs: Mapping[str, Any]) -> tuple[Tensor | None, Tensor]:
        """Evaluate one window and store both halves of its prediction beside those of the others."""
        buffers = self._buffers
        latents = buffers.latents.index_select(2, self._indices[number])
        halves = self._network(latents, buffers.timestep, *self._held_inputs(inputs))
        if not self._halves:
            count = len(self._denoising.windows)
            self._halves = tuple(None if half is None else half.new_empty((count, *half.shape[1:])) for half in halves)
        for whole, half in zip(self._halves, halves, strict=True):
            if whole is not None and half is not None:
                whole[number] = half[0]
        return halves

    def prediction(self) -> Array:
        """Return the guided v of the last evaluation with windows blended, float32 (1, 4, F, h, w)."""
        guidance = self._denoising.guidance
        with self._running():
            unconditional, conditional = (None if half is None else half.float().cpu().numpy() for half in self._halves)
        assert conditional is not None
        total = np.zeros(self._denoising.shape, np.float32)
        for number, window in enumerate(self._denoising.windows):
            part = conditional[number : number + 1]
            if guidance > 1 and unconditional is not None:
                part = guide(unconditional[number : number + 1], part, guidance)
            accumulate(total, part, window.frames, window.weights)
        return total

    def advance(self, jump: Jump) -> None:
        """Move the latents from the last evaluated step to the end of the jump."""
        buffers, slots = self._buffers, self._denoising.ring
        slot = self._moves % slots
        with self._running():
            self._send(numbers(jump, self._denoising.guidance, slot, slots), buffers.numbers)
            self._send(torch.tensor([slot], dtype=torch.int32), buffers.slot)
            halves = (None if half is None else half.contiguous() for half in self._halves)
            blended = () if self._blend is None else (self._blend,)
            self._forecast_step(
                buffers.latents, *halves, buffers.ring, buffers.slot, buffers.numbers, buffers.face, *blended
            )
        self._moves += 1

    def read(self) -> Array:
        """Return a copy of the latents, float32 (1, 4, F, h, w)."""
        with self._running():
            return self._buffers.latents.cpu().numpy().copy()

    def write(self, positions: NDArray[np.int64], latents: Array) -> None:
        """Write latents float32 (1, 4, p, h, w) to the frames at these positions, int64 (p,)."""
        device = self._buffers.latents.device
        with self._running():
            self._buffers.latents[:, :, torch.tensor(positions, device=device)] = torch.tensor(latents, device=device)

    def fault(self) -> tuple[int, int] | None:
        """Return the numbers of the first evaluation and window with NaN or infinity; None if all are finite."""
        with self._running():
            finite = torch.stack(self._finite).tolist() if self._finite else []
        if not all(finite):
            return divmod(self._checked + finite.index(False), len(self._denoising.windows))
        self._checked += len(finite)
        self._finite.clear()
        return None

    def _send(self, values: Tensor, place: Tensor) -> None:
        """Queue a copy of a few numbers; from pinned memory, so that the host does not wait."""
        place.copy_(values.pin_memory() if place.is_cuda else values, non_blocking=True)


def _finite(unconditional: Tensor | None, conditional: Tensor) -> Tensor:
    finite = conditional.isfinite().all()
    return finite if unconditional is None else finite & unconditional.isfinite().all()
