"""What attention kernels have in common: how a head's dimensions are cut into tiles that the tensor cores take."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import triton

from fye_rt.errors import OptionError

FILE = "FYE_TILES"  # environment variable: a file of tiles that measured best on this GPU
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


def measured(kernel: str, dim: int) -> Tiles | None:
    """Tiles of a kernel for a head dimension from the file that `FILE` names, or None where it has none.

    The file is JSON, {kernel: {head dimension: [rows, columns, warps, stages]}}.

    Raises:
        OptionError: the file cannot be read, or holds something else.
    """
    path = os.environ.get(FILE)
    return _read(path).get(kernel, {}).get(dim) if path else None


def write(path: Path, tiles: Mapping[str, Mapping[int, Tiles]]) -> None:
    """Write a file for `measured`."""
    content = {
        kernel: {str(dim): [each.rows, each.columns, each.warps, each.stages] for dim, each in dims.items()}
        for kernel, dims in tiles.items()
    }
    path.write_text(json.dumps(content) + "\n")


@cache
def _read(path: str) -> dict[str, dict[int, Tiles]]:
    try:
        content = json.loads(Path(path).read_text())
        tiles = {kernel: {int(dim): Tiles(*each) for dim, each in dims.items()} for kernel, dims in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise OptionError(f"{FILE}={path} has no tiles ({error}); unset it, or measure them again") from error
    for each in (each for dims in tiles.values() for each in dims.values()):
        sizes = (each.rows, each.columns, each.warps, each.stages)
        powers = all(isinstance(size, int) and size > 0 and size & (size - 1) == 0 for size in sizes[:3])
        if not powers or min(sizes[:2]) < LEAST or not isinstance(each.stages, int) or each.stages < 1:
            raise OptionError(
                f"{FILE}={path} has the tiles {list(sizes)}; allowed: powers of two, rows and columns of {LEAST} or "
                "more, and 1 or more stages"
            )
    return tiles


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
