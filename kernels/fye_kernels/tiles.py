"""Tiles shared by the attention kernels: cuts the dimensions of a head into sizes that tensor cores accept."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import triton

from fye_rt.errors import OptionError

FILE = "FYE_TILES"  # environment variable: path of a file with the tiles that measured best on this GPU
LEAST = 16  # smallest side of a tensor-core tile
OLDEST = 80  # compute capability of the oldest GPU with kernels, 10 major + minor
DIMS = (40, 80, 160)  # head dimensions of the released model
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Tiles:
    """How a kernel cuts its work.

    Attributes:
        rows: queries per program.
        columns: keys per pass of its loop.
        warps: warps per program.
        stages: passes whose loads are in flight.
    """

    rows: int
    columns: int
    warps: int = 4
    stages: int = 2


def measured(kernel: str, dim: int) -> Tiles | None:
    """Look up a kernel's tiles for a head dimension in the file that `FILE` names; None if it lists none.

    The file is JSON, {kernel: {head dimension: [rows, columns, warps, stages]}}.

    Raises:
        OptionError: the file cannot be read or has another format.
    """
    path = os.environ.get(FILE)
    return _read(path).get(kernel, {}).get(dim) if path else None


def write(path: Path, tiles: Mapping[str, Mapping[int, Tiles]]) -> None:
    """Write a file for `measured`."""
    content = {
        kernel: {str(dim): [tile.rows, tile.columns, tile.warps, tile.stages] for dim, tile in dims.items()}
        for kernel, dims in tiles.items()
    }
    path.write_text(json.dumps(content) + "\n")


@cache
def _read(path: str) -> dict[str, dict[int, Tiles]]:
    try:
        content = json.loads(Path(path).read_text())
        tiles = {kernel: {int(dim): Tiles(*sizes) for dim, sizes in dims.items()} for kernel, dims in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise OptionError(f"{FILE}={path} has no tiles ({error}); unset it, or measure the tiles again") from error
    for tile in (tile for dims in tiles.values() for tile in dims.values()):
        sizes = (tile.rows, tile.columns, tile.warps, tile.stages)
        powers = all(isinstance(size, int) and size > 0 and size & (size - 1) == 0 for size in sizes[:3])
        if not powers or min(sizes[:2]) < LEAST or not isinstance(tile.stages, int) or tile.stages < 1:
            raise OptionError(
                f"{FILE}={path} has the tiles {list(sizes)}; allowed: powers of two, rows and columns of {LEAST} or "
                "more, and 1 or more stages"
            )
    return tiles


def split(dim: int) -> tuple[int, int]:
    """Split a head dimension into two tiles; the second is 0 if the first covers everything.

    40 becomes 32 + 16 (8 of them used), 80 becomes 64 + 16, 160 becomes 128 + 32: 48, 80 and 160 columns instead of the
    next powers of two, 64, 128 and 256.
    """
    first = max(LEAST, 1 << (dim.bit_length() - 1))
    rest = dim - first
    return first, max(LEAST, triton.next_power_of_2(rest)) if rest > 0 else 0


@cache
def capability_of(device: torch.device) -> int:
    """Return a GPU's compute capability as 10 major + minor; for Triton's interpreter that of the oldest GPU."""
    if device.type != "cuda":
        return OLDEST
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def interpreted() -> bool:
    """Return whether kernels run in Triton's interpreter."""
    return bool(triton.knobs.runtime.interpret)


def upcast(dtype: torch.dtype) -> bool:
    """Return whether operands must be float32: Triton's interpreter multiplies the bit patterns of bfloat16."""
    return interpreted() and dtype == torch.bfloat16


def precision(dtype: torch.dtype) -> str:
    """Return the input precision for tensor cores; float32 stays float32."""
    return "tf32" if dtype in HALF else "ieee"
