"""Map HDR video to SDR in linear light: diffuse white stays nearly white, and highlights are compressed."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

TRANSFERS = {16: "PQ", 18: "HLG"}  # by their numbers in H.273, as FFmpeg states them
WHITE = 203.0  # cd/m2, diffuse white: ITU-R BT.2408
PEAK = 1000.0  # cd/m2, which becomes SDR's white; what is brighter is cut off
HLG_GAMMA = 1.2  # of a display with that peak: BT.2100
BAND = 1 << 16  # pixels converted at a time

# linear light to that of BT.709, by the number of the primaries in H.273
TO_BT709 = {
    9: (
        (1.660491, -0.587641, -0.072850),
        (-0.124550, 1.132900, -0.008349),
        (-0.018151, -0.100579, 1.118730),
    ),  # BT.2020
    12: ((1.224940, -0.224940, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098274)),  # Display P3
    1: ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
}

Array = NDArray[np.float64]


def to_sdr(pixels: NDArray[np.uint16], transfer: str, primaries: int) -> NDArray[np.uint8]:
    """Map HDR pixels to SDR.

    The curve is the EETF of ITU-R BT.2390, from `PEAK` to `WHITE`, of the largest of a pixel's three values, so that
    its hue stays. Light up to a third of diffuse white is unchanged, and diffuse white becomes 78 % of SDR's.

    Args:
        pixels: RGB as transmitted, (H, W, 3); 0 to 65535.
        transfer: "PQ" (SMPTE ST 2084) or "HLG" (ARIB STD-B67).
        primaries: their number in H.273; one that is unknown is taken for BT.2020.

    Returns:
        sRGB, (H, W, 3).
    """
    matrix = np.array(TO_BT709.get(primaries, TO_BT709[9]), np.float32).T
    light, curve, code = _light(transfer), _curve(), _srgb()
    flat = pixels.reshape(-1, 3)
    result = np.empty(flat.shape, np.uint8)
    for begin in range(0, len(flat), BAND):
        linear = light.take(flat[begin : begin + BAND], mode="clip")  # a third of the time of indexing
        if transfer == "HLG":
            luminance = linear @ np.array((0.2627, 0.6780, 0.0593), np.float32)
            linear *= (luminance ** np.float32(HLG_GAMMA - 1) * np.float32(PEAK / WHITE))[:, None]
        brightest = np.maximum(np.maximum(linear[:, 0], linear[:, 1]), linear[:, 2]) * np.float32(WHITE / PEAK)
        place = np.sqrt(brightest).clip(0, 1) * (len(curve) - 2)
        low = place.astype(np.int32)
        factor = curve[low] + (curve[low + 1] - curve[low]) * (place - low)
        linear *= (factor / brightest.clip(1))[:, None]
        linear = (linear @ matrix).clip(0, 1)
        result[begin : begin + BAND] = code.take((linear * 65535 + np.float32(0.5)).astype(np.uint16), mode="clip")
    return result.reshape(pixels.shape)


def pq_light(signal: Array) -> Array:
    """Return the light of PQ signals, 0 to 1, in cd/m2: the EOTF of SMPTE ST 2084."""
    power = signal ** (32 / 2523)
    return np.asarray(10000 * ((power - 0.8359375).clip(0) / (18.8515625 - 18.6875 * power)) ** (16384 / 2610))


def pq_signal(light: Array) -> Array:
    """Return the PQ signals, 0 to 1, of light in cd/m2."""
    power = (light / 10000) ** (2610 / 16384)
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** (2523 / 32))


def hlg_light(signal: Array) -> Array:
    """Return the light of a scene, 0 to 1, of HLG signals: the inverse OETF of BT.2100."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def compressed(light: Array) -> Array:
    """Return light, 0 to `PEAK`, compressed to 0 to `WHITE`, cd/m2: the EETF of ITU-R BT.2390 without a black level."""
    top = float(pq_signal(np.array(PEAK)))
    signal = pq_signal(light) / top
    most = float(pq_signal(np.array(WHITE))) / top
    knee = 1.5 * most - 0.5
    t = (signal - knee) / (1 - knee)
    above = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return pq_light(np.where(signal < knee, signal, above) * top)


@cache
def _light(transfer: str) -> NDArray[np.float32]:
    """Light of each value: of PQ in units of diffuse white, of HLG the scene's."""
    signal = np.arange(65536) / 65535
    return (pq_light(signal) / WHITE if transfer == "PQ" else hlg_light(signal)).astype(np.float32)


@cache
def _curve() -> NDArray[np.float32]:
    """Factors that compress light, for even steps of its square root from 0 to `PEAK`, and the last one again."""
    light = PEAK * np.linspace(0, 1, 4096)[1:] ** 2
    factors = compressed(light) / light
    return np.concatenate([factors[:1], factors, factors[-1:]]).astype(np.float32)


@cache
def _srgb() -> NDArray[np.uint8]:
    """The sRGB value, 0 to 255, of light in steps of 1/65535."""
    light = np.arange(65536) / 65535
    signal = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * signal).astype(np.uint8)
