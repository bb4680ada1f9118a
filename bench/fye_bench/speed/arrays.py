"""Time the loop's array operations on a CPU: numpy, and C++ with each instruction set of this processor.

They are the CPU's twins of the kernels `forecast_step` and `to_uint8`. Times are medians of interleaved rounds.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

import numpy as np

from fye_bench.arguments import Rounds, Size, benchmark, option, run
from fye_bench.environment import OtherLoad, environment
from fye_rt import arrays, machine, settings
from fye_rt.cli import terminal

NUMPY = "numpy"


@contextmanager
def twin(name: str) -> Iterator[None]:
    """Run a block with the named twin of `fye_rt.arrays`: numpy, or C++ with an instruction set."""
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
    """Return one call of each operation, by name, for a clip of `size` (height, width) in pixels."""
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
    """Return seconds of each operation with each twin, round by round, after one warm-up round."""
    seconds: dict[str, dict[str, list[float]]] = {name: {each: [] for each in twins} for name in runs}
    for turn in range(rounds + 1):
        for name, operation in runs.items():
            for each in twins:
                with twin(each):
                    start = time.perf_counter()
                    operation()
                    taken = time.perf_counter() - start
                if turn:
                    seconds[name][each].append(taken)
    return seconds


@benchmark("python -m fye_bench.speed.arrays")
def main(
    rounds: Rounds = 20,
    frames: Annotated[int, option("N", "Frames of the clip.", min=1)] = 16,
    size: Size = "512x512",
) -> dict[str, Any]:
    """Time the loop's array operations: numpy, and C++ with each instruction set of this processor."""
    twins = [NUMPY, *([] if arrays.native is None else reversed(arrays.native.instruction_sets()))]
    load = OtherLoad()
    seconds = measure(operations(frames, settings.parse_size(size)), twins, rounds)
    busy = load.cores()
    medians = {
        name: {each: statistics.median(values) for each, values in times.items()} for name, times in seconds.items()
    }
    terminal.say(f"{'milliseconds':<28}" + "".join(f"{each:>10}" for each in twins))
    for name, times in medians.items():
        terminal.say(f"{name:<28}" + "".join(f"{1e3 * times[each]:>10.2f}" for each in twins))
    return {
        "environment": environment(machine.cpu()["usable"]) | {"other_processes_cores": busy},
        "workload": {"frames": frames, "size": size, "rounds": rounds},
        "median_seconds": medians,
        "seconds": seconds,
    }


if __name__ == "__main__":
    run(main)
