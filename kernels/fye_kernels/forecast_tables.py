"""Tables that `forecast_step` reads: the numbers of a jump, and each window's share of a frame. Needs no Triton."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fye_rt.backends.jump_row import rows
from fye_rt.forecast import Jump
from fye_rt.windows import Window


class Blend(NamedTuple):
    """The windows that show each frame, up to K of them, and their shares; the rest of a frame's column is 0.

    Attributes:
        planes: int32 (K, F), index of the frame's first plane (h, w) among the planes of all windows (N, 4, f, h, w);
            the plane of the next channel lies f planes further.
        shares: float32 (K, F); each column sums to 1.
    """

    planes: Tensor
    shares: Tensor


def blend(windows: Sequence[Window], frames: int, channels: int = 4) -> Blend:
    """Build the tables that locate each frame in the predictions of windows of equal length."""
    length = len(windows[0].frames)
    shown: list[list[tuple[int, float]]] = [[] for _ in range(frames)]
    for number, window in enumerate(windows):
        for position, (frame, share) in enumerate(zip(window.frames.tolist(), window.weights.tolist(), strict=True)):
            shown[frame].append((number * channels * length + position, share))
    planes = np.zeros((max(map(len, shown)), frames), np.int32)
    shares = np.zeros(planes.shape, np.float32)
    for frame, parts in enumerate(shown):
        for k, (plane, share) in enumerate(parts):
            planes[k, frame], shares[k, frame] = plane, share
    return Blend(torch.from_numpy(planes), torch.from_numpy(shares))


def numbers(jump: Jump, guidance: float, slot: int, slots: int) -> Tensor:
    """Return the rows of `fye_rt.backends.jump_row.rows` as float32 (2, ROW)."""
    return torch.tensor(rows(jump, guidance, slot, slots))
