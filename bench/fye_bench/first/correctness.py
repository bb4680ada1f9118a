"""Every kernel as the networks call it, in every precision, against float64 on slices of its result."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fye_bench.first.record import Record
from fye_bench.speed.kernels import GATED, HEADS, LEVELS, NORMED, error_of_largest
from fye_kernels import (
    forecast_step,
    forecast_tables,
    geglu,
    norm_silu,
    reference_attention,
    temporal_attention,
    to_uint8,
)
from fye_rt.forecast import Jump
from fye_rt.windows import blended_windows

# of the largest result: weights and results are rounded to 2**-11, bfloat16 to 2**-8; float32 sums in another order
BOUNDS = {"float16": 4e-3, "bfloat16": 3.2e-2, "float32": 1e-5}
_WORKERS = 6  # each compiles and has a CUDA context of its own


@dataclass(frozen=True, slots=True)
class Case:
    """One kernel at one shape.

    Attributes:
        kernel: its name, a function of this module without the underscore.
        dtype: "float16", "bfloat16" or "float32".
        sizes: what that function takes after the device and the type.
    """

    kernel: str
    dtype: str
    sizes: tuple[int, ...]

    @property
    def name(self) -> str:
        """As it is recorded."""
        return f"{self.kernel} {'x'.join(map(str, self.sizes))} {self.dtype}"


def run(record: Record, out: Path, small: bool) -> None:
    """See `fye_bench.first`."""
    check_all(record, list(cases(small)))


def check_all(record: Record, chosen: list[Case]) -> None:
    """Check cases, on a GPU several at once: most of the time goes into compiling."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        for case in chosen:
            with record.part(case.name) as result:
                result |= check(case, device)
        return
    workers = max(1, min(_WORKERS, (os.cpu_count() or 1) // 2, len(chosen)))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(check, case, device): case for case in chosen}
        for future in as_completed(futures):
            with record.part(futures[future].name) as result:
                result |= future.result()


def cases(small: bool) -> Iterator[Case]:
    """What is checked, the most important first; float32 as the torch backend has it, with PyTorch's own attention."""
    levels = ((24, 40), (10, 160)) if small else LEVELS
    for dtype in ("float16", "float32") if small else BOUNDS:
        for tokens, dim in levels:
            yield Case("reference", dtype, (2 if small else 16, tokens, dim))
        for dim in (40,) if small else (40, 80, 160):
            yield Case("cross", dtype, (2 if small else 16, 16 if small else 1024, 17 if small else 257, dim))
            for frames in (2, 17) if small else (1, 16, 24, 32):
                yield Case("temporal", dtype, (frames, 4 if small else 256, dim))
        yield Case("halves", dtype, (2 if small else 16, 24 if small else 4096, 40))
        for channels, side in ((64, 4),) if small else NORMED:
            yield Case("norm", dtype, (1 if small else 32, channels, side))
        for tokens, channels in ((8, 64),) if small else GATED:
            yield Case("geglu", dtype, (2 if small else 32, tokens, channels))
        for windows in (0, 1):
            yield Case("forecast", dtype, (3 if small else 40, 8 if small else 64, windows))
    yield Case("uint8", "float32", (1 if small else 8, 16 if small else 512))


@torch.no_grad()
def check(case: Case, device: str) -> dict[str, Any]:
    """The largest difference to float64 over the largest value, and whether it is within bounds."""
    dtype = getattr(torch, case.dtype)
    random = torch.Generator(device).manual_seed(hash(case.sizes) % 2**31)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, device=device, dtype=torch.float32).to(dtype)

    with torch.cuda.device(0) if device == "cuda" else nullcontext():
        result, exact = _CHECKS[case.kernel](normal, *case.sizes)
        error = error_of_largest(result, exact)
    bound = {"uint8": 0.0, "forecast": BOUNDS["float32"]}.get(case.kernel, BOUNDS[case.dtype])
    return {"error_of_largest": error, "bound": bound, "right": error <= bound}


Normal = Callable[..., Tensor]


def _attend(q: Tensor) -> Callable[..., Tensor]:
    return reference_attention.reference if q.dtype == torch.float32 else reference_attention.reference_attention


def _exact(tensors: Sequence[Tensor], unconditional: int = 0) -> Tensor:
    q, k, v, rk, rv = (x.double() for x in tensors)
    return reference_attention.reference(q, k, v, rk, rv, HEADS, unconditional)


def _some(length: int, number: int) -> Tensor:
    return torch.arange(0, length, max(1, length // number))


def _reference(normal: Normal, frames: int, tokens: int, dim: int) -> tuple[Tensor, Tensor]:
    """Both halves of guidance, of a joined projection."""
    q, k, v = normal(2 * frames, tokens, 3 * HEADS * dim).chunk(3, dim=-1)
    rk, rv = normal(1, tokens, HEADS * dim), normal(1, tokens, HEADS * dim)
    result = _attend(q)(q, k, v, rk, rv, HEADS, frames)
    rows, at = torch.tensor([0, frames - 1, frames, 2 * frames - 1]), _some(tokens, 64)
    queries = q[rows][:, at]
    exact = _exact((queries, k[rows], v[rows], rk, rv), 2)
    return result[rows][:, at], exact


def _cross(normal: Normal, frames: int, tokens: int, keys: int, dim: int) -> tuple[Tensor, Tensor]:
    """To CLIP's tokens, for which all frames are one query."""
    q, k, v = normal(1, frames * tokens, HEADS * dim), normal(1, keys, HEADS * dim), normal(1, keys, HEADS * dim)
    result = _attend(q)(q, k, v, k[:, :0], v[:, :0], HEADS)
    at = _some(frames * tokens, 256)
    exact = _exact((q[:, at], k, v, k[:, :0], v[:, :0]))
    return result[:, at], exact


def _halves(normal: Normal, frames: int, tokens: int, dim: int) -> tuple[Tensor, Tensor]:
    """The first attention: to the frame and to the portrait, put together."""
    q, k, v = normal(frames, tokens, 3 * HEADS * dim).chunk(3, dim=-1)
    rk, rv = normal(1, tokens, HEADS * dim), normal(1, tokens, HEADS * dim)
    sums = torch.empty((2, frames, HEADS, tokens), dtype=torch.float32, device=q.device)
    nothing = rk[:, :0]
    frame = _attend(q)(q, k, v, nothing, nothing, HEADS, lse=sums[0])
    wide = (x.expand(frames, -1, -1) for x in (rk, rv))
    portrait = _attend(q)(q, *wide, nothing, nothing, HEADS, lse=sums[1])
    result = reference_attention.merge(portrait, sums[1], frame, sums[0])
    rows, at = torch.tensor([0, frames - 1]), _some(tokens, 64)
    exact = _exact((q[rows][:, at], k[rows], v[rows], rk, rv))
    return result[rows][:, at], exact


def _temporal(normal: Normal, frames: int, positions: int, dim: int) -> tuple[Tensor, Tensor]:
    q, k, v = normal(2 * frames, positions, 3 * HEADS * dim).chunk(3, dim=-1)
    biases = normal(3, frames, HEADS * dim)
    attend = temporal_attention.reference if q.dtype == torch.float32 else temporal_attention.temporal_attention
    result = attend(q, k, v, HEADS, frames, biases)
    at = _some(positions, 16)
    query, key, value = (x[:, at].double() for x in (q, k, v))
    return result[:, at], temporal_attention.reference(query, key, value, HEADS, frames, biases.double())


def _norm(normal: Normal, batch: int, channels: int, side: int) -> tuple[Tensor, Tensor]:
    x = (normal(batch, channels, side, side) + 1).to(memory_format=torch.channels_last)
    weight, bias, time = normal(channels), normal(channels), normal(1, channels)
    result = norm_silu.norm_silu(x, 32, weight, bias, 1e-5, time)[-2:]
    return result, norm_silu.reference(x[-2:].double(), 32, weight.double(), bias.double(), 1e-5, time.double())


def _geglu(normal: Normal, batch: int, tokens: int, channels: int) -> tuple[Tensor, Tensor]:
    x = normal(batch, tokens, 2 * channels)
    return geglu.geglu(x)[-1], geglu.reference(x[-1].double())


def _forecast(normal: Normal, frames: int, side: int, windows: int) -> tuple[Tensor, Tensor]:
    """A jump of predictions in this precision; latents are float32."""
    shape = (1, 4, frames, side, side)
    latents, ring = normal(*shape).float(), normal(2, *shape).float()
    slot = torch.ones(1, dtype=torch.int32, device=latents.device)
    row = forecast_tables.numbers(Jump(0, 2, 0.9, (0.4, -0.2), 0.6, 0.8), 3.5, 1, 2).to(latents.device)
    blend, parts = None, shape
    if windows:
        size = max(2, frames // 2)
        table = blended_windows(frames, "context", size, 1)
        blend = forecast_tables.Blend(*(each.to(latents.device) for each in forecast_tables.blend(table, frames)))
        parts = (len(table), 4, size, side, side)
    halves = normal(*parts), normal(*parts)
    moved, exact = latents.clone(), latents.clone()
    forecast_step.reference(exact, *halves, ring.clone(), slot, row, None, blend)
    forecast_step.forecast_step(moved, *halves, ring, slot, row, None, blend)
    return moved, exact.double()


def _uint8(normal: Normal, frames: int, side: int) -> tuple[Tensor, Tensor]:
    x = normal(frames, side, side, 3)
    return to_uint8.to_uint8(x)[0], to_uint8.reference(x)[0].double()


_CHECKS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "reference": _reference,
    "cross": _cross,
    "halves": _halves,
    "temporal": _temporal,
    "norm": _norm,
    "geglu": _geglu,
    "forecast": _forecast,
    "uint8": _uint8,
}
