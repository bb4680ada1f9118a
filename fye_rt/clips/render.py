"""A whole clip, from what a request names to frames with their timing and sound."""

import os

from fye_rt import backends
from fye_rt.clips.cache import ClipCache
from fye_rt.clips.clip import Playback, Rendering
from fye_rt.clips.frames import frames_of
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
    """Prepare a clip; its frames are made as they are asked for, and none is kept.

    Args:
        stages: with the model.
        request: what clip is asked for.
        progress: called with (stage, done, total) as work goes on.
        resume: a folder for what is finished, as for `fye_rt.clips.frames.frames_of`.
        cache: spares clips that are made one after another what they share.

    Raises:
        InputError: a source that is missing, damaged, empty, too long, or without a face.
        FyeError: as the stages.
    """
    options = request.options
    backends.resolve_compute(stages.backend, options.compute)  # not after minutes of finding landmarks
    with stages.graphs.serving("the clip", request.size, options):
        timings = Timings()
        prepared = prepare(stages, request, progress, timings, cache)
        progress("denoise", 0, options.steps)  # its graph may take a minute to open
        driving, shown = prepared.driving, len(prepared.landmarks)
        return Rendering(
            Playback(
                fps=driving.fps,
                times=driving.times[-shown:] if driving.times else None,
                seconds=driving.seconds,
                audio_from=driving.audio_from,
            ),
            prepared.portrait,
            prepared.landmarks,
            driving.notices + prepared.notices,
            frames_of(stages, prepared.portrait_state, prepared.landmarks, options, progress, timings, resume),
            timings,
        )
