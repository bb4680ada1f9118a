"""The public API: a request in, a clip out."""

import os
from typing import overload

from fye_rt.clips import live
from fye_rt.clips.cache import ClipCache
from fye_rt.clips.clip import Clip, Rendering
from fye_rt.clips.render import render as render_request
from fye_rt.landmarks.control import Control
from fye_rt.options import ClipRequest, Crop, ImageSource, MotionSource, Options
from fye_rt.stages import Stages
from fye_rt.timings import Progress, no_progress


class Animator(Stages):
    """Animates portraits with a bundle. Serves one thread at a time; use it as a context manager, or call `close`.

    Takes the arguments and raises the errors of `Stages`. Its four stages can also be called one by one.
    """

    @overload
    def animate(
        self,
        request: ImageSource,
        motion: MotionSource,
        options: Options | None = None,
        *,
        control: Control | None = None,
        crop: Crop | None = None,
        progress: Progress = no_progress,
    ) -> Clip: ...

    @overload
    def animate(self, request: ClipRequest, *, progress: Progress = no_progress) -> Clip: ...

    def animate(
        self,
        request: ClipRequest | ImageSource,
        motion: MotionSource | None = None,
        options: Options | None = None,
        *,
        control: Control | None = None,
        crop: Crop | None = None,
        progress: Progress = no_progress,
    ) -> Clip:
        """Animate a portrait. The frames of the clip are uint8 (F, H, W, 3).

        Args:
            request: the requested clip; or, as a shorthand, its portrait, with the other arguments beside it.
            motion: see `ClipRequest`.
            options: `Options()` by default.
            control: see `ClipRequest`.
            crop: see `ClipRequest`.
            progress: called with (stage, done, total) as the work advances.

        Raises:
            InputError: a source is missing, damaged, empty, too long, or shows no face.
            FyeError: any error of `encode_portrait`, `encode_motion`, `denoise` and `decode`.
        """
        if not isinstance(request, ClipRequest):
            if motion is None:
                raise TypeError("animate needs a motion, or a ClipRequest alone")
            request = ClipRequest(
                portrait=request,
                motion=motion,
                options=options or Options(),
                control=control or Control(),
                crop=crop or Crop(),
            )
        with self.graphs.serving("the clip", request.size, request.options):
            return self.render(request, progress=progress).clip()

    def render(
        self,
        request: ClipRequest,
        *,
        progress: Progress = no_progress,
        resume: str | os.PathLike[str] | None = None,
        cache: ClipCache | None = None,
    ) -> Rendering:
        """Animate a portrait frame by frame, as the caller iterates, without keeping frames in memory.

        Args:
            request: the requested clip.
            progress: called with (stage, done, total) as the work advances.
            resume: folder that stores finished pieces; the same call continues from there. Needs progressive windows.
            cache: reuses what consecutive clips share.

        Raises:
            InputError: as for `animate`; or `resume` holds another clip, or other files.
            FyeError: as for `animate`; some errors occur only while the caller iterates.
        """
        return render_request(self, request, progress, resume, cache)

    def stream(self, request: ClipRequest, *, patience: float | None = None) -> live.Stream:
        """Animate a portrait while its motion is still arriving; see `fye_rt.clips.live.stream`, also for errors.

        Args:
            request: the requested clip; its motion may be an iterable of landmarks.
            patience: seconds to wait for a new frame before the frames so far are made, in a shorter window.
        """
        return live.stream(self, request, patience)
