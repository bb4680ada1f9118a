import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fye_kernels.forecast_step import ROW, SLOTS, W, forecast_step, reference
from fye_kernels.forecast_tables import Blend, blend, numbers
from fye_rt.backends.host import HostWorkspace
from fye_rt.denoise import denoise
from fye_rt.forecast import Jump, even, jump_table, newton, reuse
from fye_rt.schedule import SchedulerConfig, schedule
from fye_rt.windows import Window
from fye_rt.windows import blended_windows as window_plan

# float32 sums of up to 7 products, in another order or fused: a few units in the last place of the largest of them
BOUND = 1e-5


def inputs(device: str, shape: tuple[int, ...], slots: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    latents, u, c = (torch.randn(shape, generator=random) for _ in range(3))
    ring = torch.randn((slots, *shape), generator=random)
    face = torch.rand(shape[2:], generator=random) < 0.5
    return latents.to(device), u.to(device, dtype), c.to(device, dtype), ring.to(device), face.to(device)


@given(
    frames=st.integers(1, 5),
    height=st.integers(1, 17),
    width=st.integers(1, 17),
    slots=st.integers(1, SLOTS),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
    data=st.data(),
)
@settings(max_examples=15, deadline=None)
def test_forecast_step_computes_guidance_conversion_ring_and_sum(
    device: str, frames: int, height: int, width: int, slots: int, dtype: torch.dtype, data: st.DataObject
) -> None:
    used, slot = data.draw(st.integers(1, slots)), data.draw(st.integers(0, slots - 1))
    weight = st.floats(-3, 3, width=32)
    w, outside = (tuple(data.draw(st.lists(weight, min_size=used, max_size=used))) for _ in range(2))
    jump = Jump(0, 3, data.draw(weight), w, data.draw(weight), data.draw(weight), data.draw(weight), outside)
    latents, u, c, ring, face = inputs(device, (1, 4, frames, height, width), slots, dtype)
    row = numbers(jump, data.draw(weight), slot, slots).to(device)
    at = torch.tensor([slot], dtype=torch.int32, device=device)
    for unconditional, mask in ((u, None), (None, None), (u, face)):
        expected, expected_ring = latents.clone(), ring.clone()
        reference(expected, unconditional, c, expected_ring, at, row, mask)
        result, result_ring = latents.clone(), ring.clone()
        result_ring[slot] = torch.nan  # what is overwritten must not be read
        forecast_step(result, unconditional, c, result_ring, at, row, mask)
        scale = 1 + 20 * float(row.abs().max()) ** 2
        torch.testing.assert_close(result_ring, expected_ring, rtol=0, atol=BOUND * scale)
        torch.testing.assert_close(result, expected, rtol=0, atol=BOUND * scale)
        others = [s for s in range(slots) if s != slot]
        assert torch.equal(result_ring[others], ring[others])


@pytest.mark.slow
@given(
    frames=st.integers(1, 9),
    size=st.integers(1, 5),
    overlap=st.integers(0, 4),
    kind=st.sampled_from(["context", "reference", "tiles"]),
    height=st.integers(1, 9),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_forecast_step_blends_windows(
    device: str, frames: int, size: int, overlap: int, kind: str, height: int, dtype: torch.dtype, seed: int
) -> None:
    windows = window_plan(frames, kind, size, min(overlap, size - 1))
    parts = (len(windows), 4, min(size, frames), height, 7)
    latents, *_, ring, face = inputs(device, (1, 4, frames, height, 7), 2, torch.float32, seed)
    _, u, c, *_ = inputs(device, parts, 1, dtype, seed + 1)
    row = numbers(Jump(0, 3, 0.7, (0.5, -1.5), 0.2, 0.8, -0.6, (2.0, 0.25)), 2.5, 1, 2).to(device)
    at, shares = torch.tensor([1], dtype=torch.int32, device=device), blend(windows, frames)
    assert shares.planes.shape == shares.shares.shape and (shares.shares >= 0).all()
    shares = Blend(*(table.to(device) for table in shares))

    def blended(part: Tensor) -> Tensor:  # window by window, as the runtime's own loop does it
        total = torch.zeros(latents.shape, device=device)
        for number, window in enumerate(windows):
            weights = torch.tensor(window.weights, dtype=torch.float32, device=device)[:, None, None]
            total[:, :, torch.tensor(window.frames, device=device)] += weights * part[number].float()
        return total

    for unconditional, mask in ((u, None), (None, None), (u, face)):
        expected, expected_ring = latents.clone(), ring.clone()
        halves = None if unconditional is None else blended(unconditional), blended(c)
        reference(expected, *halves, expected_ring, at, row, mask)
        for step in (forecast_step, reference):
            result, result_ring = latents.clone(), ring.clone()
            step(result, unconditional, c, result_ring, at, row, mask, shares)
            torch.testing.assert_close(result_ring, expected_ring, rtol=0, atol=BOUND * 20)
            torch.testing.assert_close(result, expected, rtol=0, atol=BOUND * 40)


def test_forecast_step_reads_no_window_without_a_share(device: str) -> None:
    latents, *_, ring, _ = inputs(device, (1, 4, 3, 2, 5), 1, torch.float32)
    parts = torch.full((2, 4, 2, 2, 5), torch.nan, device=device)
    parts[0], parts[1, :, 1] = 2.0, 5.0
    windows = [Window(np.array(frames), np.array(w)) for frames, w in (([0, 1], [1.0, 1.0]), ([1, 2], [0.0, 1.0]))]
    shares = Blend(*(table.to(device) for table in blend(windows, 3)))
    row = numbers(Jump(0, 1, 0.0, (1.0,)), 1.0, 0, 1).to(device)
    forecast_step(latents, None, parts, ring, torch.zeros(1, dtype=torch.int32, device=device), row, blend=shares)
    assert (latents[:, :, :2] == 2).all() and (latents[:, :, 2] == 5).all()


@pytest.mark.parametrize("extrapolate", [reuse, newton(1), newton(2)])
def test_a_clip_denoised_by_forecast_step_equals_the_loop_of_the_runtime(device: str, extrapolate) -> None:
    steps = schedule(12, SchedulerConfig())
    table = jump_table(steps, even(12, 6), extrapolate, "epsilon")
    noise = torch.randn(1, 4, 3, 5, 6, generator=torch.Generator().manual_seed(1))

    def network(x: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
        return torch.tanh(x * (1 + timestep / 1000)), torch.sin(x)

    def evaluate(x, timestep: int, frames):
        return tuple(v.numpy() for v in network(torch.from_numpy(x), timestep))

    whole = [Window(torch.arange(3).numpy(), torch.ones(3, dtype=torch.float64).numpy())]
    workspace = HostWorkspace(evaluate, steps.timesteps.tolist(), whole, 2.5, table.ring)
    expected = torch.from_numpy(denoise(workspace, steps, table, whole, noise.numpy()))
    latents, slots = noise.to(device).clone(), table.ring
    ring = torch.full((slots, *latents.shape), torch.nan, device=device)
    for k, jump in enumerate(table.jumps):
        u, c = (v.to(device) for v in network(latents.cpu(), int(steps.timesteps[jump.step])))
        slot = torch.tensor([k % slots], dtype=torch.int32, device=device)
        forecast_step(latents, u, c, ring, slot, numbers(jump, 2.5, k % slots, slots).to(device))
    torch.testing.assert_close(latents.cpu(), expected, rtol=0, atol=2e-5)


def test_forecast_step_takes_different_rows_for_face_and_background(device: str) -> None:
    latents, u, c, ring, face = inputs(device, (1, 4, 3, 19, 23), 3, torch.float32)  # more than a block of either
    row = torch.randn(2, ROW, generator=torch.Generator().manual_seed(2)).to(device)
    row[:, W + len(ring) :] = 0  # there are no such slots
    slot = torch.tensor([1], dtype=torch.int32, device=device)
    expected, expected_ring = latents.clone(), ring.clone()
    reference(expected, u, c, expected_ring, slot, row, face)
    made = []
    for _ in range(2):
        # what lies beside the latents and the ring is to stay as it is
        memory, rings = (torch.full((size, *latents.shape), 7.0, device=device) for size in (3, 5))
        memory[1], rings[1:4] = latents, ring
        forecast_step(memory[1], u, c, rings[1:4], slot, row, face)
        torch.testing.assert_close(memory[1], expected, rtol=0, atol=BOUND * 20)
        torch.testing.assert_close(rings[1:4], expected_ring, rtol=0, atol=BOUND * 20)
        assert (memory[::2] == 7).all() and (rings[::4] == 7).all()
        made.append((memory, rings))
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))


def test_forecast_step_refuses_invalid_tensors(device: str) -> None:
    latents, u, c, ring, face = inputs(device, (1, 4, 2, 3, 3), 2, torch.float32)
    slot, row = torch.zeros(1, dtype=torch.int32, device=device), numbers(Jump(0, 1, 1.0, (1.0,)), 1.0, 0, 2).to(device)
    planes, ones = torch.zeros((1, 2), dtype=torch.int32, device=device), torch.ones((1, 2), device=device)
    shares = Blend(planes, ones)
    all_but_blend = latents, u, c, ring, slot, row, None
    for message, *arguments in (
        ("contiguous", latents.mT, u, c, ring, slot, row),
        ("float32", latents.double(), u, c, ring, slot, row),
        ("predictions", latents, u[:, :, :1].contiguous(), c, ring, slot, row),
        ("a blend of 2 frames", *all_but_blend, Blend(planes.long(), ones)),
        ("a blend of 2 frames", *all_but_blend, Blend(planes, ones.double())),
        ("a blend of 2 frames", *all_but_blend, Blend(planes.repeat(2, 1), ones)),
        ("a blend of 2 frames", *all_but_blend, Blend(*(table[:, :1].contiguous() for table in shares))),
        ("predictions", latents, u, c.repeat(2, 1, 1, 1, 1), ring, slot, row, None, shares),
        ("predictions", latents, u[..., :2, :].contiguous(), c[..., :2, :].contiguous(), ring, slot, row, None, shares),
        ("contiguous", *all_but_blend, Blend(*(table.expand(2, -1) for table in shares))),
        ("face mask", latents, u, c, ring, slot, row, face[:1]),
        ("numbers must be", latents, u, c, ring, slot.long(), row),
        ("numbers must be", latents, u, c, ring, slot.repeat(2), row),
        ("numbers must be", latents, u, c, ring, slot, row[:, 1:].contiguous()),
        ("numbers must be", latents, u, c, ring, slot, row.double()),
        ("1 to 5 slots", latents, u, c, ring.repeat(3, 1, 1, 1, 1, 1), slot, row),
    ):
        with pytest.raises(ValueError, match=message):
            forecast_step(*arguments)
    for message, weights, slots in (("1 to 5 slots", (1.0,), 6), ("2 quantities", (1.0, 1.0), 1)):
        with pytest.raises(ValueError, match=message):
            numbers(Jump(0, 1, 1.0, weights), 1.0, 0, slots)
