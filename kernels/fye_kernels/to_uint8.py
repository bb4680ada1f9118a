"""Decoded frames to bytes, so that a quarter of the memory leaves the GPU; `fye_rt.arrays.to_uint8` on a GPU."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from fye_kernels.variant import Variant, signature

_BLOCK = 1024
_LARGEST = 3.4028234663852886e38  # of float32


def reference(x: Tensor) -> tuple[Tensor, Tensor]:
    """The same in plain PyTorch; see `to_uint8`."""
    pixels = (x * 255).clamp(0, 255).nan_to_num(0).to(torch.uint8)
    return pixels, (~x.isfinite().all()).to(torch.int32).reshape(1)


def to_uint8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels in [0, 1] to 0..255 by truncation of the float32 product with 255; values outside are clamped.

    Args:
        x: float32, contiguous.

    Returns:
        uint8 of that shape, and int32 (1,): 1 if a value was not finite, else 0. What becomes of such a value is not
        said.

    Raises:
        ValueError: another type or layout.
    """
    if not x.is_contiguous() or x.dtype != torch.float32:
        raise ValueError(f"x must be contiguous float32, not {x.dtype}")
    out = torch.empty(x.shape, dtype=torch.uint8, device=x.device)
    wrong = torch.zeros(1, dtype=torch.int32, device=x.device)
    count = x.numel()
    _kernel[(triton.cdiv(count, _BLOCK),)](x, out, wrong, count, BLOCK=_BLOCK, LARGEST=_LARGEST)
    return out, wrong


def variants() -> Iterator[Variant]:
    """What a runtime without PyTorch launches."""
    yield Variant(
        "to_uint8",
        _kernel,
        signature({"x": "*fp32", "out": "*u8", "wrong": "*i32"}, "count"),
        {"BLOCK": _BLOCK, "LARGEST": _LARGEST},
        ("x", "out", "wrong", "count"),
        (f"ceil(count / {_BLOCK})",),
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
