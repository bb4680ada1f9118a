"""Build every plan of a bundle with TensorRT-RTX, and measure time, bytes and memory of each. No GPU runs them.

Each graph is built in its own process, one after another.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from fye_bench.arguments import benchmark, option, run
from fye_bench.environment import environment
from fye_bench.speed import process
from fye_rt.backends.tensorrt_library import RTX
from fye_rt.bundle import GRAPHS, Bundle
from fye_rt.cli import terminal
from fye_rt.plans import PlanCache


@benchmark("python -m fye_bench.speed.plans")
def main(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle to build from.")],
    work: Annotated[Path, option("DIR", "Folder for plans and logs.")],
    size: Annotated[str, option("HxW", "Size of clips.")] = "512x512",
    frames: Annotated[str, option("N", "Frames per window, smallest:usual:largest.")] = "1:24:24",
    precision: Annotated[str, option("NAME", "Compute precision.")] = "fp16",
    attention: Annotated[str, option("NAME", "Attention: fused or written-out.")] = "fused",
) -> dict[str, Any]:
    """Build every plan of a bundle with TensorRT-RTX, without a GPU, and measure time, bytes and memory of each."""
    work.mkdir(parents=True, exist_ok=True)
    os.environ["FYE_PLANS"] = str(work / "plans")
    request = {"size": size, "frames": frames, "precision": precision, "attention": attention}
    flags = [word for name, value in request.items() for word in (f"--{name}", value)]
    plans = {}
    for graph in GRAPHS:
        words = ("build", str(bundle), "--backend", RTX.backend, *flags, "--graph", graph, "--rebuild")
        facts = asdict(process.run(["-m", "fye_rt", *words], work / f"{graph}.log"))
        entries = (entry for entry in PlanCache().entries() if entry.key is not None and entry.key.graph == graph)
        facts["plan_bytes"] = max((entry.path / "plan.trt").stat().st_size for entry in entries)
        plans[graph] = facts
        terminal.say(
            f"{graph:<16}{facts['seconds'] / 60:>7.1f} min{facts['plan_bytes'] / 1e6:>9.0f} MB"
            f"{facts['peak_memory_bytes'] / 1e9:>8.2f} GB of memory"
        )
    digest = Bundle.load(bundle, verify=False).digest
    return {
        "environment": environment(),
        "library": f"{RTX.title} {RTX.version()}",
        "architectures": RTX.usual,
        "bundle": digest,
        **request,
        "plans": plans,
    }


if __name__ == "__main__":
    run(main)
