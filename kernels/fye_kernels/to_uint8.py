"""Converts decoded frames to bytes on the GPU, a quarter of the data to copy; see `fye_rt.arrays.to_uint8`."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from fye_kernels.variant import Variant, Work, signature

_BLOCK = 1024
_LARGEST = 3.4028234663852886e38  # largest finite float32


def reference(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `to_uint8` in plain PyTorch."""
    pixels = (x * 255).clamp(0, 255).nan_to_num(0).to(torch.uint8)
    return pixels, (~x.isfinite().all()).to(torch.int32).reshape(1)


def to_uint8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Convert pixels in [0, 1] to 0..255: multiply by 255 in float32, clamp and truncate.

    Args:
        x: float32, contiguous.

    Returns:
        Pixels, uint8 in the shape of `x`, and a flag, int32 (1,): 1 if a value was not finite, else 0. The pixel of
        such a value is undefined.

    Raises:
        ValueError: x has another type or layout.
    """
    if not x.is_contiguous() or x.dtype != torch.float32:
        raise ValueError(f"x must be contiguous float32, not {x.dtype}")
    out = torch.empty(x.shape, dtype=torch.uint8, device=x.device)
    wrong = torch.zeros(1, dtype=torch.int32, device=x.device)
    count = x.numel()
    _kernel[(triton.cdiv(count, _BLOCK),)](x, out, wrong, count, BLOCK=_BLOCK, LARGEST=_LARGEST)
    return out, wrong


def variants() -> Iterator[Variant]:
    """Yield the variant that a runtime without PyTorch launches."""
    yield Variant(
        "to_uint8",
        _kernel,
        signature({"x": "*fp32", "out": "*u8", "wrong": "*i32"}, "count"),
        {"BLOCK": _BLOCK, "LARGEST": _LARGEST},
        ("x", "out", "wrong", "count"),
        (f"ceil(count / {_BLOCK})",),
        Work(_BLOCK, 5),
    )


@triton.jit
def _kernel(x, out, wrong, count, BLOCK: tl.constexpr, LARGEST: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    value = tl.load(x + at, mask=inside, other=0.0)
    finite = tl.abs(value) <= LARGEST
    scaled = tl.minimum(tl.maximum(tl.where(finite, value, 0.0) * 255.0, 0.0), 255.0)
    tl.store(out + at, scaled.to(tl.uint8), mask=inside)
    tl.store(wrong + at * 0, tl.full((BLOCK,), 1, tl.int32), mask=inside & ~finite)
