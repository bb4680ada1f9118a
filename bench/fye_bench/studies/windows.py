"""`fye bench windows`: compare all kinds of windows on long drawn clips."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from fye_bench.arguments import EveryStep, benchmark, option, request, writable
from fye_bench.environment import environment
from fye_bench.metrics.drift import Array, drift
from fye_bench.metrics.images import psnr, steadiness
from fye_bench.metrics.seams import Borders, blended_borders, piece_borders, ratio, steps, warp_errors
from fye_bench.metrics.statistics import mean, paired
from fye_bench.metrics.texture import texture_errors
from fye_bench.metrics.truth import Image
from fye_bench.speed.worker import Worker
from fye_bench.speed.workload import describe_bundle
from fye_bench.studies.long_clips import LEAD, Long, clips
from fye_rt import backends, media, pieces, windows
from fye_rt.animator import Animator
from fye_rt.bundle import Bundle, shipped_bundle
from fye_rt.cli import terminal
from fye_rt.cli.arguments import OF_DENOISING, Backend, BundleFolder, Quiet, Threads, takes_request
from fye_rt.clips.frames import frames_of
from fye_rt.clips.live import live_frames
from fye_rt.errors import OptionError
from fye_rt.landmarks import movement
from fye_rt.options import Forecast, Options
from fye_rt.pieces import MAX_FRAMES

STREAM = "stream"
KINDS = ("reference", "context", "progressive", STREAM)
PICTURE = writable(*media.images.WRITABLE)
LEAST = 50  # frames of a long clip


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A clip in one kind of windows, and its measurements.

    Attributes:
        frames: uint8 (F, H, W, 3).
        first: seconds until the first frame.
        seconds: seconds until the last frame.
        memory: bytes by which the process grew meanwhile.
        borders: borders of the windows.
        evaluations: frames that the network sees at each evaluated step.
        error: mean absolute error of each frame, levels of 255.
        identity: texture error of each frame under the true mesh.
        change: `seams.steps` of the clip.
        warp: `seams.warp_errors` of the clip.
        flicker: see `fye_bench.metrics.images.steadiness`.
        full: with --full, measurements of the clip in the same windows with every step evaluated.
    """

    frames: Image
    first: float
    seconds: float
    memory: int
    borders: Borders
    evaluations: int
    error: Array
    identity: Array
    change: Array
    warp: Array
    flicker: float
    full: "Measured | None" = None


@benchmark("fye bench windows")
@takes_request("windows", "forecast", only=("size", *OF_DENOISING))
def main(
    settings: dict[str, Any],
    bundle: BundleFolder = None,
    count: Annotated[int, option("N", "Number of clips.", "--clips", min=1, max=1000)] = 4,
    frames: Annotated[int, option("N", "Frames of a clip.", min=LEAST, max=MAX_FRAMES)] = 300,
    forecast: EveryStep = "off",
    full: Annotated[bool, typer.Option("--full", help="Also evaluate every step, to compare --forecast.")] = False,
    backend: Backend = "auto",
    threads: Threads = 0,
    plot: Annotated[Path | None, option("PNG", "Also draw pixels over time.", "--picture", callback=PICTURE)] = None,
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Compare all kinds of windows on long drawn clips."""
    path = bundle or shipped_bundle()
    model = Bundle.load(path)
    clip_request = request({**settings, "windows": "context", "forecast": forecast}, model)
    options = clip_request.options
    every_step = replace(options, forecast=Forecast())
    if full and options.forecasting == every_step.forecasting:
        raise OptionError("--full compares a forecast with every step evaluated; give one with --forecast")
    backends.resolve_compute(backends.choose(backend, model), options.compute)  # refused before clips are drawn
    clips_of: dict[str, list[Measured]] = {kind: [] for kind in KINDS}
    with terminal.working(quiet) as bars:
        drawn = list(clips(count, clip_request.size or model.size, frames))
        total = len(drawn) * len(KINDS)
        for number, kind in enumerate(KINDS):
            with Worker() as worker:
                chosen = worker.call(_open, path, backend, options.compute, threads, options.window_size)
                for index, clip in enumerate(drawn):
                    bars("windows", number * len(drawn) + index, total)
                    runs = []
                    for each in (options, every_step) if full else (options,):
                        result, growth = worker.watch(_make, clip.portrait, clip.landmarks, each, kind)
                        runs.append(_measure(clip, *result, growth.peak, each, kind))
                    clips_of[kind].append(replace(runs[0], full=runs[1] if full else None))
        bars("windows", total, total)
    summary = {kind: summarise(measured, clips_of[KINDS[0]]) for kind, measured in clips_of.items()}
    if plot is not None:
        media.write_image(plot, picture(drawn[0], {kind: each[0] for kind, each in clips_of.items()}))
    for line in table(summary):
        terminal.say(line)
    return {
        "environment": environment(threads),
        "workload": {
            "model": describe_bundle(model),
            "backend": chosen,
            "clips": [str(clip.case) for clip in drawn],
            "lead": LEAD,
            "frames": frames,
            "size": drawn[0].frames.shape[1:3],
            **{name: value for name, value in options.as_dict().items() if name != "windows"},
        },
        "windows": summary,
    }


_animator: Animator  # in the measuring process


def _open(path: Path, backend: str, compute: str, threads: int, window: int) -> str:
    """Open a bundle, keep it open, and return the backend's name."""
    global _animator
    _animator = Animator(Bundle.load(path), backend, compute=compute, threads=threads)
    _animator.warm_up(frames=window)
    return _animator.backend


def _make(portrait: Image, landmarks: Image, options: Options, kind: str) -> tuple[Image, float, float]:
    """Return the frames, seconds to the first one and seconds to the last one."""
    state = _animator.encode_portrait(portrait)
    start = time.perf_counter()
    parts: Iterator[Image] = (
        live_frames(_animator, state, landmarks, options)
        if kind == STREAM
        else frames_of(_animator, state, landmarks, replace(options, windows=kind))
    )
    frames = [next(parts)]
    first = time.perf_counter() - start
    frames += parts
    return np.concatenate(frames), first, time.perf_counter() - start


def _measure(
    clip: Long, frames: Image, first: float, seconds: float, memory: int, options: Options, kind: str
) -> Measured:
    return Measured(
        *(frames, first, seconds, memory),
        *layout(clip.landmarks, options, kind),
        error=np.abs(np.subtract(frames, clip.frames, dtype=np.int16)).mean(axis=(1, 2, 3)),
        identity=texture_errors(frames, clip.face, clip.frames, clip.face),
        change=steps(frames, clip.frames),
        warp=warp_errors(frames, clip.frames),
        flicker=steadiness(frames, clip.frames)["flicker"],
    )


def layout(landmarks: Image, options: Options, kind: str) -> tuple[Borders, int]:
    """Return the borders of a clip's windows, and the number of frames that the network sees at each evaluated step."""
    frames, size, overlap = len(landmarks), options.window_size, options.window_overlap
    if kind in ("progressive", STREAM):
        if kind == STREAM:
            starts = [0, *range(size, frames, size - overlap), frames]
            clip = tuple(pieces.live_pieces(np.diff(starts).tolist(), overlap))
        else:
            clip = pieces.key_frame_pieces(frames, size, movement(landmarks))
        return piece_borders(clip, frames), pieces.evaluations(clip)
    blended = windows.blended_windows(frames, kind, size, overlap)
    return blended_borders(blended, frames), sum(len(window.frames) for window in blended)


def summarise(clips_of: Sequence[Measured], independent: Sequence[Measured]) -> dict[str, Any]:
    """Summarise clips in one kind of windows; `independent` has the same clips in windows that cannot drift."""
    frames = len(clips_of[0].error)
    borders, errors = [clip.borders for clip in clips_of], [clip.error for clip in clips_of]
    means = _means(clips_of)
    summary: dict[str, Any] = {
        "evaluations_per_frame": float(np.mean([clip.evaluations for clip in clips_of])) / frames,
        "borders_per_clip": float(np.mean([marks.sum() for marks in borders])),
        "first_frame_seconds": float(np.median([clip.first for clip in clips_of])),
        "seconds": float(np.median([clip.seconds for clip in clips_of])),
        "memory_bytes": max(clip.memory for clip in clips_of),
        **{name: mean(values) for name, values in means.items()},
        "at_borders": {
            "error": ratio([(error[:-1] + error[1:]) / 2 for error in errors], borders),
            "temporal_error": ratio([clip.change for clip in clips_of], borders),
            "warp_error": ratio([clip.warp for clip in clips_of], borders),
        },
        "drift": {
            "error": drift(errors),
            "identity_error": drift([clip.identity for clip in clips_of]),
            "error_against_independent_windows": drift(errors, [clip.error for clip in independent]),
        },
    }
    full = [clip.full for clip in clips_of if clip.full is not None]
    if full:
        pairs, others = list(zip(clips_of, full, strict=True)), _means(full)
        summary["against_full"] = {
            "faster": float(np.median([b.seconds / a.seconds for a, b in pairs])),
            "distance": mean([psnr(a.frames, b.frames) for a, b in pairs]),
            **{name: paired(values, others[name]) for name, values in means.items()},
        }
    return summary


def _means(clips_of: Sequence[Measured]) -> dict[str, list[float]]:
    """Return the means of each clip, by metric."""
    return {
        "error": [float(clip.error.mean()) for clip in clips_of],
        "identity_error": [float(clip.identity.mean()) for clip in clips_of],
        "temporal_error": [float(clip.change.mean()) for clip in clips_of],
        "warp_error": [float(np.nanmean(clip.warp)) for clip in clips_of],
        "flicker": [clip.flicker for clip in clips_of],
    }


def picture(clip: Long, clips: Mapping[str, Measured]) -> Image:
    """Draw a vertical line through the face over time, uint8 (H', W', 3), with a dot above every border."""
    column = int(np.clip(clip.face.points[..., 0].mean(), 0, clip.frames.shape[2] - 1))
    rows, labels = [], []
    for name, frames, borders in (
        ("true frames", clip.frames, None),
        *((f"{kind} windows", measured.frames, measured.borders) for kind, measured in clips.items()),
    ):
        line = np.ascontiguousarray(frames[:, :, column].transpose(1, 0, 2))
        marks = np.full((4, line.shape[1], 3), 255, np.uint8)
        if borders is not None:
            marks[:3, np.flatnonzero(borders) + 1] = (200, 0, 0)
        rows.append([np.repeat(np.repeat(np.concatenate([marks, line]), 2, axis=0), 3, axis=1)])
        labels.append(name)
    return media.contact_sheet(rows, labels)


def table(summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines to print."""
    compared = any("against_full" in row for row in summary.values())
    lines = [
        f"{'windows':<12}{'evals/frame':>12}{'first, s':>10}{'all, s':>9}{'MB':>7}{'error':>8}{'flicker':>9}"
        f"{'at borders: error':>19}{'change':>8}{'warp':>7}{'drift of error, %':>22}{'against reference':>22}"
        + (f"{'full run: dB':>14}{'error, %':>22}" if compared else "")
    ]
    for kind, row in summary.items():
        at, moves = row["at_borders"], row["drift"]
        line = (
            f"{kind:<12}{row['evaluations_per_frame']:>12.3f}{row['first_frame_seconds']:>10.2f}{row['seconds']:>9.1f}"
            f"{row['memory_bytes'] / 1e6:>7.0f}{row['error']['mean']:>8.2f}{row['flicker']['mean']:>9.2f}"
            f"{at['error']:>19.3f}{at['temporal_error']:>8.3f}{at['warp_error']:>7.3f}"
            f"{_percent(moves['error']):>22}{_percent(moves['error_against_independent_windows']):>22}"
        )
        if compared:
            full = row["against_full"]
            line += f"{full['distance']['mean']:>14.1f}{_percent(full['error'], full['error']['of']):>22}"
        lines.append(line)
    return lines


def _percent(estimate: Mapping[str, Any], of: float = 1.0) -> str:
    mean, low, high = (100 * estimate[key] / of for key in ("mean", "low", "high"))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
