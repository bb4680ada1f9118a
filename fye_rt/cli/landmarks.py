"""`fye landmarks`: write the motion of a video or a picture."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fye_rt.cli import terminal
from fye_rt.cli.arguments import OF_MOTION, Quiet, Verbose, takes_request
from fye_rt.errors import OptionError
from fye_rt.settings import parse_request


@takes_request(only=OF_MOTION)
def landmarks(
    source: Annotated[Path, typer.Argument(metavar="VIDEO|IMAGE", help="Video or picture of a face.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="MOTION.npz", help="Motion to write.")],
    settings: dict[str, Any],
    points: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="JSON or CSV of named points, set by hand in a picture of a face that is not detected."
        ),
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw the landmarks on the input, as .mp4 or .png.")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Detect the face in a video or a picture and write its motion.

    With --points, fit the face's mesh to points in a picture instead.
    """
    from fye_rt import media
    from fye_rt.cli.overlay import write_overlay
    from fye_rt.clips import write
    from fye_rt.clips.driving import read_motion
    from fye_rt.errors import FaceNotFoundError

    request = parse_request({**settings, "motion": source})
    if points is not None:
        if given := [name for name in OF_MOTION[:-1] if settings[name] is not None]:
            raise OptionError(f"--points fits a picture's face; leave out --{given[0].replace('_', '-')}")
        _fit(source, points, output, request.landmarker, overlay)
        return
    if overlay is not None and request.gaps == "skip":
        raise OptionError("--overlay draws on all frames; leave out --gaps skip, or use --gaps hold")
    write.check_output(output, (".npz",), (source,))
    if overlay is not None:
        write.check_output(overlay, (".mp4", ".png"), (source,))
    with terminal.working(quiet, verbose) as bars:
        try:
            motion = read_motion(request, bars)
        except FaceNotFoundError as error:
            if media.kind_of(source) != "picture":
                raise
            raise FaceNotFoundError(f"{error}, or beside the picture with --points FILE") from error
        motion.save(output)
        if overlay is not None:
            with write.extra(output):
                write_overlay(overlay, request, motion)
    for text in motion.notices:
        terminal.note(text)
    bridged = int((~motion.valid).sum())
    terminal.say(f"{output}: {len(motion)} frames at {motion.fps:g} fps, {bridged} of them interpolated")


def _fit(source: Path, points: Path, output: Path, landmarker: Any, overlay: Path | None) -> None:
    """Fit the face's mesh to named points in a picture, and write the landmarks."""
    from fye_rt import media
    from fye_rt.cli.overlay import write_fit
    from fye_rt.clips import write
    from fye_rt.landmarks import find_landmarker
    from fye_rt.landmarks.geometry import load_geometry
    from fye_rt.landmarks.points import fit_points
    from fye_rt.landmarks.points_file import read_points

    write.check_output(output, (".npz",), (source, points))
    if overlay is not None:
        write.check_output(overlay, (".png",), (source, points))
    picture = media.read_image(source)
    named = read_points(points).scaled((picture.shape[0], picture.shape[1]))
    geometry = load_geometry(find_landmarker(landmarker))
    motion = fit_points(named, geometry)
    motion.save(output)
    if overlay is not None:
        with write.extra(output):
            write_fit(overlay, picture, motion, named, geometry.triangles)
    look = f"look at the fit in {overlay}" if overlay else "look at the fit with --overlay FILE.png"
    terminal.say(f"{output}: the face's mesh, fitted to {len(named.points)} points; {look}")
