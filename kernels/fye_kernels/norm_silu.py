"""Group norm and SiLU of channels-last frames, after adding the time embedding.

    y = silu(group_norm(x + t)), or without SiLU

PyTorch reads and writes memory three times. Here one pass reads for the statistics, and another reads and writes.
Variances are sums of squared distances from means, combined over tiles (Chan, Golub and LeVeque 1983), so that a large
mean costs no precision.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from fye_kernels.variant import TYPES, Variant, signature

_ELEMENTS = 4096  # in one program's tile


def reference(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    time: Tensor | None = None,
    *,
    silu: bool = True,
) -> Tensor:
    """Compute `norm_silu` in plain PyTorch, over (N, C, h, w)."""
    if time is not None:
        x = x + time[:, :, None, None]
    normed = F.group_norm(x, groups, weight, bias, eps)
    return F.silu(normed) if silu else normed


def norm_silu(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    time: Tensor | None = None,
    *,
    silu: bool = True,
) -> Tensor:
    """Normalise in groups of channels, then apply SiLU.

    Args:
        x: (N, C, h, w) in channels-last memory.
        groups: number of groups; each shares one mean and variance. C is a multiple of it.
        weight: (C,).
        bias: (C,).
        eps: added to the variance.
        time: (N, C) or (1, C), added to every position of x first.
        silu: whether to apply SiLU.

    Returns:
        (N, C, h, w) in the type and layout of `x`. Statistics are computed in float32.

    Raises:
        ValueError: shapes or strides do not match.
    """
    if not x.is_contiguous(memory_format=torch.channels_last):
        raise ValueError("x must be in channels-last memory")
    batch, channels, height, width = x.shape
    if channels % groups:
        raise ValueError(f"{channels} channels are not a multiple of {groups} groups")
    if any(vector.shape != (channels,) or vector.stride() != (1,) for vector in (weight, bias)):
        raise ValueError(f"weight and bias must be contiguous ({channels},)")
    if time is not None and (time.shape[1] != channels or time.shape[0] not in (1, batch) or time.stride(1) != 1):
        raise ValueError(f"time must be ({batch} or 1, {channels}), not {tuple(time.shape)}")
    positions = height * width
    block = triton.next_power_of_2(channels)
    rows = max(1, _ELEMENTS // block)
    parts = triton.cdiv(positions, rows)
    tiles = torch.empty((batch, parts, 2, channels), dtype=torch.float32, device=x.device)
    factors = torch.empty((batch, 2, channels), dtype=torch.float32, device=x.device)
    out = torch.empty_like(x)
    time_row = 0 if time is None or time.shape[0] == 1 else time.stride(0)
    inputs = (x, x if time is None else time)
    sizes = (positions, time_row, channels)
    shape = {"HAS_TIME": time is not None, "BLOCK": block, "ROWS": rows}
    _measure_kernel[(parts, batch)](*inputs, tiles, *sizes, **shape)
    _fold_kernel[(groups, batch)](
        tiles, weight, factors, positions, channels, channels // groups, parts, eps,
        BLOCK=triton.next_power_of_2(channels // groups), ROWS=rows, PARTS=min(64, triton.next_power_of_2(parts)),
    )  # fmt: skip
    _apply_kernel[(parts, batch)](*inputs, factors, bias, out, *sizes, **shape, SILU=silu)
    return out


def variants() -> Iterator[Variant]:
    """Yield the variants that the released model launches: 320 to 2560 channels in 32 groups."""
    for name, pointer in TYPES.items():
        for channels in (320, 640, 1280, 2560):
            block = triton.next_power_of_2(channels)
            rows, group = max(1, _ELEMENTS // block), triton.next_power_of_2(channels // 32)
            grid = (f"ceil(positions / {rows})", "batch")
            sizes, aligned = "positions time_row channels", ("x", "time", "time_row", "channels", "out")
            for has_time in (False, True):
                shape = {"HAS_TIME": has_time, "BLOCK": block, "ROWS": rows}
                kind = f"{block}{'_time' if has_time else ''}_{name}"
                inputs = {"x": pointer, "time": pointer}
                yield Variant(
                    f"norm_silu_measure_{kind}",
                    _measure_kernel,
                    signature(inputs | {"tiles": "*fp32"}, sizes),
                    shape,
                    (*aligned[:-1], "tiles"),
                    grid,
                )
                for silu in (True,) if has_time else (True, False):
                    yield Variant(
                        f"norm_silu_apply_{'' if silu else 'plain_'}{kind}",
                        _apply_kernel,
                        signature(inputs | {"factors": "*fp32", "bias": pointer, "out": pointer}, sizes),
                        shape | {"SILU": silu},
                        (*aligned, "factors", "bias"),
                        grid,
                    )
            arrays = {"tiles": "*fp32", "weight": pointer, "factors": "*fp32"}
            yield Variant(
                f"norm_silu_fold_{block}_{name}",
                _fold_kernel,
                signature(arrays, "positions channels group parts", "eps"),
                {"BLOCK": group, "ROWS": rows, "PARTS": 64},
                ("tiles", "weight", "factors", "channels"),
                ("groups", "batch"),
            )


@triton.jit
def _rows(x, time, positions, time_row, channels, HAS_TIME: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    """Load a (ROWS, BLOCK) tile in float32; returns it with its offsets and the mask of what lies inside."""
    image = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK)
    inside = (row < positions)[:, None] & (channel < channels)[None, :]
    at = (image * positions + row)[:, None] * channels + channel[None, :]
    tile = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_TIME:
        embedding = tl.load(time + image * time_row + channel, mask=channel < channels, other=0.0).to(tl.float32)
        tile = tl.where(inside, tile + embedding[None, :], 0.0)
    return tile, at, inside


@triton.jit
def _measure_kernel(
    x, time, tiles, positions, time_row, channels, HAS_TIME: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr
):
    """Store the mean of each tile and channel, and the sum of squared distances from it."""
    tile, _, inside = _rows(x, time, positions, time_row, channels, HAS_TIME, BLOCK, ROWS)
    channel = tl.arange(0, BLOCK)
    count = tl.minimum(positions - tl.program_id(0) * ROWS, ROWS).to(tl.float32)
    mean = tl.sum(tile, 0) / count
    off = tl.where(inside, tile - mean[None, :], 0.0)
    part = (tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)) * 2
    tl.store(tiles + part * channels + channel, mean, mask=channel < channels)
    tl.store(tiles + (part + 1) * channels + channel, tl.sum(off * off, 0), mask=channel < channels)


@triton.jit
def _fold_kernel(
    tiles, weight, factors, positions, channels, group, parts, eps,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Store each channel's weight divided by its group's standard deviation, and the group's mean."""
    image = tl.program_id(1).to(tl.int64)
    member = tl.arange(0, BLOCK)
    channel = tl.program_id(0) * group + member
    valid = member < group
    total = (positions * group).to(tl.float32)
    mean = 0.0
    for start in range(0, parts, PARTS):
        means, _, count, _ = _parts(tiles, image, start, channel, valid, positions, channels, parts, ROWS, PARTS)
        mean += tl.sum(means * count) / total
    variance = 0.0
    for start in range(0, parts, PARTS):
        means, sums, count, inside = _parts(
            tiles, image, start, channel, valid, positions, channels, parts, ROWS, PARTS
        )
        off = tl.where(inside, means - mean, 0.0)
        variance += tl.sum(sums + off * off * count) / total
    scale = tl.load(weight + channel, mask=member < group).to(tl.float32) * tl.rsqrt(variance + eps)
    tl.store(factors + image * 2 * channels + channel, scale, mask=member < group)
    tl.store(factors + (image * 2 + 1) * channels + channel, tl.zeros_like(scale) + mean, mask=member < group)


@triton.jit
def _parts(tiles, image, start, channel, member, positions, channels, parts, ROWS: tl.constexpr, PARTS: tl.constexpr):
    """Load means, sums of squares, numbers of positions and the mask of valid parts: (PARTS, channels of a group)."""
    part = start + tl.arange(0, PARTS)
    inside = (part < parts)[:, None] & member[None, :]
    at = tiles + ((image * parts + part) * 2)[:, None] * channels + channel[None, :]
    count = tl.minimum(positions - part * ROWS, ROWS).to(tl.float32)[:, None]
    return tl.load(at, mask=inside, other=0.0), tl.load(at + channels, mask=inside, other=0.0), count, inside


@triton.jit
def _apply_kernel(
    x, time, factors, bias, out, positions, time_row, channels,
    HAS_TIME: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    tile, at, inside = _rows(x, time, positions, time_row, channels, HAS_TIME, BLOCK, ROWS)
    channel = tl.arange(0, BLOCK)
    to = factors + tl.program_id(1).to(tl.int64) * 2 * channels + channel
    scale = tl.load(to, mask=channel < channels)
    mean = tl.load(to + channels, mask=channel < channels)
    shift = tl.load(bias + channel, mask=channel < channels).to(tl.float32)
    y = (tile - mean[None, :]) * scale[None, :] + shift[None, :]
    if SILU:
        decay = tl.exp(-tl.abs(y))  # at most 1: nothing overflows
        y = y * tl.where(y < 0, decay, 1.0) / (1.0 + decay)
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)
