import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fye_kernels.norm_silu import cuts, norm_silu, reference, traffic
from fye_kernels.report import NORMS

# float32: sums in another order. Half precision: one rounding of the result, to 2**-11, and to 2**-8 of bfloat16, which
# the interpreter truncates
BOUNDS = {torch.float32: 5e-6, torch.float16: 4e-3, torch.bfloat16: 2**-7}


def inputs(
    device: str, shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(shape, generator=random) + 0.5
    weight, bias = torch.randn(2, shape[1], generator=random)
    time = torch.randn(shape[0], shape[1], generator=random)
    x = x.to(device, dtype).to(memory_format=torch.channels_last)
    return x, weight.to(device, dtype), bias.to(device, dtype), time.to(device, dtype)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "groups"), [((1, 32, 1, 2), 32), ((2, 64, 5, 7), 32), ((3, 40, 9, 4), 8), ((1, 320, 4, 4), 32)]
)
@pytest.mark.parametrize("dtype", list(BOUNDS))
def test_norm_silu_equals_group_norm_and_silu(
    device: str, shape: tuple[int, int, int, int], groups: int, dtype
) -> None:
    x, weight, bias, time = inputs(device, shape, dtype)
    for more in (None, time, time[:1]):
        result = norm_silu(x, groups, weight, bias, 1e-5, more)
        doubled = None if more is None else more.double()
        exact = reference(x.double(), groups, weight.double(), bias.double(), 1e-5, doubled)
        torch.testing.assert_close(result.double(), exact, rtol=BOUNDS[dtype], atol=BOUNDS[dtype])
        assert result.dtype == dtype and result.is_contiguous(memory_format=torch.channels_last)
        assert torch.isfinite(result).all()
        assert torch.equal(result, norm_silu(x, groups, weight, bias, 1e-5, more))


def test_norm_silu_without_silu_equals_group_norm(device: str) -> None:
    x, weight, bias, _ = inputs(device, (2, 64, 5, 7))
    result = norm_silu(x, 32, weight, bias, silu=False)
    torch.testing.assert_close(result, F.group_norm(x, 32, weight, bias), rtol=5e-6, atol=5e-6)
    torch.testing.assert_close(F.silu(result), norm_silu(x, 32, weight, bias), rtol=5e-6, atol=5e-6)


def test_norm_silu_keeps_its_precision_with_a_large_mean(device: str) -> None:
    x, weight, bias, _ = inputs(device, (1, 32, 9, 30))
    x += 1000  # float32 holds these to 6e-5
    exact = reference(x.double(), 8, weight.double(), bias.double())
    torch.testing.assert_close(norm_silu(x, 8, weight, bias), exact.float(), rtol=1e-3, atol=1e-3)


def test_norm_silu_combines_many_tiles_of_an_image(device: str) -> None:
    x, weight, bias, _ = inputs(device, (1, 4096, 1, 67))  # a position a tile, and more tiles than are read at once
    exact = reference(x.double(), 64, weight.double(), bias.double())
    torch.testing.assert_close(norm_silu(x, 64, weight, bias), exact.float(), rtol=5e-6, atol=5e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_norm_silu_combines_the_parts_of_an_image_and_blocks_of_channels(device: str, dtype: torch.dtype) -> None:
    x, weight, bias, time = inputs(device, (2, 192, 37, 29), dtype)
    assert cuts(37 * 29, 192) == (64, 64)  # 17 parts, of which the last has 49 positions, and 3 blocks
    exact = reference(x.double(), 32, weight.double(), bias.double(), 1e-5, time.double())
    result = norm_silu(x, 32, weight, bias, 1e-5, time)
    torch.testing.assert_close(result.double(), exact, rtol=BOUNDS[dtype], atol=BOUNDS[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_norm_silu_is_as_exact_with_a_mean_of_100(device: str, dtype: torch.dtype) -> None:
    x, weight, bias, time = inputs(device, (1, 64, 23, 11), dtype)
    for shifted, more in ((x + 100, None), (x, time + 100)):
        doubled = None if more is None else more.double()
        exact = reference(shifted.double(), 32, weight.double(), bias.double(), 1e-5, doubled)
        bound = {torch.float32: 5e-5, torch.float16: BOUNDS[torch.float16]}[dtype]  # float32 holds 100 to 8e-6
        result = norm_silu(shifted, 32, weight, bias, 1e-5, more)
        torch.testing.assert_close(result.double(), exact, rtol=bound, atol=bound)


@pytest.mark.parametrize(("positions", "channels"), NORMS)
def test_norm_silu_moves_little_more_than_two_reads_and_a_write(positions: int, channels: int) -> None:
    moved, least = traffic(positions, channels)
    assert 3 * 2 * positions * channels == least < moved <= 1.1 * least
    part, block = cuts(positions, channels)
    assert -(-positions // part) <= 32 and channels % block == 0


def test_norm_silu_adds_eps_to_a_small_variance(device: str) -> None:
    x, weight, bias, _ = inputs(device, (1, 32, 3, 4))
    x *= 1e-3
    for eps in (1e-6, 1e-2):
        exact = reference(x.double(), 8, weight.double(), bias.double(), eps)
        torch.testing.assert_close(norm_silu(x, 8, weight, bias, eps), exact.float(), rtol=5e-6, atol=5e-6)


def test_norm_silu_takes_a_time_embedding_that_is_part_of_a_wider_one(device: str) -> None:
    x, weight, bias, time = inputs(device, (3, 32, 3, 4))
    wide = torch.cat([time, torch.full_like(time, torch.nan)], dim=1)[:, :32]
    assert torch.equal(norm_silu(x, 8, weight, bias, 1e-5, wide), norm_silu(x, 8, weight, bias, 1e-5, time))


def test_norm_silu_of_a_constant_image_is_the_bias(device: str) -> None:
    x = torch.full((1, 32, 3, 5), 7.0, device=device).to(memory_format=torch.channels_last)
    bias = torch.linspace(-100, 100, 32, device=device)
    result = norm_silu(x, 8, torch.ones(32, device=device), bias)
    torch.testing.assert_close(result[0, :, 0, 0], F.silu(bias))


def test_norm_silu_normalises_each_frame_by_itself(device: str) -> None:
    x, weight, bias, _ = inputs(device, (3, 32, 4, 4))
    before = norm_silu(x, 8, weight, bias)
    x[1] *= 3
    after = norm_silu(x, 8, weight, bias)
    assert torch.equal(after[[0, 2]], before[[0, 2]]) and not torch.equal(after[1], before[1])


def test_norm_silu_refuses_invalid_tensors(device: str) -> None:
    x, weight, bias, time = inputs(device, (2, 32, 4, 4))
    for message, *given in (
        ("channels-last", x.contiguous(), 8, weight, bias),
        ("not a multiple of 5 groups", x, 5, weight, bias),
        ("weight and bias", x, 8, weight[:16], bias),
        ("weight and bias", x, 8, weight, torch.stack([bias, bias], dim=1)[:, 0]),
        ("time must be", x, 8, weight, bias, 1e-5, time[:, :16]),
    ):
        with pytest.raises(ValueError, match=message):
            norm_silu(*given)
