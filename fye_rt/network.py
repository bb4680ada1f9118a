"""Encoded portraits and motions, and the denoiser of both: its graph on an engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.arrays import Array
from fye_rt.backends.host import HostWorkspace
from fye_rt.engine import Denoising, DeviceArray, Engine, Workspace
from fye_rt.errors import InputError
from fye_rt.forecast import Forecaster
from fye_rt.schedule import Schedule
from fye_rt.windows import Window

Frames = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Landmark features that are computed on every access.

    Attributes:
        shape: (F, C, H/8, W/8).
        compute: maps frame indices int64 (f,) to float32 (f, C, H/8, W/8).
    """

    shape: tuple[int, ...]
    compute: Callable[[Frames], Array | DeviceArray]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, frames: Frames) -> Array | DeviceArray:
        return self.compute(frames)


@dataclass(frozen=True, slots=True)
class PortraitState:
    """A portrait, encoded for the denoiser.

    Attributes:
        tensors: K and V of 16 layers, for the reference and for CLIP, by graph input name; on a GPU, PyTorch leaves
            them there, and `np.asarray` copies them.
        size: (height, width) of the portrait in pixels.
    """

    tensors: Mapping[str, Array | DeviceArray]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class MotionState:
    """A motion, encoded for the denoiser.

    Attributes:
        features: float32 (F, C, H/8, W/8), left on a GPU by PyTorch; or `Features` that compute it for given frames.
        size: (height, width) of the landmark images in pixels.
        face: bool (F, H/8, W/8), true in the face; needed for `Forecast.face_mask`.
        movement: float64 (F - 1,), landmark movement between neighbouring frames; progressive windows place their key
            frames by it, or evenly without it.
    """

    features: Array | DeviceArray | Features
    size: tuple[int, int]
    face: NDArray[np.bool_] | None = None
    movement: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """The denoiser of one portrait and one motion.

    Attributes:
        engine: engine of the denoiser's graph.
        portrait: inputs of the graph that encode the portrait, as the engine holds them.
        features: maps frame indices int64 (f,) to landmark features, as the engine holds them.
    """

    engine: Engine
    portrait: Mapping[str, Any]
    features: Callable[[Frames], Any]

    def __call__(self, latents: Array, timestep: int, frames: Frames) -> tuple[Array | None, Array]:
        """Evaluate the network on one window; see `fye_rt.backends.host.HostWorkspace`."""
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
        """Make a workspace for latents of `shape`: on the engine's device if it offers one, else on the host.

        The other arguments are those of `fye_rt.denoise`; `face` is bool (F, h, w), true in the face.

        Raises:
            InputError: the forecaster treats the face separately, and `face` is None.
        """
        if forecaster.masked and face is None:
            raise InputError("this forecaster tells the face from the rest; give its region")
        face = face if forecaster.masked else None
        timesteps = schedule.timesteps.tolist()
        evaluations = forecaster.evaluations
        denoising = Denoising(shape, windows, timesteps, guidance, forecaster.ring, face, self.inputs, evaluations)
        on_device = self.engine.workspace(denoising)
        return on_device or HostWorkspace(self, timesteps, windows, guidance, forecaster.ring, face)

    def of(self, frames: Frames) -> "Network":
        """Restrict the motion to `frames`: indices then count within these."""
        return replace(self, features=lambda within: self.features(frames[within]))

    def inputs(self, frames: Frames) -> dict[str, Any]:
        """Return the graph's inputs for some frames, except latents and timestep."""
        return {"landmark_features": self.features(frames), **self.portrait}


def network(engine: Engine, portrait: Mapping[str, Any], features: Array | DeviceArray | Features) -> Network:
    """Make the denoiser of a motion. An engine with memory of its own receives the features of each window once.

    Args:
        engine: engine of the denoiser's graph.
        portrait: inputs of the graph that encode the portrait, as the engine holds them.
        features: landmark features of the motion; those computed on access are not kept.
    """
    windows: dict[bytes, Any] = {}

    def on_engine(frames: Frames) -> Any:
        key = frames.tobytes()
        if key in windows:
            return windows[key]
        array = features[frames]
        placed = engine.to_device(array)
        if placed is not array and not isinstance(features, Features):
            windows[key] = placed
        return placed

    return Network(engine, portrait, on_engine)
