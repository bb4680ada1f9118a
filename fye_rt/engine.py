"""The interface of a backend: an engine for each graph of a bundle, and a workspace for the latents of a clip."""

import ctypes
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fye_rt import machine
from fye_rt.arrays import Array, to_uint8
from fye_rt.errors import not_finite
from fye_rt.forecast import Jump
from fye_rt.windows import Window

Arrays = dict[str, NDArray[Any]]
CPU_PIXELS = 2 * 128 * 128  # measured: docs/measurements/index.md
GPU_PIXELS = 8 * 512 * 512


@dataclass(frozen=True, slots=True, eq=False)
class Denoising:
    """What an engine needs to know of the clip, or piece of a clip, to denoise.

    Attributes:
        shape: shape of the latents, (1, 4, F, h, w).
        windows: windows that cover every frame, with weights that sum to 1.
        timesteps: training timesteps of the schedule's steps.
        guidance: classifier-free guidance scale.
        ring: number of quantities that the forecaster keeps.
        face: bool (F, h, w), true in the face, if the forecaster treats the face separately; else None.
        inputs: maps frame indices, int64 (f,), to the denoiser's inputs by name, except latents and timestep.
        evaluations: most steps at which the network is evaluated, or 0 if that is unknown.
    """

    shape: tuple[int, ...]
    windows: Sequence[Window]
    timesteps: Sequence[int]
    guidance: float
    ring: int
    face: NDArray[np.bool_] | None
    inputs: Callable[[NDArray[np.int64]], Mapping[str, Any]]
    evaluations: int = 0


class DeviceArray(Protocol):
    """Float32 numbers that an engine left in the memory of its device; `np.asarray` copies them to the host."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""

    def __len__(self) -> int: ...

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]: ...

    def __getitem__(self, frames: NDArray[np.int64], /) -> Self:
        """Return the entries at some indices of the first axis, int64 (f,)."""

    def finite(self) -> bool:
        """Return whether no number is NaN or infinity."""

    def join(self, others: Sequence[Self], /) -> Self:
        """Return this array and others, one after another along the first axis."""


def is_finite(array: Array | DeviceArray) -> bool:
    """Return whether no number is NaN or infinity."""
    return bool(np.isfinite(array).all()) if isinstance(array, np.ndarray) else array.finite()


def joined(arrays: Sequence[Any]) -> Any:
    """Concatenate arrays of one kind, NumPy's or an engine's, along the first axis."""
    return np.concatenate(arrays) if isinstance(arrays[0], np.ndarray) else arrays[0].join(arrays[1:])


class Workspace(Protocol):
    """Holds the latents of a clip while it is denoised, and moves them.

    Attributes:
        immediate: whether `fault` returns without waiting, so that it can be called after every evaluation.
    """

    immediate: bool

    def load(self, noise: Array) -> None:
        """Start a clip from noise, float32 (1, 4, F, h, w)."""

    def evaluate(self, step: int) -> Iterator[None]:
        """Evaluate the network at a step, window by window; yield after each window."""

    def prediction(self) -> Array:
        """Return the guided v-prediction of the last evaluation, windows blended: float32 (1, 4, F, h, w)."""

    def advance(self, jump: Jump) -> None:
        """Move the latents from the last evaluated step to the end of the jump."""

    def read(self) -> Array:
        """Return a copy of the latents, float32 (1, 4, F, h, w)."""

    def write(self, positions: NDArray[np.int64], latents: Array) -> None:
        """Overwrite the latents at some positions, int64 (p,), with float32 (1, 4, p, h, w)."""

    def fault(self) -> tuple[int, int] | None:
        """Return the indices (evaluation, window) of the first NaN or infinity; None if there was none."""


class Engine:
    """One graph, ready to run. Serves one call at a time.

    Attributes:
        compute: compute precision, "fp32", "bf16" or "fp16".
        pixels: pixels that the decoder should make per call. More are no faster, and take memory in proportion.
        decodes_beside: whether `begin_decoding` returns before the frames exist, and the device denoises meanwhile.
    """

    compute: str
    pixels: int
    decodes_beside = False

    def run(self, inputs: Mapping[str, Any]) -> Arrays:
        """Run the graph on C-contiguous arrays or results of `to_device`; return outputs by name, for the caller."""
        raise NotImplementedError

    def run_on_device(self, inputs: Mapping[str, Any]) -> Mapping[str, Array | DeviceArray]:
        """Run the graph as `run` does; outputs may stay on the device, for engines of the same kind."""
        return self.run(inputs)

    def to_device(self, array: Any) -> Any:
        """Place an array or `DeviceArray`, an input of many runs, where the engine reads it; NumPy's may stay as is."""
        return np.asarray(array)

    def warming_up(self) -> AbstractContextManager[None]:
        """Return a context in which first runs may take longer, so that all later runs of their shapes are faster."""
        return nullcontext()

    def workspace(self, denoising: Denoising) -> Workspace | None:
        """Return a workspace on the device of a denoiser's engine; None keeps the latents on the host between steps."""
        return None

    def begin_decoding(self, latents: Array) -> Callable[[], NDArray[np.uint8]]:
        """Start to decode latents float32 (1, 4, f, h, w), with the decoder's engine.

        Returns:
            A function that waits for the frames and returns them, uint8 (f, 8h, 8w, 3), converted as by
            `arrays.to_uint8`. It raises NumericalError if the network returned NaN or infinity.
        """

        def finish() -> NDArray[np.uint8]:
            frames = self.run({"latents": latents})["frames"]
            if not np.isfinite(frames).all():
                raise not_finite("vae_decoder")
            return to_uint8(frames)

        return finish


class DeviceInput:
    """An input of many runs, copied to the device on first use, when its type is known."""

    def __init__(self, array: Array | DeviceArray) -> None:
        self.shape = array.shape
        self._array: Array | None = np.asarray(array)
        self._value: Any = None

    def value(self, copy: Callable[[NDArray[np.float32], Any], Any], dtype: Any) -> Any:
        """Return the copy on the device, which `copy` makes from the array and its type there on first use."""
        if self._array is not None:
            self._value, self._array = copy(self._array, dtype), None
        return self._value


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of an engine.

    Attributes:
        compute: "auto", "fp32", "bf16" or "fp16".
        threads: CPU threads. 0 becomes one per physical core that this process can keep busy (`machine.cores`); where
            the system does not report these, it stays 0, and the engine decides.
        shared: state that the engines of one Animator share, such as GPU memory.
    """

    compute: str = "auto"
    threads: int = 0
    shared: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        # ONNX Runtime's default is all cores of the machine, with threads bound even to cores closed to this process
        object.__setattr__(self, "threads", self.threads or machine.cores() or 0)


def return_freed_memory() -> None:
    """Return memory freed while a graph was opened, mostly copies of weights, to the system; glibc would keep it.

    Measured on a mid-size model: after opening it from float16 with ONNX Runtime, anonymous memory was 1.35 times the
    weights without this and is 1.10 times with it; with OpenVINO it is smaller by 0.07 to 0.09 times the weights, first
    run included.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
