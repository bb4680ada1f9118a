"""Several faces of one picture in one clip, each with a motion of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain, repeat

import numpy as np

from fye_rt.clips.cache import ClipCache
from fye_rt.clips.clip import Image, Playback, Rendering
from fye_rt.clips.render import render
from fye_rt.errors import OptionError
from fye_rt.options import ClipRequest
from fye_rt.stages import Stages
from fye_rt.timings import Progress, Timings, no_progress

_EPSILON = 1e-6  # seconds; times that differ by less are the same


class Faces(Rendering):
    """One rendering of several faces of a picture: every frame has all of them, pasted one after another.

    Args:
        faces: one or more renderings of the same picture, all pasted, which are read through this one alone.

    The clip lasts as long as the longest of them, and has its frame times; the others keep their own times, and hold
    their last frame. Its sound is that of the first one that has any. All of them are pasted.
    """

    def __init__(self, faces: Sequence[Rendering]) -> None:
        self._faces, longest = tuple(faces), max(faces, key=_end)
        sounding = next((face for face in faces if face.audio_from is not None), longest)
        playback = Playback(**asdict(longest))
        playback = replace(playback, audio_from=sounding.audio_from, audio_start=sounding.audio_start)
        notices = tuple(dict.fromkeys(notice for face in faces for notice in face.notices))
        pieces = self._frames(_times(longest))
        super().__init__(
            playback, longest.portrait, longest.landmarks, notices, pieces, Timings(), longest.paste, longest.alpha
        )

    def finished(self, frame: Image, reuse: bool = False) -> Image:
        """Return a frame as it is: all faces are pasted already."""
        return frame

    @property
    def timings(self) -> dict[str, float]:
        """Seconds spent so far, by stage, on all faces."""
        seconds: dict[str, float] = {}
        for face in self._faces:
            for stage, spent in face.timings.items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
        return seconds

    def _frames(self, times: Sequence[float]) -> Iterator[Image]:
        shown = [_at(face, times) for face in self._faces]
        for frames in zip(*shown, strict=True):
            whole = self._faces[0].finished(frames[0])
            for face, frame in zip(self._faces[1:], frames[1:], strict=True):
                whole = face.onto(whole, frame)
            yield whole[None]


def render_faces(
    stages: Stages,
    requests: Sequence[ClipRequest],
    progress: Progress = no_progress,
    cache: ClipCache | None = None,
) -> Rendering:
    """Animate several faces of one picture, each with its own motion, and paste them into it.

    Args:
        stages: stages that hold the model; an `Animator` is one.
        requests: one for each face, all with the same portrait and with `Crop.paste`. Later ones are pasted over
            earlier ones.
        progress: called with (stage, done, total) of all faces together.
        cache: reuses what consecutive clips share.

    Raises:
        OptionError: a request that does not paste; two for the same face; some with alpha and some without.
        FyeError: any error of `Animator.render`.
    """
    check_faces(requests)
    cache, sums = cache or ClipCache(), _TotalProgress(progress, len(requests))
    return Faces([render(stages, request, sums.of(k), cache=cache) for k, request in enumerate(requests)])


def check_faces(requests: Sequence[ClipRequest]) -> None:
    """Raise OptionError unless requests can be faces of one clip; see `render_faces`."""
    if not requests:
        raise OptionError("faces=[] is empty; give one or more")
    if not all(request.crop.paste for request in requests):
        raise OptionError("several faces of a picture are pasted into it; set paste")
    if len({request.crop.alpha for request in requests}) > 1:
        raise OptionError("alpha is set for some of the faces; set it for all, or for none")
    seen: dict[object, int] = {}
    for number, request in enumerate(requests, 1):
        face = request.crop.face, request.crop.box, request.portrait_landmarks
        if (before := seen.setdefault(face, number)) != number:
            raise OptionError(f"faces {before} and {number} are the same one, face={request.crop.face!r}; name another")


class _TotalProgress:
    """Adds up the progress of several clips."""

    def __init__(self, progress: Progress, count: int) -> None:
        self._progress = progress
        self._stages: dict[str, list[tuple[int, int]]] = {}
        self._count = count

    def of(self, number: int) -> Progress:
        """Return the progress of one of the clips."""

        def report(stage: str, done: int, total: int) -> None:
            parts = self._stages.setdefault(stage, [(0, 0)] * self._count)
            parts[number] = done, total
            self._progress(stage, sum(part[0] for part in parts), sum(part[1] for part in parts))

        return report


def _at(face: Rendering, times: Sequence[float]) -> Iterator[Image]:
    """Yield the frame that a face shows at each of some times, which ascend."""
    following = chain(zip(_times(face), face.unpasted(), strict=True), repeat((np.inf, None)))
    _, shown = next(following)
    begins, ahead = next(following)
    for time in times:
        while begins <= time + _EPSILON and ahead is not None:
            shown = ahead
            begins, ahead = next(following)
        if shown is not None:
            yield shown


def _times(face: Rendering) -> tuple[float, ...]:
    return face.times or tuple(k / face.fps for k in range(len(face)))


def _end(face: Rendering) -> float:
    return face.seconds or _times(face)[-1] + 1 / face.fps
