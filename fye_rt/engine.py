"""What a backend offers: an engine for each graph of a bundle, and a workspace where the latents of a clip lie."""

import ctypes
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fye_rt import machine
from fye_rt.arrays import Array, to_uint8
from fye_rt.errors import not_finite
from fye_rt.forecast import Jump
from fye_rt.windows import Window

Arrays = dict[str, NDArray[Any]]
CPU_PIXELS = 2 * 128 * 128  # docs/measurements/index.md
GPU_PIXELS = 8 * 512 * 512


@dataclass(frozen=True, slots=True, eq=False)
class Denoising:
    """What an engine needs to know of the clip, or the piece of one, that is denoised.

    Attributes:
        shape: of the latents, (1, 4, F, h, w).
        windows: cover every frame, with weights that sum to 1.
        timesteps: of the schedule's steps.
        guidance: classifier-free guidance scale.
        ring: how many quantities the forecaster keeps.
        face: bool (F, h, w), where the face is, if the forecaster tells it from the rest.
        inputs: the denoiser's inputs for some frames, int64 (f,), by name: all but latents and timestep.
    """

    shape: tuple[int, ...]
    windows: Sequence[Window]
    timesteps: Sequence[int]
    guidance: float
    ring: int
    face: NDArray[np.bool_] | None
    inputs: Callable[[NDArray[np.int64]], Mapping[str, Any]]


class Workspace(Protocol):
    """Where the latents of a clip lie while it is denoised, and what moves them.

    Attributes:
        immediate: whether `fault` waits for nothing, so that it can be asked after every evaluation.
    """

    immediate: bool

    def load(self, noise: Array) -> None:
        """Begin a clip with noise float32 (1, 4, F, h, w)."""

    def evaluate(self, step: int) -> Iterator[None]:
        """Evaluate the network at a step, window by window; yields after each."""

    def prediction(self) -> Array:
        """The guided prediction of v of the last evaluation, windows blended: float32 (1, 4, F, h, w)."""

    def advance(self, jump: Jump) -> None:
        """Move the latents from the step that was evaluated last to the end of the jump."""

    def read(self) -> Array:
        """A copy of the latents, float32 (1, 4, F, h, w)."""

    def write(self, positions: NDArray[np.int64], latents: Array) -> None:
        """Put the latents of some frames, float32 (1, 4, p, h, w), at their positions, int64 (p,)."""

    def fault(self) -> tuple[int, int] | None:
        """Number of the first evaluation, and of its window, that gave NaN or infinity; None if none did."""


class Engine:
    """One graph, ready to run. Serves one call at a time.

    Attributes:
        compute: the precision it computes in, "fp32", "bf16" or "fp16".
        pixels: that the decoder should make in one call. More are no faster, and take memory in proportion.
        decodes_beside: whether `begin_decoding` returns before the frames are there, and the device denoises meanwhile.
    """

    compute: str
    pixels: int
    decodes_beside = False

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """Outputs by name; they belong to the caller. `inputs` are C-contiguous arrays, or those of `to_device`."""
        raise NotImplementedError

    def to_device(self, array: NDArray[np.float32]) -> Any:
        """An input of many runs, where the engine reads it: in a GPU's memory, or the array itself."""
        return array

    def workspace(self, denoising: Denoising) -> Workspace | None:
        """A place on the engine's device for latents, of the denoiser; None: they lie on the host between steps."""
        return None

    def begin_decoding(self, latents: Array) -> Callable[[], NDArray[np.uint8]]:
        """Begin to decode latents float32 (1, 4, f, h, w), of the decoder.

        Returns:
            What waits for the frames and gives them, uint8 (f, 8h, 8w, 3), as `arrays.to_uint8` makes them. It raises
            NumericalError if the network returned NaN or infinity.
        """

        def finish() -> NDArray[np.uint8]:
            frames = self.run({"latents": latents})["frames"]
            if not np.isfinite(frames).all():
                raise not_finite("vae_decoder")
            return to_uint8(frames)

        return finish


@dataclass(frozen=True, slots=True)
class Settings:
    """What an engine is opened with.

    Attributes:
        compute: "auto", "fp32", "bf16" or "fp16".
        threads: of the CPU; 0 becomes one per physical core that this process can keep busy (`machine.cores`), and
            stays 0, what the engine makes of it, where the system does not tell how many these are.
        shared: where the engines of one Animator keep what they share, such as a GPU's memory.
    """

    compute: str = "auto"
    threads: int = 0
    shared: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        # ONNX Runtime alone would take all cores there are, and bind its threads to those the process was kept from
        object.__setattr__(self, "threads", self.threads or machine.cores() or 0)


def return_freed_memory() -> None:
    """Give what opening a graph has freed, copies of weights above all, back to the system; glibc's allocator keeps it.

    Of a mid-size model, anonymous memory was 1.35 times the weights after opening it from float16 with ONNX Runtime,
    and is 1.10 times with this; with OpenVINO it takes 0.07 to 0.09 times the weights less, first run included.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
