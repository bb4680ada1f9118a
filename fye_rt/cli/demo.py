"""Run the demo on the shipped model, portraits and landmark images, without MediaPipe, OpenCV and torch."""

import time
from collections.abc import Mapping
from pathlib import Path

from fye_rt import media
from fye_rt.animator import Animator
from fye_rt.bundle import Bundle, shipped_bundle, shipped_bundles
from fye_rt.cli.terminal import Bars
from fye_rt.clips.clip import Clip, Image
from fye_rt.clips.report import describe
from fye_rt.clips.write import extra
from fye_rt.errors import OutputError
from fye_rt.files import write_json
from fye_rt.options import Options
from fye_rt.settings import DEFAULT_FORECAST

FAMILIES = ("people", "cartoons", "sculptures", "animals")  # each a folder with portrait.png and landmarks/
COLUMNS = 7  # frames of a clip on the contact sheet
SHARED = ("environment", "bundle", "backend", "options")  # facts that are the same for every clip


def run(output: Path, progress: Bars, forecast: str = DEFAULT_FORECAST) -> tuple[Bundle, Mapping[str, Clip]]:
    """Animate the shipped portraits and write demo.mp4, contact_sheet.png and timings.json into `output`.

    Args:
        output: folder, created if necessary.
        progress: progress bars.
        forecast: method of `Forecast`.

    Returns:
        The bundle, and the clip of each family.

    Raises:
        FyeError: the installation lacks its data, or the folder cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {output} ({error.strerror}); choose another with -o") from error
    bundle = Bundle.load(shipped_bundle())
    options = bundle.resolve(Options(forecast=forecast))
    clips, reports = {}, {}
    with Animator(bundle) as animator:
        for number, family in enumerate(FAMILIES):
            progress("animate", number, len(FAMILIES))
            inputs = shipped_bundles() / "demo" / family
            start = time.perf_counter()
            clip = animator.animate(inputs / "portrait.png", inputs / "landmarks", options, progress=progress)
            seconds = time.perf_counter() - start
            clips[family] = clip
            reports[family] = describe(animator, clip, options, progress.totals["denoise"], seconds)
        progress("animate", len(FAMILIES), len(FAMILIES))
    _write_video(output / "demo.mp4", list(clips.values()), progress)
    with extra(output / "demo.mp4"):
        media.write_image(output / "contact_sheet.png", contact_sheet(clips))
    shared = {key: reports[FAMILIES[0]][key] for key in SHARED}
    by_clip = {name: {key: fact for key, fact in facts.items() if key not in SHARED} for name, facts in reports.items()}
    with extra(output / "demo.mp4"):
        write_json(output / "timings.json", {**shared, "clips": by_clip})
    return bundle, clips


def contact_sheet(clips: Mapping[str, Clip]) -> Image:
    """Show each clip as two rows, uint8 (H, W, 3): its portrait, then landmarks over frames."""
    rows = [row for clip in clips.values() for row in clip.rows(COLUMNS)]
    return media.contact_sheet(rows, [label for name in clips for label in (name, "")])


def _write_video(path: Path, clips: list[Clip], progress: Bars) -> None:
    """Write all clips, of equal length, side by side: portraits over landmarks over frames."""
    portraits = [clip.portrait for clip in clips]
    pictures = (
        media.contact_sheet([portraits, [clip.landmarks[k] for clip in clips], [clip.frames[k] for clip in clips]])
        for k in range(len(clips[0].frames))
    )
    clips[0].write(path, pictures, progress)
