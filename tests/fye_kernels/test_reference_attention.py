import pytest
import torch
from torch import Tensor

from fye_kernels.reference_attention import FUSED, best, in_two_parts, merge, reference, reference_attention
from fye_kernels.tiles import Tiles, capability_of, split

SMALL = Tiles(16, 16, warps=1, stages=1)  # several passes over few numbers
# float32: sums of some hundred products in another order. Half precision: weights are rounded to 2**-11 before they
# are multiplied, and results once more; bfloat16 to 2**-8
BOUNDS = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def inputs(
    device: str, frames: int, queries: int, keys: int, heads: int, dim: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(queries * dim)
    shapes = [(frames, queries, heads * dim), *2 * [(frames, queries, heads * dim)], *2 * [(1, keys, heads * dim)]]
    return tuple(torch.randn(shape, generator=random).to(device, dtype) for shape in shapes)


def exact(given: tuple[Tensor, ...], heads: int, unconditional: int = 0) -> Tensor:
    """In float64: PyTorch's own attention in float32 rounds too, on a GPU as much as the kernel."""
    return reference(*(x.double() for x in given), heads, unconditional)


def close(result: Tensor, expected: Tensor, bound: float) -> None:
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=bound * float(expected.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("dim", [8, 16, 40, 80, 160])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (16, 16), (37, 21), (50, 0)])
def test_reference_attention_equals_attention_over_both_sets_of_keys(
    device: str, head: int, queries: int, keys: int
) -> None:
    given = inputs(device, 3, queries, keys, 2, head)
    for unconditional in (0, 1, 3):
        result = reference_attention(*given, 2, unconditional, tiles=SMALL)
        close(result, exact(given, 2, unconditional), BOUNDS[torch.float32])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [40, 80, 160])
def test_reference_attention_keeps_its_bound_in_half_precision(device: str, dim: int, dtype: torch.dtype) -> None:
    given = inputs(device, 2, 45, 33, 2, dim, dtype)
    for tiles in (SMALL, best(dim, 80), best(dim, 90)):
        result = reference_attention(*given, 2, 1, tiles=tiles)
        assert result.dtype == dtype
        close(result, exact(given, 2, 1), BOUNDS[dtype])


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 86, 90, 100, 120])
@pytest.mark.parametrize("dim", [40, 80, 160])
def test_the_tiles_of_every_gpu_take_the_257_keys_of_clip(device: str, dim: int, capability: int) -> None:
    if device == "cuda" and capability > capability_of(torch.device(device)):
        pytest.skip(f"needs a GPU of sm_{capability} or newer for its tiles")
    tiles = best(dim, capability)
    assert 257 % tiles.columns == 1  # whole tiles, and one key
    given = inputs(device, 1, 19, 257, 1, dim, torch.float16)
    close(reference_attention(*given, 1, tiles=tiles), exact(given, 1), BOUNDS[torch.float16])


def test_reference_attention_is_the_same_with_any_tiles(device: str) -> None:
    given = inputs(device, 1, 70, 40, 1, 40)
    for tiles in (Tiles(16, 32), Tiles(64, 16), Tiles(128, 64)):
        close(reference_attention(*given, 1, tiles=tiles), exact(given, 1), BOUNDS[torch.float32])


def test_reference_attention_takes_slices_of_one_projection(device: str) -> None:
    joined = torch.randn(2, 20, 3 * 32, generator=torch.Generator().manual_seed(0)).to(device)
    q, k, v = joined.chunk(3, dim=-1)
    assert not k.is_contiguous()
    r = torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(1)).to(device)
    result = reference_attention(q, k, v, r, r, 2, tiles=SMALL)
    close(result, exact((q, k, v, r, r), 2), BOUNDS[torch.float32])


def test_reference_attention_takes_tensors_of_different_strides(device: str) -> None:
    given = inputs(device, 3, 20, 18, 2, 40)
    apart = []
    for wider, x in enumerate(given, 1):  # rows and batches lie apart, further in every tensor
        wide = torch.full((x.shape[0], x.shape[1] + wider, x.shape[2] + 8 * wider + 8), torch.nan, device=device)
        wide[:, : x.shape[1], : x.shape[2]] = x
        apart.append(wide[:, : x.shape[1], : x.shape[2]])
    close(reference_attention(*apart, 2, 1, tiles=SMALL), exact(given, 2, 1), BOUNDS[torch.float32])


def test_reference_attention_shares_the_self_part_between_the_halves(device: str) -> None:
    q, k, v, rk, rv = inputs(device, 2, 30, 25, 2, 40)
    sums = torch.full((3, 2, 2, 30), torch.nan, device=device)
    lse = sums[:2]
    nothing = k[:1, :0]
    alone = reference_attention(q, k, v, nothing, nothing, 2, lse=lse[0], tiles=SMALL)
    portrait = reference_attention(q, nothing.expand(2, -1, -1), nothing.expand(2, -1, -1), rk, rv, 2, lse=lse[1])
    assert sums[2].isnan().all()  # nothing is written past the last query
    scores = torch.einsum("nqhd,nkhd->nhqk", *(x.unflatten(-1, (2, 40)) for x in (q, k))) / 40**0.5
    torch.testing.assert_close(lse[0], scores.logsumexp(-1), rtol=0, atol=1e-5)
    close(alone, exact((q, k, v, rk, rv), 2, 2), BOUNDS[torch.float32])
    close(merge(alone, lse[0], portrait, lse[1]), exact((q, k, v, rk, rv), 2), 5e-6)
    plain = torch.full_like(sums[0], torch.nan)
    reference(q, k, v, nothing, nothing, 2, lse=plain)
    torch.testing.assert_close(plain, lse[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("keys", "portrait"), [(257, 0), (0, 257), (64, 128), (65, 31), (63, 1), (1, 64)], ids=lambda length: str(length)
)
def test_reference_attention_counts_whole_tiles_and_the_rest_of_both_segments(
    device: str, keys: int, portrait: int, dtype: torch.dtype
) -> None:
    random = torch.Generator().manual_seed(keys)
    shapes = ((2, 19, 40), (2, keys, 40), (2, keys, 40), (1, portrait, 40), (1, portrait, 40))
    given = tuple(torch.randn(shape, generator=random).to(device, dtype) for shape in shapes)
    lse, expected = (torch.full((2, 1, 19), torch.nan, device=device) for _ in range(2))
    unconditional = 1 if keys else 0
    result = reference_attention(*given, 1, unconditional, lse=lse, tiles=Tiles(32, 64, 4, 2))
    close(result, exact(given, 1, unconditional), BOUNDS[dtype])
    reference(*given, 1, unconditional, lse=expected)
    torch.testing.assert_close(lse, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("unconditional", [0, 1, 3])
def test_two_fused_attentions_equal_reference_attention(device: str, unconditional: int, dtype: torch.dtype) -> None:
    if device == "cuda" and dtype == torch.float32:
        pytest.skip("PyTorch's fused attentions on a GPU are for half precision")
    for portrait in (7, 0):
        given = inputs(device, 3, 10, portrait, 2, 16, dtype)
        before = [x.clone() for x in given]
        for attend in FUSED[device].values():
            result = in_two_parts(*given, 2, unconditional, attend=attend)
            assert result.dtype == dtype
            close(result, exact(given, 2, unconditional), BOUNDS[dtype])
        assert all(torch.equal(x, old) for x, old in zip(given, before, strict=True))


def test_tiles_follow_the_gpu_and_newer_ones_take_those_before_them() -> None:
    sizes = {capability: [best(dim, capability) for dim in (40, 80, 160)] for capability in (80, 86, 89, 90, 103, 121)}
    assert sizes[86] == sizes[89] and sizes[103] == [best(dim, 100) for dim in (40, 80, 160)]
    assert sizes[121] == [best(dim, 120) for dim in (40, 80, 160)] and best(40, 75) == best(40, 80)
    assert sizes[90] != sizes[80] != sizes[89] and best(48, 90) == best(8, 90) != best(97, 90)


def test_reference_attention_is_reproducible_and_finite_with_large_scores(device: str) -> None:
    given = tuple(30 * x for x in inputs(device, 1, 40, 40, 1, 16))
    first = reference_attention(*given, 1, tiles=SMALL)
    torch.testing.assert_close(first.double(), exact(given, 1), rtol=1e-4, atol=1e-3)
    for _ in range(3):
        assert torch.equal(reference_attention(*given, 1, tiles=SMALL), first)


def test_reference_attention_refuses_invalid_tensors(device: str) -> None:
    q, k, v, rk, rv = inputs(device, 1, 8, 8, 2, 16)
    two = torch.cat([k, k])
    for message, *given in (
        ("channels of all tensors must be contiguous", q.mT.contiguous().mT, k, v, rk, rv, 2),
        ("channels", q, k, v, rk[..., :16], rv, 2),
        ("float32", q, k.half(), v, rk, rv, 2),
        ("multiple of 3 heads", q, k, v, rk, rv, 3),
        ("one shape", q, k[:, :4], v, rk, rv, 2),
        ("one shape", q, k, v, rk[:, :4], rv, 2),
        ("1 rows of queries", q, two, two, rk, rk, 2, 0),
        ("1 rows of queries", q, k, k, two, two, 2, 0),
        ("1 rows of queries", q, k, k, rk, rk, 2, 2),
        ("1 rows of queries", q, k, k, rk, rk, 2, -1),
    ):
        with pytest.raises(ValueError, match=message):
            reference_attention(*given)
    for lse in (torch.empty(1, 2, 7), torch.empty(1, 2, 8).half(), torch.empty(1, 8, 2).mT):
        with pytest.raises(ValueError, match="lse must be"):
            reference_attention(q, k, v, rk, rv, 2, lse=lse.to(device))


def test_head_dimensions_are_split_and_not_padded_to_a_power_of_two() -> None:
    expected = {8: (16, 0), 16: (16, 0), 40: (32, 16), 64: (64, 0), 80: (64, 16), 160: (128, 32)}
    assert {dim: split(dim) for dim in expected} == expected
