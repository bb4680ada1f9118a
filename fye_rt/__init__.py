"""fye-rt: Follow-Your-Emoji-Faster as a deployment runtime.

bundle = fye_rt.Bundle.load(path)
with fye_rt.Animator(bundle) as animator:
    clip = animator.animate(image, motion, fye_rt.Options(steps=30))
clip.save("out.mp4")
"""

import importlib
from typing import TYPE_CHECKING, Any

from fye_rt.errors import FyeError
from fye_rt.landmarks.control import Control, Keyframe
from fye_rt.options import ClipRequest, Crop, Forecast, Options
from fye_rt.version import __version__

if TYPE_CHECKING:
    from fye_rt.animator import Animator
    from fye_rt.bundle import Bundle
    from fye_rt.clips.clip import Clip
    from fye_rt.landmarks import Motion
    from fye_rt.network import MotionState, PortraitState

__all__ = [
    "Animator",
    "Bundle",
    "Clip",
    "ClipRequest",
    "Control",
    "Crop",
    "Forecast",
    "FyeError",
    "Keyframe",
    "Motion",
    "MotionState",
    "Options",
    "PortraitState",
    "__version__",
]

# loaded on first use, so that importing fye_rt takes milliseconds and imports none of its dependencies
_LAZY = {
    "Animator": "fye_rt.animator",
    "Clip": "fye_rt.clips.clip",
    "MotionState": "fye_rt.network",
    "PortraitState": "fye_rt.network",
    "Bundle": "fye_rt.bundle",
    "Motion": "fye_rt.landmarks",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'fye_rt' has no attribute {name!r}")
