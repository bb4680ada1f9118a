"""Attention among the frames at every position, in the layout that the rest of the network has.

Rows are (batch frames) tokens channels, and stay so: two permutations of the whole tensor are not made. The positional
encoding is folded in: W (x + pe) = W x + W pe, and W pe is a bias for each frame.
"""

import math
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from fye_kernels.tiles import DIMS, LEAST, precision, split, upcast
from fye_kernels.variant import TYPES, Variant, signature

MAX_FRAMES = 32


def reference(query: Tensor, key: Tensor, value: Tensor, heads: int, frames: int, biases: Tensor | None) -> Tensor:
    """The same in plain PyTorch; see `temporal_attention`."""
    if biases is not None:
        query, key, value = (
            x.unflatten(0, (-1, frames)).add(bias[:, None]).flatten(0, 1)
            for x, bias in zip((query, key, value), biases, strict=True)
        )
    positions = query.shape[1]
    # (batch, frames, positions, heads, dim) to (batch positions, heads, frames, dim): with five dimensions PyTorch
    # would fall back from its fused attention to one operation after the other
    q, k, v = (
        x.unflatten(0, (-1, frames)).unflatten(-1, (heads, -1)).permute(0, 2, 3, 1, 4).flatten(0, 1)
        for x in (query, key, value)
    )
    attended = F.scaled_dot_product_attention(q, k, v).unflatten(0, (-1, positions))
    return attended.permute(0, 3, 1, 2, 4).reshape(-1, positions, query.shape[-1])


def temporal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    frames: int,
    biases: Tensor | None = None,
    *,
    positions_a_program: int | None = None,
    warps: int | None = None,
) -> Tensor:
    """Attend from every frame to all frames of its clip, at one position after the other.

    Args:
        query: (N F, L, C), clips one after the other, heads side by side in C; contiguous, or the channels of a wider
            contiguous tensor, as where one projection makes query, key and value.
        key: the same, with the strides of `query`.
        value: the same.
        heads: C / heads is the head dimension.
        frames: F, of a clip, 1 to 32.
        biases: (3, F, C), added to query, key and value of each frame.
        positions_a_program: positions that one program takes, a power of two; by default as many as its registers hold.
        warps: of a program, likewise.

    Returns:
        (N F, L, C), contiguous.

    Raises:
        ValueError: shapes, types or strides that don't fit together.
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
        raise ValueError(f"{channels} channels are no multiple of {heads} heads")
    if biases is not None and (biases.shape != (3, frames, channels) or not biases.is_contiguous()):
        raise ValueError(f"biases must be contiguous (3, {frames}, {channels})")
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    dim = channels // heads
    first, second = split(dim)
    held = max(LEAST, triton.next_power_of_2(frames))
    fitting = best(dim, held)
    positions_a_program = positions_a_program or fitting[0]
    _kernel[(triton.cdiv(positions, positions_a_program), heads, rows // frames)](
        *tensors,
        biases if biases is not None else query,
        out,
        frames,
        positions,
        channels,
        row,
        math.log2(math.e) / math.sqrt(dim),
        DIM=dim,
        FIRST=first,
        SECOND=second,
        POSITIONS=positions_a_program,
        FRAMES=held,
        HAS_BIAS=biases is not None,
        UPCAST=upcast(query.dtype),
        PRECISION=precision(query.dtype),
        num_warps=warps or fitting[1],
    )
    return out


def best(dim: int, frames: int) -> tuple[int, int]:
    """Positions and warps of a program, for a head dimension and 16 or 32 frames: what its registers hold."""
    return (4, 4) if dim * frames <= 2560 else (2, 8)


def variants() -> Iterator[Variant]:
    """What the released model launches: windows of up to 16 frames, and of up to 32."""
    for name, pointer in TYPES.items():
        for dim in DIMS:
            first, second = split(dim)
            for frames in (16, 32):
                held, warps = best(dim, frames)
                yield Variant(
                    f"temporal_attention_{dim}_{frames}_{name}",
                    _kernel,
                    signature(
                        dict.fromkeys(("query", "key", "value", "biases", "out"), pointer),
                        "frames positions channels row",
                        "scale",
                    ),
                    {
                        "DIM": dim,
                        "FIRST": first,
                        "SECOND": second,
                        "POSITIONS": held,
                        "FRAMES": frames,
                        "HAS_BIAS": True,
                        "UPCAST": False,
                        "PRECISION": "tf32",
                    },
                    ("query", "key", "value", "biases", "out", "channels", "row"),
                    (f"ceil(positions / {held})", f"channels / {dim}", "clips"),
                    warps,
                )


@triton.jit
def _kernel(
    query,
    key,
    value,
    biases,
    out,
    frames,
    positions,
    channels,
    row,
    scale,
    DIM: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    POSITIONS: tl.constexpr,
    FRAMES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    place = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    frame = tl.arange(0, FRAMES)
    head = tl.program_id(1) * DIM
    clip = tl.program_id(2).to(tl.int64) * frames
    inside = (place < positions)[:, None] & (frame < frames)[None, :]
    places = (clip + frame)[None, :] * positions + place[:, None]  # (POSITIONS, FRAMES)
    rows, to = places * row + head, places * channels + head
    bias = tl.where(frame < frames, frame * channels + head, -1)
    step = frames * channels

    q0 = _tile(query, rows, inside, biases, bias, 0, FIRST, DIM, HAS_BIAS, UPCAST)
    k0 = _tile(key, rows, inside, biases + step, bias, 0, FIRST, DIM, HAS_BIAS, UPCAST)
    scores = tl.dot(q0, tl.permute(k0, (0, 2, 1)), input_precision=PRECISION)
    if SECOND > 0:
        q1 = _tile(query, rows, inside, biases, bias, FIRST, SECOND, DIM, HAS_BIAS, UPCAST)
        k1 = _tile(key, rows, inside, biases + step, bias, FIRST, SECOND, DIM, HAS_BIAS, UPCAST)
        scores += tl.dot(q1, tl.permute(k1, (0, 2, 1)), input_precision=PRECISION)
    scores = tl.where((frame < frames)[None, None, :], scores * scale, -float("inf"))
    weights = tl.exp2(scores - tl.max(scores, 2)[:, :, None])
    total = tl.sum(weights, 2)[:, :, None]

    v0 = _tile(value, rows, inside, biases + 2 * step, bias, 0, FIRST, DIM, HAS_BIAS, UPCAST)
    weights = weights.to(v0.dtype)
    _store(out, to, inside, tl.dot(weights, v0, input_precision=PRECISION) / total, 0, FIRST, DIM)
    if SECOND > 0:
        v1 = _tile(value, rows, inside, biases + 2 * step, bias, FIRST, SECOND, DIM, HAS_BIAS, UPCAST)
        _store(out, to, inside, tl.dot(weights, v1, input_precision=PRECISION) / total, FIRST, SECOND, DIM)


@triton.jit
def _tile(
    data,
    rows,
    inside,
    biases,
    bias,
    START: tl.constexpr,
    SIZE: tl.constexpr,
    DIM: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """(POSITIONS, FRAMES, SIZE): columns of a head from `START` on, biased; 0 outside."""
    columns = START + tl.arange(0, SIZE)
    mask = inside[:, :, None] & (columns < DIM)[None, None, :]
    tile = tl.load(data + rows[:, :, None] + columns[None, None, :], mask=mask, other=0.0)
    if UPCAST:
        tile = tile.to(tl.float32)
    if HAS_BIAS:
        # rows past the last frame are masked in the scores, and columns past the head lie in nobody's sum
        more = tl.load(biases + bias[:, None] + columns[None, :], mask=(columns < DIM)[None, :] & (bias >= 0)[:, None])
        if UPCAST:
            more = more.to(tl.float32)
        tile += tl.where(mask, more[None, :, :], 0.0).to(tile.dtype)
    return tile


@triton.jit
def _store(out, rows, inside, tile, START: tl.constexpr, SIZE: tl.constexpr, DIM: tl.constexpr):
    columns = START + tl.arange(0, SIZE)
    mask = inside[:, :, None] & (columns < DIM)[None, None, :]
    tl.store(out + rows[:, :, None] + columns[None, None, :], tile.to(out.dtype.element_ty), mask=mask)
