"""Work on the GPU beside TensorRT's plans, done by kernels of `fye_kernels` compiled ahead of time."""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fye_rt.arrays import Array, guide
from fye_rt.backends.cubins import ALIGNMENT, Kernels
from fye_rt.backends.cuda_memory import Gpu, Place
from fye_rt.backends.jump_row import SLOTS, rows
from fye_rt.engine import Denoising
from fye_rt.errors import BackendError, not_finite
from fye_rt.forecast import Jump
from fye_rt.plans import PlanCache

logger = logging.getLogger("fye_rt")

PACKAGED = Path(__file__).parents[1] / "cubins"  # exists if the package was built with -C cmake.define.FYE_CUBINS=ON


class Bound(Protocol):
    """A plan that is ready to run on inputs of certain shapes, which are copied to fixed addresses."""

    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the outputs, by name."""

    def run(self) -> None:
        """Queue a run."""


Bind = Callable[[dict[str, tuple[int, ...]], Mapping[str, Any]], Bound]  # (shapes of all inputs, inputs to copy)


def compiled(cache: PlanCache, device: Any, sm: str) -> Mapping[str, Any]:
    """Load the kernels for a cuda-core device from the package, else those that `fye build` compiled; else empty."""
    for folder in (PACKAGED, cache.kernels(sm)):
        if folder is not None and folder.is_dir():
            try:
                return Kernels.load(folder, device)
            except BackendError as error:
                logger.warning("%s", error)
    return {}


def takes(denoising: Denoising) -> bool:
    """Whether the kernel can move these latents: they must be one window, as are progressive and live pieces."""
    frames = denoising.shape[2]
    one_window = len(denoising.windows) == 1 and np.array_equal(denoising.windows[0].frames, np.arange(frames))
    return one_window and denoising.ring <= SLOTS and int(np.prod(denoising.shape)) % ALIGNMENT == 0


class TensorRTWorkspace:
    """Latents on the GPU, at the address where the denoiser reads them.

    Args:
        gpu: GPU on which the denoiser's plan runs.
        places: memory of the plan's inputs and outputs, by name.
        kernels: compiled kernels of `fye_kernels`, by name.
        denoising: the clip.
        bind: prepares the plan.
    """

    immediate = True

    def __init__(
        self, gpu: Gpu, places: Mapping[str, Place], kernels: Mapping[str, Any], denoising: Denoising, bind: Bind
    ) -> None:
        self._gpu, self._places, self._denoising, self._bind = gpu, places, denoising, bind
        self._guided, self._count = denoising.guidance > 1, int(np.prod(denoising.shape))
        kind = ("guided" if self._guided else "plain") + ("" if denoising.face is None else "_masked")
        self._kernel = kernels[f"forecast_step_{kind}_fp32"]
        self._numbers, self._slot, self._mask = Place(gpu, np.float32), Place(gpu, np.int32), Place(gpu, np.uint8)
        self._moves = 0

    def load(self, noise: Array) -> None:
        """Begin a clip: copy its noise, the denoiser's inputs and the face mask to the GPU."""
        face, self._moves = self._denoising.face, 0
        inputs = self._denoising.inputs(np.arange(noise.shape[2]))
        self._gpu.enter()
        shapes = {name: tuple(value.shape) for name, value in inputs.items()}
        self._bound = self._bind({"latents": noise.shape, "timestep": (1,)} | shapes, inputs)
        self._ring = self._gpu.allocate(self._denoising.ring * noise.nbytes)
        self._numbers.reserve(np.shape(rows(Jump(0, 1, 1.0, ()), 1.0, 0, 1)))
        self._slot.reserve((1,))
        if face is not None:
            self._mask.reserve(face.shape)
            self._mask.upload(face.view(np.uint8))
        self._places["latents"].upload(noise)

    def evaluate(self, step: int) -> Iterator[None]:
        """Evaluate the network at a step."""
        self._places["timestep"].upload(np.array([self._denoising.timesteps[step]], np.int64))
        self._bound.run()
        self._gpu.wait()  # the next upload overwrites the staging buffers of the last move
        yield

    def prediction(self) -> Array:
        """Return the guided prediction of the last evaluation."""
        shape, conditional = self._denoising.shape, self._places["v_conditional"]
        conditional.download()
        if not self._guided:
            self._gpu.wait()
            return conditional.array(shape)
        unconditional = self._places["v_unconditional"]
        unconditional.download()
        self._gpu.wait()
        return guide(unconditional.array(shape), conditional.array(shape), self._denoising.guidance)

    def advance(self, jump: Jump) -> None:
        """Queue the move of the latents to the end of a jump."""
        denoising, slot = self._denoising, self._moves % self._denoising.ring
        self._numbers.upload(np.array(rows(jump, denoising.guidance, slot, denoising.ring), np.float32))
        self._slot.upload(np.array([slot], np.int32))
        latents, conditional = self._places["latents"].address, self._places["v_conditional"].address
        self._kernel.launch(
            self._gpu.stream,
            {
                "latents": latents,
                "unconditional": self._places["v_unconditional"].address if self._guided else conditional,
                "conditional": conditional,
                "ring": int(self._ring.handle),
                "slot": self._slot.address,
                "numbers": self._numbers.address,
                "face": latents if denoising.face is None else self._mask.address,
                "count": self._count,
                "plane": 1 if denoising.face is None else denoising.face.size,
            },
        )
        self._moves += 1

    def read(self) -> Array:
        """Return a copy of the latents."""
        place = self._places["latents"]
        place.download()
        self._gpu.wait()
        return place.array(self._denoising.shape)

    def write(self, positions: NDArray[np.int64], latents: Array) -> None:
        """Put the latents of some frames at their positions."""
        clip = self.read()
        clip[:, :, positions] = latents
        self._places["latents"].upload(clip)

    def fault(self) -> tuple[int, int] | None:
        """Return the evaluation and window of a NaN or infinity, which is detected after the move that follows."""
        return None if not self._moves or np.isfinite(self.read()).all() else (self._moves - 1, 0)


def decode_pixels(
    gpu: Gpu, places: dict[str, Place], kernels: Mapping[str, Any], bind: Bind, latents: Array
) -> NDArray[np.uint8]:
    """Decode latents float32 (1, 4, f, h, w) to frames uint8 (f, 8h, 8w, 3), as `fye_rt.arrays.to_uint8` makes them.

    `gpu`, `places`, `kernels` and `bind` are those of the decoder, as in `TensorRTWorkspace`.

    Raises:
        NumericalError: the decoder returned NaN or infinity.
    """
    gpu.enter()
    bound = bind({"latents": latents.shape}, {"latents": latents})
    bound.run()
    shape = bound.outputs["frames"]
    pixels = places.setdefault("frames, uint8", Place(gpu, np.uint8))
    wrong = places.setdefault("frames, wrong", Place(gpu, np.int32))
    pixels.reserve(shape)
    wrong.reserve((1,))
    wrong.upload(np.zeros(1, np.int32))
    count = int(np.prod(shape))
    arguments = {"x": places["frames"].address, "out": pixels.address, "wrong": wrong.address, "count": count}
    kernels["to_uint8"].launch(gpu.stream, arguments)
    pixels.download()
    wrong.download()
    gpu.wait()
    if wrong.array((1,))[0]:
        raise not_finite("vae_decoder")
    return pixels.array(shape)
