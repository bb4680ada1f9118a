"""A worker of an evaluation, which makes a pair's clip and measures it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fye_bench.evaluation.clips import write_clip
from fye_bench.metrics.measures import Seen, ToolFiles, Tools, measure
from fye_bench.suites.drawn import DrawnTruth
from fye_bench.suites.suite import File, Pair
from fye_rt import machine, media
from fye_rt.batch.folder import Record
from fye_rt.batch.worker import AnimatorSpec
from fye_rt.clips.cache import ClipCache
from fye_rt.clips.clip import Clip, evenly
from fye_rt.clips.driving import read_motion
from fye_rt.errors import FyeError, InputError, OptionError, memory_for
from fye_rt.landmarks import Motion, detect_frames, detect_image, find_landmarker
from fye_rt.media.pixels import fit_image
from fye_rt.options import ClipRequest, Crop, Options
from fye_rt.timings import Evaluations, Timings

if TYPE_CHECKING:
    from fye_bench.metrics.judge import Judge, Scores

Image = NDArray[np.uint8]

CLIPS, SHEETS = "clips", "sheets"
SHEET_FRAMES = 6
_DIGITS = 5  # decimals of expressions in a record


@dataclass(frozen=True, slots=True)
class Settings:
    """How every pair is made and measured.

    Attributes:
        engine: the animator that makes the clips.
        options: options of the denoising loop.
        frames: number of first frames of a motion that are used; None: all.
        size: height and width of the clips; None: the bundle's.
        tools: files of the networks that measure the clips.

    Raises:
        OptionError: windows that drop a frame.
    """

    engine: AnimatorSpec
    options: Options
    frames: int | None = None
    size: tuple[int, int] | None = None
    tools: ToolFiles = field(default_factory=ToolFiles)

    def __post_init__(self) -> None:
        if self.options.windows == "reference":
            raise OptionError('windows="reference" drops a frame, which shifts the truths; choose other windows')


@dataclass(frozen=True, slots=True)
class Task:
    """A pair to evaluate."""

    pair: Pair

    @property
    def group(self) -> str:
        """Pairs of one portrait share its encoding."""
        return self.pair.portrait.name


def unmeasured(pair: str, error: str) -> Record:
    """Return the record of a pair that failed."""
    return {"pair": pair, "frames": None, "evaluations": None, "metrics": {}, "error": error}


class Evaluator:
    """Makes and measures pairs, one after another.

    Args:
        settings: settings of all pairs.
        folder: folder of the run, where clips and sheets are written.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._tools = Tools.open(settings.tools)
        self._animator = settings.engine.animator()
        self._size = settings.size or self._animator.bundle.size
        self._cache = ClipCache()

    def __call__(self, task: Task) -> Record:
        """Evaluate a pair. An error of the pair becomes part of its record."""
        pair, timings = task.pair, Timings()
        try:
            with memory_for("the pair", "a smaller size"):
                record = self._evaluate(pair, timings)
        except (FyeError, OSError) as error:
            record = unmeasured(pair.name, " ".join(str(error).split()))
        return record | {"cost": {"seconds": timings.seconds, "peak_memory_bytes": machine.peak_memory()}}

    def close(self) -> None:
        """Release the memory."""
        self._animator.close()

    def _evaluate(self, pair: Pair, timings: Timings) -> Record:
        with timings.stage("read"):
            seen = self._read(pair)
        evaluations = Evaluations()
        request = ClipRequest(
            portrait=seen.portrait,
            motion=seen.driving,
            options=self._settings.options,
            crop=Crop(area="none"),  # metrics compare whole pictures
            size=self._size,
            portrait_landmarks=seen.portrait_landmarks,
        )
        clip = self._animator.render(request, progress=evaluations, cache=self._cache).clip()
        timings.seconds |= clip.timings
        with timings.stage("measure"):
            truth, metrics, more = self._measure(pair, seen, clip)
        path = self._folder / CLIPS / f"{pair.name}.mkv"
        write_clip(path, clip.frames, clip.fps)
        media.write_image(self._folder / SHEETS / f"{pair.name}.jpg", sheet(clip, truth))
        known = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        record = {
            "pair": pair.name,
            "frames": len(clip),
            "evaluations": evaluations.number,
            "metrics": known,
            "error": None,
        }
        return record | more

    def _read(self, pair: Pair) -> Seen:
        """Read and fit the inputs of a pair's clip."""
        for file in (pair.portrait, pair.portrait.landmarks, pair.motion):
            if file is not None:
                file.check()
        picture = media.read_image(pair.portrait.path)
        portrait = fit_image(picture, *self._size)
        landmarks = self._landmarks(pair.portrait.landmarks, picture, portrait)
        landmarker = self._settings.tools.landmarker
        request = ClipRequest(portrait="", motion=pair.motion.path, frames=self._settings.frames, landmarker=landmarker)
        driving = read_motion(request, cache=self._cache)
        return Seen(portrait=portrait, portrait_landmarks=landmarks, driving=driving)

    def _landmarks(self, file: File | None, picture: Image, portrait: Image) -> Motion:
        if file is None:
            landmarker = find_landmarker(self._settings.tools.landmarker)
            return self._cache.portrait(portrait.tobytes(), lambda: detect_image(portrait, landmarker, "the portrait"))
        (height, width), (own_height, own_width) = self._size, picture.shape[:2]
        if height * own_width != width * own_height:
            raise InputError(
                f"{file.path} belongs to a picture of {own_height}x{own_width}; give a size of the same shape"
            )
        return Motion.load(file.path)

    def _measure(self, pair: Pair, seen: Seen, clip: Clip) -> tuple[Image | None, Mapping[str, float], Record]:
        """Return the true frames if known, all metrics, and further fields that summaries need."""
        tools, more = self._tools, dict[str, Any]()
        scores: Scores | None = None
        if isinstance(pair.truth, DrawnTruth):
            drawn = pair.truth.draw(self._size, seen.driving)
            scores = self._judge.compare(drawn, clip.frames)
            seen = replace(seen, truth=drawn.frames)
            tools = replace(tools, landmarker=None)  # drawn landmarks are known, and not all drawn faces are detected
        elif pair.truth is not None:
            seen = self._driving_truth(pair, seen)
        metrics = measure(seen, clip.frames, tools)
        if scores is not None:
            metrics = {**metrics, **scores.numbers}
            more["expression"] = {
                "truth": scores.truth.round(_DIGITS).tolist(),
                "read": scores.read.round(_DIGITS).tolist(),
                "seen": scores.seen.astype(int).tolist(),
            }
        if tools.features is not None and seen.truth is not None and tools.features.takes(len(clip)):
            frames = {"made": clip.frames, "true": seen.truth}
            more["features"] = {name: tools.features(images).tolist() for name, images in frames.items()}
        return seen.truth, metrics, more

    @cached_property
    def _judge(self) -> "Judge":
        from fye_bench.metrics.judge import Judge

        return Judge()

    def _driving_truth(self, pair: Pair, seen: Seen) -> Seen:
        """Add the driving video's frames and the landmarks of their faces."""
        path, frames = pair.motion.path, len(seen.driving)
        video = media.read_video(path, max_frames=self._settings.frames)
        timed = [(time, fit_image(image, *self._size)) for time, image in video]
        if len(timed) != frames:
            raise InputError(f"{path} has {len(timed)} frames and {frames} of landmarks; give truths of one length")
        landmarker = find_landmarker(self._settings.tools.landmarker)
        motion = detect_frames(timed, seen.driving.fps, landmarker, source=str(path), search=False)
        return replace(seen, truth=np.stack([image for _, image in timed]), truth_motion=motion)


def sheet(clip: Clip, truth: Image | None) -> Image:
    """Join the portrait and, of some frames, landmarks, truth if known and result; uint8 (H, W, 3)."""
    chosen = evenly(len(clip), SHEET_FRAMES)
    rows = [clip.landmarks[chosen], *([] if truth is None else [truth[chosen]]), clip.frames[chosen]]
    strips = [np.concatenate(list(row), axis=1) for row in rows]
    blank = np.zeros_like(clip.portrait)
    first = [clip.portrait, *([blank] * (len(rows) - 1))]
    return np.concatenate([np.concatenate(first), np.concatenate(strips)], axis=1)
