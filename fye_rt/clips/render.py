"""Rendering of a clip: from a request to frames with their timing and sound."""

import os
from dataclasses import replace

from fye_rt import backends
from fye_rt.clips.cache import ClipCache
from fye_rt.clips.clip import Rendering
from fye_rt.clips.frames import frames_of
from fye_rt.clips.place import pasting
from fye_rt.clips.prepare import prepare
from fye_rt.options import ClipRequest
from fye_rt.stages import Stages
from fye_rt.timings import Progress, Timings, no_progress


def render(
    stages: Stages,
    request: ClipRequest,
    progress: Progress = no_progress,
    resume: str | os.PathLike[str] | None = None,
    cache: ClipCache | None = None,
) -> Rendering:
    """Prepare a clip; its frames are made as the caller iterates, and not kept.

    Arguments and errors are those of `Animator.render`, with the stages that hold the model.
    """
    options = request.options
    backends.resolve_compute(stages.backend, options.compute)  # fail now, not after minutes of landmark detection
    with stages.graphs.serving("the clip", request.size, options):
        timings = Timings()
        prepared = prepare(stages, request, progress, timings, cache)
        progress("denoise", 0, options.steps)  # its graph may take a minute to open
        driving = prepared.driving
        paste, notices = None, driving.notices + prepared.notices
        if request.crop.paste:
            paste, scaled = pasting(prepared.place, request.crop, prepared.landmarks)
            notices += scaled
        times = driving.times[-len(prepared.landmarks) :] if driving.times else None
        return Rendering(
            replace(driving.playback(request.crf), times=times),
            prepared.place.portrait,
            prepared.landmarks,
            notices,
            frames_of(stages, prepared.portrait_state, prepared.landmarks, options, progress, timings, resume),
            timings,
            paste,
            request.crop.alpha,
        )
