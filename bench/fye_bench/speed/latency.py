"""`fye bench`: time the baseline and the runtime, interleaved in one run.

Each variant has its own process, and only one works at a time. In every round each variant runs every stage once, and
ratios compare times of the same round. Whole clips are timed likewise.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from fye_bench.arguments import Rounds, Size, benchmark, option
from fye_bench.environment import OtherLoad, environment
from fye_bench.speed import pipeline
from fye_bench.speed.memory import peak_resident
from fye_bench.speed.model import Model, find_model
from fye_bench.speed.operators import profile
from fye_bench.speed.pipeline import BASELINE, STAGES, Array, TimedClip, Variant
from fye_bench.speed.summary import ratio, spread, summary
from fye_bench.speed.worker import Worker
from fye_bench.speed.workload import Workload, describe_bundle
from fye_rt import backends
from fye_rt.bundle import Bundle
from fye_rt.cli import terminal
from fye_rt.cli.arguments import Quiet
from fye_rt.settings import parse_size

DEFAULT = Workload()
_CLIPS = 3  # clips of each variant
_CLIP = "end_to_end"


@dataclass(slots=True)
class Measured:
    """Measurements of a variant: seconds of each stage, round by round, and whole clips."""

    cold_start_seconds: float
    peak_anonymous_bytes: int
    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    clips: list[TimedClip] = field(default_factory=list)
    peak_resident_bytes: int = 0

    def seconds(self, name: str) -> list[float]:
        """Return the seconds of a stage, or of whole clips."""
        return [clip.seconds for clip in self.clips] if name == _CLIP else self.stages[name]


@benchmark("fye bench")
def main(
    bundle: Annotated[Path | None, option("DIR", "Model; by default a seeded mid-size one, made once.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Make the seeded model again.")] = False,
    checkpoint: Annotated[Path | None, option("DIR", "Checkpoint that the bundle was exported from.")] = None,
    backend: Annotated[list[str] | None, option("NAME", "Backend; repeatable, by default all installed.")] = None,
    compute: Annotated[str | None, option("NAME", "Precision; by default all that a backend has here.")] = None,
    frames: Annotated[int, option("N", "Frames of the clip.")] = DEFAULT.frames,
    size: Size = f"{DEFAULT.size[0]}x{DEFAULT.size[1]}",
    steps: Annotated[int, option("N", "Steps of a whole clip.")] = DEFAULT.steps,
    threads: Annotated[int, option("N", "CPU threads.", min=1, max=256)] = DEFAULT.threads,
    rounds: Rounds = 10,
    profile: Annotated[bool, typer.Option("--profile", help="Also profile an evaluation's operators.")] = False,
    quiet: Quiet = False,
) -> dict[str, Any]:
    """Time the baseline and the runtime, interleaved.

    See also: fye bench forecast, fye bench windows, fye bench batch.
    """
    workload = Workload(frames=frames, size=parse_size(size), steps=steps, threads=threads)
    variants = [Variant(BASELINE)]
    for name in backend or backends.installed():
        precisions = backends.computes(name) if compute is None else (backends.resolve_compute(name, compute),)
        variants += [Variant(name, precision) for precision in precisions]
    result: dict[str, Any] = {"environment": environment(threads)}
    with terminal.working(quiet) as bars:
        model = find_model(checkpoint, bundle, terminal.note, fresh=fresh)
        others = OtherLoad()
        measured = _measure(variants, workload, model, rounds, bars)
        result["environment"]["other_processes_cores"] = others.cores()
        profiles = _profile(variants, workload, model, bars) if profile else {}
    result |= _describe(Bundle.load(model.bundle, verify=False), workload, measured) | profiles
    for line in _table(result["variants"]):
        terminal.say(line)
    return result


def _measure(
    variants: Sequence[Variant], workload: Workload, model: Model, rounds: int, bars: terminal.Bars
) -> dict[Variant, Measured]:
    measured: dict[Variant, Measured] = {}
    workers: dict[Variant, Worker] = {}
    with ExitStack() as stack:
        for number, variant in enumerate(variants):
            bars("open", number, len(variants))
            worker = workers[variant] = stack.enter_context(Worker())
            seconds, growth = worker.watch(pipeline.open_pipeline, variant, workload, model.bundle, model.checkpoint)
            measured[variant] = Measured(seconds, growth.before + growth.peak)
        bars("open", len(variants), len(variants))
        for turn in range(rounds):
            for variant in _rotated(variants, turn):
                for stage, seconds in workers[variant].call(pipeline.time_stages).items():
                    measured[variant].stages[stage].append(seconds)
            bars("rounds", turn + 1, rounds)
        for turn in range(_CLIPS):
            for number, variant in enumerate(_rotated(variants, turn)):
                bars("clips", turn * len(variants) + number, _CLIPS * len(variants))
                measured[variant].clips.append(workers[variant].call(pipeline.make_clip))
        bars("clips", _CLIPS, _CLIPS)
        for variant, worker in workers.items():
            measured[variant].peak_resident_bytes = peak_resident(worker.pid)
    return measured


def _rotated(variants: Sequence[Variant], turn: int) -> list[Variant]:
    """Start every turn with another variant, so that not always the same one follows a long pause."""
    start = turn % len(variants)
    return [*variants[start:], *variants[:start]]


def _profile(variants: Sequence[Variant], workload: Workload, model: Model, bars: terminal.Bars) -> dict[str, Any]:
    profiles = {}
    for number, variant in enumerate(variants):
        bars("profiles", number, len(variants))
        with Worker() as worker:
            profiles[str(variant)] = worker.call(profile, variant, workload, model.bundle, model.checkpoint)
    bars("profiles", len(variants), len(variants))
    return {"operators": profiles}


def _describe(bundle: Bundle, workload: Workload, measured: Mapping[Variant, Measured]) -> dict[str, Any]:
    options = workload.options()
    baseline = next(iter(measured.values()))
    return {
        "workload": {
            "model": describe_bundle(bundle),
            "frames": workload.frames,
            "size": list(workload.size),
            "latent_size": [side // 8 for side in workload.size],
            "steps": workload.steps,
            "guidance": options.guidance,
            "windows": {
                "kind": options.windows,
                "size": options.window_size,
                "overlap": options.window_overlap,
                "number": workload.windows(),
            },
            "network_evaluations": workload.steps * workload.windows(),
            "precision": {"storage": bundle.precision, "compute": [variant.compute for variant in measured]},
        },
        "variants": {
            str(variant): {
                "backend": variant.backend,
                "compute": variant.compute,
                "stages": {stage: summary(seconds) for stage, seconds in times.stages.items()},
                "end_to_end": summary(times.seconds(_CLIP)),
                "frames_per_second": workload.frames / summary(times.seconds(_CLIP))["p50"],
                "first_frame": summary([clip.first_frame_seconds for clip in times.clips]),
                "cold_start_seconds": times.cold_start_seconds,
                "peak_memory_bytes": times.peak_resident_bytes,
                "peak_anonymous_bytes": times.peak_anonymous_bytes,
                "speedup": {name: ratio(baseline.seconds(name), times.seconds(name)) for name in (*STAGES, _CLIP)},
                "difference": {
                    name: _difference(getattr(times.clips[0], name), getattr(baseline.clips[0], name))
                    for name in ("latents", "frames")
                },
            }
            for variant, times in measured.items()
        },
    }


def _difference(actual: Array, expected: Array) -> dict[str, float]:
    """Return the difference from the baseline's result, which is as well rounded as any in fp32."""
    error = actual.astype(np.float64) - expected
    rms = float(np.sqrt(np.mean(error**2) / np.mean(np.square(expected, dtype=np.float64))))
    return {"max_abs": float(np.abs(error).max()), "relative_rms": rms}


def _table(variants: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield (
        f"{'seconds (median)':<18}{'portrait':>9}{'motion':>8}{'step':>8}{'decode':>8}{'first frame':>13}"
        f"{'frames/s':>10}{'memory':>10}{'step speed-up':>21}{'clip speed-up':>21}"
    )
    for name, row in variants.items():
        stages = [row["stages"][stage]["p50"] for stage in STAGES]
        yield (
            f"{name:<18}{stages[0]:>9.3f}{stages[1]:>8.3f}{stages[2]:>8.3f}{stages[3]:>8.3f}"
            f"{row['first_frame']['p50']:>13.2f}{row['frames_per_second']:>10.3f}"
            f"{row['peak_memory_bytes'] / 1e6:>7,.0f} MB"
            f"{spread(row['speedup']['denoise_step']):>21}{spread(row['speedup'][_CLIP]):>21}"
        )
