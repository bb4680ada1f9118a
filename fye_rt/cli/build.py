"""`fye build`: build TensorRT plans."""

from pathlib import Path
from typing import Annotated

import typer

from fye_rt.cli import terminal
from fye_rt.cli.arguments import DEFAULTS, Quiet, Verbose
from fye_rt.cli.optional import optional
from fye_rt.errors import OptionError
from fye_rt.settings import DEFAULT_WINDOWS


def build(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="Bundle to build from; --list and --prune need none.")
    ] = None,
    backend: Annotated[
        str, typer.Option(help="Backend to build for: tensorrt, or tensorrt-rtx, which needs no GPU to build.")
    ] = "tensorrt",
    arch: Annotated[
        str,
        typer.Option(metavar="LIST", help="Architectures for tensorrt-rtx; by default sm_80,sm_86,sm_89,sm_120."),
    ] = "",
    size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Size of clips, or smallest:usual:largest; by default the bundle's."),
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option(metavar="N", help="Frames per window, or smallest:usual:largest; by default as --windows needs."),
    ] = None,
    windows: Annotated[
        str,
        typer.Option(help="Windows: progressive (all lengths up to --window-size), context or reference (that one)."),
    ] = DEFAULT_WINDOWS,
    window_size: Annotated[int, typer.Option(help="Frames per network evaluation.")] = DEFAULTS.window_size,
    graph: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Build only this graph (repeatable); by default all that clips need."),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(help="Compute precision: fp16, bf16, fp32; or int8, fp8, which need `fye calibrate --ranges`."),
    ] = "fp16",
    attention: Annotated[
        str, typer.Option(help="Attention: fused (TensorRT's own) or written-out (products and softmax).")
    ] = "fused",
    level: Annotated[int, typer.Option(help="Optimization level, 0 to 5: how long to search for fast kernels.")] = 3,
    workspace: Annotated[int | None, typer.Option(metavar="MB", help="Workspace memory that a kernel may use.")] = None,
    refit: Annotated[bool, typer.Option("--refit", help="Make plans that accept another fine-tune's weights.")] = False,
    stripped: Annotated[
        bool, typer.Option("--stripped", help="Also keep a plan without weights, to share; implies --refit.")
    ] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Also rebuild existing plans.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be built, and why.")] = False,
    list_plans: Annotated[bool, typer.Option("--list", help="Only list the plans.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Only remove plans of other GPUs, drivers and versions, and damaged ones.")
    ] = False,
    limit: Annotated[
        int,
        typer.Option(metavar="GB", min=0, help="Disk space for all plans; the least recently used are removed first."),
    ] = 32,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Build plans of a bundle: with TensorRT for this machine's GPU, with TensorRT-RTX for GeForce and RTX cards.

    Every plan is compared with ONNX Runtime in float32 before it is kept, if this machine has a GPU that can run it.
    `fye animate --backend tensorrt` or tensorrt-rtx runs the plans.
    """
    from fye_rt import Bundle
    from fye_rt.plans import PlanCache

    command = optional("fye_engines.command", "tensorrt")
    cache = PlanCache(limit=limit << 30)
    with terminal.working(quiet, verbose) as bars:
        if list_plans:
            lines = command.listed(cache)
        elif prune:
            lines = command.pruned(cache)
        elif bundle is None:
            raise OptionError("give a BUNDLE, or one of --list and --prune")
        else:
            model = Bundle.load(bundle)
            request = command.request(
                model,
                backend=backend,
                size=size,
                frames=frames,
                windows=windows,
                window_size=window_size,
                graphs=graph,
                precision=precision,
                attention=attention,
                level=level,
                workspace=workspace,
                refit=refit,
                stripped=stripped,
                rebuild=rebuild,
            )
            names = tuple(filter(None, arch.split(",")))
            lines = (
                command.planned(model, request, names, cache)
                if dry_run
                else command.build_plans(model, request, names, cache, bars)
            )
        show = terminal.show if list_plans or dry_run else terminal.say  # plans stay if stdout cannot be written
        for line in lines:
            show(line)
