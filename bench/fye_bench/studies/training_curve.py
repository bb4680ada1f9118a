"""Draw the curve of a training run from its logs."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fye_bench.arguments import command, option, run, writable
from fye_rt.errors import InputError


@command("python -m fye_bench.studies.training_curve")
def main(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run, with logs STAGE.jsonl.")],
    output: Annotated[Path, option("PNG", "A .png or .svg.", "-o", "--output", callback=writable(".png", ".svg"))],
) -> None:
    """Draw the curve of a training run from its logs."""
    draw(output, read(folder))


def read(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the logs of a training run, by stage.

    Raises:
        InputError: the folder holds no log, or a log is damaged.
    """
    logs = {log.stem: log for log in sorted(run.glob("*.jsonl"), key=lambda log: log.stat().st_mtime)}
    if not logs:
        raise InputError(f"{run} holds no log of a stage; give the folder of a training run")
    try:
        return {stage: [json.loads(line) for line in log.read_text().splitlines()] for stage, log in logs.items()}
    except ValueError as error:
        raise InputError(f"a log in {run} is damaged ({error}); remove it or train again") from error


def draw(path: Path, stages: dict[str, list[dict[str, Any]]]) -> None:
    """Draw the loss of each stage, and the PSNR of its sheets of held-out characters.

    Args:
        path: .png or .svg.
        stages: entries of the log of each stage.
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
