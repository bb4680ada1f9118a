"""Initial noise, per frame: frame k of seed s gets the same noise in every clip, window and backend."""

import math
from collections.abc import Iterable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_COMMON = 2**64 - 1  # index of a frame that no clip has


def frame_noise(
    seed: int, frames: Iterable[int], height: int, width: int, channels: int = 4, shared: float = 0.0
) -> NDArray[np.float32]:
    """Draw standard normal noise for the given frames of a clip.

    Without `shared`, frame k depends on (seed, k, channels, height, width) alone. The upper 52 bits of each 64-bit word
    of Philox4x64 with key (seed, k) name the centre of one of 2**52 equal cells of (0, 1); the inverse normal
    distribution maps it in float64, and the result is rounded to float32. Values then lie within +-8.3.

    Args:
        seed: 0 to 2**64 - 1.
        frames: frame indices, 0 or above.
        height: height of the latents (an eighth of the picture's).
        width: width of the latents.
        channels: channels of the latents.
        shared: share of the variance, 0 to 1, that is the same noise in all frames: that of frame 2**64 - 1 ("mixed
            noise", S. Ge et al., "Preserve Your Own Correlation: A Noise Prior for Video Diffusion Models", ICCV 2023).

    Returns:
        float32 (1, channels, len(frames), height, width).
    """

    def normal(frame: int) -> NDArray[np.float64]:
        return inverse_normal(_uniform(seed, frame, channels * height * width)).reshape(channels, height, width)

    noise = [normal(int(frame)) for frame in frames]
    if shared:
        common = math.sqrt(shared) * normal(_COMMON)
        noise = [common + math.sqrt(1 - shared) * frame_part for frame_part in noise]
    return np.stack(noise, axis=1, dtype=np.float32, casting="same_kind")[None]


def inverse_normal(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return quantiles of the standard normal distribution, relative error about 1e-16; p in (0, 1), any shape."""
    # Python's function is Wichura's AS 241, in C: 4.2 ms for the 16,384 values of a frame of 512x512
    return np.fromiter(map(NormalDist().inv_cdf, p.ravel().tolist()), np.float64, p.size).reshape(p.shape)


def _uniform(seed: int, frame: int, count: int) -> NDArray[np.float64]:
    words = np.random.Philox(key=np.array([seed, frame], dtype=np.uint64)).random_raw(count)
    # 52 bits and a half make 53: exact in float64, so that neither 0 nor 1 can appear
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
