"""The curve of a training run, from its logs.

python -m fye_bench.studies.training_curve RUN -o curve.png
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fye_bench.arguments import run
from fye_rt.clips import write
from fye_rt.errors import InputError


def main(argv: Sequence[str]) -> int:
    """Draw the curve; see the module."""
    parser = argparse.ArgumentParser(
        prog="python -m fye_bench.studies.training_curve", description="Draw a run's logs."
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="with STAGE.jsonl of one stage or more")
    parser.add_argument("-o", "--output", metavar="PNG", type=Path, required=True)
    given = parser.parse_args(argv)
    write.check_output(given.output, (".png", ".svg"))
    draw(given.output, read(given.run))
    return 0


def read(run: Path) -> dict[str, list[dict[str, Any]]]:
    """The log of each stage that has one.

    Raises:
        InputError: none has, or one is damaged.
    """
    logs = {log.stem: log for log in sorted(run.glob("*.jsonl"), key=lambda log: log.stat().st_mtime)}
    if not logs:
        raise InputError(f"{run} holds no log of a stage; give the folder of a training run")
    try:
        return {stage: [json.loads(line) for line in log.read_text().splitlines()] for stage, log in logs.items()}
    except ValueError as error:
        raise InputError(f"a log in {run} is damaged ({error})") from error


def draw(path: Path, stages: dict[str, list[dict[str, Any]]]) -> None:
    """Of each stage its loss, and what its sheets of held-out characters reach.

    Args:
        path: .png or .svg.
        stages: logs, by name.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(stages), 6), layout="constrained")
    axes = figure.subplots(2, len(stages), squeeze=False)
    for (stage, log), (loss, psnr) in zip(stages.items(), axes.T, strict=True):
        losses = [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]
        sheets = [entry for entry in log if "psnr" in entry]
        loss.plot(*zip(*losses, strict=True), linewidth=0.8)
        loss.set(title=stage, ylabel="loss", yscale="log")
        steps = [entry["step"] for entry in sheets]
        psnr.plot(steps, [entry["psnr"] for entry in sheets], marker=".", label="made")
        if sheets and "psnr_of_copying" in sheets[0]:
            psnr.plot(steps, [entry["psnr_of_copying"] for entry in sheets], "--", label="portrait copied")
            psnr.legend()
        psnr.set(xlabel="step", ylabel="PSNR of the sheets, dB")
        for axis in (loss, psnr):
            axis.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    run(main)
