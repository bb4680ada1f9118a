"""`fye suite`: make, check and show suites."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fye_bench import arguments
from fye_bench.arguments import option
from fye_bench.suites.collect import CROSSES, FAMILY, KIND, collect
from fye_bench.suites.manifest import MAX_TEXT
from fye_bench.suites.suite import Suite, drawn_otherwise, faults, notes
from fye_rt.cli import terminal
from fye_rt.cli.arguments import Landmarker, Quiet
from fye_rt.settings import parse_size

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, help="Suites of portraits and motions to evaluate a model on."
)
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the suite.")]
PAIRS = f"Pairs to make; by default self, and {CROSSES} motions of others for each portrait."


main = partial(arguments.call, app, "fye suite")  # of the arguments; returns the exit code


def _line(text: str) -> str:
    if not text.isprintable() or len(text) > MAX_TEXT:
        raise typer.BadParameter(f"give one line of at most {MAX_TEXT} printable characters")
    return text


def _pairs(text: str) -> str | int:
    if text in ("self", "cross", "all"):
        return text
    if text.isdecimal() and text.isascii() and 0 < int(text) <= 100_000:
        return int(text)
    raise typer.BadParameter(f"{text!r} is not valid; give self, cross, all or a number from 1 to 100,000")


@app.command()
def init(
    folder: Folder,
    family: Annotated[str, option("NAME", "Family of portraits in no subfolder.")] = FAMILY,
    kind: Annotated[str, option("NAME", "Kind of motions in no subfolder.")] = KIND,
    source: Annotated[str, option("TEXT", "Where the files come from.", parser=_line)] = "",
    licence: Annotated[str, option("TEXT", "Licence of the files.", parser=_line)] = "",
    pairs: Annotated[str | None, option("self|cross|all|N", PAIRS, parser=_pairs)] = None,
    landmarker: Landmarker = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing suite.json.")] = False,
    quiet: Quiet = False,
) -> None:
    """Make a suite of the files in FOLDER/portraits and FOLDER/motions."""
    lines: list[str] = []
    try:
        with terminal.working(quiet) as bars:
            suite = collect(
                folder,
                family=family,
                kind=kind,
                source=source,
                licence=licence,
                pairs=pairs,
                landmarker=landmarker,
                overwrite=overwrite,
                report=lines.append,
                progress=bars,
            )
    finally:
        for line in lines:
            terminal.note(line)
    for line in notes(suite):
        terminal.note(line)
    _say(suite)


@app.command()
def drawn(
    folder: Folder,
    portraits: Annotated[int, option("N", "Number of portraits.")] = 500,
    motions: Annotated[int, option("N", "Number of motions.")] = 40,
    frames: Annotated[int, option("N", "Frames of a motion.")] = 16,
    seed: Annotated[int, option("N", "Seed of characters and motions.")] = 0,
    size: Annotated[str, option("HxW", "Height and width of the portraits.")] = "128x128",
    quiet: Quiet = False,
) -> None:
    """Draw a suite of characters whose true frames are known."""
    from fye_bench.suites.drawing import draw_suite  # loads all that draws

    with terminal.working(quiet) as bars:
        suite = draw_suite(folder, portraits, motions, frames, parse_size(size), seed, bars)
    _say(suite)


@app.command()
def check(folder: Folder, quiet: Quiet = False) -> int:
    """Compare every file with its hash. Exit code 2 if one is missing or changed."""
    suite = Suite.load(folder)
    with terminal.working(quiet) as bars:
        mistakes = list(faults(suite, bars))
        mistakes = mistakes or list(drawn_otherwise(suite))
    for line in (*mistakes, *notes(suite)):
        terminal.note(line)
    if mistakes:
        return 2
    terminal.say(f"{folder}: {len(suite.files())} files are what they were, {len(suite.pairs)} pairs")
    return 0


@app.command()
def show(folder: Folder) -> None:
    """Count a suite's families, kinds, modes and licences."""
    for line in described(Suite.load(folder)):
        terminal.show(line)


def described(suite: Suite) -> Iterator[str]:
    """Yield lines that describe a suite."""
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
        "pairs by truth": Counter(pair.kind_of_truth for pair in suite.pairs),
        "licences": Counter(licence or "not stated" for licence in licences),
    }
    for heading, count in counts.items():
        yield f"{heading:<16} {', '.join(f'{name} {number}' for name, number in sorted(count.items()))}"


def _say(suite: Suite) -> None:
    modes = Counter(pair.mode for pair in suite.pairs)
    of_modes = ", ".join(f"{number} {mode}" for mode, number in sorted(modes.items(), reverse=True))
    terminal.say(
        f"{suite.folder}: {len(suite.portraits)} portraits, {len(suite.motions)} motions, {len(suite.pairs)} pairs "
        f"({of_modes})"
    )
