"""Attention of a frame's positions to each other and to the portrait's, whose K and V all frames share.

    softmax(q [k_self | k_reference]^T / sqrt(d)) [v_self | v_reference]

The kernel reads the portrait's K and V in place, without a copy per frame and without concatenation. In a batch with
both halves of classifier-free guidance, the unconditional rows come first and do not see the portrait.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from fye_kernels.tiles import DIMS, HALF, LEAST, Tiles, capability_of, measured, precision, split, upcast
from fye_kernels.variant import TYPES, Variant, Work, signature

# for heads of up to 48, 96 and more, by compute capability; newer GPUs take those of the last one before them
_TILES = {
    80: (Tiles(128, 128, 8, 2), Tiles(128, 64, 8, 3), Tiles(128, 32, 8, 3)),
    86: (Tiles(128, 128, 8, 2), Tiles(128, 64, 8, 2), Tiles(128, 16, 8, 2)),
    90: (Tiles(128, 128, 8, 3), Tiles(128, 128, 8, 3), Tiles(128, 64, 8, 3)),
    100: (Tiles(128, 128, 8, 3), Tiles(128, 128, 8, 3), Tiles(128, 64, 8, 3)),
    120: (Tiles(128, 128, 8, 2), Tiles(128, 128, 8, 2), Tiles(128, 32, 8, 3)),
}
_FLOAT32 = Tiles(32, 32, 4, 1)
_TAIL = tl.constexpr(LEAST)  # keys of a pass after the last whole tile


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
        tiles: by default `best` for the head dimension on this GPU, and small ones in float32.

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
    if tiles is None:
        tiles = best(dim, capability_of(query.device)) if query.dtype in HALF else _FLOAT32
    _kernel[(triton.cdiv(positions, tiles.rows), batch * heads)](
        *tensors, out, lse if lse is not None else out,
        positions, key.shape[1], reference_key.shape[1], unconditional, heads, math.log2(math.e) / math.sqrt(dim),
        *query.stride()[:2], *key.stride()[:2], *value.stride()[:2], reference_key.stride(1), reference_value.stride(1),
        DIM=dim, FIRST=first, SECOND=second, ROWS=tiles.rows, COLUMNS=tiles.columns,
        HAS_LSE=lse is not None, UPCAST=upcast(query.dtype), PRECISION=precision(query.dtype),
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    return out


def merge(first: Tensor, first_lse: Tensor, second: Tensor, second_lse: Tensor) -> Tensor:
    """Combine attention to two sets of keys into attention to both, (N, L, C) in the type of `first`.

    Attention to each set is (N, L, C) and comes with its `lse`, float32 (N, heads, L); see `reference_attention`.
    """
    share = torch.sigmoid(first_lse - second_lse).transpose(1, 2)[..., None]  # e^a / (e^a + e^b)
    a, b = (x.unflatten(-1, (share.shape[2], -1)).float() for x in (first, second))
    return torch.lerp(b, a, share).flatten(2).to(first.dtype)


def in_two_parts(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    reference_key: Tensor,
    reference_value: Tensor,
    heads: int,
    unconditional: int = 0,
    *,
    attend: Callable[..., Any],
) -> Tensor:
    """Compute `reference_attention` by two of PyTorch's fused attentions, without concatenation of keys and values.

    All frames share the portrait's keys, so their queries are one attention to it.

    Args:
        query: as the other tensors and numbers, an argument of `reference_attention`.
        key: (N, L', C).
        value: (N, L', C).
        reference_key: (1, R, C).
        reference_value: (1, R, C).
        heads: number of heads.
        unconditional: number of leading batch rows that do not see the portrait.
        attend: one of `FUSED`.
    """

    def attended(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        out, sums = attend(*(x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v)))[:2]
        return out.transpose(1, 2).flatten(2), sums.reshape(len(q), heads, -1)

    own, own_sums = attended(query, key, value)
    seeing = query[unconditional:]
    if not len(seeing) or not reference_key.shape[1]:
        return own
    portrait, sums = attended(seeing.reshape(1, -1, query.shape[-1]), reference_key, reference_value)
    sums = sums.view(heads, len(seeing), -1).transpose(0, 1)
    own[unconditional:] = merge(portrait.view_as(seeing), sums, own[unconditional:], own_sums[unconditional:])
    return own


def _cudnn(query: Tensor, key: Tensor, value: Tensor) -> Any:
    return torch.ops.aten._scaled_dot_product_cudnn_attention(query, key, value, None, True)


# PyTorch's fused attentions that return the logarithms of their sums, by device: which one is fastest is not known
FUSED: dict[str, dict[str, Callable[..., Any]]] = {
    "cuda": {"flash": torch.ops.aten._scaled_dot_product_flash_attention, "cudnn": _cudnn},
    "cpu": {"flash": torch.ops.aten._scaled_dot_product_flash_attention_for_cpu},
}


def best(dim: int, capability: int) -> Tiles:
    """Return the tiles for a head dimension on a GPU: those measured on it (`fye_kernels.tiles.measured`), if any.

    Otherwise they issue the fewest instructions per score of those that spill no registers and fit into the GPU's
    shared memory. They are for half precision.

    Args:
        dim: head dimension.
        capability: compute capability, 10 major + minor, as from `fye_kernels.tiles.capability_of`.
    """
    if (tiles := measured("reference_attention", dim)) is not None:
        return tiles
    known = max((each for each in _TILES if each <= capability), default=min(_TILES))
    return _TILES[known][0 if dim <= 48 else 1 if dim <= 96 else 2]


def variants(capability: int) -> Iterator[Variant]:
    """Yield the variants that the released model launches on a GPU (see `best`), with and without `lse`."""
    numbers = (
        "positions keys references unconditional heads query_batch query_row key_batch key_row value_batch value_row "
        "reference_key_row reference_value_row"
    )
    pointers = ("query", "key", "value", "reference_key", "reference_value", "out")
    for name, pointer in TYPES.items():
        for dim in DIMS:
            tiles, (first, second) = best(dim, capability), split(dim)
            sizes = {"DIM": dim, "FIRST": first, "SECOND": second, "ROWS": tiles.rows, "COLUMNS": tiles.columns}
            for has_lse in (False, True):
                yield Variant(
                    f"reference_attention_{dim}{'_lse' if has_lse else ''}_{name}",
                    _kernel,
                    signature(dict.fromkeys(pointers, pointer) | {"lse": "*fp32"}, numbers, "scale"),
                    sizes | {"HAS_LSE": has_lse, "UPCAST": False, "PRECISION": "tf32"},
                    (*pointers, "lse", *(number for number in numbers.split() if number.endswith(("_batch", "_row")))),
                    (f"ceil(positions / {tiles.rows})", "batch * heads"),
                    Work(tiles.rows * tiles.columns, 4 * dim / tiles.rows, "score", 4 * dim),
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
    q0 = _tile(q, query_row, inside, 0, FIRST, DIM, True, UPCAST)
    acc0 = tl.zeros((ROWS, FIRST), tl.float32)
    if SECOND > 0:
        q1 = _tile(q, query_row, inside, FIRST, SECOND, DIM, True, UPCAST)
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
def _tile(
    data, stride, inside,
    START: tl.constexpr, SIZE: tl.constexpr, DIM: tl.constexpr, MASKED: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Load rows of a matrix, `SIZE` columns from `START` on; 0 outside. Without `MASKED` all rows are inside."""
    rows, columns = tl.arange(0, inside.shape[0]), START + tl.arange(0, SIZE)
    at = data + (rows[:, None] * stride + columns[None, :])
    if START + SIZE > DIM:
        within = (columns < DIM)[None, :]
        tile = tl.load(at, mask=within & inside[:, None] if MASKED else within, other=0.0)
    elif MASKED:
        tile = tl.load(at, mask=inside[:, None], other=0.0)
    else:
        tile = tl.load(at)
    return tile.to(tl.float32) if UPCAST else tile


@triton.jit
def _attend(
    q0, q1, acc0, acc1, total, peak, scale, key, key_row, value, value_row, length,
    DIM: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, COLUMNS: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add attention to one segment of keys to the accumulators: whole tiles, then what is left of it."""
    whole = length // COLUMNS * COLUMNS
    for _ in range(0, whole, COLUMNS):
        acc0, acc1, total, peak = _pass(
            q0, q1, acc0, acc1, total, peak, scale, key, key_row, value, value_row, COLUMNS,
            DIM, FIRST, SECOND, COLUMNS, False, UPCAST, PRECISION,
        )  # fmt: skip
        key += COLUMNS * key_row
        value += COLUMNS * value_row
    for start in tl.range(whole, length, _TAIL, num_stages=1):
        acc0, acc1, total, peak = _pass(
            q0, q1, acc0, acc1, total, peak, scale, key, key_row, value, value_row, length - start,
            DIM, FIRST, SECOND, _TAIL, True, UPCAST, PRECISION,
        )  # fmt: skip
        key += _TAIL * key_row
        value += _TAIL * value_row
    return acc0, acc1, total, peak


@triton.jit
def _pass(
    q0, q1, acc0, acc1, total, peak, scale, key, key_row, value, value_row, length,
    DIM: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, COLUMNS: tl.constexpr, MASKED: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add attention to one tile of keys to the accumulators (online softmax, Milakov and Gimelshein 2018)."""
    inside = tl.arange(0, COLUMNS) < length
    k0 = _tile(key, key_row, inside, 0, FIRST, DIM, MASKED, UPCAST)
    scores = tl.dot(q0, tl.trans(k0), input_precision=PRECISION)
    if SECOND > 0:
        k1 = _tile(key, key_row, inside, FIRST, SECOND, DIM, MASKED, UPCAST)
        scores = tl.dot(q1, tl.trans(k1), scores, input_precision=PRECISION)
    if MASKED:
        scores = tl.where(inside[None, :], scores, -float("inf"))
    new_peak = tl.maximum(peak, tl.max(scores, 1) * scale)
    shrink = tl.exp2(peak - new_peak)
    weights = tl.exp2(scores * scale - new_peak[:, None])  # one fused operation per score
    total = total * shrink + tl.sum(weights, 1)
    v0 = _tile(value, value_row, inside, 0, FIRST, DIM, MASKED, UPCAST)
    weights = weights.to(v0.dtype)
    acc0 = tl.dot(weights, v0, acc0 * shrink[:, None], input_precision=PRECISION)
    if SECOND > 0:
        v1 = _tile(value, value_row, inside, FIRST, SECOND, DIM, MASKED, UPCAST)
        acc1 = tl.dot(weights, v1, acc1 * shrink[:, None], input_precision=PRECISION)
    return acc0, acc1, total, new_peak
