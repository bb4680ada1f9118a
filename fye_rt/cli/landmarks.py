"""`fye landmarks`: write the motion of a video or a picture."""

from pathlib import Path
from typing import Annotated

import typer

from fye_rt.cli import terminal
from fye_rt.cli.arguments import Frames, Landmarker, Quiet, Verbose


def landmarks(
    source: Annotated[Path, typer.Argument(metavar="VIDEO|IMAGE", help="Video or picture of a face.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="MOTION.npz", help="Motion to write.")],
    frames: Frames = None,
    landmarker: Landmarker = None,
    overlay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw the landmarks on the input, as .mp4 or .png.")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Detect the face in a video or a picture and write its motion."""
    from fye_rt.cli.overlay import write_overlay
    from fye_rt.clips import write
    from fye_rt.clips.driving import read_motion
    from fye_rt.options import ClipRequest

    write.check_output(output, (".npz",), (source,))
    if overlay is not None:
        write.check_output(overlay, (".mp4", ".png"), (source,))
    with terminal.working(quiet, verbose) as bars:
        request = ClipRequest(portrait="", motion=source, frames=frames, landmarker=landmarker)
        motion = read_motion(request, bars)
        motion.save(output)
        if overlay is not None:
            with write.extra(output):
                write_overlay(overlay, source, motion)
    for text in motion.notices:
        terminal.note(text)
    bridged = int((~motion.valid).sum())
    terminal.say(f"{output}: {len(motion)} frames at {motion.fps:g} fps, {bridged} of them interpolated")
