"""`fye calibrate`: fit jump tables to a model."""

from pathlib import Path
from typing import Annotated

import typer

from fye_rt.cli import terminal
from fye_rt.cli.arguments import DEFAULTS, Backend, Quiet, Threads, Verbose
from fye_rt.cli.optional import optional
from fye_rt.errors import OptionError
from fye_rt.options import COMPUTES, ClipRequest


def calibrate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle to calibrate.")],
    portrait: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Portrait (repeatable); by default drawn ones.")
    ] = None,
    motion: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Motion, as for fye animate; one for each portrait.")
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="Number of drawn clips.")] = 4,
    frames: Annotated[int, typer.Option(min=1, help="Frames to use of each clip, from the first.")] = 16,
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = DEFAULTS.steps,
    guidance: Annotated[
        list[float] | None,
        typer.Option(help="Guidance scale (repeatable); several give one table for all scales between."),
    ] = None,
    evaluations: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Number of network evaluations to fit for (repeatable); by default 4 to 20."),
    ] = None,
    ranges: Annotated[
        bool,
        typer.Option("--ranges", help="Instead measure the ranges that `fye build --precision int8` or fp8 needs."),
    ] = False,
    backend: Backend = "auto",
    compute: Annotated[str, typer.Option(help=f"Compute precision: {', '.join(COMPUTES)}.")] = DEFAULTS.compute,
    threads: Threads = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Fit a bundle's jump tables to its model on a few clips.

    The bundle stores the tables, and `fye animate --forecast calibrated` uses them.
    """
    from fye_rt import Animator, Bundle
    from fye_rt.clips.calibrate import calibrate_bundle, fitted_clips

    if len(portrait or []) != len(motion or []):
        raise OptionError("the numbers of --portrait and --motion differ; give one --motion for each --portrait")
    with terminal.working(quiet, verbose) as bars:
        model = Bundle.load(bundle)
        if portrait:
            pairs = list(zip(portrait, motion or [], strict=True))
        else:
            suite = optional("fye_bench.metrics.truth", "bench")
            pairs = suite.calibration_clips(clips, model.size, frames)
        requests = [ClipRequest(portrait=image, motion=driving, frames=frames) for image, driving in pairs]
        if ranges:
            measure = optional("fye_engines.quantize", "tensorrt").measure
            with Animator(model, "onnxruntime", threads=threads) as animator:
                prepared = fitted_clips(animator, requests)
            measured = measure(model, prepared, guidance or [model.guidance], threads, bars)
            for name, tensors in measured.items():
                terminal.say(f"{bundle}: ranges of {len(tensors)} tensors of {name}")
            return
        with Animator(model, backend, compute=compute, threads=threads) as animator:
            fitted = calibrate_bundle(
                animator,
                requests,
                steps=steps,
                guidance=guidance or [model.guidance],
                evaluations=evaluations or range(4, 21),
                progress=bars,
            )
    for entry in fitted:
        steps_taken = ", ".join(str(jump.step) for jump in entry.table.jumps)
        terminal.say(
            f"{entry.table.evaluations:>3} evaluations: error {entry.error:.4f} on held-out clips; steps {steps_taken}"
        )
    terminal.say(f"{bundle}: {len(fitted)} tables for {steps} steps")
