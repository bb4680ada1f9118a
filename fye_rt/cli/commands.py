"""The commands of `fye`; each imports what it runs when it runs."""

import importlib
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fye_rt.cli import terminal
from fye_rt.errors import BackendError, OptionError
from fye_rt.options import (
    COMPUTES,
    DEFAULT_FORECAST,
    DEFAULT_WINDOWS,
    FORECASTS,
    QUANTITIES,
    SOLVERS,
    WINDOWS,
    Forecast,
    Options,
)

if TYPE_CHECKING:
    from fye_rt.bundle import Bundle
    from fye_rt.clips.clip import Clip, Rendering

DEFAULTS = Options()
# by the word after `fye bench`; latency has none
BENCHMARKS = {
    "quality": "fye_bench.quality.command",
    "cross": "fye_bench.quality.cross",
    "forecast": "fye_bench.studies.forecasts",
    "windows": "fye_bench.studies.windows",
    "batch": "fye_bench.speed.batches",
}

_forecast = partial(typer.Option, rich_help_panel="Forecast")

Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Let MediaPipe and other libraries log.")]
Landmarker = Annotated[Path | None, typer.Option(metavar="FILE", help="MediaPipe's face_landmarker.task.")]
Frames = Annotated[int | None, typer.Option(min=1, help="Use that many first frames.")]
Backend = Annotated[
    str, typer.Option(help="auto, onnxruntime, openvino, tensorrt, torch or onnxruntime-cuda; see fye doctor.")
]


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR")] = Path("fye-demo"),
    forecast: Annotated[str, typer.Option(help="Of the cache, as for animate; off: every step.")] = DEFAULT_FORECAST,
    quiet: Quiet = False,
) -> None:
    """Animate the shipped portraits: a person, a cartoon, a sculpture and an animal.

    Writes demo.mp4, contact_sheet.png and timings.json into DIR.
    """
    from fye_rt.cli.demo import run

    with terminal.working(quiet) as bars:
        bundle, clips = run(output, bars, forecast)
    for family, clip in clips.items():
        _say_written(family, clip)
    terminal.say(f"{output / 'demo.mp4'}: all of them")
    terminal.say(f"{output / 'contact_sheet.png'}: portraits, landmarks and frames")
    for note in _model_notes(bundle):
        terminal.say(note)


def _default_forecast(solver: str, evaluations: int | None) -> str:
    if solver != DEFAULTS.solver:
        return "off"
    return DEFAULT_FORECAST if evaluations is None else "calibrated"


def animate(
    portrait: Annotated[Path, typer.Argument(metavar="PORTRAIT", help="A picture of a face.")],
    motion: Annotated[
        Path,
        typer.Argument(
            metavar="MOTION",
            help="A driving video, a motion .npz, a folder of landmark images, or a template .npy.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.mp4")],
    bundle: Annotated[Path | None, typer.Option(metavar="DIR", help="The model; by default the shipped one.")] = None,
    backend: Backend = "auto",
    steps: Annotated[int, typer.Option(help="Steps of the solver.")] = DEFAULTS.steps,
    guidance: Annotated[
        float | None, typer.Option(help="Classifier-free guidance scale; by default what suits the model.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = DEFAULTS.seed,
    shared_noise: Annotated[
        float | None, typer.Option(help="Part of the noise that all frames share; by default what suits the model.")
    ] = None,
    forecast: Annotated[
        str | None, _forecast(help=f"{', '.join(FORECASTS)}; by default {DEFAULT_FORECAST}, or off with --solver.")
    ] = None,
    evaluations: Annotated[int | None, _forecast(metavar="N", help="Network evaluations, evenly spread.")] = None,
    interval: Annotated[int | None, _forecast(metavar="N", help="Evaluate every N-th step instead.")] = None,
    warm_up: Annotated[int | None, _forecast(metavar="N", help="First steps that are all evaluated.")] = None,
    last_step: Annotated[bool | None, _forecast(help="Evaluate the last step; it keeps the detail.")] = None,
    quantity: Annotated[str | None, _forecast(help=f"What is forecast: {', '.join(QUANTITIES)}.")] = None,
    order: Annotated[int | None, _forecast(metavar="M", help="Of the polynomial.")] = None,
    face_mask: Annotated[bool | None, _forecast("--face-mask", help="Reuse outside of the face.")] = None,
    tolerance: Annotated[float | None, _forecast(help="Accepted error of a jump (adaptive; 0.005).")] = None,
    max_evaluations: Annotated[int | None, _forecast(metavar="N", help="At most that many (adaptive).")] = None,
    solver: Annotated[str, typer.Option(help=", ".join(SOLVERS))] = DEFAULTS.solver,
    windows: Annotated[str, typer.Option(help=", ".join(WINDOWS))] = DEFAULT_WINDOWS,
    window_size: Annotated[int, typer.Option(help="Frames per network evaluation.")] = DEFAULTS.window_size,
    window_overlap: Annotated[int, typer.Option(help="Frames neighbours share.")] = DEFAULTS.window_overlap,
    compute: Annotated[str, typer.Option(help=", ".join(COMPUTES))] = DEFAULTS.compute,
    threads: Annotated[int, typer.Option(min=0, help="Of the CPU; 0: one per core.")] = 0,
    low_memory: Annotated[bool, typer.Option("--low-memory", help="Release graphs after their last use.")] = False,
    frames: Frames = None,
    size: Annotated[str | None, typer.Option(metavar="HxW", help="Of the clip, multiples of 8.")] = None,
    landmarker: Landmarker = None,
    portrait_landmarks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The fitted portrait's landmarks, in place of detection.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Make frames while MOTION is read; Ctrl-C keeps what is finished.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Keep what is finished in DIR, and go on from there (progressive windows alone)."
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write OUT_compare.mp4: portrait, landmarks, result.")
    ] = False,
    contact_sheet: Annotated[Path | None, typer.Option(metavar="PNG", help="Also write a contact sheet.")] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="REPORT", help="Also write a report.")] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Animate PORTRAIT with MOTION. A driving video's frame rate and sound are kept."""
    from fye_rt import Animator, Bundle, machine, media
    from fye_rt.cli.demo import shipped_bundle
    from fye_rt.clips import write
    from fye_rt.clips.clip import live
    from fye_rt.clips.clip import stream as stream_of

    options = Options(
        steps=steps,
        guidance=DEFAULTS.guidance if guidance is None else guidance,
        seed=seed,
        shared_noise=DEFAULTS.shared_noise if shared_noise is None else shared_noise,
        forecast=Forecast(
            method=forecast or _default_forecast(solver, evaluations),
            evaluations=evaluations,
            interval=interval,
            warm_up=warm_up,
            last_step=last_step,
            quantity=quantity,
            order=order,
            face_mask=face_mask,
            tolerance=tolerance,
            max_evaluations=max_evaluations,
        ),
        solver=solver,
        windows=windows,
        window_size=window_size,
        window_overlap=window_overlap,
        compute=compute,
    )
    height_width = None if size is None else write.parse_size(size)
    if stream and (compare or contact_sheet or json or resume):
        raise OptionError("--stream writes the clip alone; leave out --compare, --contact-sheet, --json and --resume")
    if resume is not None and windows != "progressive":
        raise OptionError(f"--resume keeps the finished intervals of a long clip; leave out --windows {windows}")
    comparison = output.with_stem(f"{output.stem}_compare") if compare else None
    for path, suffixes in (
        (output, (".mp4",)),
        (comparison, (".mp4",)),
        (contact_sheet, tuple(media.images.WRITABLE)),
        (json, (".json",)),
    ):
        if path is not None:
            write.check_output(path, suffixes, (portrait, motion))
    with terminal.working(quiet, verbose) as bars:
        bars("check the bundle", 0, 1)
        model = Bundle.load(bundle or shipped_bundle())
        bars("check the bundle", 1, 1)
        options = model.suited(options, guidance=guidance, shared_noise=shared_noise)
        with Animator(model, backend, compute=compute, threads=threads, low_memory=low_memory) as animator:
            start = time.perf_counter()
            if stream:
                times: deque[float] = deque()
                playback, motions = live(motion, times, frames, landmarker)
                pieces = stream_of(
                    animator,
                    portrait,
                    motions,
                    options,
                    size=height_width,
                    landmarker=landmarker,
                    portrait_landmarks=portrait_landmarks,
                )
                made = write.write_stream(
                    output,
                    playback,
                    iter(times.popleft, None),
                    pieces,
                    lambda done: bars("stream", done, max(done, frames or 0)),
                )
                terminal.say(f"{output}: {made} frames at {playback.fps:g} fps")
                return
            clip = animator.render(
                portrait,
                motion,
                options,
                size=height_width,
                frames=frames,
                landmarker=landmarker,
                portrait_landmarks=portrait_landmarks,
                tell=bars,
                resume=resume,
            )
            write.write_clip(clip, output, comparison, contact_sheet)
            facts = machine.describe(animator, clip, options, bars.totals["denoise"], time.perf_counter() - start)
        if json is not None:
            with write.extra(output):
                machine.write_json(json, facts)
    for text in (*clip.notices, *_model_notes(model)):
        terminal.note(text)
    _say_written(output, clip)


def landmarks(
    source: Annotated[Path, typer.Argument(metavar="VIDEO|IMAGE")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="MOTION.npz")],
    frames: Frames = None,
    landmarker: Landmarker = None,
    overlay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw the landmarks on the input: .mp4, or .png.")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find the face in a video or a picture and write its motion."""
    from fye_rt.clips import write
    from fye_rt.clips.clip import read_motion

    write.check_output(output, (".npz",), (source,))
    if overlay is not None:
        write.check_output(overlay, (".mp4", ".png"), (source,))
    with terminal.working(quiet, verbose) as bars:
        motion = read_motion(source, frames, landmarker, bars)
        motion.save(output)
        if overlay is not None:
            with write.extra(output):
                write.write_overlay(overlay, source, motion)
    for text in motion.notices:
        terminal.note(text)
    bridged = int((~motion.valid).sum())
    terminal.say(f"{output}: {len(motion)} frames at {motion.fps:g} fps, {bridged} of them interpolated")


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT_DIR")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="BUNDLE")],
    precision: Annotated[str, typer.Option(help="In which weights are stored: fp32 or fp16.")] = "fp32",
    size: Annotated[str, typer.Option(metavar="HxW", help="Of clips, by default.")] = "512x512",
    guidance: Annotated[
        float, typer.Option(help="Scale that suits the model, for who names none.")
    ] = DEFAULTS.guidance,
    shared_noise: Annotated[
        float, typer.Option(help="Part of the noise that all frames share, for who names none.")
    ] = DEFAULTS.shared_noise,
    note: Annotated[str, typer.Option(help="A line that is shown to whoever uses the bundle.")] = "",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make a bundle from a checkpoint in the released layout.

    Every graph is compared with PyTorch; nothing is published that differs.
    """
    from fye_rt.clips.write import parse_size

    height_width = parse_size(size)
    exporter = _optional("fye_export.export", "export")
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


def build(
    bundle: Annotated[Path | None, typer.Argument(metavar="BUNDLE")] = None,
    backend: Annotated[str, typer.Option(help="tensorrt; no other backend has plans.")] = "tensorrt",
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Of clips; by default the bundle's. Or smallest:usual:largest.")
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option(metavar="N", help="Of a window; by default what --windows needs. Or a range likewise."),
    ] = None,
    windows: Annotated[
        str,
        typer.Option(help="progressive: all lengths up to --window-size; context, reference: that alone."),
    ] = DEFAULT_WINDOWS,
    window_size: Annotated[int, typer.Option(help="Frames per network evaluation.")] = DEFAULTS.window_size,
    graph: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this one; repeat it. By default what clips need.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Of products: fp16, bf16, fp32; or int8, fp8, which need `fye calibrate --ranges`.")
    ] = "fp16",
    attention: Annotated[str, typer.Option(help="fused: TensorRT's own; written-out: products and softmax.")] = "fused",
    level: Annotated[int, typer.Option(help="Of optimization, 0 to 5: how long fast kernels are looked for.")] = 3,
    workspace: Annotated[int | None, typer.Option(metavar="MB", help="Memory that a kernel may use.")] = None,
    refit: Annotated[bool, typer.Option("--refit", help="The plan can take the weights of another fine-tune.")] = False,
    stripped: Annotated[
        bool, typer.Option("--stripped", help="Also keep a plan without weights, to give to others. Means --refit.")
    ] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Also what is there already.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be built, and why.")] = False,
    list_plans: Annotated[bool, typer.Option("--list", help="Only list the plans that there are.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Only remove plans of other GPUs, drivers and versions, and damaged ones.")
    ] = False,
    limit: Annotated[int, typer.Option(metavar="GB", min=0, help="For all plans; the least used go first.")] = 32,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Build TensorRT plans from a bundle, for the GPU of this machine.

    Every plan is compared with ONNX Runtime in float32 before it is kept. `fye animate --backend tensorrt` runs them.
    """
    from fye_rt import Bundle
    from fye_rt.plans import PlanCache

    if backend != "tensorrt":
        raise OptionError(f"backend={backend!r} is not valid; only tensorrt has plans that are built")
    command = _optional("fye_engines.command", "tensorrt")
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
            lines = (
                command.planned(model, request, cache) if dry_run else command.build_plans(model, request, cache, bars)
            )
        tell = terminal.show if list_plans or dry_run else terminal.say  # what is built is there all the same
        for line in lines:
            tell(line)


def calibrate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    portrait: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A portrait; repeat it. By default drawn ones.")
    ] = None,
    motion: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="What moves it, as for animate; one for each portrait.")
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="How many drawn ones.")] = 4,
    frames: Annotated[int, typer.Option(min=1, help="Of each clip, the first ones.")] = 16,
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = DEFAULTS.steps,
    guidance: Annotated[
        list[float] | None, typer.Option(help="Guidance scale; several give one plan for all between them.")
    ] = None,
    evaluations: Annotated[
        list[int] | None, typer.Option(metavar="N", help="Plans for so many; by default 4 to 20.")
    ] = None,
    ranges: Annotated[
        bool, typer.Option("--ranges", help="Instead measure what `fye build --precision int8` or fp8 needs to know.")
    ] = False,
    backend: Backend = "auto",
    compute: Annotated[str, typer.Option(help=", ".join(COMPUTES))] = DEFAULTS.compute,
    threads: Annotated[int, typer.Option(min=0, help="Of the CPU; 0: one per core.")] = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Fit the cache's jumps to a model, on a few clips, and put them into the bundle.

    `fye animate --forecast calibrated` uses them.
    """
    from fye_rt import Animator, Bundle
    from fye_rt.clips.calibrate import Source, calibrate_bundle, fitted_clips

    if len(portrait or []) != len(motion or []):
        raise OptionError("give as many --motion as --portrait")
    with terminal.working(quiet, verbose) as bars:
        model = Bundle.load(bundle)
        if portrait:
            sources = [Source(image, driving) for image, driving in zip(portrait, motion or [], strict=True)]
        else:
            suite = _optional("fye_bench.metrics.truth", "bench")
            sources = [Source(*pair) for pair in suite.calibration_clips(clips, model.size, frames)]
        if ranges:
            measure = _optional("fye_engines.quantize", "tensorrt").measure
            with Animator(model, "onnxruntime", threads=threads) as animator:
                pairs = fitted_clips(animator, sources, frames)
            measured = measure(model, pairs, guidance or [model.guidance], threads, bars)
            for name, found in measured.items():
                terminal.say(f"{bundle}: ranges of {len(found)} tensors of {name}")
            return
        with Animator(model, backend, compute=compute, threads=threads) as animator:
            fitted = calibrate_bundle(
                animator,
                sources,
                steps=steps,
                guidance=guidance or [model.guidance],
                evaluations=evaluations or range(4, 21),
                frames=frames,
                tell=bars,
            )
    for one in fitted:
        taken = ", ".join(str(jump.step) for jump in one.plan.jumps)
        terminal.say(f"{one.plan.evaluations:>3} evaluations: error {one.error:.4f} on other clips; steps {taken}")
    terminal.say(f"{bundle}: {len(fitted)} plans for {steps} steps")


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    backend: Backend = "auto",
    quiet: Quiet = False,
) -> None:
    """Check every hash of a bundle and run every graph once."""
    from fye_rt import Bundle
    from fye_rt.cli.verify import table
    from fye_rt.cli.verify import verify as run_graphs

    with terminal.working(quiet) as bars:
        bars("check the bundle", 0, 1)
        model = Bundle.load(bundle)
        bars("check the bundle", 1, 1)
        checks = run_graphs(model, backend, lambda done, total: bars("run the graphs", done, total))
    for line in (*table(checks), *_model_notes(model), "ok"):
        terminal.show(line)


def bench(context: typer.Context) -> None:
    """Time the baseline and the runtime, interleaved.

    `fye bench quality` measures a bundle on drawn portraits whose true frames are known, `fye bench cross` with the
    motion of a real talking head. `fye bench forecast` compares all ways to fewer evaluations,
    `fye bench windows` all kinds of windows on long clips, `fye bench batch` one worker and several.
    """
    arguments = list(context.args)
    module = BENCHMARKS.get(arguments[0]) if arguments else None
    if module is not None:
        del arguments[0]
    raise typer.Exit(_optional(module or "fye_bench.speed.latency", "bench").main(arguments) or 0)


def suite(context: typer.Context) -> None:
    """Make, check and show suites: portraits, driving motions, and which drives which.

    `fye suite init` makes one of a folder's files, `fye suite drawn` one of drawn portraits whose true frames are
    known; `fye suite check` compares all files with their hashes, `fye suite show` says what is in a suite.
    """
    raise typer.Exit(_optional("fye_bench.suites.command", "bench").main(list(context.args)) or 0)


def evaluate(context: typer.Context) -> None:
    """Make and measure the clips of a suite, and compare runs.

    `fye eval SUITE -o RUN` evaluates a bundle, `fye eval compare RUN_A RUN_B` says what has changed, pair by pair,
    `fye eval report RUN` writes a run's page again.
    """
    raise typer.Exit(_optional("fye_bench.evaluation.command", "bench").main(list(context.args)) or 0)


def doctor(
    get: Annotated[
        str | None, typer.Option(metavar="NAME", help="Download instead: landmarker, MediaPipe's face model (4 MB).")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Where --get downloads from: a mirror. The hash must agree.")] = None,
    quiet: Quiet = False,
) -> None:
    """Try what this machine has, say what it lacks, and how to get that.

    Exit code 1 if the core does not work: its packages, pictures, videos, the shipped bundle on ONNX Runtime.
    """
    if get is not None:
        return _get(get, url, quiet)
    if url is not None:
        raise OptionError("--url goes with --get landmarker")
    from fye_rt.cli.doctor import examine

    with terminal.working(quiet):
        lines = list(examine())
    for line in lines:
        terminal.show(f"{line.what:<28} {line.state:<7} {line.how}")
    if any(line.broken for line in lines):
        raise typer.Exit(1)


def _get(what: str, url: str | None, quiet: bool) -> None:
    from fye_rt.landmarks.download import DOWNLOADS, get_landmarker

    if what not in DOWNLOADS:
        raise OptionError(f"--get {what!r}: choose {', '.join(DOWNLOADS)}")
    with terminal.working(quiet) as bars:
        path = get_landmarker(url, progress=lambda done, total: bars("download", done, total))
    terminal.say(f"{path}: the hash agrees")


def _optional(module: str, extra: str) -> Any:
    """Import a module that needs an extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if (error.name or "").partition(".")[0] == module.partition(".")[0]:
            remedy = "run in a clone of fye-rt: pip install ."
        else:
            remedy = f"run: pip install 'fye-rt[{extra}]'"
        raise BackendError(f"{module} cannot be imported ({error}); {remedy}") from error


def _model_notes(bundle: "Bundle") -> list[str]:
    note = bundle.manifest.get("note")
    return [f"{bundle.path}: {note}"] if note else []


def _say_written(what: Path | str, clip: "Clip | Rendering") -> None:
    frames, height, width, _ = clip.landmarks.shape
    seconds = sum(clip.timings.values())
    terminal.say(f"{what}: {frames} frames of {height}x{width} at {clip.fps:g} fps, made in {seconds:.1f} s")
