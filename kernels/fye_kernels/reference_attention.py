"""Attention of a frame's positions to each other and to the portrait's, whose K and V all frames share.

    softmax(q [k_self | k_reference]^T / sqrt(d)) [v_self | v_reference]

The kernel reads the portrait's K and V in place, without a copy per frame and without concatenation. In a batch with
both halves of classifier-free guidance, the unconditional rows come first and do not see the portrait.
"""

import math
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from fye_kernels.tiles import DIMS, Tiles, measured, precision, split, upcast
from fye_kernels.variant import TYPES, Variant, signature


def reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    reference_key: Tensor,
    reference_value: Tensor,
    heads: int,
    unconditional: int = 0,
    *,
    lse: Tensor | None = None,
) -> Tensor:
    """Compute `reference_attention` in plain PyTorch."""

    def attend(rows: slice, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query[rows], k, v))
        if lse is not None:
            # frame by frame: all scores of a clip would take many gigabytes
            for sums, queries, keys in zip(lse[rows], q, k, strict=True):
                sums.copy_((queries.float() @ keys.float().mT / math.sqrt(q.shape[-1])).logsumexp(dim=-1))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    u = unconditional
    frames = len(query) - u
    k = torch.cat([key[u:], reference_key.expand(frames, -1, -1)], dim=1)
    v = torch.cat([value[u:], reference_value.expand(frames, -1, -1)], dim=1)
    conditional = attend(slice(u, None), k, v)
    return torch.cat([attend(slice(u), key[:u], value[:u]), conditional]) if u else conditional


def reference_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    reference_key: Tensor,
    reference_value: Tensor,
    heads: int,
    unconditional: int = 0,
    *,
    lse: Tensor | None = None,
    tiles: Tiles | None = None,
) -> Tensor:
    """Attend from every frame to itself and to the portrait.

    Args:
        query: (N, L, C), heads side by side in C; C has stride 1, other strides are free.
        key: (N, L', C), keys of the frames.
        value: (N, L', C), values of the frames.
        reference_key: (1, R, C), keys of the portrait; R may be 0.
        reference_value: (1, R, C), values of the portrait.
        heads: C / heads is the head dimension.
        unconditional: number of leading batch rows that do not see the portrait.
        lse: float32 (N, heads, L), receives the logarithm of each query's sum of exponentials; `merge` needs it to
            combine attention to separate sets of keys.
        tiles: by default `best` for the head dimension.

    Returns:
        (N, L, C), contiguous.

    Raises:
        ValueError: shapes, types or strides do not match.
    """
    batch, positions, channels = query.shape
    dim = channels // heads
    tensors = (query, key, value, reference_key, reference_value)
    if any(x.stride(-1) != 1 for x in tensors):
        raise ValueError("the channels of all tensors must be contiguous")
    if any(x.shape[-1] != channels or x.dtype != query.dtype for x in tensors) or channels % heads:
        raise ValueError(f"all tensors need {channels} channels, a multiple of {heads} heads, of {query.dtype}")
    if key.shape != value.shape or reference_key.shape != reference_value.shape:
        raise ValueError("key and value must have one shape, and so must reference_key and reference_value")
    if len(key) != batch or len(reference_key) != 1 or not 0 <= unconditional <= batch:
        raise ValueError(
            f"{batch} rows of queries need {batch} of keys, one of portrait keys, and 0 to {batch} unconditional rows"
        )
    if lse is not None and (lse.shape != (batch, heads, positions) or lse.dtype != torch.float32):
        raise ValueError(f"lse must be float32 ({batch}, {heads}, {positions}), not {lse.dtype} {tuple(lse.shape)}")
    if lse is not None and not lse.is_contiguous():
        raise ValueError("lse must be contiguous")
    out = torch.empty((batch, positions, channels), dtype=query.dtype, device=query.device)
    first, second = split(dim)
    tiles = tiles or best(dim)
    _kernel[(triton.cdiv(positions, tiles.rows), batch * heads)](
        *tensors, out, lse if lse is not None else out,
        positions, key.shape[1], reference_key.shape[1], unconditional, heads, math.log2(math.e) / math.sqrt(dim),
        *query.stride()[:2], *key.stride()[:2], *value.stride()[:2], reference_key.stride(1), reference_value.stride(1),
        DIM=dim, FIRST=first, SECOND=second, ROWS=tiles.rows, COLUMNS=tiles.columns,
        HAS_LSE=lse is not None, UPCAST=upcast(query.dtype), PRECISION=precision(query.dtype),
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    return out


def merge(one: Tensor, one_lse: Tensor, other: Tensor, other_lse: Tensor) -> Tensor:
    """Combine attention to two sets of keys into attention to both, (N, L, C) in the type of `one`.

    Attention to each set is (N, L, C) and comes with its `lse`, float32 (N, heads, L); see `reference_attention`.
    """
    share = torch.sigmoid(one_lse - other_lse).transpose(1, 2)[..., None]  # e^a / (e^a + e^b)
    first, second = (x.unflatten(-1, (share.shape[2], -1)).float() for x in (one, other))
    return torch.lerp(second, first, share).flatten(2).to(one.dtype)


def best(dim: int) -> Tiles:
    """Return the tiles measured on this GPU for a head dimension (`fye_kernels.tiles.measured`).

    Without a measurement, return the largest tiles that spill no registers from sm_80 to sm_120a.
    """
    if (tiles := measured("reference_attention", dim)) is not None:
        return tiles
    if dim <= 48:
        return Tiles(128, 64, warps=8, stages=3)
    if dim <= 96:
        return Tiles(64, 32, warps=8, stages=2)
    return Tiles(64, 16, warps=8, stages=2)


def variants() -> Iterator[Variant]:
    """Yield the variants that the released model launches, with and without `lse`."""
    numbers = (
        "positions keys references unconditional heads query_batch query_row key_batch key_row value_batch value_row "
        "reference_key_row reference_value_row"
    )
    pointers = ("query", "key", "value", "reference_key", "reference_value", "out")
    for name, pointer in TYPES.items():
        for dim in DIMS:
            tiles, (first, second) = best(dim), split(dim)
            sizes = {"DIM": dim, "FIRST": first, "SECOND": second, "ROWS": tiles.rows, "COLUMNS": tiles.columns}
            for has_lse in (False, True):
                yield Variant(
                    f"reference_attention_{dim}{'_lse' if has_lse else ''}_{name}",
                    _kernel,
                    signature(dict.fromkeys(pointers, pointer) | {"lse": "*fp32"}, numbers, "scale"),
                    sizes | {"HAS_LSE": has_lse, "UPCAST": False, "PRECISION": "tf32"},
                    (*pointers, "lse", *(number for number in numbers.split() if number.endswith(("_batch", "_row")))),
                    (f"ceil(positions / {tiles.rows})", "batch * heads"),
                    tiles.warps,
                    tiles.stages,
                )


@triton.jit
def _kernel(
    query, key, value, reference_key, reference_value, out, lse,
    positions, keys, references, unconditional, heads, scale,
    query_batch, query_row, key_batch, key_row, value_batch, value_row, reference_key_row, reference_value_row,
    DIM: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    HAS_LSE: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    batch = (tl.program_id(1) // heads).to(tl.int64)
    head = tl.program_id(1) % heads
    inside = rows < positions
    start = head * DIM
    q = query + batch * query_batch + tl.program_id(0).to(tl.int64) * ROWS * query_row + start
    q0 = _tile(q, query_row, inside, 0, FIRST, DIM, UPCAST)
    acc0 = tl.zeros((ROWS, FIRST), tl.float32)
    if SECOND > 0:
        q1 = _tile(q, query_row, inside, FIRST, SECOND, DIM, UPCAST)
        acc1 = tl.zeros((ROWS, SECOND), tl.float32)
    else:
        q1 = q0
        acc1 = acc0
    total = tl.zeros((ROWS,), tl.float32)
    peak = tl.full((ROWS,), -float("inf"), tl.float32)

    acc0, acc1, total, peak = _attend(
        q0, q1, acc0, acc1, total, peak, scale,
        key + batch * key_batch + start, key_row, value + batch * value_batch + start, value_row, keys,
        DIM, FIRST, SECOND, COLUMNS, UPCAST, PRECISION,
    )  # fmt: skip
    acc0, acc1, total, peak = _attend(
        q0, q1, acc0, acc1, total, peak, scale,
        reference_key + start, reference_key_row, reference_value + start, reference_value_row,
        tl.where(batch < unconditional, 0, references),
        DIM, FIRST, SECOND, COLUMNS, UPCAST, PRECISION,
    )  # fmt: skip

    acc0 = acc0 / total[:, None]
    to = out + (batch * positions + rows[:, None]) * heads * DIM + start
    columns = tl.arange(0, FIRST)
    tl.store(to + columns[None, :], acc0.to(out.dtype.element_ty), mask=inside[:, None] & (columns < DIM)[None, :])
    if SECOND > 0:
        acc1 = acc1 / total[:, None]
        columns = FIRST + tl.arange(0, SECOND)
        tl.store(to + columns[None, :], acc1.to(out.dtype.element_ty), mask=inside[:, None] & (columns < DIM)[None, :])
    if HAS_LSE:
        tl.store(lse + (batch * heads + head) * positions + rows, (peak + tl.log2(total)) * 0.6931471805599453, inside)


@triton.jit
def _tile(data, stride, inside, START: tl.constexpr, SIZE: tl.constexpr, DIM: tl.constexpr, UPCAST: tl.constexpr):
    """Load rows of a matrix, `SIZE` columns from `START` on; 0 outside."""
    columns = START + tl.arange(0, SIZE)
    mask = inside[:, None]
    if START + SIZE > DIM:
        mask = mask & (columns < DIM)[None, :]
    rows = tl.arange(0, inside.shape[0])
    tile = tl.load(data + (rows[:, None] * stride + columns[None, :]), mask=mask, other=0.0)
    return tile.to(tl.float32) if UPCAST else tile


@triton.jit
def _attend(
    q0, q1, acc0, acc1, total, peak, scale, key, key_row, value, value_row, length,
    DIM: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, COLUMNS: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add attention to one segment of keys to the accumulators (online softmax, Milakov and Gimelshein 2018)."""
    for start in range(0, length, COLUMNS):
        inside = start + tl.arange(0, COLUMNS) < length
        k0 = _tile(key, key_row, inside, 0, FIRST, DIM, UPCAST)
        scores = tl.dot(q0, tl.trans(k0), input_precision=PRECISION)
        if SECOND > 0:
            k1 = _tile(key, key_row, inside, FIRST, SECOND, DIM, UPCAST)
            scores = tl.dot(q1, tl.trans(k1), scores, input_precision=PRECISION)
        scores = tl.where(inside[None, :], scores * scale, -float("inf"))
        new_peak = tl.maximum(peak, tl.max(scores, 1))
        shrink = tl.exp2(peak - new_peak)
        weights = tl.exp2(scores - new_peak[:, None])
        total = total * shrink + tl.sum(weights, 1)
        v0 = _tile(value, value_row, inside, 0, FIRST, DIM, UPCAST)
        weights = weights.to(v0.dtype)
        acc0 = tl.dot(weights, v0, acc0 * shrink[:, None], input_precision=PRECISION)
        if SECOND > 0:
            v1 = _tile(value, value_row, inside, FIRST, SECOND, DIM, UPCAST)
            acc1 = tl.dot(weights, v1, acc1 * shrink[:, None], input_precision=PRECISION)
        peak = new_peak
        key += COLUMNS * key_row
        value += COLUMNS * value_row
    return acc0, acc1, total, peak
