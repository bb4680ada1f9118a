"""The gate of the feed-forward layers, value * gelu(gate) with the exact GELU, in one pass."""

import math
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from fye_kernels.variant import TYPES, Variant, Work, signature

_BLOCK, _WARPS = 512, 2  # blocks of 1024 would leave much of the second one empty with 1280 channels


def reference(x: Tensor) -> Tensor:
    """Compute `geglu` in plain PyTorch."""
    value, gate = x.chunk(2, dim=-1)
    return value * F.gelu(gate)


def geglu(x: Tensor) -> Tensor:
    """Multiply the first half of the channels by the GELU of the second half.

    Args:
        x: (..., 2 C), contiguous; the value's channels come first.

    Returns:
        (..., C).

    Raises:
        ValueError: x is not contiguous or has an odd number of channels.
    """
    if not x.is_contiguous() or x.shape[-1] % 2:
        raise ValueError("x must be contiguous, with an even number of channels")
    out = torch.empty((*x.shape[:-1], x.shape[-1] // 2), dtype=x.dtype, device=x.device)
    channels = out.shape[-1]
    grid = (math.prod(out.shape[:-1]), triton.cdiv(channels, _BLOCK))
    _kernel[grid](x, out, channels, BLOCK=_BLOCK, num_warps=_WARPS)
    return out


def variants() -> Iterator[Variant]:
    """Yield the variants that the released model launches."""
    for name, pointer in TYPES.items():
        yield Variant(
            f"geglu_{name}",
            _kernel,
            signature({"x": pointer, "out": pointer}, "channels"),
            {"BLOCK": _BLOCK},
            ("x", "out", "channels"),
            ("rows", f"ceil(channels / {_BLOCK})"),
            Work(_BLOCK, 6),
            _WARPS,
        )


@triton.jit
def _kernel(x, out, channels, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    value = tl.load(x + row * 2 * channels + channel, mask=inside).to(tl.float32)
    gate = tl.load(x + (row * 2 + 1) * channels + channel, mask=inside).to(tl.float32)
    gelu = 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))
    tl.store(out + row * channels + channel, (value * gelu).to(out.dtype.element_ty), mask=inside)
