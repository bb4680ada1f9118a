"""Initial noise that belongs to frames: frame k of seed s is the same in every clip, window and backend."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# Wichura 1988, "Algorithm AS 241: The percentage points of the normal distribution", PPND16: numerator and
# denominator, highest power first, for |p - 1/2| <= 0.425, for the tails, and for the far tails
_CENTRE = (
    (
        2.5090809287301226727e3,
        3.3430575583588128105e4,
        6.7265770927008700853e4,
        4.5921953931549871457e4,
        1.3731693765509461125e4,
        1.9715909503065514427e3,
        1.3314166789178437745e2,
        3.3871328727963666080e0,
    ),
    (
        5.2264952788528545610e3,
        2.8729085735721942674e4,
        3.9307895800092710610e4,
        2.1213794301586595867e4,
        5.3941960214247511077e3,
        6.8718700749205790830e2,
        4.2313330701600911252e1,
        1.0,
    ),
)
_TAIL = (
    (
        7.74545014278341407640e-4,
        2.27238449892691845833e-2,
        2.41780725177450611770e-1,
        1.27045825245236838258e0,
        3.64784832476320460504e0,
        5.76949722146069140550e0,
        4.63033784615654529590e0,
        1.42343711074968357734e0,
    ),
    (
        1.05075007164441684324e-9,
        5.47593808499534494600e-4,
        1.51986665636164571966e-2,
        1.48103976427480074590e-1,
        6.89767334985100004550e-1,
        1.67638483018380384940e0,
        2.05319162663775882187e0,
        1.0,
    ),
)
_FAR_TAIL = (
    (
        2.01033439929228813265e-7,
        2.71155556874348757815e-5,
        1.24266094738807843860e-3,
        2.65321895265761230930e-2,
        2.96560571828504891230e-1,
        1.78482653991729133580e0,
        5.46378491116411436990e0,
        6.65790464350110377720e0,
    ),
    (
        2.04426310338993978564e-15,
        1.42151175831644588870e-7,
        1.84631831751005468180e-5,
        7.86869131145613259100e-4,
        1.48753612908506148525e-2,
        1.36929880922735805310e-1,
        5.99832206555887937690e-1,
        1.0,
    ),
)


_COMMON = 2**64 - 1  # a frame that no clip has


def frame_noise(
    seed: int, frames: Iterable[int], height: int, width: int, channels: int = 4, shared: float = 0.0
) -> NDArray[np.float32]:
    """Standard normal noise for the given frames of a clip.

    Frame k is a function of (seed, k, channels, height, width) alone: 64-bit words of Philox4x64 with key
    (seed, k), their upper 52 bits as the centre of one of 2**52 equal cells of (0, 1), the inverse normal
    distribution in float64, rounded to float32. Values lie within +-8.3.

    Args:
        seed: 0 to 2**64 - 1.
        frames: frame indices, 0 or above.
        height: of the latents (an eighth of the picture's).
        width: of the latents.
        channels: of the latents.
        shared: part of the variance, 0 to 1, that is the same noise in all frames: that of frame 2**64 - 1 ("mixed
            noise", S. Ge et al., "Preserve Your Own Correlation: A Noise Prior for Video Diffusion Models", ICCV 2023).

    Returns:
        float32 (1, channels, len(frames), height, width).
    """

    def own(frame: int) -> NDArray[np.float64]:
        return inverse_normal(_uniform(seed, frame, channels * height * width)).reshape(channels, height, width)

    noise = [own(int(frame)) for frame in frames]
    if shared:
        common = math.sqrt(shared) * own(_COMMON)
        noise = [common + math.sqrt(1 - shared) * one for one in noise]
    return np.stack(noise, axis=1, dtype=np.float32, casting="same_kind")[None]


def inverse_normal(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles of the standard normal distribution, relative error about 1e-16; p inside (0, 1), any shape."""
    centred = p - 0.5
    z = centred * _ratio(_CENTRE, 0.180625 - centred * centred)
    tail = np.abs(centred) > 0.425
    r = np.sqrt(-np.log(np.minimum(p[tail], 1 - p[tail])))
    z[tail] = np.copysign(np.where(r <= 5, _ratio(_TAIL, r - 1.6), _ratio(_FAR_TAIL, r - 5)), centred[tail])
    return z


def _uniform(seed: int, frame: int, count: int) -> NDArray[np.float64]:
    words = np.random.Philox(key=np.array([seed, frame], dtype=np.uint64)).random_raw(count)
    # 52 bits and a half are 53: exact in float64, so that neither 0 nor 1 can appear
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _ratio(polynomials: tuple[tuple[float, ...], tuple[float, ...]], r: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.polyval(polynomials[0], r) / np.polyval(polynomials[1], r)
