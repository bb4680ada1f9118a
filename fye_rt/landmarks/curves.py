"""Values of a control over time: its constants, and keyframes with easing between them."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fye_rt.landmarks.control import ARKIT, CURVES, Control

Array = NDArray[np.float64]
Values = Mapping[str, Array]  # (F,) by name


def curves(control: Control, times: Array) -> dict[str, Array]:
    """Return each value of a control at each time.

    Before its first keyframe a value is that of the first, and after the last that of the last.

    Args:
        control: constants and keyframes.
        times: (F,), seconds from the clip's first frame.

    Returns:
        (F,) of every name in CURVES, and of those in ARKIT that the control names.
    """
    values = {name: np.full(len(times), float(getattr(control, name))) for name in CURVES}
    values |= {name: np.full(len(times), float(value)) for name, value in control.arkit.items()}
    for name in {name for keyframe in control.keyframes for name in keyframe.values}:
        keyframes = [keyframe for keyframe in control.keyframes if name in keyframe.values]
        points = np.array([keyframe.time for keyframe in keyframes])
        heights = np.array([float(keyframe.values[name]) for keyframe in keyframes])
        after = np.searchsorted(points, times, side="right")  # number of keyframes that are reached
        before = np.maximum(after - 1, 0)
        after = np.minimum(after, len(points) - 1)
        length = points[after] - points[before]
        share = np.divide(times - points[before], length, out=np.zeros(len(times)), where=length > 0)
        share = np.clip(share, 0.0, 1.0)
        easing = np.array([keyframe.easing for keyframe in keyframes])[after]
        share = np.where(easing == "ease", share * share * (3.0 - 2.0 * share), share)
        share = np.where(easing == "hold", 0.0, share)
        values[name] = heights[before] + share * (heights[after] - heights[before])
    assert values.keys() <= {*CURVES, *ARKIT}
    return values
