import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fye_rt.arrays import Array
from fye_rt.errors import InputError, NumericalError
from fye_rt.forecast import Jump, JumpTable, jump_table
from fye_rt.noise import frame_noise
from fye_rt.schedule import SchedulerConfig, schedule
from fye_rt.windows import blended_windows
from tests.fye_rt.networks import denoised

CONFIG = SchedulerConfig()
MIX = np.float32([[0.4, -0.3, 0.2, 0.5], [-0.6, 0.3, 0.4, 0.1], [0.2, 0.7, -0.4, 0.3], [0.5, 0.1, 0.6, -0.2]])


def smooth(latents: Array, timestep: int) -> Array:
    """A fixed nonlinear denoiser whose Lipschitz constant is about that of a real one; float32."""
    mixed = np.einsum("oc,bcfhw->bofhw", MIX, latents)
    return np.tanh(mixed + np.float32(np.sin(timestep / 100)), dtype=np.float32)


def frame_by_frame(latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[None, Array]:
    return None, smooth(latents, timestep)


def run(
    evaluate: Any, noise: Array, steps: int = 6, kind: str = "context", guidance: float = 1.0, **more: Any
) -> Array:
    size, overlap = more.pop("size", 24), more.pop("overlap", 4)
    table = schedule(steps, CONFIG)
    clip = blended_windows(noise.shape[2], kind, size, overlap)
    return denoised(evaluate, table, jump_table(table), clip, noise, guidance, **more)


@pytest.mark.parametrize("steps", [1, 6, 7, 30])
def test_no_forecast_is_the_ddim_loop_of_diffusers(steps: int) -> None:
    torch = pytest.importorskip("torch", reason="diffusers is the oracle")
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the oracle")
    scheduler = diffusers.DDIMScheduler.from_config(CONFIG.as_dict())
    scheduler.set_timesteps(steps)
    noise = frame_noise(0, range(8), 16, 16)
    expected = [torch.from_numpy(noise)]
    for timestep in scheduler.timesteps.tolist():
        prediction = torch.from_numpy(smooth(expected[-1].numpy(), timestep))
        expected.append(scheduler.step(prediction, timestep, expected[-1]).prev_sample)
    ours: list[Array] = []
    run(frame_by_frame, noise, steps, on_step=lambda index, timestep, latents: ours.append(latents))
    # 1e-5 is the promise; float32 arithmetic of the two loops differs by about 3e-6 after 30 steps
    np.testing.assert_allclose(np.stack(ours), torch.stack(expected[1:]).numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["pipeline_8f", "pipeline_40f_ctx24_ov4"])
def test_the_recorded_first_prediction_gives_the_recorded_first_latents(golden: Path, name: str) -> None:
    with np.load(golden / f"{name}.npz") as recorded:
        noise, prediction = recorded["noise"], recorded["noise_pred_after_cfg_step0"]
        expected, timesteps = recorded["latents_step0_t999"], recorded["timesteps"]
    steps: list[tuple[int, int, Array]] = []

    def evaluate(latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[Array, Array]:
        # only blending and guidance that leave equal predictions alone give the recorded latents
        return prediction[:, :, frames], prediction[:, :, frames]

    run(evaluate, noise, 6, "reference", 3.5, on_step=lambda *step: steps.append(step))
    assert [timestep for _, timestep, _ in steps] == timesteps.tolist()
    np.testing.assert_allclose(steps[0][2], expected, rtol=0, atol=1e-5)  # one float32 step of numbers below 6


def test_recorded_tile_latents_blend_into_the_next_step(golden: Path) -> None:
    table = schedule(6, CONFIG)
    jumps = jump_table(table).jumps
    with np.load(golden / "pipeline_long_20f_tile8_ov3.npz") as recorded:
        noise, arrays = recorded["noise"], dict(recorded)
    tiles = blended_windows(20, "tiles", 8, 3)
    starts = [int(tile.frames[0]) for tile in tiles]
    seen: list[Array] = []

    def evaluate(latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[None, Array]:
        # the prediction with which the public code's own step led from these latents to the recorded ones
        step = int(np.flatnonzero(table.timesteps == timestep)[0])
        after = arrays[f"tile_latents_step{step}_tile{starts.index(int(frames[0]))}_t{timestep}"]
        return None, ((after - jumps[step].a * latents) / jumps[step].w[0]).astype(np.float32)

    denoised(evaluate, table, jump_table(table), tiles, noise, on_step=lambda i, t, latents: seen.append(latents))
    gaussian = np.exp(-((np.arange(8) - 3.5) ** 2) / 8**2 / 0.02)[None, None, :, None, None]
    for step, timestep in enumerate(table.timesteps):
        total, weight = np.zeros(noise.shape), np.zeros((1, 1, 20, 1, 1))
        for number, start in enumerate(starts):
            total[:, :, start : start + 8] += gaussian * arrays[f"tile_latents_step{step}_tile{number}_t{timestep}"]
            weight[:, :, start : start + 8] += gaussian
        np.testing.assert_allclose(seen[step], total / weight, rtol=0, atol=1e-5)


def test_blending_predictions_of_tiles_is_blending_their_latents() -> None:
    noise = frame_noise(1, range(20), 4, 4)
    table = schedule(6, CONFIG)
    tiles = blended_windows(20, "tiles", 8, 3)

    def mixing(latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[None, Array]:
        return None, smooth(latents - latents.mean(axis=2, keepdims=True), timestep)

    expected = noise.astype(np.float64)
    for jump in jump_table(table).jumps:
        blended = np.zeros(noise.shape)
        for tile in tiles:
            part = expected[:, :, tile.frames].astype(np.float32)
            _, v = mixing(part, int(table.timesteps[jump.step]), tile.frames)
            blended[:, :, tile.frames] += (jump.a * part + jump.w[0] * v) * tile.weights[:, None, None]
        expected = blended
    ours = denoised(mixing, table, jump_table(table), tiles, noise)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)  # float32 latents over 6 steps


def test_a_network_sees_the_frames_it_is_told_about() -> None:
    noise = frame_noise(3, range(13), 4, 4)
    seen: list[list[int]] = []

    def evaluate(latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[None, Array]:
        np.testing.assert_array_equal(latents, noise[:, :, frames])
        assert latents.dtype == np.float32
        assert latents.flags.c_contiguous
        seen.append(frames.tolist())
        return None, np.zeros_like(latents)

    run(evaluate, noise, 1, "reference", size=8)
    assert seen == [list(range(8)), [8, 9, 10, 11, 12, 0, 1, 2]]


def test_guidance_goes_beyond_the_conditional_prediction() -> None:
    noise = frame_noise(4, range(3), 4, 4)

    def both(latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[Array, Array]:
        v = smooth(latents, timestep)
        return v * np.float32(0.5), v

    def combined(latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[None, Array]:
        uncond, cond = both(latents, timestep, frames)
        return None, uncond + np.float32(3.5) * (cond - uncond)

    np.testing.assert_allclose(run(both, noise, guidance=3.5), run(combined, noise), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(run(both, noise, guidance=0.5), run(frame_by_frame, noise))
    with pytest.raises(ValueError, match="unconditional"):
        run(frame_by_frame, noise, guidance=3.5)


@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_frames_covered_twice_are_averaged_with_and_without_guidance(guidance: float) -> None:
    noise = frame_noise(5, range(10), 4, 4)

    def by_window(latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[Array, Array]:
        v = np.full_like(latents, 1.0 if frames[0] == 0 else 3.0)
        return v, v

    (jump,) = jump_table(schedule(1, CONFIG)).jumps
    result = run(by_window, noise, 1, "reference", guidance, size=8)  # frames 0 to 5 are seen by both windows
    v = np.float32([2.0] * 6 + [1.0] * 2 + [3.0] * 2)[:, None, None]
    np.testing.assert_allclose(result, jump.a * noise + jump.w[0] * v, rtol=0, atol=1e-6)


def test_steps_and_progress_are_reported_and_latents_can_be_kept() -> None:
    noise = frame_noise(6, range(10), 4, 4)
    original = noise.copy()
    steps: list[tuple[int, int]] = []
    kept: list[Array] = []
    copies: list[Array] = []
    done: list[tuple[str, int, int]] = []

    def on_step(index: int, timestep: int, latents: Array) -> None:
        steps.append((index, timestep))
        kept.append(latents)
        copies.append(latents.copy())
        with pytest.raises(ValueError, match="read-only"):
            latents[:] = 0

    result = run(frame_by_frame, noise, 4, size=8, on_step=on_step, progress=lambda *step: done.append(step))
    assert steps == [(0, 999), (1, 749), (2, 499), (3, 249)]
    assert done == [("denoise", n, 8) for n in range(1, 9)]
    np.testing.assert_array_equal(np.stack(kept), np.stack(copies))
    np.testing.assert_array_equal(kept[-1], result)
    np.testing.assert_array_equal(noise, original)
    assert result.dtype == np.float32


def test_a_network_may_reuse_its_output_buffers() -> None:
    noise = frame_noise(7, range(10), 4, 4)
    buffer = np.empty((1, 4, 8, 4, 4), np.float32)

    def evaluate(latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[None, Array]:
        buffer[...] = smooth(latents, timestep)
        return None, buffer

    np.testing.assert_array_equal(run(evaluate, noise, size=8), run(frame_by_frame, noise, size=8))


def test_a_table_that_keeps_older_quantities_is_followed() -> None:
    # quantities kept over three evaluations: the loop against the same sums written out
    noise = frame_noise(8, range(2), 2, 2)
    table = schedule(6, CONFIG)
    rows = JumpTable(
        (
            Jump(0, 2, 0.5, (0.3,), -1.0, 0.2),
            Jump(2, 4, 0.6, (0.3, 0.1), -0.9, 0.4),
            Jump(4, 5, 0.1, (1.5, -0.5, 0.2)),
            Jump(5, 6, 0.7, (0.4,)),  # fewer than are kept
        )
    )
    assert rows.ring == 3
    x, kept = noise.astype(np.float64), []
    for jump in rows.jumps:
        v = smooth(x.astype(np.float32), int(table.timesteps[jump.step]))
        kept.insert(0, jump.c * v + jump.d * x)
        x = jump.a * x + sum(w * q for w, q in zip(jump.w, kept, strict=False))
    reported: list[int] = []
    whole = blended_windows(2, "context", 24, 4)
    ours = denoised(frame_by_frame, table, rows, whole, noise, on_step=lambda index, *_: reported.append(index))
    np.testing.assert_allclose(ours, x, rtol=0, atol=1e-6)
    assert reported == [0, 2, 4, 5]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("half", [0, 1])
def test_a_prediction_that_is_not_finite_is_named_with_the_remedy(bad: float, half: int) -> None:
    noise = frame_noise(9, range(10), 4, 4)

    def evaluate(latents: Array, timestep: int, frames: NDArray[np.int64]) -> tuple[Array, Array]:
        outputs = (np.zeros_like(latents), np.zeros_like(latents))
        if timestep == 666 and frames[0] == 2:
            outputs[half][0, 3, 1, 2, 0] = bad
        return outputs

    message = "step 2 (timestep 666), window 2 of 2 (frames 2 to 9); run again with compute='fp32'"
    with pytest.raises(NumericalError, match=re.escape(message)):
        run(evaluate, noise, guidance=3.5, size=8)


def test_noise_that_is_not_finite_is_refused_before_the_network_runs() -> None:
    noise = frame_noise(10, range(2), 4, 4)
    noise[0, 0, 0, 0, 0] = np.nan

    def evaluate(*_: object) -> tuple[None, Array]:
        raise AssertionError("the network was called")

    with pytest.raises(InputError, match="noise contains NaN"):
        run(evaluate, noise)
