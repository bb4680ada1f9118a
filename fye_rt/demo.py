"""The demo: shipped model, portrait and landmark images; needs neither MediaPipe nor OpenCV nor torch."""

import time
from pathlib import Path

from fye_rt import media
from fye_rt.animator import Animator
from fye_rt.bundle import MANIFEST, Bundle, shipped_bundles
from fye_rt.clip import Clip
from fye_rt.errors import BundleError, OutputError
from fye_rt.options import Options
from fye_rt.report import describe, write_json
from fye_rt.terminal import Bars

PREFERRED = ("mini", "tiny")


def shipped_bundle() -> Path:
    """Folder of the bundle that is used when none is named.

    Raises:
        BundleError: this installation has none.
    """
    folder = shipped_bundles()
    for name in PREFERRED:
        if (folder / name / MANIFEST).is_file():
            return folder / name
    raise BundleError(f"{folder} holds none of {', '.join(PREFERRED)}; install fye-rt again, or pass --bundle DIR")


def run(output: Path, tell: Bars) -> tuple[Bundle, Clip]:
    """Animate the shipped portrait and write demo.mp4, contact_sheet.png and timings.json into `output`.

    Raises:
        FyeError: an installation without its data, or a folder that cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {output} ({error.strerror}); choose another with -o") from error
    bundle = Bundle.load(shipped_bundle())
    inputs = shipped_bundles() / "demo"
    options = Options()
    with Animator(bundle) as animator:
        start = time.perf_counter()
        clip = animator.animate(inputs / "portrait.png", inputs / "landmarks", options, tell=tell)
        seconds = time.perf_counter() - start
        report = describe(animator, clip, options, tell.totals["denoise"], seconds)
    clip.save(output / "demo.mp4", tell)
    media.write_image(output / "contact_sheet.png", clip.contact_sheet())
    write_json(output / "timings.json", report)
    return bundle, clip
