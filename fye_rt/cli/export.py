"""`fye export`: export a checkpoint to a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from fye_rt.cli import terminal
from fye_rt.cli.arguments import Quiet, Verbose
from fye_rt.cli.optional import optional
from fye_rt.options import GUIDANCE


def export(
    checkpoint: Annotated[
        list[Path],
        typer.Argument(
            metavar="CHECKPOINT",
            help="Checkpoint's folder, in the released layout or repacked, or one or several files with its networks.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="BUNDLE", help="Bundle to write.")],
    precision: Annotated[str, typer.Option(help="Precision of the stored weights: fp32 or fp16.")] = "fp32",
    size: Annotated[str, typer.Option(metavar="HxW", help="Default height and width of clips.")] = "512x512",
    guidance: Annotated[float, typer.Option(help="Default guidance scale of clips.")] = GUIDANCE,
    shared_noise: Annotated[
        float, typer.Option(help="Default share of the noise that all frames of a clip have in common.")
    ] = 0.0,
    note: Annotated[str, typer.Option(help="Line to show to users of the bundle.")] = "",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Export a checkpoint to a bundle.

    Every graph is compared with PyTorch; the bundle is not written if one differs.
    """
    from fye_rt.settings import parse_size

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
            progress=bars,
        )
    stored = sum(file["bytes"] for file in bundle.manifest["files"].values())
    terminal.say(f"{output}: weights in {bundle.precision}, {stored / 1e6:,.1f} MB")
