import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fye_kernels.temporal_attention import reference, temporal_attention

# of the largest result: see test_reference_attention.py
BOUNDS = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def inputs(
    device: str, clips: int, frames: int, positions: int, heads: int, dim: int, dtype: torch.dtype = torch.float32
) -> tuple[tuple[Tensor, ...], Tensor]:
    random = torch.Generator().manual_seed(frames * dim)
    q, k, v = (torch.randn(clips * frames, positions, heads * dim, generator=random) for _ in range(3))
    biases = torch.randn(3, frames, heads * dim, generator=random)
    return tuple(x.to(device, dtype) for x in (q, k, v)), biases.to(device, dtype)


@pytest.mark.parametrize("dim", [4, 8, 40, 80, 160])
@pytest.mark.parametrize(("frames", "positions"), [(1, 1), (5, 6), (16, 3), (24, 2), (32, 4)])
def test_temporal_attention_equals_attention_over_frames(device: str, head: int, frames: int, positions: int) -> None:
    given, biases = inputs(device, 2, frames, positions, 2, head)
    for more in (None, biases):
        expected = reference(*(x.double() for x in given), 2, frames, None if more is None else more.double())
        bound = BOUNDS[torch.float32] * max(1.0, float(expected.abs().max()))
        result = temporal_attention(*given, 2, frames, more)
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=bound)


def test_the_reference_of_temporal_attention_attends_within_one_position() -> None:
    (q, k, v), _ = inputs("cpu", 2, 3, 4, 2, 8)
    before = reference(q, k, v, 2, 3, None)
    v[4, 2] += 1  # clip 1, frame 1, position 2
    changed = (reference(q, k, v, 2, 3, None) != before).any(-1)
    assert changed.nonzero().tolist() == [[3, 2], [4, 2], [5, 2]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [40, 80, 160])
@pytest.mark.parametrize("frames", [1, 16, 24, 32])
def test_temporal_attention_keeps_its_bound_in_half_precision(
    device: str, dim: int, frames: int, dtype: torch.dtype
) -> None:
    given, biases = inputs(device, 1, frames, 5, 2, dim, dtype)
    expected = reference(*(x.double() for x in given), 2, frames, biases.double())
    result = temporal_attention(*given, 2, frames, biases)
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=BOUNDS[dtype] * float(expected.abs().max()))


def test_the_reference_of_temporal_attention_is_one_fused_attention() -> None:
    (q, k, v), biases = inputs("cpu", 2, 5, 3, 2, 8)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # refuses what it would have to do one operation after the other
        fused = reference(q, k, v, 2, 5, biases)
    expected = reference(q.double(), k.double(), v.double(), 2, 5, biases.double())
    bound = BOUNDS[torch.float32] * float(expected.abs().max())
    torch.testing.assert_close(fused.double(), expected, rtol=0, atol=bound)


def test_temporal_attention_takes_slices_of_one_projection(device: str) -> None:
    together = torch.randn(2 * 3, 4, 3 * 16, generator=torch.Generator().manual_seed(0)).to(device)
    parts = together.chunk(3, dim=-1)
    result = temporal_attention(*parts, 2, 3)
    assert torch.equal(result, temporal_attention(*(part.contiguous() for part in parts), 2, 3))


@pytest.mark.parametrize("positions_a_program", [1, 2, 8])
def test_temporal_attention_is_the_same_with_any_positions_a_program(
    device: str, positions_a_program: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, biases = inputs(device, 1, 6, 7, 1, 16)
    expected = reference(*(x.double() for x in given), 1, 6, biases.double())
    monkeypatch.setattr("fye_kernels.temporal_attention.best", lambda dim, frames: (positions_a_program, 4))
    result = temporal_attention(*given, 1, 6, biases)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=5e-6)
    assert torch.equal(result, temporal_attention(*given, 1, 6, biases))


def test_temporal_attention_refuses_invalid_tensors(device: str) -> None:
    (q, k, v), biases = inputs(device, 1, 6, 4, 2, 8)
    for message, *given in (
        ("6 rows are not clips of 4 frames", q, k, v, 2, 4),
        ("1 to 32", *(x.expand(6 * 33, -1, -1)[:33] for x in (q[:1], k[:1], v[:1])), 2, 33),
        ("contiguous", q, k.transpose(0, 1).contiguous().transpose(0, 1), v, 2, 6),
        ("not a multiple of 3 heads", q, k, v, 3, 6),
        ("biases", q, k, v, 2, 6, biases[:, :5]),
    ):
        with pytest.raises(ValueError, match=message):
            temporal_attention(*given)
