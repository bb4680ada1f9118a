"""Native twins of the array operations in `fye_rt.arrays`; the module is absent where it was not built."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

def weighted_sum(out: NDArray[np.float32], terms: Sequence[NDArray[np.float32]], weights: Sequence[float]) -> None: ...
def masked_sum(
    out: NDArray[np.float32],
    terms: Sequence[NDArray[np.float32]],
    inside: Sequence[float],
    outside: Sequence[float],
    mask: NDArray[np.bool_],
) -> None: ...
def to_uint8(frames: NDArray[np.float32]) -> NDArray[np.uint8]: ...
