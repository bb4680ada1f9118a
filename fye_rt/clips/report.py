"""What was run, on what, and how fast, as it goes into reports."""

from typing import Any

from fye_rt.clips.clip import Clip, Rendering
from fye_rt.machine import environment, peak_memory
from fye_rt.options import Options
from fye_rt.stages import Stages


def describe(
    animator: Stages, clip: Clip | Rendering, options: Options, evaluations: int, seconds: float
) -> dict[str, Any]:
    """What was run, on what, and how fast.

    Args:
        animator: that made the clip.
        clip: the result, or the rendering that made it.
        options: it was made with.
        evaluations: calls of the denoiser.
        seconds: from portrait and motion to frames, graphs opened on the way; those of a rendering to its files.
    """
    bundle = animator.bundle
    frames, height, width, _ = clip.landmarks.shape
    return {
        "environment": environment(),
        "bundle": {"path": str(bundle.path), "digest": bundle.digest, "precision": bundle.precision},
        "backend": animator.backend,
        "options": options.as_dict(),
        "frames": frames,
        "size": [height, width],
        "fps": clip.fps,
        "network_evaluations": evaluations,
        "timings": dict(clip.timings),
        "seconds": seconds,
        "frames_per_second": frames / seconds,
        "peak_memory_bytes": peak_memory(),
        "notices": list(clip.notices),
    }
