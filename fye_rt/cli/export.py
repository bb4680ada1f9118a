"""`fye export`: a bundle from a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from fye_rt.cli import terminal
from fye_rt.cli.arguments import Quiet, Verbose
from fye_rt.cli.optional import optional
from fye_rt.options import GUIDANCE


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT_DIR")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="BUNDLE")],
    precision: Annotated[str, typer.Option(help="Precision of the stored weights: fp32 or fp16.")] = "fp32",
    size: Annotated[str, typer.Option(metavar="HxW", help="Height and width of clips that name none.")] = "512x512",
    guidance: Annotated[float, typer.Option(help="Guidance scale of clips that name none.")] = GUIDANCE,
    shared_noise: Annotated[
        float, typer.Option(help="Share of the noise that is the same in all frames, of clips that name none.")
    ] = 0.0,
    note: Annotated[str, typer.Option(help="Line to show to users of the bundle.")] = "",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make a bundle from a checkpoint in the released layout.

    Every graph is compared with PyTorch; nothing is published that differs.
    """
    from fye_rt.options import parse_size

    height_width = parse_size(size)
    exporter = optional("fye_export.export", "export")
    with terminal.working(quiet, verbose) as bars:
        bundle = exporter.export(
            checkpoint,
            output,
            precision=precision,
            size=height_width,
            guidance=guidance,
            shared_noise=shared_noise,
            note=note,
            progress=lambda message, fraction: bars("export", round(100 * fraction), 100, message),
        )
    stored = sum(file["bytes"] for file in bundle.manifest["files"].values())
    terminal.say(f"{output}: weights in {bundle.precision}, {stored / 1e6:,.1f} MB")
