"""Attention among the frames at every position, in the layout of the rest of the network.

Rows stay (batch frames) tokens channels, which saves two permutations of the whole tensor. The positional encoding is
folded in: W (x + pe) = W x + W pe, and W pe is a bias for each frame.
"""

import math
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from fye_kernels.tiles import DIMS, LEAST, precision, split, upcast
from fye_kernels.variant import TYPES, Variant, Work, signature

MAX_FRAMES = 32


def reference(query: Tensor, key: Tensor, value: Tensor, heads: int, frames: int, biases: Tensor | None) -> Tensor:
    """Compute `temporal_attention` in plain PyTorch."""
    if biases is not None:
        query, key, value = (
            x.unflatten(0, (-1, frames)).add(bias[:, None]).flatten(0, 1)
            for x, bias in zip((query, key, value), biases, strict=True)
        )
    positions = query.shape[1]
    # (batch, frames, positions, heads, dim) to (batch positions, heads, frames, dim): PyTorch's fused attention takes
    # four dimensions; with five, separate operations would run instead
    q, k, v = (
        x.unflatten(0, (-1, frames)).unflatten(-1, (heads, -1)).permute(0, 2, 3, 1, 4).flatten(0, 1)
        for x in (query, key, value)
    )
    attended = F.scaled_dot_product_attention(q, k, v).unflatten(0, (-1, positions))
    return attended.permute(0, 3, 1, 2, 4).reshape(-1, positions, query.shape[-1])


def temporal_attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int, frames: int, biases: Tensor | None = None
) -> Tensor:
    """Attend from every frame to all frames of its clip, separately at each position.

    Args:
        query: (N F, L, C), one clip after another, heads side by side in C; contiguous, or some channels of a wider
            contiguous tensor, such as a joint projection of query, key and value.
        key: shape and strides of `query`.
        value: shape and strides of `query`.
        heads: C / heads is the head dimension.
        frames: F, frames per clip, 1 to 32.
        biases: (3, F, C), added to query, key and value of each frame.

    Returns:
        (N F, L, C), contiguous.

    Raises:
        ValueError: shapes, types or strides do not match.
    """
    rows, positions, channels = query.shape
    if not 1 <= frames <= MAX_FRAMES or rows % frames:
        raise ValueError(f"{rows} rows are not clips of {frames} frames; a clip has 1 to {MAX_FRAMES}")
    tensors = (query, key, value)
    row = query.stride(1)
    if any(x.shape != query.shape or x.dtype != query.dtype for x in tensors):
        raise ValueError("query, key and value must have one shape and type")
    if any(x.stride() != (positions * row, row, 1) for x in tensors):
        raise ValueError("query, key and value must be contiguous, or channels of one contiguous tensor")
    if channels % heads:
        raise ValueError(f"{channels} channels are not a multiple of {heads} heads")
    if biases is not None and (biases.shape != (3, frames, channels) or not biases.is_contiguous()):
        raise ValueError(f"biases must be contiguous (3, {frames}, {channels})")
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    dim = channels // heads
    first, second = split(dim)
    padded_frames = max(LEAST, triton.next_power_of_2(frames))
    positions_a_program, warps = best(dim, padded_frames)
    _kernel[(heads, triton.cdiv(positions, positions_a_program), rows // frames)](
        *tensors, biases if biases is not None else query, out,
        frames, positions, channels, row, math.log2(math.e) / math.sqrt(dim),
        DIM=dim, FIRST=first, SECOND=second, POSITIONS=positions_a_program, FRAMES=padded_frames,
        HAS_BIAS=biases is not None, UPCAST=upcast(query.dtype), PRECISION=precision(query.dtype),
        num_warps=warps,
    )  # fmt: skip
    return out


def best(dim: int, frames: int) -> tuple[int, int]:
    """Return how many positions (a power of two) and warps fit a program's registers; frames are 16 or 32."""
    return (4, 4) if dim * frames <= 2560 else (2, 8)


def variants() -> Iterator[Variant]:
    """Yield the variants that the released model launches: windows of up to 16 frames, and of up to 32."""
    pointers = ("query", "key", "value", "biases", "out")
    for name, pointer in TYPES.items():
        for dim in DIMS:
            first, second = split(dim)
            for frames in (16, 32):
                positions, warps = best(dim, frames)
                sizes = {"DIM": dim, "FIRST": first, "SECOND": second, "POSITIONS": positions, "FRAMES": frames}
                yield Variant(
                    f"temporal_attention_{dim}_{frames}_{name}",
                    _kernel,
                    signature(dict.fromkeys(pointers, pointer), "frames positions channels row", "scale"),
                    sizes | {"HAS_BIAS": True, "UPCAST": False, "PRECISION": "tf32"},
                    (*pointers, "channels", "row"),
                    (f"channels / {dim}", f"ceil(positions / {positions})", "clips"),
                    Work(positions * frames * frames, 8 * dim / frames, "score", 4 * dim),
                    warps,
                )


@triton.jit
def _kernel(
    query, key, value, biases, out, frames, positions, channels, row, scale,
    DIM: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, POSITIONS: tl.constexpr, FRAMES: tl.constexpr,
    HAS_BIAS: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0) * DIM  # heads at one position lie side by side, so their programs run at one time
    place = tl.program_id(1) * POSITIONS + tl.arange(0, POSITIONS)
    frame = tl.arange(0, FRAMES)
    clip = tl.program_id(2).to(tl.int64) * frames
    inside = (place < positions)[:, None] & (frame < frames)[None, :]
    places = (clip + frame)[None, :] * positions + place[:, None]  # (POSITIONS, FRAMES)
    rows, to = places * row + head, places * channels + head
    # their own mask, and not one in the addresses, keeps the biases' loads as wide as the rows'
    bias, biased = frame * channels + head, frame < frames
    step = frames * channels

    q0 = _tile(query, rows, inside, biases, bias, biased, 0, FIRST, DIM, HAS_BIAS, UPCAST)
    k0 = _tile(key, rows, inside, biases + step, bias, biased, 0, FIRST, DIM, HAS_BIAS, UPCAST)
    scores = tl.dot(q0, tl.permute(k0, (0, 2, 1)), input_precision=PRECISION)
    if SECOND > 0:
        q1 = _tile(query, rows, inside, biases, bias, biased, FIRST, SECOND, DIM, HAS_BIAS, UPCAST)
        k1 = _tile(key, rows, inside, biases + step, bias, biased, FIRST, SECOND, DIM, HAS_BIAS, UPCAST)
        scores += tl.dot(q1, tl.permute(k1, (0, 2, 1)), input_precision=PRECISION)
    scores = tl.where((frame < frames)[None, None, :], scores * scale, -float("inf"))
    weights = tl.exp2(scores - tl.max(scores, 2)[:, :, None])
    total = tl.sum(weights, 2)[:, :, None]

    v0 = _tile(value, rows, inside, biases + 2 * step, bias, biased, 0, FIRST, DIM, HAS_BIAS, UPCAST)
    weights = weights.to(v0.dtype)
    _store(out, to, inside, tl.dot(weights, v0, input_precision=PRECISION) / total, 0, FIRST, DIM)
    if SECOND > 0:
        v1 = _tile(value, rows, inside, biases + 2 * step, bias, biased, FIRST, SECOND, DIM, HAS_BIAS, UPCAST)
        _store(out, to, inside, tl.dot(weights, v1, input_precision=PRECISION) / total, FIRST, SECOND, DIM)


@triton.jit
def _tile(
    data, rows, inside, biases, bias, biased,
    START: tl.constexpr, SIZE: tl.constexpr, DIM: tl.constexpr, HAS_BIAS: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Load `SIZE` columns of a head from `START` on, with bias, as (POSITIONS, FRAMES, SIZE); 0 outside."""
    columns = START + tl.arange(0, SIZE)
    mask = inside[:, :, None] & (columns < DIM)[None, None, :]
    tile = tl.load(data + rows[:, :, None] + columns[None, None, :], mask=mask, other=0.0)
    if UPCAST:
        tile = tile.to(tl.float32)
    if HAS_BIAS:
        # the scores mask rows past the last frame, and no sum uses columns past the head
        bias_mask = (columns < DIM)[None, :] & biased[:, None]
        added = tl.load(biases + bias[:, None] + columns[None, :], mask=bias_mask)
        if UPCAST:
            added = added.to(tl.float32)
        tile += tl.where(mask, added[None, :, :], 0.0).to(tile.dtype)
    return tile


@triton.jit
def _store(out, rows, inside, tile, START: tl.constexpr, SIZE: tl.constexpr, DIM: tl.constexpr):
    columns = START + tl.arange(0, SIZE)
    mask = inside[:, :, None] & (columns < DIM)[None, None, :]
    tl.store(out + rows[:, :, None] + columns[None, None, :], tile.to(out.dtype.element_ty), mask=mask)
