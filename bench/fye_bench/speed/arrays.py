"""The array operations of the loop on a CPU: numpy, and C++ with each set of instructions that this processor has.

    python -m fye_bench.speed.arrays [--rounds 20] [--frames 16] [--size 512x512] [--json FILE]

They are the CPU's twins of the kernels `forecast_step` and `to_uint8`. Times are medians of interleaved rounds.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fye_bench.environment import OtherLoad, environment
from fye_rt import arrays, files, machine, options

NUMPY = "numpy"


@contextmanager
def twin(name: str) -> Iterator[None]:
    """Within it, `fye_rt.arrays` is numpy, or C++ with the named set of instructions."""
    native = arrays.native
    before = None if native is None else native.instruction_set()
    try:
        if name == NUMPY:
            arrays.native = None
        else:
            native.use_instruction_set(name)
        yield
    finally:
        arrays.native = native
        if native is not None:
            native.use_instruction_set(before)


def operations(frames: int, size: tuple[int, int]) -> dict[str, Callable[[], Any]]:
    """One call of each operation, by name.

    Args:
        frames: of the clip.
        size: (height, width) in pixels.
    """
    random = np.random.default_rng(0)
    height, width = size
    x, newest, before = random.standard_normal((3, 1, 4, frames, height // 8, width // 8), np.float32)
    face = random.random(x.shape[2:]) < 0.5
    pixels = random.random((frames, height, width, 3), np.float32)
    inside, outside = (0.9, 0.4, -0.2), (0.9, 0.3, 0.0)
    return {
        "guidance": partial(arrays.guide, newest, before, 3.5),
        "jump of first order": partial(arrays.weighted_sum, (x, newest, before), inside),
        "the same with a face mask": partial(arrays.masked_sum, (x, newest, before), inside, outside, face),
        "frames to uint8": partial(arrays.to_uint8, pixels),
    }


def measure(
    runs: Mapping[str, Callable[[], Any]], twins: Sequence[str], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Seconds of each operation by each twin, round by round, after one that isn't counted."""
    seconds: dict[str, dict[str, list[float]]] = {name: {each: [] for each in twins} for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            for each in twins:
                with twin(each):
                    start = time.perf_counter()
                    run()
                    taken = time.perf_counter() - start
                if turn:
                    seconds[name][each].append(taken)
    return seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fye_bench.speed.arrays", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", default="512x512", metavar="HxW")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    given = parser.parse_args(argv)
    twins = [NUMPY, *([] if arrays.native is None else reversed(arrays.native.instruction_sets()))]
    load = OtherLoad()
    seconds = measure(operations(given.frames, options.parse_size(given.size)), twins, given.rounds)
    busy = load.cores()
    print(f"{'milliseconds':<28}" + "".join(f"{each:>10}" for each in twins))
    for name, times in seconds.items():
        print(f"{name:<28}" + "".join(f"{1e3 * statistics.median(times[each]):>10.2f}" for each in twins))
    if given.json is not None:
        content = {
            "command": ["python", "-m", "fye_bench.speed.arrays", *(sys.argv[1:] if argv is None else argv)],
            "environment": environment(machine.cpu()["usable"]) | {"other_processes_cores": busy},
            "workload": {key: getattr(given, key) for key in ("frames", "size", "rounds")},
            "median_seconds": {
                name: {each: statistics.median(found) for each, found in times.items()}
                for name, times in seconds.items()
            },
            "seconds": seconds,
        }
        files.write_json(given.json, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
