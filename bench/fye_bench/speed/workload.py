"""The clip to time, fixed here so that numbers of different days are comparable."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt import windows
from fye_rt.bundle import Bundle, symbols
from fye_rt.options import Options, check_sides


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A clip.

    Attributes:
        frames: number of frames.
        size: (height, width) in pixels.
        steps: DDIM steps, all of them evaluated.
        threads: CPU threads.

    Raises:
        OptionError: a number is outside its range.
        InputError: the size is outside its range.
    """

    frames: int = 8
    size: tuple[int, int] = (128, 128)
    steps: int = 30
    threads: int = 2

    def __post_init__(self) -> None:
        check_sides(self.size, "the clip")
        self.windows()  # checks the other numbers

    def options(self, steps: int | None = None) -> Options:
        """Return the users' options: guidance 3.5, windows of 24 frames. `steps` replaces the workload's."""
        return Options(steps=self.steps if steps is None else steps, guidance=3.5, seed=0)

    def windows(self) -> int:
        """Return the number of network evaluations in one step."""
        options = self.options()
        return len(windows.blended_windows(self.frames, options.windows, options.window_size, options.window_overlap))


@dataclass(frozen=True, slots=True)
class Inputs:
    """Random numbers in place of pictures, whose content does not affect time.

    Attributes:
        image: uint8 (H, W, 3), the portrait.
        clip_pixels: float32 (3, S, S), the portrait, normalised for CLIP.
        landmark_images: uint8 (F, H, W, 3).
    """

    image: NDArray[np.uint8]
    clip_pixels: NDArray[np.float32]
    landmark_images: NDArray[np.uint8]

    @classmethod
    def make(cls, bundle: Bundle, workload: Workload) -> "Inputs":
        """Make the inputs, equal for every variant of a workload."""
        rng = np.random.default_rng(0)
        side = int(bundle.graphs["image_encoder"].inputs[0].shape[-1])
        return cls(
            rng.integers(0, 256, (*workload.size, 3), np.uint8),
            rng.standard_normal((3, side, side), np.float32),
            rng.integers(0, 256, (workload.frames, *workload.size, 3), np.uint8),
        )


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """Describe the model in a result."""
    return {
        "digest": bundle.digest,
        "precision": bundle.precision,
        "parameters": {graph: bundle.weight_bytes(graph, itemsize=1) for graph in bundle.graphs},
        "sizes": dict(bundle.model),
    }


def denoiser_inputs(bundle: Bundle, workload: Workload) -> dict[str, NDArray[Any]]:
    """Return random inputs of one evaluation of the denoiser, by name."""
    rng = np.random.default_rng(0)
    sizes = symbols(min(workload.frames, workload.options().window_size), *workload.size)
    inputs: dict[str, NDArray[Any]] = {}
    for spec in bundle.graphs["denoiser"].inputs:
        shape = [sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape]
        inputs[spec.name] = np.full(shape, 500) if spec.dtype == "int64" else rng.standard_normal(shape, np.float32)
    return inputs
