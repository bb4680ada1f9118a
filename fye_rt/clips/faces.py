"""Several faces of one picture in one clip, each with a motion of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.clips.cache import ClipCache
from fye_rt.clips.clip import Image, Playback, Rendering
from fye_rt.clips.driving import is_drawn
from fye_rt.clips.place import place
from fye_rt.clips.prepare import read_picture
from fye_rt.clips.render import render
from fye_rt.errors import OptionError
from fye_rt.landmarks.geometry import Face
from fye_rt.landmarks.square import same
from fye_rt.options import ClipRequest
from fye_rt.stages import Stages
from fye_rt.timings import Progress, Timings, no_progress

_SAME = 0.9e-3  # seconds; times that differ by less are the same, as some containers round theirs to 1 ms


class Faces(Rendering):
    """One rendering of several faces of a picture: every frame has all of them, pasted one after another.

    Args:
        faces: one or more renderings of the same picture, all pasted, which are read through this one alone.

    The clip has a frame whenever one of the faces has one, so that each moves at its own times, and lasts as long as
    the longest; the others hold their last frame. Its sound is that of the first one that has any. Portrait, landmarks
    and frames before they are pasted show the faces side by side.
    """

    def __init__(self, faces: Sequence[Rendering]) -> None:
        self._faces, longest = tuple(faces), max(faces, key=_end)
        sounding = next((face for face in faces if face.audio_from is not None), longest)
        times = _all_times(faces)
        playback = replace(
            Playback(**asdict(longest)),
            fps=max(face.fps for face in faces),
            times=tuple(times.tolist()),
            seconds=_end(longest),
            audio_from=sounding.audio_from,
            audio_start=sounding.audio_start,
        )
        landmarks = _Landmarks(faces, [_shown(face, times) for face in faces])
        notices = tuple(dict.fromkeys(notice for face in faces for notice in face.notices))
        portrait = _beside([face.portrait for face in faces])
        pieces = self._frames(landmarks.shown)
        super().__init__(playback, portrait, landmarks, notices, pieces, Timings(), longest.paste, longest.alpha)

    def finished(self, frame: Image, reuse: bool = False) -> Image:
        """Return a frame as the clip shows it: the picture, with all faces in it."""
        widths = [face.portrait.shape[1] for face in self._faces]
        parts = np.split(frame, np.cumsum(widths[:-1]), axis=1)
        parts = [part[: face.portrait.shape[0]] for face, part in zip(self._faces, parts, strict=True)]
        canvas = self._faces[0].finished(parts[0])
        for face, part in zip(self._faces[1:], parts[1:], strict=True):
            canvas = face.onto(canvas, part)
        return canvas

    @property
    def timings(self) -> dict[str, float]:
        """Seconds spent so far, by stage, on all faces."""
        seconds: dict[str, float] = {}
        for face in self._faces:
            for stage, spent in face.timings.items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
        return seconds

    def _frames(self, shown: Sequence[NDArray[np.int64]]) -> Iterator[Image]:
        for frames in zip(*map(_held, self._faces, shown), strict=True):
            yield _beside(frames)[None]


class _Landmarks:
    """Landmark images of several faces, side by side; `shown` are the indices of each face's at the clip's times."""

    def __init__(self, faces: Sequence[Rendering], shown: Sequence[NDArray[np.int64]]) -> None:
        self._images, self.shown = [face.landmarks for face in faces], shown

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (F, H, W, 3)."""
        heights, widths = zip(*(images.shape[1:3] for images in self._images), strict=True)
        return len(self), max(heights), sum(widths), 3

    def __len__(self) -> int:
        return len(self.shown[0])

    def __getitem__(self, frames: Any) -> Image:
        return _beside([images[shown[frames]] for images, shown in zip(self._images, self.shown, strict=True)])


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
    _check_places(stages, requests, cache)
    return Faces([render(stages, request, sums.of(k), cache=cache) for k, request in enumerate(requests)])


def check_faces(requests: Sequence[ClipRequest]) -> None:
    """Raise OptionError unless requests can be faces of one clip; see `render_faces`."""
    if not requests:
        raise OptionError("faces=[] is empty; give one or more")
    if not all(request.crop.paste for request in requests):
        raise OptionError("several faces of a picture are pasted into it; set Crop.paste")
    if len({request.crop.alpha for request in requests}) > 1:
        raise OptionError("Crop.alpha is set for some of the faces; set it for all, or for none")
    seen: dict[object, int] = {}
    for number, request in enumerate(requests, 1):
        face = request.crop.face, request.crop.box, request.portrait_landmarks
        if (before := seen.setdefault(face, number)) != number:
            raise _same_faces(before, number, requests)


def _check_places(stages: Stages, requests: Sequence[ClipRequest], cache: ClipCache) -> None:
    """Raise OptionError if two requests find the same face in the picture, before their motions are read."""
    picture, share = read_picture(requests[0]), stages.bundle.face_share
    size = picture.shape[0], picture.shape[1]
    faces: list[tuple[int, Face]] = []
    for number, request in enumerate(requests, 1):
        if is_drawn(request.motion):
            continue
        placed = place(request, picture, request.size or stages.bundle.size, share, cache)
        landmarks = placed.landmarks()
        points = placed.region.to_picture(landmarks.points[0, :, :2], (1, 1)) / size[::-1]
        face = points, landmarks.blendshapes[0]
        for before, other in faces:
            if same(face, other, size):
                raise _same_faces(before, number, requests)
        faces.append((number, face))


def _same_faces(first: int, second: int, requests: Sequence[ClipRequest]) -> OptionError:
    names = " and ".join(f"Crop.face={requests[number - 1].crop.face!r}" for number in (first, second))
    return OptionError(f"faces {first} and {second} are the same one, {names}; name another")


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


def _held(face: Rendering, shown: NDArray[np.int64]) -> Iterator[Image]:
    """Yield a face's frames of some indices, which do not fall."""
    frames = enumerate(face.unpasted())
    index, frame = next(frames)
    for wanted in shown.tolist():
        while index < wanted:
            index, frame = next(frames)
        yield frame


def _beside(images: Sequence[Image]) -> Image:
    """Lay images uint8 (..., h, w, 3) side by side, over black if they are not equally high."""
    high = max(image.shape[-3] for image in images)
    rows = [[(0, 0)] * (image.ndim - 3) + [(0, high - image.shape[-3]), (0, 0), (0, 0)] for image in images]
    return np.concatenate([np.pad(image, added) for image, added in zip(images, rows, strict=True)], axis=-2)


def _all_times(faces: Sequence[Rendering]) -> NDArray[np.float64]:
    """Return the times at which any of some faces has a new frame, in order."""
    times: list[float] = []
    for time in sorted(time for face in faces for time in _times(face)):
        if not times or time - times[-1] >= _SAME:
            times.append(time)
    return np.array(times)


def _shown(face: Rendering, times: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return which frame a face shows at each of some times: the last that has begun, or at first the first."""
    begun = np.searchsorted(_times(face), times + _SAME, side="left") - 1
    return begun.clip(0, None).astype(np.int64)


def _times(face: Rendering) -> tuple[float, ...]:
    return face.times or tuple(k / face.fps for k in range(len(face)))


def _end(face: Rendering) -> float:
    return face.seconds or _times(face)[-1] + 1 / face.fps
