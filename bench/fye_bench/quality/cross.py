"""`fye bench cross`: a real talking head drives drawn characters through the runtime's own retarget.

The truth is the character drawn with the retargeted motion. Characters are held out; the motion is not: one in eight
characters of the training data moves so.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fye_bench import arguments
from fye_bench.environment import environment
from fye_bench.metrics.images import distances, steadiness
from fye_bench.metrics.truth import FIRST_IDENTITY, FRAMES, Image
from fye_bench.speed.workload import describe_bundle
from fye_rt import backends, machine, media
from fye_rt.animator import Animator
from fye_rt.bundle import Bundle
from fye_rt.cli import terminal
from fye_rt.cli.demo import shipped_bundle
from fye_rt.clips import write
from fye_rt.clips.clip import Clip, evenly
from fye_rt.landmarks import Motion
from fye_training import face
from fye_training.identity import FAMILIES, Identity, held_out, identity
from fye_training.masks import Mask, face_mask
from fye_training.performance import resting
from fye_training.portrait import render

FIRST = FIRST_IDENTITY + 5_000  # identities that no suite shows
COLUMNS = 8  # frames of a clip on the sheet
STRIDE = 5  # of the talking head's 30 frames a second: 16 frames are two and a half seconds


@dataclass(frozen=True, slots=True, eq=False)
class Driven:
    """A character, driven.

    Attributes:
        who: the character.
        portrait: uint8 (H, W, 3), a neutral face.
        landmarks: of the portrait.
        driving: the real motion, F frames.
        frames: uint8 (F, H, W, 3), the truth.
        mask: float32 (F, H, W), 1 in the face.
    """

    who: Identity
    portrait: Image
    landmarks: Motion
    driving: Motion
    frames: Image
    mask: Mask


def draw(family: str, number: int, size: tuple[int, int], frames: int = FRAMES) -> Driven:
    """Draw a held-out character of a family and what it should look like, driven by the talking head.

    Args:
        family: of the character.
        number: of the character, from 0.
        size: height and width in pixels.
        frames: 1 to 24.
    """
    who = identity(held_out(FIRST + number), family)
    driving = face.talking_head()[: frames * STRIDE : STRIDE]
    place = face.placement(who.shape, size, number)
    portrait, moved = face.motion(who.shape, resting(1), size, place), face.transfer(who.shape, driving, size, place)
    mask = face_mask(moved.points[..., :2] * (size[1], size[0]), size)
    return Driven(who, render(who, portrait, size)[0], portrait, driving, render(who, moved, size), mask)


def main(argv: Sequence[str]) -> int:
    """Run `fye bench cross` with its arguments; returns the exit code.

    Raises:
        FyeError: an option, a file or a backend is at fault.
    """
    given = _parse(argv)
    for path, suffixes in ((given.json, (".json",)), (given.sheet, tuple(media.images.WRITABLE))):
        if path is not None:
            write.check_output(path, suffixes)
    rows: list[list[Image]] = []
    scores: dict[str, dict[str, dict[str, float]]] = {}
    with terminal.working(given.quiet) as bars:
        bundle = Bundle.load(given.bundle or shipped_bundle())
        options = arguments.options(given, bundle)
        with Animator(bundle, given.backend, compute=given.compute, threads=given.threads) as animator:
            backend = animator.backend
            for number, family in enumerate(FAMILIES):
                bars("animate", number, len(FAMILIES), family)
                driven = draw(family, number, bundle.size, given.frames)
                clip = animator.animate(
                    driven.portrait, driven.driving, options, portrait_landmarks=driven.landmarks, tell=bars
                )
                scores[family] = _scores(clip, driven)
                (landmarks, made), true = clip.rows(COLUMNS), driven.frames[evenly(len(clip), COLUMNS)]
                rows += [landmarks, [made[0], *true], made]
    result: dict[str, Any] = {
        "command": ["fye", "bench", "cross", *argv],
        "environment": environment(given.threads),
        "workload": {"model": describe_bundle(bundle), "backend": backend, "frames": given.frames, **options.as_dict()},
        "families": scores,
    }
    if given.json is not None:
        machine.write_json(given.json, result)
    if given.sheet is not None:
        labels = [label for family in FAMILIES for label in (f"{family}: landmarks; true frames; made", "", "")]
        media.write_image(given.sheet, media.contact_sheet(rows, labels))
    for family, variants in scores.items():
        copied, made_scores = variants["copied"], variants["made"]
        terminal.say(
            f"{family:<12} face PSNR {made_scores['face_psnr']:.2f} dB, of copying {copied['face_psnr']:.2f} dB; "
            f"SSIM {made_scores['ssim']:.3f}, of copying {copied['ssim']:.3f}; flicker {made_scores['flicker']:.2f}"
        )
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = arguments.Parser(prog="fye bench cross", description="A real talking head drives drawn portraits.")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="by default the shipped one")
    numbers: dict[str, Any] = {
        "type": int,
        "metavar": "N",
        "default": FRAMES,
        "choices": arguments.Between(1, 120 // STRIDE),
    }
    parser.add_argument("--frames", **numbers, help="of a clip (%(default)s)")
    arguments.add_options(parser)
    parser.add_argument("--backend", choices=("auto", *backends.BACKENDS), default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: one per core")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="write a contact sheet")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(argv)


def _scores(clip: Clip, driven: Driven) -> dict[str, dict[str, float]]:
    """Of the clip, and of the portrait that stands still."""
    still = np.repeat(driven.portrait[None], len(driven.frames), axis=0)
    return {
        name: distances(frames, driven.frames, driven.mask) | steadiness(frames, driven.frames)
        for name, frames in (("made", clip.frames), ("copied", still))
    }
