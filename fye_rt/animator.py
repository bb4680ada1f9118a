"""The public face: a request in, a clip out."""

import os
from typing import overload

from fye_rt.clips.cache import ClipCache
from fye_rt.clips.clip import Clip, Rendering
from fye_rt.clips.live import Stream
from fye_rt.clips.live import stream as live_stream
from fye_rt.clips.render import render as render_request
from fye_rt.options import ClipRequest, Control, Crop, ImageSource, MotionSource, Options
from fye_rt.stages import Stages
from fye_rt.timings import Progress, no_progress


class Animator(Stages):
    """Animates portraits with a bundle. Serves one thread at a time; use it as a context manager, or call `close`.

    Arguments and errors are those of `Stages`, whose four stages can be called one by one, too.
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
        """Animate a portrait.

        Args:
            request: what clip is asked for; or, as a shorthand, its portrait, with the other arguments.
            motion: see `ClipRequest`.
            options: `Options()` by default.
            control: see `ClipRequest`.
            crop: see `ClipRequest`.
            progress: called with (stage, done, total) as work goes on.

        Returns:
            The clip, whose frames are uint8 (F, H, W, 3).

        Raises:
            InputError: a source that is missing, damaged, empty, too long, or without a face.
            FyeError: as `encode_portrait`, `encode_motion`, `denoise` and `decode`.
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
        """As `animate`, but the frames come one by one as they are asked for, and none is kept.

        Args:
            request: what clip is asked for.
            progress: called with (stage, done, total) as work goes on.
            resume: a folder that keeps what is denoised, piece by piece; the same call goes on from there. Only with
                progressive windows.
            cache: spares clips that are made one after another what they share.

        Raises:
            InputError: as `animate`; or `resume` keeps another clip, or other files.
            FyeError: as `animate`, some of it when frames are asked for.
        """
        return render_request(self, request, progress, resume, cache)

    def stream(self, request: ClipRequest, *, patience: float | None = None) -> Stream:
        """Make frames while the motion still comes in; see `fye_rt.clips.live.stream`.

        Args:
            request: what clip is asked for; its motion may be an iterable of landmarks.
            patience: seconds without a new frame after which those that have come are made, in a shorter window.

        Raises:
            FyeError: as `animate`.
        """
        return live_stream(self, request, patience)
