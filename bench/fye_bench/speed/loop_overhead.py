"""Time a step without its network evaluation, in two checkouts: the host's loop with a network that costs nothing.

Each checkout has a .venv, with the native module built. Processes of the two take turns, in random order in a round.
"""

import random
import subprocess
from pathlib import Path
from typing import Annotated, Any

from fye_bench.arguments import Rounds, benchmark, option, run
from fye_bench.environment import commit, environment
from fye_bench.speed.summary import summary
from fye_rt.cli import terminal

ROOT = Path(__file__).resolve().parents[3]
FRAMES, SIDE, STEPS, CLIPS = 16, 512, 30, 9
# it prints the median seconds of a step; the last `denoise` is that of checkouts without workspaces
CHILD = f"""
import statistics, time
import numpy as np
import fye_rt._native
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

def seconds():
    start = time.perf_counter()
    run()
    return time.perf_counter() - start

run()
print(statistics.median(seconds() for _ in range({CLIPS})) / {STEPS})
"""


@benchmark("python -m fye_bench.speed.loop_overhead")
def main(
    other: Annotated[Path, option("CHECKOUT", "Checkout to compare with.")], rounds: Rounds = 15
) -> dict[str, Any]:
    """Time a step of the host's loop with a network that costs nothing, in this checkout and in another."""
    checkouts = {"this": ROOT, "other": other.resolve()}
    seconds: dict[str, list[float]] = {name: [] for name in checkouts}
    for _ in range(rounds):
        for name in random.sample(list(checkouts), len(checkouts)):
            seconds[name].append(_step(checkouts[name]))
    measured = {name: summary(values) for name, values in seconds.items()}
    ratios = [x / y for x, y in zip(seconds["this"], seconds["other"], strict=True)]
    for name, values in measured.items():
        terminal.say(f"{name}: {1000 * values['p50']:.3f} ms a step")
    terminal.say(f"this / other: {summary(ratios)['p50']:.3f}")
    return {
        "environment": environment() | {"other_commit": commit(checkouts["other"])},
        "workload": {"frames": FRAMES, "size": [SIDE, SIDE], "steps": STEPS, "windows": 1, "guidance": 3.5},
        "seconds_of_a_step": measured,
        "ratio": summary(ratios),
    }


def _step(checkout: Path) -> float:
    command = [str(checkout / ".venv" / "bin" / "python"), "-c", CHILD]
    child = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    return float(child.stdout)


if __name__ == "__main__":
    run(main)
