"""The loop over steps and windows."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from fye_rt.arrays import Array, accumulate, guide, masked_sum, weighted_sum
from fye_rt.errors import InputError, NumericalError
from fye_rt.forecast import Jump, Method, Plan
from fye_rt.schedule import Schedule
from fye_rt.windows import Window

# may have a `loop` of its own, which takes what `denoise` takes after it, for a Plan
Evaluate = Callable[[Array, int, NDArray[np.int64]], tuple[Array | None, Array]]
OnStep = Callable[[int, int, Array], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Pins:
    """Frames that were denoised before, by the same method.

    Attributes:
        positions: int64 (p,), their indices.
        after: their latents float32 (1, 4, p, h, w) after the move from each evaluated step in which they are held.
    """

    positions: NDArray[np.int64]
    after: Mapping[int, Array]


def denoise(
    evaluate: Evaluate,
    schedule: Schedule,
    method: Method,
    windows: Sequence[Window],
    noise: Array,
    guidance: float,
    on_step: OnStep | None = None,
    progress: Progress | None = None,
    face: NDArray[np.bool_] | None = None,
    pins: Pins | None = None,
) -> Array:
    """Turn noise into latents.

    At guidance of 1 or below only the conditional prediction is used. (There the public code forgets to divide by
    the number of windows that cover a frame; here the weights hold for every guidance.)

    Args:
        evaluate: the network: (latents float32 (1, 4, f, h, w), timestep, frame indices int64 (f,)) to the
            unconditional and the conditional v-prediction, float32 (1, 4, f, h, w) each. The first may be None at
            guidance of 1 or below. Both may be buffers that the next call overwrites.
        schedule: the steps.
        method: which of them are evaluated, and the weights between them; all windows follow it.
        windows: cover every frame of the clip, with weights that sum to 1.
        noise: float32 (1, 4, F, h, w); not modified.
        guidance: classifier-free guidance scale.
        on_step: called with (index, timestep, latents) after every evaluated step; the latents, float32
            (1, 4, F, h, w), are read-only and stay as they are.
        progress: called with (finished, all) network evaluations after each.
        face: bool (F, h, w), where the face is; for methods that tell it from the rest.
        pins: frames that go the way they went before, so that the others see them there.

    Returns:
        float32 (1, 4, F, h, w).

    Raises:
        InputError: `noise` is not finite, or `face` is missing.
        NumericalError: a prediction is not finite.
    """
    latents = np.ascontiguousarray(noise, dtype=np.float32)
    if not np.isfinite(latents).all():
        raise InputError("noise contains NaN or infinity; give finite float32 numbers")
    loop = getattr(evaluate, "loop", None)
    if loop is not None and isinstance(method, Plan):
        own: Array = loop(schedule, method, windows, latents, guidance, on_step, progress, face, pins)
        return own
    ring: deque[Array] = deque(maxlen=method.ring)
    decide = method.start()
    done, total = 0, method.evaluations * len(windows)

    def told() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    step = 0
    while step < len(schedule):
        prediction = predict(evaluate, schedule, windows, guidance, latents, step, told)
        jump = decide(step, prediction, latents)
        plain = (jump.c, jump.d) == (1, 0)  # the prediction itself is the quantity: nothing to convert
        ring.appendleft(prediction if plain else weighted_sum((prediction, latents), (jump.c, jump.d)))
        latents = _moved(jump, latents, prediction, ring, face)
        if pins is not None and step in pins.after:
            latents[:, :, pins.positions] = pins.after[step]
        if on_step is not None:
            view = latents.view()
            view.flags.writeable = False
            on_step(step, int(schedule.timesteps[step]), view)
        step = jump.end
    if progress is not None and done < total:  # the method did with fewer than it might have taken
        progress(done, done)
    return latents


def predict(
    evaluate: Evaluate,
    schedule: Schedule,
    windows: Sequence[Window],
    guidance: float,
    latents: Array,
    step: int,
    told: Callable[[], None] = lambda: None,
) -> Array:
    """The guided prediction of a whole clip: the network on every window, blended.

    Args:
        evaluate: the network, as for `denoise`.
        schedule: the steps.
        windows: cover every frame of the clip, with weights that sum to 1.
        guidance: classifier-free guidance scale.
        latents: float32 (1, 4, F, h, w).
        step: index into the schedule.
        told: called after each window.

    Returns:
        A new array, float32 (1, 4, F, h, w).

    Raises:
        NumericalError: a prediction is not finite.
    """
    timestep = int(schedule.timesteps[step])
    prediction = np.zeros_like(latents)
    for number, window in enumerate(windows):
        outputs = evaluate(latents.take(window.frames, axis=2), timestep, window.frames)
        if not all(np.isfinite(output).all() for output in outputs if output is not None):
            raise NumericalError(not_finite(step, timestep, number, windows))
        accumulate(prediction, _guided(outputs, guidance), window.frames, window.weights)
        told()
    return prediction


def _moved(
    jump: Jump, latents: Array, prediction: Array, ring: Iterable[Array], face: NDArray[np.bool_] | None
) -> Array:
    """The one sum."""
    if jump.b == 0 and jump.outside is None:
        return weighted_sum((latents, *islice(ring, len(jump.w))), (jump.a, *jump.w))
    terms = (latents, prediction, *ring)
    inside, outside = (
        (jump.a, jump.b, *row, *[0.0] * (len(terms) - 2 - len(row))) for row in (jump.w, jump.outside or jump.w)
    )
    if jump.outside is None:
        return weighted_sum(terms, inside)
    if face is None:
        raise InputError("this method tells the face from the rest; give its region")
    return masked_sum(terms, inside, outside, face)


def _guided(outputs: tuple[Array | None, Array], guidance: float) -> Array:
    uncond, cond = outputs
    if guidance <= 1:
        return cond
    if uncond is None:
        raise ValueError(f"guidance {guidance} needs an unconditional prediction, and evaluate gave none")
    return guide(uncond, cond, guidance)


def not_finite(step: int, timestep: int, number: int, windows: Sequence[Window]) -> str:
    """What is said where the network's prediction of a window is not finite."""
    frames = windows[number].frames
    return (
        f"the network returned NaN or infinity at step {step} (timestep {timestep}), window {number + 1} of "
        f"{len(windows)} (frames {frames[0]} to {frames[-1]}); run again with --compute fp32"
    )
