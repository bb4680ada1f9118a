"""Measure how many frames the VAE should decode at a time: seconds and memory by engine, size and chunk.

Each measurement has a process of its own, which opens `vae_decoder`, decodes one chunk to warm up, and then at least
four frames. Every round measures each chunk once, in rotated order.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np

from fye_bench.arguments import Rounds, benchmark, option, run
from fye_bench.environment import OtherLoad, environment
from fye_bench.speed.summary import ratio, summary
from fye_bench.speed.worker import Worker
from fye_bench.speed.workload import describe_bundle
from fye_rt import backends, options
from fye_rt.bundle import Bundle
from fye_rt.cli import terminal
from fye_rt.engine import Settings
from fye_rt.options import check_sides

THREADS = 2
SIZES = ("128x128", "256x256")
CHUNKS = (1, 2, 4, 8, 16)
GRAPH = "vae_decoder"
_FRAMES = 4  # at least: decoding one small frame is too short to time


@dataclass(frozen=True, slots=True)
class Decoding:
    """Frames of `size` (height, width) decoded by an engine, `chunk` of them per call."""

    backend: str
    compute: str
    size: tuple[int, int]
    chunk: int


def decode(bundle: Path, decoding: Decoding) -> float:
    """In a worker: open the decoder, warm it up, decode, and return seconds per frame."""
    opened = Bundle.load(bundle, verify=False)
    engine = backends.load(decoding.backend)(opened, GRAPH, Settings(decoding.compute, THREADS))
    height, width = decoding.size
    shape = (1, opened.latent_channels(), decoding.chunk, height // 8, width // 8)
    latents = np.random.default_rng(0).standard_normal(shape, np.float32)
    engine.run({"latents": latents})
    calls = -(-_FRAMES // decoding.chunk)
    start = time.perf_counter()
    for _ in range(calls):
        engine.run({"latents": latents})
    return (time.perf_counter() - start) / (calls * decoding.chunk)


def measure(
    bundle: Path,
    engines: Sequence[tuple[str, str]],
    sizes: Sequence[tuple[int, int]],
    chunks: Sequence[int],
    rounds: int,
) -> Iterator[dict[str, Any]]:
    """Yield a row for each chunk of each engine (backend, compute) and size; speed-ups are against the first chunk."""
    for size in sizes:
        for backend, compute in engines:
            row = [Decoding(backend, compute, size, chunk) for chunk in chunks]
            seconds: dict[Decoding, list[float]] = {decoding: [] for decoding in row}
            peaks: dict[Decoding, list[int]] = {decoding: [] for decoding in row}
            for number in range(rounds):
                first = number % len(row)
                for decoding in row[first:] + row[:first]:
                    with Worker() as worker:
                        worker.call(backends.load, backend)  # libraries are no part of decoding
                        taken, growth = worker.watch(decode, bundle, decoding)
                    seconds[decoding].append(taken)
                    peaks[decoding].append(growth.peak)
            for decoding in row:
                yield asdict(decoding) | {
                    "seconds_per_frame": summary(seconds[decoding]),
                    "speedup": ratio(seconds[row[0]], seconds[decoding]),
                    "peak_anonymous_bytes": median(peaks[decoding]),
                }


@benchmark("python -m fye_bench.speed.decode_chunks")
def main(
    bundle: Annotated[Path, option("DIR", "Bundle whose decoder is timed.")],
    size: Annotated[list[str] | None, option("HxW", f"Sizes; by default {' '.join(SIZES)}.")] = None,
    chunk: Annotated[list[int] | None, option("N", "Frames per call; by default 1 2 4 8 16.", min=1, max=32)] = None,
    rounds: Rounds = 3,
) -> dict[str, Any]:
    """Measure seconds and memory of decoding, by engine, size and chunk of frames."""
    sizes = [options.parse_size(text) for text in size or SIZES]
    for sides in sizes:
        check_sides(sides, "a frame")
    model = Bundle.load(bundle)
    engines = [(backend, compute) for backend in backends.installed() for compute in backends.computes(backend)]
    result: dict[str, Any] = {
        "environment": environment(THREADS),
        "workload": {"graph": GRAPH, "model": describe_bundle(model)},
        "chunks": [],
    }
    others = OtherLoad()
    terminal.say(
        f"{'engine':<13}{'compute':<9}{'size':<11}{'chunk':>5}{'s a frame':>11}{'relative speed':>21}{'memory':>12}"
    )
    for row in measure(model.path, engines, sizes, chunk or CHUNKS, rounds):
        result["chunks"].append(row)
        speedup = row["speedup"]
        terminal.say(
            f"{row['backend']:<13}{row['compute']:<9}{'{}x{}'.format(*row['size']):<11}{row['chunk']:>5}"
            f"{row['seconds_per_frame']['p50']:>11.4f}"
            f"{speedup['median']:>9.2f} ({speedup['min']:.2f}-{speedup['max']:.2f})"
            f"{row['peak_anonymous_bytes'] / 1e6:>9,.0f} MB"
        )
    result["environment"]["other_processes_cores"] = others.cores()
    return result


if __name__ == "__main__":
    run(main)
