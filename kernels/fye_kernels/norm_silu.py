"""Group norm and SiLU of channels-last frames, after adding the time embedding.

    y = silu(group_norm(x + t)), or without SiLU

PyTorch reads and writes memory three times. Here one pass reads for the statistics, and another reads and writes.
Variances are sums of squared distances from running means (Welford 1962), combined over rows and parts of an image
(Chan, Golub and LeVeque 1983), so that a large mean costs no precision.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from fye_kernels.variant import TYPES, Variant, Work, signature

_MEASURED, _APPLIED = 2048, 4096  # elements of a tile
_CHANNELS = (64, 512)  # of a tile: at least a line of memory in half precision
_PARTS = 32  # most parts of an image; one pass reads the statistics of all
_POSITIONS = 32  # fewest of a part: its statistics take as much memory as four positions


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
    cut = cuts(positions, channels)
    parts, group = triton.cdiv(positions, cut.part), channels // groups
    statistics = torch.empty((batch, parts, 2, channels), dtype=torch.float32, device=x.device)
    factors = torch.empty((batch, 2, groups), dtype=torch.float32, device=x.device)
    out = torch.empty_like(x)
    embedding, time_row = (x, 0) if time is None else (time, 0 if time.shape[0] == 1 else time.stride(0))
    blocks = triton.cdiv(channels, cut.block)
    _measure_kernel[(blocks * parts, batch)](
        x, statistics, positions, channels, parts, cut.part, BLOCK=cut.block, ROWS=_MEASURED // cut.block
    )
    _fold_kernel[(groups, batch)](
        statistics, embedding, factors, positions, time_row, channels, group, parts, cut.part, eps,
        HAS_TIME=time is not None, BLOCK=_padded(group), PARTS=_PARTS,
    )  # fmt: skip
    rows = _APPLIED // cut.block
    _apply_kernel[(blocks * triton.cdiv(positions, rows), batch)](
        x, embedding, factors, weight, bias, out, positions, time_row, channels, group, 1 / group,
        HAS_TIME=time is not None, BLOCK=cut.block, ROWS=rows, SILU=silu,
    )  # fmt: skip
    return out


class Cut(NamedTuple):
    """How the statistics of an image are cut into programs.

    Attributes:
        part: positions of a program.
        block: channels of a program, a power of two.
    """

    part: int
    block: int


def cuts(positions: int, channels: int) -> Cut:
    """Choose how the statistics of images are cut: 32 parts, or fewer if they would have under 32 positions."""
    smallest, largest = _CHANNELS
    block = min(largest, max(smallest, channels & -channels))  # divides the channels of the released model
    rows = _MEASURED // block
    return Cut(triton.cdiv(max(_POSITIONS, triton.cdiv(positions, _PARTS)), rows) * rows, block)


def traffic(positions: int, channels: int, groups: int = 32, size: int = 2) -> tuple[int, int]:
    """Return bytes that the kernels move per image, and the least possible: two reads and one write of x.

    Args:
        positions: height times width.
        channels: channels of x.
        groups: groups of channels.
        size: bytes of a number of x.
    """
    least = 3 * positions * channels * size
    statistics = triton.cdiv(positions, cuts(positions, channels).part) * 2 * channels
    return least + 2 * 4 * (statistics + 2 * groups) + 2 * channels * size, least


def _padded(group: int) -> int:
    return max(16, triton.next_power_of_2(group))


def variants() -> Iterator[Variant]:
    """Yield the variants that the released model launches: 320 to 2560 channels in 32 groups, and the VAE's 128 to 512.

    Tiles of 64 channels are for 320 and 960, of 128 for 640 and 1920, of 256 for 1280, and of 512 for 2560.
    """
    for name, pointer in TYPES.items():
        for block in (64, 128, 256, 512):
            rows = _MEASURED // block
            yield Variant(
                f"norm_silu_measure_{block}_{name}",
                _measure_kernel,
                signature({"x": pointer, "statistics": "*fp32"}, "positions channels parts part"),
                {"BLOCK": block, "ROWS": rows},
                ("x", "statistics", "channels"),
                (f"ceil(channels / {block}) * parts", "batch"),
                Work(_MEASURED, 2),
            )
            pointers = {"x": pointer, "time": pointer, "factors": "*fp32", "weight": pointer, "bias": pointer}
            pointers |= {"out": pointer}
            rows = _APPLIED // block
            for has_time, silu in ((True, True), (False, True), (False, False)):
                yield Variant(
                    f"norm_silu_apply_{'' if silu else 'plain_'}{block}{'_time' if has_time else ''}_{name}",
                    _apply_kernel,
                    signature(pointers, "positions time_row channels group", "inverse"),
                    {"HAS_TIME": has_time, "BLOCK": block, "ROWS": rows, "SILU": silu},
                    (*pointers, "time_row", "channels"),
                    (f"ceil(channels / {block}) * ceil(positions / {rows})", "batch"),
                    Work(_APPLIED, 4),
                )
        for group in (16, 32, 64, 128):
            for has_time in (True, False):
                yield Variant(
                    f"norm_silu_fold_{group}{'_time' if has_time else ''}_{name}",
                    _fold_kernel,
                    signature(
                        {"statistics": "*fp32", "time": pointer, "factors": "*fp32"},
                        "positions time_row channels group parts part",
                        "eps",
                    ),
                    {"HAS_TIME": has_time, "BLOCK": group, "PARTS": _PARTS},
                    ("statistics", "time", "factors", "time_row", "channels"),
                    ("groups", "batch"),
                    Work(_PARTS * group, 8),
                )


@triton.jit
def _measure_kernel(x, statistics, positions, channels, parts, part, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    """Store the mean of each channel over a part of an image, and the sum of squared distances from it."""
    blocks = tl.cdiv(channels, BLOCK)  # neighbouring programs read neighbouring channels
    image = tl.program_id(1).to(tl.int64)
    number = tl.program_id(0) // blocks
    channel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    valid = channel < channels
    first = number * part
    length = tl.minimum(part, positions - first)
    row = tl.arange(0, ROWS)
    start = x + (image * positions + first) * channels
    at = row[:, None] * channels + channel[None, :]
    # every element of the tile keeps a mean of its own, so that the loop has no sums across threads
    mean = tl.zeros((ROWS, BLOCK), tl.float32)
    squares = tl.zeros((ROWS, BLOCK), tl.float32)
    seen = 0.0
    for done in range(0, length, ROWS):
        inside = (row < length - done)[:, None] & valid[None, :]
        tile = tl.load(start + at, mask=inside, other=0.0).to(tl.float32)
        share = 1.0 / (seen + 1.0)
        off = tl.where(inside, tile - mean, 0.0)
        mean += off * share
        squares += off * off * (seen * share)
        seen += 1.0
        start += ROWS * channels
    count = ((length - row + ROWS - 1) // ROWS).to(tl.float32)[:, None]  # rows past the end of a short part have none
    middle = tl.sum(mean * count, 0) / length
    off = mean - middle[None, :]
    to = statistics + (image * parts + number) * 2 * channels + channel
    tl.store(to, middle, mask=valid)
    tl.store(to + channels, tl.sum(squares + off * off * count, 0), mask=valid)


@triton.jit
def _fold_kernel(
    statistics, time, factors, positions, time_row, channels, group, parts, part, eps,
    HAS_TIME: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Store each group's mean and the reciprocal of its standard deviation."""
    image = tl.program_id(1).to(tl.int64)
    member = tl.arange(0, BLOCK)
    number = tl.arange(0, PARTS)
    channel = tl.program_id(0) * group + member
    valid = member < group
    inside = (number < parts)[:, None] & valid[None, :]
    at = statistics + ((image * parts + number) * 2)[:, None] * channels + channel[None, :]
    means = tl.load(at, mask=inside, other=0.0)
    squares = tl.load(at + channels, mask=inside, other=0.0)
    if HAS_TIME:
        means += tl.load(time + image * time_row + channel, mask=valid, other=0.0).to(tl.float32)[None, :]
    count = tl.minimum(positions - number * part, part).to(tl.float32)[:, None]
    total = tl.sum(tl.where(number[:, None] < parts, count, 0.0)) * group
    mean = tl.sum(tl.where(inside, means * count, 0.0)) / total
    off = means - mean
    variance = tl.sum(tl.where(inside, squares + off * off * count, 0.0)) / total
    to = factors + image * 2 * tl.num_programs(0) + tl.program_id(0)
    tl.store(to, mean)
    tl.store(to + tl.num_programs(0), tl.rsqrt(variance + eps))


@triton.jit
def _apply_kernel(
    x, time, factors, weight, bias, out, positions, time_row, channels, group, inverse,
    HAS_TIME: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Normalise one tile; `inverse` is 1 / `group`, whose product is exact enough for channels below a million."""
    blocks = tl.cdiv(channels, BLOCK)
    image = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    first = tl.program_id(0) // blocks * ROWS
    row = tl.arange(0, ROWS)
    valid = channel < channels
    inside = (row < positions - first)[:, None] & valid[None, :]
    start = (image * positions + first) * channels
    at = row[:, None] * channels + channel[None, :]
    tile = tl.load(x + start + at, mask=inside, other=0.0).to(tl.float32)
    groups = channels // group
    pair = factors + image * 2 * groups + ((channel.to(tl.float32) + 0.5) * inverse).to(tl.int32)
    offset = -tl.load(pair, mask=valid, other=0.0)
    if HAS_TIME:
        offset += tl.load(time + image * time_row + channel, mask=valid, other=0.0).to(tl.float32)
    scale = tl.load(weight + channel, mask=valid, other=0.0).to(tl.float32)
    scale *= tl.load(pair + groups, mask=valid, other=0.0)
    shift = tl.load(bias + channel, mask=valid, other=0.0).to(tl.float32)
    y = (tile + offset[None, :]) * scale[None, :] + shift[None, :]
    if SILU:
        # bounded so that nothing overflows; exp2 and one quotient are half the instructions of exp and two selections
        y = y / (1.0 + tl.exp2(tl.minimum(y * -1.4426950408889634, 126.0)))
    tl.store(out + start + at, y.to(out.dtype.element_ty), mask=inside)
