"""The denoiser's graph on an engine, for one portrait and one motion."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.arrays import Array
from fye_rt.backends import Engine

Frames = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Landmark features that are computed whenever they are asked for.

    Attributes:
        shape: (F, C, H/8, W/8).
        compute: gives float32 (f, C, H/8, W/8) of an index array int64 (f,).
    """

    shape: tuple[int, ...]
    compute: Callable[[Frames], Array]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, frames: Frames) -> Array:
        return self.compute(frames)


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """`Evaluate` of `fye_rt.denoise`.

    Attributes:
        engine: of the graph.
        portrait: its other inputs but landmark features, as the engine holds them.
        features: those of an index array int64 (f,), as the engine holds them.
    """

    engine: Engine
    portrait: Mapping[str, Any]
    features: Callable[[Frames], Any]

    def __call__(self, latents: Array, timestep: int, frames: Frames) -> tuple[Array | None, Array]:
        """One evaluation of a window."""
        inputs = {"latents": latents, "timestep": np.array([timestep], np.int64), **self.inputs(frames)}
        outputs = self.engine.run(inputs)
        return outputs.get("v_unconditional"), outputs["v_conditional"]

    @property
    def loop(self) -> Callable[..., Array] | None:
        """The engine's own, where it has one: latents then stay on its device."""
        loop = getattr(self.engine, "loop", None)
        return None if loop is None else partial(loop, self.inputs)

    def of(self, frames: Frames) -> "Network":
        """With indices that count within `frames`."""
        return replace(self, features=lambda within: self.features(frames[within]))

    def inputs(self, frames: Frames) -> dict[str, Any]:
        """Of the graph, for some frames: all but latents and timestep."""
        return {"landmark_features": self.features(frames), **self.portrait}


def network(engine: Engine, portrait: Mapping[str, Any], features: Array | Features) -> Network:
    """Of a motion; where the engine has memory of its own, features of a window go there once, not at every step.

    Args:
        engine: of the denoiser's graph.
        portrait: as the engine holds it.
        features: of the motion; those that are computed when they are asked for are not kept.
    """
    windows: dict[bytes, Any] = {}

    def held(frames: Frames) -> Any:
        key = frames.tobytes()
        if key in windows:
            return windows[key]
        array = features[frames]
        there = engine.hold(array)
        if there is not array and isinstance(features, np.ndarray):
            windows[key] = there
        return there

    return Network(engine, portrait, held)
