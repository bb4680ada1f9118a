"""What is done on the GPU beside TensorRT's plans, by kernels of our own that were compiled ahead of time."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fye_rt import denoise as host
from fye_rt.arrays import Array
from fye_rt.backends.cuda_memory import Place
from fye_rt.errors import BackendError, InputError, NumericalError
from fye_rt.forecast import Plan
from fye_rt.plans import PlanCache
from fye_rt.schedule import Schedule
from fye_rt.windows import Window

if TYPE_CHECKING:
    from fye_rt.backends.tensorrt import TensorRTEngine

logger = logging.getLogger("fye_rt")

DECODED_WRONG = "vae_decoder returned NaN or infinity; run again with --compute fp32"
PACKAGED = "cubins"  # the folder in fye_kernels, where the package was built with -C cmake.define.FYE_CUBINS=ON

Inputs = Callable[[NDArray[np.int64]], Mapping[str, Any]]


def compiled(cache: PlanCache, device: Any, sm: str) -> Mapping[str, Any]:
    """Those of `fye_kernels` for a device of cuda-core: of the package, or else compiled by `fye build`.

    Returns:
        None of them where there are neither.
    """
    import fye_kernels
    from fye_rt.backends.cubins import Kernels

    packaged = Path(fye_kernels.__file__).parent / PACKAGED
    for folder in (packaged, cache.kernels(sm)):
        if folder is not None and folder.is_dir():
            try:
                return Kernels.load(folder, device)
            except BackendError as error:
                logger.warning("%s", error)
    return {}


def denoise(
    engine: "TensorRTEngine",
    kernels: Mapping[str, Any],
    inputs: Inputs,
    schedule: Schedule,
    plan: Plan,
    windows: Sequence[Window],
    noise: Array,
    guidance: float,
    on_step: host.OnStep | None = None,
    progress: host.Progress | None = None,
    face: NDArray[np.bool_] | None = None,
    pins: host.Pins | None = None,
) -> Array:
    """Turn noise into latents, which stay on the GPU, where the denoiser reads them; see `fye_rt.denoise.denoise`.

    It takes clips that are one window, as every piece of a progressive or live clip is, and whose latents are a
    multiple of 16 in number, for which the kernel was compiled. All others go through the host.

    Args:
        engine: of the denoiser.
        kernels: those of `fye_kernels`, compiled.
        inputs: gives the held inputs of some frames.
        schedule: the steps.
        plan: which of them are evaluated.
        windows: cover every frame of the clip.
        noise: float32 (1, 4, F, h, w).
        guidance: classifier-free guidance scale.
        on_step: called after every evaluated step.
        progress: called after every evaluation.
        face: bool (F, h, w).
        pins: frames that go the way they went before.
    """
    from fye_rt.backends.cubins import ALIGNMENT
    from fye_rt.backends.jump_row import SLOTS, rows

    def through_the_host() -> Array:
        def evaluate(latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[Array | None, Array]:
            given = {"latents": latents, "timestep": np.array([timestep], np.int64), **inputs(frames)}
            outputs = engine.run(given)
            return outputs.get("v_unconditional"), outputs["v_conditional"]

        return host.denoise(evaluate, schedule, plan, windows, noise, guidance, on_step, progress, face, pins)

    frames = np.arange(noise.shape[2])
    whole = len(windows) == 1 and np.array_equal(windows[0].frames, frames)
    if not whole or plan.ring > SLOTS or noise.size % ALIGNMENT:
        return through_the_host()
    masked = any(jump.outside is not None for jump in plan.jumps)
    if masked and face is None:
        raise InputError("this method tells the face from the rest; give its region")
    gpu, held = engine.gpu, dict(inputs(frames))
    gpu.enter()
    shaped = engine.shaped({"latents": noise.shape, "timestep": (1,)} | {name: x.shape for name, x in held.items()})
    for name in held.keys() & set(shaped.plan.inputs):
        engine.put(shaped, name, held[name])
    guided = guidance > 1
    kernel = kernels[f"forecast_step_{'guided' if guided else 'plain'}{'_masked' if masked else ''}_fp32"]
    latents, conditional = engine.places["latents"], engine.places["v_conditional"]
    ring = gpu.allocate(plan.ring * noise.nbytes)
    numbers, slot, mask = Place(gpu, np.float32), Place(gpu, np.int32), Place(gpu, np.uint8)
    table = np.array([rows(jump, guidance, k % plan.ring, plan.ring) for k, jump in enumerate(plan.jumps)], np.float32)
    numbers.reserve(table[0].shape)
    slot.reserve((1,))
    if masked and face is not None:
        mask.reserve(face.shape)
        mask.upload(face.view(np.uint8))
    latents.upload(noise)

    def moved() -> None:
        kernel.launch(
            gpu.stream,
            {
                "latents": latents.address,
                "unconditional": (engine.places["v_unconditional"] if guided else conditional).address,
                "conditional": conditional.address,
                "ring": int(ring.handle),
                "slot": slot.address,
                "numbers": numbers.address,
                "face": mask.address if masked else latents.address,
                "count": noise.size,
                "plane": face.size if masked and face is not None else 1,
            },
        )

    def seen() -> Array:
        latents.download()
        gpu.wait()
        array: Array = latents.array(noise.shape)
        return array

    for k, jump in enumerate(plan.jumps):
        engine.places["timestep"].upload(np.array([schedule.timesteps[jump.step]], np.int64))
        numbers.upload(table[k])
        slot.upload(np.array([k % plan.ring], np.int32))
        shaped.run()
        moved()
        gpu.wait()  # what is uploaded next lies where this step's numbers were
        if pins is not None and jump.step in pins.after:
            array = seen()
            array[:, :, pins.positions] = pins.after[jump.step]
            latents.upload(array)
        if progress is not None:
            progress(k + 1, len(plan.jumps))
        if on_step is not None:
            array = seen()
            array.flags.writeable = False
            on_step(jump.step, int(schedule.timesteps[jump.step]), array)
    result = seen()
    return result if np.isfinite(result).all() else through_the_host()  # which says at what step it happened


def pixels_of(engine: "TensorRTEngine", kernels: Mapping[str, Any], latents: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Decode latents to frames, as `fye_rt.arrays.to_uint8` makes them.

    Args:
        engine: of the decoder.
        kernels: those of `fye_kernels`, compiled.
        latents: float32 (1, 4, f, h, w).

    Returns:
        uint8 (f, 8h, 8w, 3).

    Raises:
        NumericalError: the decoder returned NaN or infinity.
    """
    gpu = engine.gpu
    gpu.enter()
    shaped = engine.shaped({"latents": latents.shape})
    engine.put(shaped, "latents", latents)
    shaped.run()
    shape = shaped.outputs["frames"]
    pixels = engine.places.setdefault("frames, uint8", Place(gpu, np.uint8))
    wrong = engine.places.setdefault("frames, wrong", Place(gpu, np.int32))
    pixels.reserve(shape)
    wrong.reserve((1,))
    wrong.upload(np.zeros(1, np.int32))
    kernels["to_uint8"].launch(
        gpu.stream,
        {
            "x": engine.places["frames"].address,
            "out": pixels.address,
            "wrong": wrong.address,
            "count": int(np.prod(shape)),
        },
    )
    pixels.download()
    wrong.download()
    gpu.wait()
    if wrong.array((1,))[0]:
        raise NumericalError(DECODED_WRONG)
    array: NDArray[np.uint8] = pixels.array(shape)
    return array
