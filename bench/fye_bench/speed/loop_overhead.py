"""What a step costs outside of the network: the host's loop with a network that costs nothing, beside another checkout.

    python -m fye_bench.speed.loop_overhead --other CHECKOUT [--rounds 15] [--json FILE]

Processes of the two checkouts take turns, in random order within a round.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fye_bench.environment import environment
from fye_bench.speed.summary import summary
from fye_rt.files import write_json

ROOT = Path(__file__).resolve().parents[3]
FRAMES, SIDE, STEPS = 16, 512, 30
# seconds of a step, by the loop of this checkout or by that which stood before the workspaces did
CHILD = f"""
import sys, time
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__.lower()]
import numpy as np
from fye_rt import forecast
from fye_rt.denoise import denoise
from fye_rt.schedule import SchedulerConfig, schedule
from fye_rt.windows import Window

shape = (1, 4, {FRAMES}, {SIDE // 8}, {SIDE // 8})
rng = np.random.default_rng(0)
noise, halves = (rng.standard_normal(shape).astype(np.float32), rng.standard_normal((2, *shape)).astype(np.float32))
steps = schedule({STEPS}, SchedulerConfig())
windows = [Window(np.arange({FRAMES}), np.ones({FRAMES}))]

def network(latents, timestep, frames):
    return halves[0], halves[1]

def run():
    if hasattr(forecast, "jump_table"):
        from fye_rt.backends.host import HostWorkspace
        workspace = HostWorkspace(network, steps.timesteps.tolist(), windows, 3.5)
        return denoise(workspace, steps, forecast.jump_table(steps), windows, noise)
    return denoise(network, steps, forecast.plan(steps), windows, noise, 3.5)

run()
start = time.perf_counter()
run()
print((time.perf_counter() - start) / {STEPS})
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the milliseconds of a step of both checkouts."""
    parser = argparse.ArgumentParser(prog="python -m fye_bench.speed.loop_overhead", description=__doc__.split("\n")[0])
    parser.add_argument("--other", type=Path, required=True, metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    arguments = parser.parse_args(argv)
    places = {"this": ROOT, "other": arguments.other.resolve()}
    seconds: dict[str, list[float]] = {name: [] for name in places}
    for _ in range(arguments.rounds):
        for name in random.sample(list(places), len(places)):
            seconds[name].append(_step(places[name]))
    measured = {name: summary(values) for name, values in seconds.items()}
    ratios = [this / other for this, other in zip(seconds["this"], seconds["other"], strict=True)]
    for name, values in measured.items():
        print(f"{name}: {1000 * values['p50']:.3f} ms a step")
    print(f"this / other: {summary(ratios)['p50']:.3f}")
    if arguments.json is not None:
        result: dict[str, Any] = {
            "command": ["python", "-m", "fye_bench.speed.loop_overhead", *(sys.argv[1:] if argv is None else argv)],
            "environment": environment(),
            "workload": {"frames": FRAMES, "size": [SIDE, SIDE], "steps": STEPS, "windows": 1, "guidance": 3.5},
            "seconds_of_a_step": measured,
            "ratio": summary(ratios),
        }
        write_json(arguments.json, result)
    return 0


def _step(checkout: Path) -> float:
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(child.stdout))


if __name__ == "__main__":
    sys.exit(main())
