"""What attention kernels have in common: how a head's dimensions are cut into tiles that the tensor cores take."""

from dataclasses import dataclass

import torch
import triton

LEAST = 16  # smallest side of a tensor-core tile
DIMS = (40, 80, 160)  # of the released model's heads
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Tiles:
    """How a kernel cuts its work.

    Attributes:
        rows: queries of a program.
        columns: keys of one pass of its loop.
        warps: of a program.
        stages: passes whose loads are in flight.
    """

    rows: int
    columns: int
    warps: int = 4
    stages: int = 2


def split(dim: int) -> tuple[int, int]:
    """A head's dimension as two tiles, the second one 0 where there is nothing left for it.

    40 is 32 + 16 (of which 8 are used), 80 is 64 + 16, 160 is 128 + 32: 48, 80 and 160 columns instead of the 64, 128
    and 256 of the next power of two.
    """
    first = max(LEAST, 1 << (dim.bit_length() - 1))
    rest = dim - first
    return first, max(LEAST, triton.next_power_of_2(rest)) if rest > 0 else 0


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter."""
    return bool(triton.knobs.runtime.interpret)


def upcast(dtype: torch.dtype) -> bool:
    """Whether operands must be float32: Triton's interpreter multiplies the bits of bfloat16."""
    return interpreted() and dtype == torch.bfloat16


def precision(dtype: torch.dtype) -> str:
    """How the tensor cores take numbers; float32 stays float32."""
    return "tf32" if dtype in HALF else "ieee"
