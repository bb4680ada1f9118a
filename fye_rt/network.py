"""What is known of a portrait and of a motion, and the denoiser of both: its graph on an engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.arrays import Array
from fye_rt.backends.host import HostWorkspace
from fye_rt.engine import Denoising, Engine, Workspace
from fye_rt.errors import InputError
from fye_rt.forecast import Forecaster
from fye_rt.schedule import Schedule
from fye_rt.windows import Window

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


@dataclass(frozen=True, slots=True)
class PortraitState:
    """What the denoiser knows of a portrait.

    Attributes:
        tensors: K and V of 16 layers for the reference and for CLIP, by graph input name.
        size: (height, width) of the portrait in pixels.
    """

    tensors: Mapping[str, Array]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class MotionState:
    """What the denoiser knows of a motion.

    Attributes:
        features: float32 (F, C, H/8, W/8), or what gives the frames of an index array int64 (f,).
        size: (height, width) of the landmark images in pixels.
        face: bool (F, H/8, W/8), where the face is; needed for `Forecast.face_mask`.
        movement: float64 (F - 1,), how much the landmarks move from frame to frame; progressive windows set their key
            frames by it, or evenly without it.
    """

    features: Array | Features
    size: tuple[int, int]
    face: NDArray[np.bool_] | None = None
    movement: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.features)


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """The denoiser of one portrait and one motion.

    Attributes:
        engine: of the graph.
        portrait: its other inputs but landmark features, as the engine holds them.
        features: those of an index array int64 (f,), as the engine holds them.
    """

    engine: Engine
    portrait: Mapping[str, Any]
    features: Callable[[Frames], Any]

    def __call__(self, latents: Array, timestep: int, frames: Frames) -> tuple[Array | None, Array]:
        """One evaluation of a window; see `fye_rt.backends.host.HostWorkspace`."""
        inputs = {"latents": latents, "timestep": np.array([timestep], np.int64), **self.inputs(frames)}
        outputs = self.engine.run(inputs)
        return outputs.get("v_unconditional"), outputs["v_conditional"]

    def workspace(
        self,
        shape: tuple[int, ...],
        windows: Sequence[Window],
        schedule: Schedule,
        forecaster: Forecaster,
        guidance: float,
        face: NDArray[np.bool_] | None,
    ) -> Workspace:
        """Where latents of `shape` lie: on the engine's device if it has a place for them, or else on the host.

        The other arguments are those of `fye_rt.denoise`; `face` is bool (F, h, w), where the face is.

        Raises:
            InputError: the forecaster tells the face from the rest, and its region was not given.
        """
        if forecaster.masked and face is None:
            raise InputError("this forecaster tells the face from the rest; give its region")
        face = face if forecaster.masked else None
        timesteps = schedule.timesteps.tolist()
        denoising = Denoising(shape, windows, timesteps, guidance, forecaster.ring, face, self.inputs)
        own = self.engine.workspace(denoising)
        return own or HostWorkspace(self, timesteps, windows, guidance, forecaster.ring, face)

    def of(self, frames: Frames) -> "Network":
        """With indices that count within `frames`."""
        return replace(self, features=lambda within: self.features(frames[within]))

    def inputs(self, frames: Frames) -> dict[str, Any]:
        """Inputs of the graph for some frames: all but latents and timestep."""
        return {"landmark_features": self.features(frames), **self.portrait}


def network(engine: Engine, portrait: Mapping[str, Any], features: Array | Features) -> Network:
    """The denoiser for a motion. Where the engine has memory of its own, features of a window go there once.

    Args:
        engine: of the denoiser's graph.
        portrait: its other inputs, as the engine holds them.
        features: of the motion; those that are computed when they are asked for are not kept.
    """
    windows: dict[bytes, Any] = {}

    def held(frames: Frames) -> Any:
        key = frames.tobytes()
        if key in windows:
            return windows[key]
        array = features[frames]
        held_array = engine.to_device(array)
        if held_array is not array and isinstance(features, np.ndarray):
            windows[key] = held_array
        return held_array

    return Network(engine, portrait, held)
