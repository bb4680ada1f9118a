"""`fye bench windows`: long drawn clips in every kind of windows, side by side."""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fye_bench import arguments
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
from fye_rt import backends, files, media, pieces, windows
from fye_rt.animator import Animator
from fye_rt.bundle import Bundle, shipped_bundle
from fye_rt.cli import terminal
from fye_rt.clips import write
from fye_rt.clips.frames import frames_of
from fye_rt.clips.live import live_frames
from fye_rt.errors import OptionError
from fye_rt.landmarks import movement
from fye_rt.options import Forecast, Options
from fye_rt.pieces import MAX_FRAMES

STREAM = "stream"
KINDS = ("reference", "context", "progressive", STREAM)
LEAST = 50  # frames: less is no long clip


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A clip in one kind of windows.

    Attributes:
        frames: uint8 (F, H, W, 3).
        first: seconds until the first of them was there.
        seconds: until the last one was.
        memory: bytes that the process grew by meanwhile.
    """

    frames: Image
    first: float
    seconds: float
    memory: int


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What was found of a clip.

    Attributes:
        made: the clip.
        borders: of its windows.
        evaluations: frames that the network saw at each evaluated step.
        error: by frame, mean absolute error, levels of 255.
        identity: by frame, that of the texture under the true mesh.
        change: by step, see `seams.steps`.
        warp: by step, see `seams.warp_errors`.
        flicker: see `fye_bench.metrics.images.steadiness`.
        full: the same clip in the same windows, with every step evaluated; where that was asked for.
    """

    made: Made
    borders: Borders
    evaluations: int
    error: Array
    identity: Array
    change: Array
    warp: Array
    flicker: float
    full: "Measured | None" = None


def main(argv: Sequence[str]) -> int:
    """Run `fye bench windows` with its arguments; returns the exit code.

    Raises:
        FyeError: an option, a file or a backend is at fault.
    """
    given = _parse(argv)
    for path, suffixes in ((given.json, (".json",)), (given.picture, tuple(media.images.WRITABLE))):
        if path is not None:
            write.check_output(path, suffixes)
    path = given.bundle or shipped_bundle()
    bundle = Bundle.load(path)
    request = arguments.request(given, bundle, **arguments.EVERY_STEP)
    options = request.options
    full = replace(options, forecast=Forecast())
    if given.full and options.forecasting == full.forecasting:
        raise OptionError("--full compares a forecast with every step evaluated; give one with --forecast")
    settings = (given.backend, given.compute, given.threads)
    found: dict[str, list[Measured]] = {}
    with terminal.working(given.quiet) as bars:
        drawn = list(clips(given.clips, request.size or bundle.size, given.frames))
        total = len(drawn) * len(KINDS)
        for number, kind in enumerate(KINDS):
            with Worker() as worker:
                backend = worker.call(_open, path, *settings, options.window_size)
                found[kind] = []
                for clip in drawn:
                    bars("windows", number * len(drawn) + len(found[kind]), total, f"{kind}: {clip.case}")
                    ones = []
                    for each in (options, full) if given.full else (options,):
                        made, growth = worker.watch(_make, clip.portrait, clip.landmarks, each, kind)
                        ones.append(_measure(clip, Made(*made, growth.peak), each, kind))
                    found[kind].append(replace(ones[0], full=ones[1] if given.full else None))
        bars("windows", total, total)
    summary = {kind: summarise(clips_of, found[KINDS[0]]) for kind, clips_of in found.items()}
    result: dict[str, Any] = {
        "command": ["fye", "bench", "windows", *argv],
        "environment": environment(given.threads),
        "workload": {
            "model": describe_bundle(bundle),
            "backend": backend,
            "clips": [str(clip.case) for clip in drawn],
            "lead": LEAD,
            "frames": given.frames,
            "size": drawn[0].frames.shape[1:3],
            **{name: value for name, value in options.as_dict().items() if name != "windows"},
        },
        "windows": summary,
    }
    if given.json is not None:
        files.write_json(given.json, result)
    if given.picture is not None:
        media.write_image(given.picture, picture(drawn[0], {kind: ones[0] for kind, ones in found.items()}))
    for line in table(summary):
        terminal.say(line)
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = arguments.Parser(
        prog="fye bench windows", description="Long drawn clips in every kind of windows, side by side."
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="by default the shipped one")
    numbers: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument(
        "--clips", **numbers, default=4, choices=arguments.Between(1, 1000), help="how many (%(default)s)"
    )
    parser.add_argument(
        "--frames", **numbers, default=300, choices=arguments.Between(LEAST, MAX_FRAMES), help="of a clip (%(default)s)"
    )
    parser.add_argument("--size", metavar="HxW", help="of a frame; by default the bundle's")
    parser.add_argument(
        "--full", action="store_true", help="also with every step evaluated: what does --forecast cost?"
    )
    default = Options()
    parser.add_argument("--window-size", **numbers, default=default.window_size, help="frames (%(default)s)")
    parser.add_argument("--window-overlap", **numbers, default=default.window_overlap, help="frames (%(default)s)")
    arguments.add_options(parser)
    parser.add_argument("--backend", choices=("auto", *backends.BACKENDS), default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: one per core")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="one column of pixels over time, of each kind")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(argv)


_animator: Animator  # of the measuring process


def _open(path: Path, backend: str, compute: str, threads: int, window: int) -> str:
    """Open a bundle for good; returns the backend."""
    global _animator
    _animator = Animator(Bundle.load(path), backend, compute=compute, threads=threads)
    _animator.warm_up(frames=window)
    return _animator.backend


def _make(portrait: Image, landmarks: Image, options: Options, kind: str) -> tuple[Image, float, float]:
    """Frames, seconds to the first and to the last of them."""
    state = _animator.encode_portrait(portrait)
    start = time.perf_counter()
    parts: Iterator[Image]
    if kind == STREAM:
        parts = live_frames(_animator, state, landmarks, options)
    else:
        parts = frames_of(_animator, state, landmarks, replace(options, windows=kind))
    made = [next(parts)]
    first = time.perf_counter() - start
    made += parts
    return np.concatenate(made), first, time.perf_counter() - start


def _measure(clip: Long, made: Made, options: Options, kind: str) -> Measured:
    borders, evaluations = layout(clip.landmarks, options, kind)
    return Measured(
        made=made,
        borders=borders,
        evaluations=evaluations,
        error=np.abs(np.subtract(made.frames, clip.frames, dtype=np.int16)).mean(axis=(1, 2, 3)),
        identity=texture_errors(made.frames, clip.face, clip.frames, clip.face),
        change=steps(made.frames, clip.frames),
        warp=warp_errors(made.frames, clip.frames),
        flicker=steadiness(made.frames, clip.frames)["flicker"],
    )


def layout(landmarks: Image, options: Options, kind: str) -> tuple[Borders, int]:
    """Borders of a clip's windows, and how many frames the network sees at each evaluated step."""
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
    """Of one kind of windows.

    Args:
        clips_of: what was found of its clips.
        independent: of the same clips in windows that know nothing of each other, where nothing can drift.
    """
    frames = len(clips_of[0].error)
    borders = [one.borders for one in clips_of]
    summary: dict[str, Any] = {
        "evaluations_per_frame": float(np.mean([one.evaluations for one in clips_of])) / frames,
        "borders_per_clip": float(np.mean([marks.sum() for marks in borders])),
        "first_frame_seconds": float(np.median([one.made.first for one in clips_of])),
        "seconds": float(np.median([one.made.seconds for one in clips_of])),
        "memory_bytes": max(one.made.memory for one in clips_of),
        **{name: mean(values) for name, values in _means(clips_of).items()},
        "at_borders": {
            "error": ratio([(one.error[:-1] + one.error[1:]) / 2 for one in clips_of], borders),
            "temporal_error": ratio([one.change for one in clips_of], borders),
            "warp_error": ratio([one.warp for one in clips_of], borders),
        },
        "drift": {
            "error": drift([one.error for one in clips_of]),
            "identity_error": drift([one.identity for one in clips_of]),
            "error_against_independent_windows": drift(
                [one.error for one in clips_of], [one.error for one in independent]
            ),
        },
    }
    full = [one.full for one in clips_of if one.full is not None]
    if full:
        others = _means(full)
        summary["against_full"] = {
            "faster": float(np.median([b.made.seconds / a.made.seconds for a, b in zip(clips_of, full, strict=True)])),
            "distance": mean([psnr(a.made.frames, b.made.frames) for a, b in zip(clips_of, full, strict=True)]),
            **{name: paired(values, others[name]) for name, values in _means(clips_of).items()},
        }
    return summary


def _means(clips_of: Sequence[Measured]) -> dict[str, list[float]]:
    """By name, one number a clip."""
    return {
        "error": [float(one.error.mean()) for one in clips_of],
        "identity_error": [float(one.identity.mean()) for one in clips_of],
        "temporal_error": [float(one.change.mean()) for one in clips_of],
        "warp_error": [float(np.nanmean(one.warp)) for one in clips_of],
        "flicker": [one.flicker for one in clips_of],
    }


def picture(clip: Long, made: Mapping[str, Measured]) -> Image:
    """What a vertical line through the face shows over time, uint8 (H', W', 3), with a dot above every border."""
    column = int(np.clip(clip.face.points[..., 0].mean(), 0, clip.frames.shape[2] - 1))
    rows, labels = [], []
    for name, frames, borders in (
        ("true frames", clip.frames, None),
        *((f"{kind} windows", one.made.frames, one.borders) for kind, one in made.items()),
    ):
        line = np.ascontiguousarray(frames[:, :, column].transpose(1, 0, 2))
        marks = np.full((4, line.shape[1], 3), 255, np.uint8)
        if borders is not None:
            marks[:3, np.flatnonzero(borders) + 1] = (200, 0, 0)
        rows.append([np.repeat(np.repeat(np.concatenate([marks, line]), 2, axis=0), 3, axis=1)])
        labels.append(name)
    return media.contact_sheet(rows, labels)


def table(summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines to print."""
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
