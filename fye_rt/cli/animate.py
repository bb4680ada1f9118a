"""`fye animate`: make one clip."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fye_rt.cli import terminal
from fye_rt.cli.arguments import Backend, BundleFolder, LowMemory, Quiet, Threads, Verbose, takes_request
from fye_rt.cli.optional import model_notes, say_written
from fye_rt.errors import OptionError
from fye_rt.settings import parse_request


@takes_request()
def animate(
    portrait: Annotated[Path, typer.Argument(metavar="PORTRAIT", help="Picture of a face.")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT.mp4", help="Video to write; with --alpha .webm or a folder."),
    ],
    settings: dict[str, Any],
    motion: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MOTION]",
            help="Driving video, motion .npz, folder of landmark images, template .npy, or builtin:NAME (fye motions); "
            "without it --edit or --control says what the face does.",
        ),
    ] = None,
    bundle: BundleFolder = None,
    backend: Backend = "auto",
    threads: Threads = 0,
    low_memory: LowMemory = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Make frames while MOTION is being read; Ctrl-C keeps the finished ones.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep finished parts in DIR and resume from them (progressive windows only)."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write OUT_compare.mp4: portrait, landmarks and clip side by side.")
    ] = False,
    contact_sheet: Annotated[Path | None, typer.Option(metavar="PNG", help="Also write a contact sheet.")] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="REPORT", help="Also write a JSON report.")] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Animate PORTRAIT with MOTION.

    The clip keeps the frame rate and the sound of a driving video.
    """
    from dataclasses import replace

    from fye_rt import Animator, Bundle, files, media
    from fye_rt.bundle import shipped_bundle
    from fye_rt.clips import report, write
    from fye_rt.landmarks.builtin import eased

    request = parse_request({**settings, "portrait": portrait, "motion": motion or "builtin:still"})
    if motion is None:
        if request.control.is_neutral:
            raise OptionError("MOTION is missing; give one, or say what the face does with --edit or --control")
        still, control = eased(request.control, request.seconds or 1.0)
        request = replace(request, motion=still, control=control, seconds=None)
    if stream and (compare or contact_sheet or json or resume):
        raise OptionError("--stream writes the clip alone; leave out --compare, --contact-sheet, --json and --resume")
    if resume is not None and request.options.windows != "progressive":
        windows = request.options.windows
        raise OptionError(f"--resume keeps the finished intervals of a long clip; leave out --windows {windows}")
    given = (request.audio, request.portrait_landmarks)
    sources = (
        portrait,
        *([motion] if motion else []),
        *(Path(source) for source in given if isinstance(source, str | Path)),
    )
    comparison = output.with_name(f"{output.stem}_compare.mp4") if compare else None
    for path, suffixes in (
        (output, (".webm", "") if request.crop.alpha else (".mp4",)),
        (comparison, (".mp4",)),
        (contact_sheet, tuple(media.images.WRITABLE)),
        (json, (".json",)),
    ):
        if path is not None:
            write.check_output(path, suffixes, sources)
    with terminal.working(quiet, verbose) as bars:
        bars("check the bundle", 0, 1)
        model = Bundle.load(bundle or shipped_bundle())
        bars("check the bundle", 1, 1)
        request = replace(request, options=model.resolve(request.options))
        compute = request.options.compute
        with Animator(model, backend, compute=compute, threads=threads, low_memory=low_memory) as animator:
            start = time.perf_counter()
            if stream:
                clip_stream = animator.stream(request)
                count = write.write_stream(output, clip_stream, request.frames, bars)
                terminal.say(f"{output}: {count} frames at {clip_stream.fps:g} fps")
                return
            clip = animator.render(request, progress=bars, resume=resume)
            write.write_clip(clip, output, comparison, contact_sheet)
            seconds = time.perf_counter() - start
            facts = report.describe(animator, clip, request.options, bars.totals["denoise"], seconds)
        if json is not None:
            with write.extra(output):
                files.write_json(json, facts)
    for text in (*clip.notices, *model_notes(model)):
        terminal.note(text)
    say_written(output, clip)
