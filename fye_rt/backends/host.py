"""Latents in host memory: the workspace of CPU engines, and of every engine without a workspace of its own."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from fye_rt.arrays import Array, accumulate, guide, masked_sum, weighted_sum
from fye_rt.errors import InputError
from fye_rt.forecast import Jump
from fye_rt.windows import Window

Evaluate = Callable[[Array, int, NDArray[np.int64]], tuple[Array | None, Array]]


class HostWorkspace:
    """Latents in host memory, moved by the operations of `fye_rt.arrays`.

    Guidance of 1 or below uses the conditional prediction alone. (The reference implementation then forgets to divide
    by the number of windows that cover a frame; here the weights apply at every guidance.)

    Args:
        evaluate: the network: (latents float32 (1, 4, f, h, w), timestep, frame indices int64 (f,)) to the
            unconditional and the conditional v-prediction, float32 (1, 4, f, h, w) each. The first may be None at
            guidance of 1 or below. Both may be buffers that the next call overwrites.
        timesteps: timestep of each step of the schedule.
        windows: windows that cover every frame of the clip, with weights that sum to 1.
        guidance: classifier-free guidance scale.
        ring: number of quantities that the forecaster keeps.
        face: bool (F, h, w) face mask, for forecasters that treat the face separately.
    """

    immediate = True

    def __init__(
        self,
        evaluate: Evaluate,
        timesteps: Sequence[int],
        windows: Sequence[Window],
        guidance: float,
        ring: int = 1,
        face: NDArray[np.bool_] | None = None,
    ) -> None:
        self._evaluate, self._timesteps, self._windows = evaluate, timesteps, windows
        self._guidance, self._face = guidance, face
        self._ring: deque[Array] = deque(maxlen=ring)
        self._evaluations = 0
        self._fault: tuple[int, int] | None = None

    def load(self, noise: Array) -> None:
        """Begin a clip with its noise."""
        self._latents = self._prediction = noise  # until the first evaluation there is no prediction
        self._ring.clear()
        self._evaluations, self._fault = 0, None

    def evaluate(self, step: int) -> Iterator[None]:
        """Evaluate the network window by window; stop at the first that gives NaN or infinity."""
        self._prediction, timestep = np.zeros_like(self._latents), int(self._timesteps[step])
        for number, window in enumerate(self._windows):
            # the window's latents get no name, so that what follows takes their memory
            halves = self._evaluate(self._latents.take(window.frames, axis=2), timestep, window.frames)
            if not all(np.isfinite(half).all() for half in halves if half is not None):
                self._fault = self._evaluations, number
                yield
                return
            accumulate(self._prediction, _guided(halves, self._guidance), window.frames, window.weights)
            yield
        self._evaluations += 1

    def prediction(self) -> Array:
        """Return the guided prediction of the last evaluation, windows blended."""
        return self._prediction

    def advance(self, jump: Jump) -> None:
        """Move the latents to the end of a jump; raises InputError if the jump needs a face mask and has none."""
        latents, prediction = self._latents, self._prediction
        plain = (jump.c, jump.d) == (1, 0)  # the quantity is the prediction itself: nothing to convert
        self._ring.appendleft(prediction if plain else weighted_sum((prediction, latents), (jump.c, jump.d)))
        if jump.b == 0 and jump.outside is None:
            self._latents = weighted_sum((latents, *islice(self._ring, len(jump.w))), (jump.a, *jump.w))
            return
        terms = (latents, prediction, *self._ring)
        inside, outside = (
            (jump.a, jump.b, *row, *[0.0] * (len(terms) - 2 - len(row))) for row in (jump.w, jump.outside or jump.w)
        )
        if jump.outside is None:
            self._latents = weighted_sum(terms, inside)
        elif self._face is None:
            raise InputError("this forecaster treats the face separately; pass its mask (face)")
        else:
            self._latents = masked_sum(terms, inside, outside, self._face)

    def read(self) -> Array:
        """Return a view of the latents; it stays valid, since each move makes a new array."""
        return self._latents.view()

    def write(self, positions: NDArray[np.int64], latents: Array) -> None:
        """Put the latents of some frames at their positions."""
        self._latents[:, :, positions] = latents

    def fault(self) -> tuple[int, int] | None:
        """Return the numbers of the evaluation and the window that gave NaN or infinity, or None."""
        return self._fault


def _guided(halves: tuple[Array | None, Array], guidance: float) -> Array:
    unconditional, conditional = halves
    if guidance <= 1:
        return conditional
    if unconditional is None:
        raise ValueError(f"guidance {guidance} needs an unconditional prediction, which the network did not return")
    return guide(unconditional, conditional, guidance)
