"""`fye bench quality`: the command."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fye_bench import arguments
from fye_bench.environment import environment
from fye_bench.metrics.judge import Judge
from fye_bench.metrics.models import Metric, identity_by, lpips_by
from fye_bench.metrics.truth import CASES, FIRST_IDENTITY, FRAMES, STRIDE, Drawn, Image, suite
from fye_bench.quality.report import VARIANTS, Measured, change_table, compare, describe, sheet, table
from fye_bench.quality.run import Made, ceiling, check_folder, load, make, open_encoder, save
from fye_bench.speed.summary import summary
from fye_bench.speed.workload import describe_bundle
from fye_rt import backends, machine, media
from fye_rt.animator import MAX_FRAMES, Animator
from fye_rt.bundle import Bundle
from fye_rt.cli import terminal
from fye_rt.cli.demo import shipped_bundle
from fye_rt.clips import write
from fye_rt.options import Options
from fye_training.identity import FAMILIES


def main(argv: Sequence[str]) -> int:
    """Run `fye bench quality` with its arguments; returns the exit code.

    Raises:
        FyeError: an option, a file or a backend is at fault.
    """
    given = _parse(argv)
    for path, suffixes in ((given.json, (".json",)), (given.sheet, tuple(media.images.WRITABLE))):
        if path is not None:
            write.check_output(path, suffixes)
    if given.save is not None:
        check_folder(given.save)
    more: list[Metric] = []
    if given.identity_model is not None:
        more.append(identity_by(given.identity_model))
    if given.lpips is not None:
        more.append(lpips_by(given.lpips))
    with terminal.working(given.quiet) as bars:
        bundle = Bundle.load(given.bundle or shipped_bundle())
        options = arguments.options(given, bundle)
        workload = _workload(bundle, options, given)
        # read before the work, which a mistake here would waste
        other = None if given.against is None else load(given.against, workload, given.cases)
        with Animator(bundle, given.backend, compute=given.compute, threads=given.threads) as animator:
            workload["backend"] = animator.backend
            clips = _make(animator, options, given, bars)
        peak = machine.peak_memory()
        judge = Judge(more=more)
        measured = _measure(clips, judge, bars)
    made = [one.made for one in measured]
    result: dict[str, Any] = {
        "command": ["fye", "bench", "quality", *argv],
        "environment": environment(given.threads),
        "workload": workload | {"network_evaluations": sum(one.evaluations for one in made)},
        "stages": {stage: summary([one.seconds[stage] for one in made]) for stage in made[0].seconds},
        "peak_memory_bytes": peak,
        **describe(measured),
    }
    if other is not None:
        result["against"] = compare(measured, other, judge)
    if given.save is not None:
        save(given.save, {one.drawn.case.number: one.made.frames for one in measured}, result)
    if given.json is not None:
        machine.write_json(given.json, result)
    if given.sheet is not None:
        media.write_image(given.sheet, sheet(measured))
    for line in table(result["summary"], ["all", *(name for name in FAMILIES if name in result["summary"])]):
        terminal.say(line)
    for line in change_table(result["against"]) if other is not None else ():
        terminal.say(line)
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = arguments.Parser(
        prog="fye bench quality", description="Measure a bundle on drawn portraits with known truth."
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="by default the shipped one")
    numbers: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument(
        "--cases", **numbers, default=CASES, choices=arguments.Between(1, 1000), help="clips (%(default)s)"
    )
    parser.add_argument(
        "--frames", **numbers, default=FRAMES, choices=arguments.Between(1, MAX_FRAMES), help="of a clip (%(default)s)"
    )
    arguments.add_options(parser)
    parser.add_argument("--backend", choices=("auto", *backends.BACKENDS), default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: one per core")
    arguments.add_networks(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="write a contact sheet")
    parser.add_argument("--save", type=Path, metavar="DIR", help="keep frames and result")
    parser.add_argument("--against", type=Path, metavar="DIR", help="compare with a run that was kept")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(argv)


def _workload(bundle: Bundle, options: Options, given: argparse.Namespace) -> dict[str, Any]:
    height, width = bundle.size
    return {
        "model": describe_bundle(bundle),
        "suite": {"first_identity": FIRST_IDENTITY, "stride": STRIDE},
        "cases": given.cases,
        "frames": given.frames,
        "size": [height, width],
        "latent_size": [height // 8, width // 8],
        **options.as_dict(),
        "precision": {"storage": bundle.precision, "compute": given.compute},
    }


def _make(
    animator: Animator, options: Options, given: argparse.Namespace, bars: terminal.Bars
) -> list[tuple[Drawn, Made, Image]]:
    """Each case, what the bundle makes of it, and its VAE's best."""
    encoder = open_encoder(animator, backends.Settings(compute=given.compute, threads=given.threads))
    clips = []
    for number, drawn in enumerate(suite(given.cases, animator.bundle.size, given.frames)):
        bars("animate", number, given.cases, str(drawn.case))
        clips.append((drawn, make(animator, drawn, options), ceiling(animator, encoder, drawn)))
    bars("animate", given.cases, given.cases)
    return clips


def _measure(clips: Sequence[tuple[Drawn, Made, Image]], judge: Judge, bars: terminal.Bars) -> list[Measured]:
    measured = []
    for number, (drawn, made, best) in enumerate(clips):
        bars("measure", number, len(clips))
        scores = {
            "copied": judge.copied(drawn),
            "made": judge.compare(drawn, made.frames),
            "ceiling": judge.compare(drawn, best),
            "true": judge.true(drawn),
        }
        measured.append(Measured(drawn, made, {variant: scores[variant] for variant in VARIANTS}))
    bars("measure", len(clips), len(clips))
    return measured
