"""Measure how many frames the VAE should decode at a time: seconds and memory by engine, size and chunk.

Each measurement has its own process, which opens `vae_decoder`, decodes one chunk to warm up, and then at least four
frames. Every round measures each chunk once, in rotated order.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np

from fye_bench.arguments import Rounds, benchmark, option, run
from fye_bench.speed.summary import measure_rows, ratio, spread, summary
from fye_bench.speed.worker import Worker
from fye_bench.speed.workload import describe_bundle
from fye_rt import backends, settings
from fye_rt.bundle import Bundle
from fye_rt.engine import Settings
from fye_rt.options import check_sides

THREADS = 2
SIZES = ("128x128", "256x256")
CHUNKS = (1, 2, 4, 8, 16)
GRAPH = "vae_decoder"
_FRAMES = 4  # fewest frames to decode: one small frame is too short to time


@dataclass(frozen=True, slots=True)
class Decoding:
    """Frames of `size` (height, width) decoded by an engine, `chunk` of them per call."""

    backend: str
    compute: str
    size: tuple[int, int]
    chunk: int


def decode(bundle: Path, decoding: Decoding) -> float:
    """Open the decoder, warm it up, decode, and return seconds per frame (in a worker)."""
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
                        worker.call(backends.load, backend)  # importing libraries is no part of decoding
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
    sizes = [settings.parse_size(text) for text in size or SIZES]
    for sides in sizes:
        check_sides(sides, "a frame")
    model = Bundle.load(bundle)
    engines = [(backend, compute) for backend in backends.installed() for compute in backends.computes(backend)]
    header = (
        f"{'engine':<13}{'compute':<9}{'size':<11}{'chunk':>5}{'s a frame':>11}{'relative speed':>21}{'memory':>12}"
    )

    def line(row: Mapping[str, Any]) -> str:
        return (
            f"{row['backend']:<13}{row['compute']:<9}{'{}x{}'.format(*row['size']):<11}{row['chunk']:>5}"
            f"{row['seconds_per_frame']['p50']:>11.4f}{spread(row['speedup']):>21}"
            f"{row['peak_anonymous_bytes'] / 1e6:>9,.0f} MB"
        )

    rows = measure(model.path, engines, sizes, chunk or CHUNKS, rounds)
    return measure_rows("chunks", rows, header, line, THREADS, {"graph": GRAPH, "model": describe_bundle(model)})


if __name__ == "__main__":
    run(main)
