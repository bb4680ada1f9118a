"""Reports of a run: what was run, on what machine, and how fast."""

from typing import Any

from fye_rt.clips.clip import SYNTHETIC, Clip, Rendering
from fye_rt.machine import environment, peak_memory
from fye_rt.options import Options
from fye_rt.stages import Stages


def describe(
    animator: Stages, clip: Clip | Rendering, options: Options, evaluations: int, seconds: float
) -> dict[str, Any]:
    """Describe what was run, on what machine, and how fast.

    Args:
        animator: stages that made the clip.
        clip: the result, or the rendering that made it.
        options: options of the clip.
        evaluations: network evaluations.
        seconds: time from portrait and motion to frames, opening of graphs included; for a rendering, to its files.
    """
    bundle = animator.bundle
    frames, height, width, _ = clip.landmarks.shape
    return {
        "synthetic": SYNTHETIC,
        "environment": environment(),
        "bundle": {"path": str(bundle.path), "digest": bundle.digest, "precision": bundle.precision},
        "backend": animator.backend,
        "options": options.as_dict(),
        "frames": frames,
        "size": [height, width],
        "frame_size": list(clip.shape[1:3]),
        "fps": clip.fps,
        "network_evaluations": evaluations,
        "timings": dict(clip.timings),
        "seconds": seconds,
        "frames_per_second": frames / seconds,
        "peak_memory_bytes": peak_memory(),
        "notices": list(clip.notices),
    }
