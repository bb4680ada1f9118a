"""Plain functions as networks: an engine without a graph, for tests of the loop; and inputs of real graphs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.arrays import Array
from fye_rt.backends.host import Evaluate
from fye_rt.bundle import Bundle, symbols
from fye_rt.denoise import OnStep, Pins, denoise
from fye_rt.engine import Arrays, Engine
from fye_rt.forecast import Forecaster
from fye_rt.network import Network
from fye_rt.schedule import Schedule
from fye_rt.timings import Progress
from fye_rt.windows import Window, whole_window


def smooth(latents: Array, timestep: int, period: float = 100.0) -> Array:
    """A fixed nonlinear prediction of v in which frames do not meet; it changes with the timestep."""
    mixed = np.stack([latents[:, 1] - latents[:, 3], latents[:, 0] / 2, latents[:, 2], latents[:, 1] / 3], axis=1)
    return np.tanh(mixed + np.float32(np.sin(timestep / period)), dtype=np.float32)


def smooth_network(latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[None, Array]:
    """`smooth` as the conditional prediction."""
    return None, smooth(latents, timestep)


def graph_inputs(bundle: Bundle, graph: str, frames: int, height: int = 64, width: int = 72) -> dict[str, Any]:
    """Random inputs of a graph for `frames` frames of `height` x `width` pixels."""
    random, sizes = np.random.default_rng(frames), symbols(frames, height, width)
    arrays: dict[str, Any] = {}
    for spec in bundle.graphs[graph].inputs:
        shape = [sizes[size] if isinstance(size, str) else size for size in spec.shape]
        whole = spec.dtype == "int64"
        arrays[spec.name] = np.array([500]) if whole else random.standard_normal(shape, np.float32)
    return arrays


class FunctionEngine(Engine):
    """Runs a function of (latents, timestep, frames) as the denoiser's graph; the frames are its landmark features."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        unconditional, conditional = self._evaluate(
            inputs["latents"], int(inputs["timestep"][0]), inputs["landmark_features"]
        )
        guided = {} if unconditional is None else {"v_unconditional": unconditional}
        return guided | {"v_conditional": conditional}


def function_network(evaluate: Evaluate) -> Network:
    """The denoiser of a portrait and a motion that only the function knows."""
    return Network(FunctionEngine(evaluate), {}, lambda frames: frames)


def denoised(
    evaluate: Evaluate,
    schedule: Schedule,
    forecaster: Forecaster,
    windows: Sequence[Window] | None,
    noise: Array,
    guidance: float = 1.0,
    face: NDArray[Any] | None = None,
    on_step: OnStep | None = None,
    progress: Progress | None = None,
    pins: Pins | None = None,
) -> Array:
    """What `fye_rt.denoise.denoise` makes of noise with a function as the network, in the host's memory.

    Without windows it sees all frames together.
    """
    windows = [whole_window(noise.shape[2])] if windows is None else windows
    workspace = function_network(evaluate).workspace(noise.shape, windows, schedule, forecaster, guidance, face)
    return denoise(workspace, schedule, forecaster, windows, noise, on_step, progress, pins)
