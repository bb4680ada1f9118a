"""`fye suite`: makes suites, checks and shows them."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from fye_bench import arguments
from fye_bench.suites.collect import CROSSES, FAMILY, KIND, collect
from fye_bench.suites.drawn import DrawnTruth, drawn_otherwise
from fye_bench.suites.manifest import MAX_TEXT
from fye_bench.suites.suite import Suite, faults, notes
from fye_rt import options
from fye_rt.cli import terminal


def main(argv: Sequence[str]) -> int:
    """Run `fye suite` with its arguments; returns the exit code.

    Raises:
        FyeError: an option or a file is at fault.
    """
    given = _parse(argv)
    run = {"init": _init, "drawn": _drawn, "check": _check, "show": _show}[given.command]
    return run(given)


def _init(given: argparse.Namespace) -> int:
    lines: list[str] = []
    try:
        with terminal.working(given.quiet) as bars:
            suite = collect(
                given.folder,
                family=given.family,
                kind=given.kind,
                source=given.source,
                licence=given.licence,
                pairs=given.pairs,
                landmarker=given.landmarker,
                overwrite=given.overwrite,
                report=lines.append,
                tell=bars,
            )
    finally:
        for line in lines:
            terminal.note(line)
    for line in notes(suite):
        terminal.note(line)
    _say(suite)
    return 0


def _drawn(given: argparse.Namespace) -> int:
    from fye_bench.suites.drawing import draw_suite  # loads all that draws

    size = options.parse_size(given.size)
    with terminal.working(given.quiet) as bars:
        suite = draw_suite(given.folder, given.portraits, given.motions, given.frames, size, given.seed, bars)
    _say(suite)
    return 0


def _check(given: argparse.Namespace) -> int:
    suite = Suite.load(given.folder)
    with terminal.working(given.quiet) as bars:
        found = list(faults(suite, lambda done, total: bars("check the files", done, total)))
        found = found or list(drawn_otherwise(suite))
    for line in (*found, *notes(suite)):
        terminal.note(line)
    if found:
        return 2
    terminal.say(f"{given.folder}: {len(suite.files())} files are what they were, {len(suite.pairs)} pairs")
    return 0


def _show(given: argparse.Namespace) -> int:
    for line in described(Suite.load(given.folder)):
        terminal.show(line)
    return 0


def described(suite: Suite) -> Iterator[str]:
    """Lines that say what a suite holds."""
    yield f"{suite.name}: {len(suite.portraits)} portraits, {len(suite.motions)} motions, {len(suite.pairs)} pairs"
    if suite.note:
        yield suite.note
    yield f"digest {suite.digest}"
    licences = [portrait.licence for portrait in suite.portraits.values()]
    licences += [motion.licence for motion in suite.motions.values()]
    counts = {
        "portraits": Counter(portrait.family for portrait in suite.portraits.values()),
        "motions": Counter(motion.kind for motion in suite.motions.values()),
        "pairs by family": Counter(pair.portrait.family for pair in suite.pairs),
        "pairs by kind": Counter(pair.motion.kind for pair in suite.pairs),
        "pairs by mode": Counter(pair.mode for pair in suite.pairs),
        "pairs by truth": Counter(
            "drawn" if isinstance(pair.truth, DrawnTruth) else pair.truth or "none" for pair in suite.pairs
        ),
        "licences": Counter(licence or "not stated" for licence in licences),
    }
    for what, count in counts.items():
        yield f"{what:<16} {', '.join(f'{name} {number}' for name, number in sorted(count.items()))}"


def _say(suite: Suite) -> None:
    modes = Counter(pair.mode for pair in suite.pairs)
    of_modes = ", ".join(f"{number} {mode}" for mode, number in sorted(modes.items(), reverse=True))
    terminal.say(
        f"{suite.folder}: {len(suite.portraits)} portraits, {len(suite.motions)} motions, {len(suite.pairs)} pairs "
        f"({of_modes})"
    )


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = arguments.Parser(prog="fye suite", description="Suites of portraits and motions to evaluate a model on.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="init|drawn|check|show")
    init = commands.add_parser("init", help="make a suite of the files in FOLDER/portraits and FOLDER/motions")
    init.add_argument("--family", metavar="NAME", default=FAMILY, help="of portraits in no subfolder (%(default)s)")
    init.add_argument("--kind", metavar="NAME", default=KIND, help="of motions in no subfolder (%(default)s)")
    init.add_argument("--source", type=_line, metavar="TEXT", default="", help="where the files come from")
    init.add_argument("--licence", type=_line, metavar="TEXT", default="", help="under which they may be used")
    init.add_argument(
        "--pairs", type=_pairs, metavar="self|cross|all|N", help=f"by default self, and {CROSSES} others a portrait"
    )
    init.add_argument("--landmarker", type=Path, metavar="FILE", help="MediaPipe's face_landmarker.task")
    init.add_argument("--overwrite", action="store_true", help="replace a suite.json that is there")
    drawn = commands.add_parser("drawn", help="draw a suite of characters whose true frames are known")
    for name, default, what in (
        ("portraits", 500, "how many"),
        ("motions", 40, "how many"),
        ("frames", 16, "of a motion"),
        ("seed", 0, "of characters and motions"),
    ):
        drawn.add_argument(f"--{name}", type=int, metavar="N", default=default, help=f"{what} (%(default)s)")
    drawn.add_argument("--size", metavar="HxW", default="128x128", help="of the portraits (%(default)s)")
    check = commands.add_parser("check", help="compare every file with its hash")
    show = commands.add_parser("show", help="say what is in a suite")
    for one in (init, drawn, check, show):
        one.add_argument("folder", type=Path, metavar="FOLDER")
        if one is not show:
            one.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(argv)


def _line(text: str) -> str:
    if not text.isprintable() or len(text) > MAX_TEXT:
        raise argparse.ArgumentTypeError(f"give one line of at most {MAX_TEXT} printable characters")
    return text


def _pairs(text: str) -> str | int:
    if text in ("self", "cross", "all"):
        return text
    if text.isdecimal() and text.isascii() and 0 < int(text) <= 100_000:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not valid; give self, cross, all or a number from 1 to 100,000")
