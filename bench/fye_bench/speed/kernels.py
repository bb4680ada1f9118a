"""Time kernels against PyTorch without them, on an NVIDIA GPU, with the shapes of the released model.

    python -m fye_bench.speed.kernels --json FILE          16 frames of 512x512, both halves of guidance
    python -m fye_bench.speed.kernels --small              every shape small, on any machine: does it run?
    python -m fye_bench.speed.kernels --only geglu         one of them

Times are medians of interleaved rounds of CUDA graphs, replayed as in the runtime: a launch from Python takes longer
than a short kernel. Rates count useful work alone (no padding), against this GPU's measured rates of copying and
multiplying. The exit code is 1 if a result is further from float32 than its precision allows.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fye_bench.environment import environment
from fye_kernels import (
    forecast_step,
    forecast_tables,
    geglu,
    norm_silu,
    reference_attention,
    temporal_attention,
    to_uint8,
)
from fye_kernels.tiles import LEAST, Tiles, capability_of, split
from fye_rt import files
from fye_rt.forecast import Jump
from fye_rt.windows import blended_windows

# tokens and head dimension of each level at 512x512
LEVELS = ((4096, 40), (1024, 80), (256, 160), (64, 160))
HEADS = 8
NORMED = ((320, 64), (640, 32), (1280, 16), (960, 64), (2560, 8))  # channels and side
GATED = ((4096, 1280), (1024, 2560), (256, 5120))  # tokens and channels
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
PLAIN = "plain PyTorch"

# largest error over the largest result: weights, results and inputs of norms are rounded to 2**-11, bfloat16 to 2**-8
BOUNDS = {torch.float16: 4e-3, torch.bfloat16: 3.2e-2}

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Work:
    """Work of one call.

    Attributes:
        bytes: bytes that must be read and written.
        flop: operations that are needed.
        padded: operations that are done, including those on padding of the kernel's tiles; 0 without padding.
    """

    bytes: float
    flop: float = 0.0
    padded: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """One kernel at one shape.

    Attributes:
        kernel: name of the kernel.
        shape: shape of its inputs.
        milliseconds: median times of the kernel and its competitors, by name.
        spread: (p75 - p25) / median of the kernel's times.
        faster: speed-up over `rival`.
        rival: competitor that the kernel is to replace: the fastest of several, if it names the best of them.
        rate: useful TFLOP/s or GB/s of the kernel.
        unit: unit of `rate`.
        share: `rate` over the measured ceiling.
        padded_rate: TFLOP/s with the operations on padding; 0 for kernels that memory bounds.
        floor: milliseconds at the measured ceilings, of the bytes or of the operations, whichever are more.
        promised: lower bounds of `faster` and `share`.
        error: largest difference from float32, over the largest value.
        failed: errors of competitors that were not timed, by name.
    """

    kernel: str
    shape: str
    milliseconds: Mapping[str, float]
    spread: float
    faster: float
    rival: str
    rate: float
    unit: str
    share: float
    padded_rate: float
    floor: float
    promised: Mapping[str, float]
    error: float
    failed: Mapping[str, str]

    @property
    def missed(self) -> list[str]:
        """Names of the promises that the kernel misses."""
        return [name for name, least in self.promised.items() if getattr(self, name) < least]


class Bench:
    """Times runs on a device.

    Args:
        device: "cuda", or "cpu" to see that everything runs.
        dtype: type of activations.
        rounds: number of rounds; each runs all competitors, one after the other.
    """

    def __init__(self, device: str, dtype: torch.dtype, rounds: int) -> None:
        self.device, self.dtype, self.rounds = device, dtype, rounds
        self._random = torch.Generator(device).manual_seed(0)
        self.copy_rate, self.matrix_rate = 1.0, 1.0
        if device == "cuda":
            self.copy_rate, self.matrix_rate = self.ceilings(2**28, 8192)

    def ceilings(self, elements: int, side: int) -> tuple[float, float]:
        """Measure bytes per second, read and written, of a copy, and operations per second of a matrix product."""
        block = self.random(elements)
        target = torch.empty_like(block)
        copied = self.times({"copy": lambda: target.copy_(block)})["copy"]
        a, b = self.random(side, side), self.random(side, side)
        multiplied = self.times({"matrix": lambda: a @ b})["matrix"]
        return 2 * block.nbytes / statistics.median(copied), 2 * side**3 / statistics.median(multiplied)

    def random(self, *shape: int) -> Tensor:
        """Return standard normal numbers; zeros would draw less power and run faster."""
        return torch.randn(shape, generator=self._random, device=self.device, dtype=self.dtype)

    def times(self, runs: Mapping[str, Run], failed: dict[str, str] | None = None) -> dict[str, list[float]]:
        """Return the seconds of each run, round by round.

        On a GPU each run is captured into a CUDA graph, and a write empties the L2 cache before each replay.

        Args:
            runs: runs by name.
            failed: receives the errors of runs that fail; without it they are raised.
        """
        replays: dict[str, Run] = {}
        for name, run in runs.items():
            try:
                if self.device == "cuda":
                    replays[name] = captured(run)
                else:
                    run()
                    replays[name] = run
            except Exception as error:
                if failed is None:
                    raise
                failed[name] = f"{type(error).__name__}: {error}"
        seconds: dict[str, list[float]] = {name: [] for name in replays}
        if self.device != "cuda":
            return {name: [1.0] for name in replays}
        flush = torch.empty(2**28, dtype=torch.uint8, device=self.device)
        events = []
        for _ in range(self.rounds):
            for name, replay in replays.items():
                flush.zero_()
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                replay()
                end.record()
                events.append((name, start, end))
        torch.cuda.synchronize()
        for name, start, end in events:
            seconds[name].append(start.elapsed_time(end) / 1e3)
        return seconds

    def row(
        self,
        kernel: str,
        shape: str,
        runs: Mapping[str, Run],
        exact: Tensor,
        work: Work,
        rival: str,
        beside: Mapping[str, Run] | None = None,
        **promised: float,
    ) -> Row:
        """Time a kernel, the first of `runs`, and its competitors.

        Args:
            kernel: name of the kernel.
            shape: shape of its inputs.
            runs: runs by name; a competitor may fail.
            exact: expected result, in float32.
            work: work of a call; the rate counts operations if `work.padded` is set, else bytes.
            rival: name of the competitors in `runs`.
            beside: competitors that are timed as well, and are no part of the speed-up.
            promised: see `Row`.
        """
        first, *rivals = runs
        result = runs[first]()
        assert isinstance(result, Tensor)
        failed: dict[str, str] = {}
        seconds = self.times({**runs, **(beside or {})}, failed)
        if first in failed:
            raise RuntimeError(failed[first])
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        quarters = statistics.quantiles(seconds[first], n=4) if len(seconds[first]) > 1 else [0.0, 0.0, 0.0]
        if work.padded:
            useful, ceiling, scale, unit = work.flop, self.matrix_rate, 1e12, "TFLOP/s"
        else:
            useful, ceiling, scale, unit = work.bytes, self.copy_rate, 1e9, "GB/s"
        return Row(
            kernel=kernel,
            rival=rival,
            shape=shape,
            milliseconds={name: 1e3 * value for name, value in medians.items()},
            spread=(quarters[2] - quarters[0]) / medians[first],
            faster=min((medians[name] for name in rivals if name in medians), default=math.nan) / medians[first],
            rate=useful / medians[first] / scale,
            unit=unit,
            share=useful / medians[first] / ceiling,
            padded_rate=work.padded / medians[first] / 1e12,
            floor=1e3 * max(work.bytes / self.copy_rate, work.flop / self.matrix_rate),
            promised=promised,
            error=error_of_largest(result, exact),
            failed=failed,
        )


def error_of_largest(result: Tensor, exact: Tensor) -> float:
    """Return the largest difference from the exact result, over its largest value."""
    return float((result.to(exact.dtype) - exact).abs().max() / exact.abs().max())


def captured(run: Run) -> Run:
    """Compile the kernels of a run, capture it into a CUDA graph, and return the graph's launch."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def reference_attention_rows(bench: Bench, small: bool) -> Iterator[Row]:
    """Time both halves of guidance, against PyTorch's attention over concatenated K and V, concatenation included."""
    frames = 2 if small else 16
    for tokens, dim in ((24, 40), (16, 160)) if small else LEVELS:
        operands, exact = _both_halves(bench, frames, tokens, dim)
        runs: dict[str, Run] = {"kernel": partial(reference_attention.reference_attention, *operands)}
        runs |= _every_backend(bench.device, partial(reference_attention.reference, *operands))
        beside: dict[str, Run] = {
            f"two parts, {name}": partial(reference_attention.in_two_parts, *operands, attend=attend)
            for name, attend in reference_attention.FUSED[bench.device].items()
        }
        capability = capability_of(torch.device(bench.device))
        rows, keys = _whole(tokens, reference_attention.best(dim, capability).rows), _whole(tokens, LEAST)
        columns = sum(split(dim))
        work = Work(
            bytes=4 * operands[0].nbytes + 2 * operands[3].nbytes,
            flop=4 * frames * tokens * HEADS * dim * (tokens + 2 * tokens),  # the unconditional half and the other one
            padded=4 * frames * rows * HEADS * columns * 3 * keys,
        )
        promised = {"faster": 1.2} | ({"share": 0.35} if tokens == 4096 else {})
        shape, rival = f"{2 * frames}x{tokens}x{HEADS}x{dim}", "best of SDPA with concatenation"
        yield bench.row("reference_attention", shape, runs, exact, work, rival, beside, **promised)


def _both_halves(bench: Bench, frames: int, tokens: int, dim: int) -> tuple[tuple[Any, ...], Tensor]:
    """Return random arguments of reference_attention for both halves of guidance, and the result in float32."""
    q, k, v = (bench.random(2 * frames, tokens, HEADS * dim) for _ in range(3))
    rk, rv = (bench.random(1, tokens, HEADS * dim) for _ in range(2))
    exact = reference_attention.reference(q.float(), k.float(), v.float(), rk.float(), rv.float(), HEADS, frames)
    return (q, k, v, rk, rv, HEADS, frames), exact


def _whole(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def sweep(bench: Bench, candidates: Mapping[int, Sequence[Tiles]], small: bool) -> Iterator[dict[str, Any]]:
    """Time all tiles of reference_attention for the head dimensions of the released model.

    Yields:
        For each level: "tokens", "dim", "milliseconds" by tiles (rows, columns, warps, stages), "failed" likewise, and
        the fastest as "tiles", or None if none is right.
    """
    frames = 1 if small else 16
    for tokens, dim in ((24, 40),) if small else LEVELS:
        operands, exact = _both_halves(bench, frames, tokens, dim)
        runs = {
            tiles: partial(reference_attention.reference_attention, *operands, tiles=tiles) for tiles in candidates[dim]
        }
        failed = {}
        for tiles, run in list(runs.items()):
            try:
                error = error_of_largest(run(), exact)
            except Exception as problem:  # too little shared memory, or a compiler that gives up
                failed[tiles] = f"{type(problem).__name__}: {problem}"
            else:
                if not error <= BOUNDS[bench.dtype]:
                    failed[tiles] = f"{error:.1e} away from float32"
        seconds = bench.times({named(tiles): run for tiles, run in runs.items() if tiles not in failed})
        milliseconds = {name: 1e3 * statistics.median(times) for name, times in seconds.items()}
        fastest = min(milliseconds, key=milliseconds.__getitem__, default=None)
        yield {
            "tokens": tokens,
            "dim": dim,
            "milliseconds": milliseconds,
            "failed": {named(tiles): problem for tiles, problem in failed.items()},
            "tiles": None if fastest is None else next(tiles for tiles in runs if named(tiles) == fastest),
        }


def named(tiles: Tiles) -> str:
    """Describe tiles, as `sweep` names them."""
    return f"{tiles.rows}x{tiles.columns}, {tiles.warps} warps, {tiles.stages} stages"


def _every_backend(device: str, attend: Run) -> dict[str, Run]:
    """Run attention by each of PyTorch's implementations, and by its default one."""
    backends = BACKENDS if device == "cuda" else {}
    return {name: sdpa_kernel(backend)(attend) for name, backend in backends.items()} | {"default": attend}


def temporal_attention_rows(bench: Bench, small: bool) -> Iterator[Row]:
    """Time it against permuting, PyTorch's attention and permuting back; the biases are in the kernel alone."""
    frames = 4 if small else 16
    for tokens, dim in ((6, 40),) if small else LEVELS:
        channels = HEADS * dim
        q, k, v = (bench.random(2 * frames, tokens, channels) for _ in range(3))
        biases = bench.random(3, frames, channels)
        operands = (q, k, v, HEADS, frames, biases)
        runs: dict[str, Run] = {"kernel": partial(temporal_attention.temporal_attention, *operands)}
        runs |= _every_backend(bench.device, partial(temporal_attention.reference, *operands[:-1], None))
        exact = temporal_attention.reference(q.float(), k.float(), v.float(), HEADS, frames, biases.float())
        work = Work(bytes=4 * q.nbytes + biases.nbytes, flop=8 * frames * frames * tokens * channels)
        shape = f"2x{frames}x{tokens}x{HEADS}x{dim}"
        rival = "best of SDPA with permutations"
        yield bench.row("temporal_attention", shape, runs, exact, work, rival, faster=4.0, share=0.7)


def forecast_step_rows(bench: Bench, small: bool) -> Iterator[Row]:
    """Time a first-order jump over guided predictions, of one window and of many, against separate operations."""
    frames, size, side = (3, 2, 8) if small else (384, 24, 64)  # a clip of 16 frames takes 3 us only
    shape = (1, 4, frames, side, side)
    latents = torch.randn(shape, device=bench.device)
    ring = torch.randn((2, *shape), device=bench.device)
    slot = torch.ones(1, dtype=torch.int32, device=bench.device)
    row = forecast_tables.numbers(Jump(0, 2, 0.9, (0.4, -0.2), 0.6, 0.8), 3.5, 1, 2).to(bench.device)
    windows = blended_windows(frames, "context", size, 4 if not small else 1)
    shares = forecast_tables.Blend(*(table.to(bench.device) for table in forecast_tables.blend(windows, frames)))
    for blend in (None, shares):
        parts = shape if blend is None else (len(windows), 4, size, side, side)
        u, c = bench.random(*parts), bench.random(*parts)
        operands = u, c, ring, slot, row, None, blend
        runs: dict[str, Run] = {
            "kernel": partial(_moved, forecast_step.forecast_step, latents, *operands),
            "plain": partial(_moved, forecast_step.reference, latents, *operands),
        }
        # latents are read and written twice (the copy), a slot of the ring each way
        moved = Work(u.nbytes + c.nbytes + 6 * latents.nbytes)
        shown = f"{'x'.join(map(str, shape))}, {'and a copy' if blend is None else f'{len(windows)} windows'}"
        exact = _moved(forecast_step.reference, latents, *operands)
        yield bench.row("forecast_step", shown, runs, exact, moved, PLAIN, share=0.85)


def _moved(step: Callable[..., None], latents: Tensor, *operands: Any) -> Tensor:
    x = latents.clone()
    step(x, *operands)
    return x


def norm_silu_rows(bench: Bench, small: bool) -> Iterator[Row]:
    """Time it with the time embedding, against PyTorch's three passes."""
    for channels, side in ((64, 4),) if small else NORMED:
        x = bench.random(32 if not small else 2, channels, side, side).to(memory_format=torch.channels_last)
        weight, bias, time = bench.random(channels), bench.random(channels), bench.random(1, channels)
        operands = (x, 32, weight, bias, 1e-5, time)
        runs: dict[str, Run] = {
            "kernel": partial(norm_silu.norm_silu, *operands),
            "plain": partial(norm_silu.reference, *operands),
        }
        exact = norm_silu.reference(x.float(), 32, weight.float(), bias.float(), 1e-5, time.float())
        moved = Work(3 * x.nbytes)
        yield bench.row("norm_silu", f"{len(x)}x{channels}x{side}x{side}", runs, exact, moved, PLAIN, share=0.85)


def geglu_rows(bench: Bench, small: bool) -> Iterator[Row]:
    """Time it against PyTorch's two operations."""
    for tokens, channels in ((8, 64),) if small else GATED:
        x = bench.random(2 if small else 32, tokens, 2 * channels)
        runs: dict[str, Run] = {"kernel": partial(geglu.geglu, x), "plain": partial(geglu.reference, x)}
        moved = Work(x.nbytes * 3 / 2)
        yield bench.row("geglu", f"{len(x)}x{tokens}x{channels}", runs, geglu.reference(x.float()), moved, PLAIN)


def to_uint8_rows(bench: Bench, small: bool) -> Iterator[Row]:
    """Time it against PyTorch's passes; the result is exact to the level."""
    frames, side = (1, 16) if small else (8, 512)
    x = torch.rand((frames, side, side, 3), device=bench.device)
    runs: dict[str, Run] = {"kernel": lambda: to_uint8.to_uint8(x)[0], "plain": lambda: to_uint8.reference(x)[0]}
    exact = to_uint8.reference(x)[0].float()
    yield bench.row("to_uint8", f"{frames}x{side}x{side}x3", runs, exact, Work(x.nbytes * 5 / 4), PLAIN)


KERNELS = {
    "reference_attention": reference_attention_rows,
    "temporal_attention": temporal_attention_rows,
    "forecast_step": forecast_step_rows,
    "norm_silu": norm_silu_rows,
    "geglu": geglu_rows,
    "to_uint8": to_uint8_rows,
}


@torch.no_grad()
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fye_bench.speed.kernels", description="Kernels against PyTorch.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), default="float16")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--only", choices=KERNELS, metavar="NAME", help="one kernel: " + ", ".join(KERNELS))
    parser.add_argument("--small", action="store_true", help="small shapes, any machine: times mean nothing")
    arguments = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not arguments.small:
        print("fye: there is no GPU here; see that all runs with --small and TRITON_INTERPRET=1", file=sys.stderr)
        return 2
    bench = Bench(device, getattr(torch, arguments.dtype), arguments.rounds)
    rows = []
    for make in KERNELS.values() if arguments.only is None else (KERNELS[arguments.only],):
        for row in make(bench, arguments.small):
            rows.append(row)
            others = ", ".join(f"{name} {ms:.3f}" for name, ms in row.milliseconds.items() if name != "kernel")
            print(
                f"{row.kernel:<20}{row.shape:<24}{row.milliseconds['kernel']:>9.3f} ms ({others}) "
                f"{row.faster:>6.2f}x {row.rival} {row.rate:>8.1f} {row.unit} "
                f"{100 * row.share:>5.1f} % error {row.error:.1e}"
                + (f" missed: {', '.join(row.missed)}" if device == "cuda" and row.missed else ""),
                flush=True,
            )
    if arguments.json is not None:
        name = torch.cuda.get_device_name() if device == "cuda" else "none: nothing was timed"
        content = {
            "command": ["python", "-m", "fye_bench.speed.kernels", *(sys.argv[1:] if argv is None else argv)],
            "environment": environment() | {"gpu": name},
            "ceilings": {"copy_bytes_per_second": bench.copy_rate, "matrix_flop_per_second": bench.matrix_rate},
            "kernels": [asdict(row) for row in rows],
        }
        files.write_json(arguments.json, content)
    wrong = [row for row in rows if not row.error <= BOUNDS[bench.dtype]]
    for row in wrong:
        print(f"fye: {row.kernel} at {row.shape} is {row.error:.1e} away from float32", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
