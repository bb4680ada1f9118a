"""The tiles that are fastest on this GPU, and then every kernel's time beside that of PyTorch."""

import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from fye_bench.first import correctness
from fye_bench.first.__main__ import TILES
from fye_bench.first.record import Record
from fye_bench.speed.kernels import BOUNDS, KERNELS, Bench, named, sweep
from fye_kernels import tiles
from fye_kernels.reference_attention import best, reference_attention
from fye_kernels.tiles import Tiles

Candidates = Mapping[int, tuple[Tiles, ...]]

CANDIDATES: Candidates = {
    40: (Tiles(128, 128, 8, 2), Tiles(128, 64, 8, 3), Tiles(64, 64, 4, 3), Tiles(128, 64, 4, 3), Tiles(64, 128, 4, 2)),
    80: (Tiles(128, 64, 8, 2), Tiles(128, 128, 8, 2), Tiles(128, 64, 8, 3), Tiles(64, 64, 4, 2), Tiles(64, 128, 4, 2)),
    160: (Tiles(128, 64, 8, 2), Tiles(128, 64, 8, 3), Tiles(64, 64, 4, 2), Tiles(64, 32, 4, 2), Tiles(128, 32, 8, 2)),
}
_SMALL: Candidates = {40: (Tiles(32, 16, 1, 1), Tiles(32, 32, 1, 1))}
_WORKERS = 6


@torch.no_grad()
def run(record: Record, out: Path, small: bool) -> None:
    """See `fye_bench.first`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    capability = tiles.capability_of(torch.device(device))
    candidates: Candidates = _SMALL
    if not small:
        candidates = {dim: (best(dim, capability), *others) for dim, others in CANDIDATES.items()}
    if device == "cuda":
        with record.part("compiling candidates") as result:
            result["failed"] = _compile(candidates)
    bench = Bench(device, torch.float16, 2 if small else 30)
    with record.part("ceilings") as result:
        result |= {"copy_bytes_per_second": bench.copy_rate, "matrix_flop_per_second": bench.matrix_rate}
    with record.part("tiles") as result:
        result["levels"] = []
        for level in sweep(bench, candidates, small):
            result["levels"].append(level | {"tiles": str(level["tiles"])})
        chosen = fastest(result["levels"], candidates)
        tiles.write(out / TILES, {"reference_attention": chosen})
        os.environ[tiles.FILE] = str((out / TILES).absolute())
        result["chosen"] = {dim: str(each) for dim, each in chosen.items()}
    for name, make in KERNELS.items():
        with record.part(name) as result:
            result["rows"] = 0
            for row in make(bench, small):
                right = row.error <= BOUNDS[bench.dtype]
                fields = asdict(row) | {"missed": row.missed if device == "cuda" else []}
                record.write(
                    f"{name} {row.shape}", "ok" if right else "failed", row.milliseconds["kernel"] / 1e3, fields
                )
                result["rows"] += 1
    kinds = ("cross",) if small else ("reference", "cross", "halves")
    again = [case for case in correctness.cases(small) if case.kernel in kinds and case.dtype != "float32"]
    correctness.check_all(record, again)  # with the tiles that were chosen


def fastest(levels: list[dict[str, Any]], candidates: Candidates) -> dict[int, Tiles]:
    """Choose for each head dimension the tiles that take the least time on all its levels together, from a `sweep`."""
    chosen = {}
    for dim, each in candidates.items():
        tables = [level["milliseconds"] for level in levels if level["dim"] == dim]
        sums = {
            tile: sum(table[named(tile)] for table in tables)
            for tile in each
            if tables and all(named(tile) in table for table in tables)
        }
        if sums:
            chosen[dim] = min(sums, key=sums.__getitem__)
    return chosen


def _compile(candidates: Candidates) -> dict[str, str]:
    """Fill Triton's cache with all candidates, in several processes: each compiles one at a time. Return the errors."""
    workers = max(1, min(_WORKERS, (os.cpu_count() or 1) // 2))
    failed = {}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {
            f"{dim}: {tile}": pool.submit(_attend, dim, tile) for dim, each in candidates.items() for tile in each
        }
        for name, future in futures.items():
            try:
                future.result()
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {error}"
    return failed


def _attend(dim: int, tile: Tiles) -> None:
    """One run at the smallest level; sizes are specialised alike at all of them."""
    x = torch.zeros(32, 64, 8 * dim, dtype=torch.float16, device="cuda")
    reference_attention(x, x, x, x[:1], x[:1], 8, 16, tiles=tile)
    torch.cuda.synchronize()
