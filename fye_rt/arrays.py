"""Array operations of the denoising loop, in numpy, or in C++ where the native module is built.

Each operation is a function of plain arrays, so that other devices can have functions of the same meaning.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError, not_finite
from fye_rt.options import check_sides

Array = NDArray[np.float32]

try:
    native: Any = importlib.import_module("fye_rt._native")
except ImportError:  # a source checkout without a build
    native = None


def weighted_sum(terms: Sequence[Array], weights: Sequence[float], out: Array | None = None) -> Array:
    """Return sum_j weights[j] * terms[j], accumulated in float64 and rounded once to float32.

    Args:
        terms: one or more float32 arrays of one shape.
        weights: one number per term.
        out: C-contiguous float32 array of that shape to write to, which may be one of the terms; by default a new one.
    """
    if out is None:
        out = np.empty(terms[0].shape, np.float32)
    if native is not None:
        native.weighted_sum(out, [np.ascontiguousarray(term) for term in terms], [float(weight) for weight in weights])
        return out
    total = np.multiply(terms[0], weights[0], dtype=np.float64)
    for term, weight in zip(terms[1:], weights[1:], strict=True):
        total += np.multiply(term, weight, dtype=np.float64)
    out[...] = total
    return out


def masked_sum(
    terms: Sequence[Array], inside: Sequence[float], outside: Sequence[float], mask: NDArray[np.bool_]
) -> Array:
    """Apply one row of weights where `mask` is true and another elsewhere; otherwise like `weighted_sum`.

    The terms are float32 (..., F, h, w), the mask is (F, h, w), and either row has one number per term.
    """
    if native is None:
        return np.where(mask, weighted_sum(terms, inside), weighted_sum(terms, outside))
    out = np.empty(terms[0].shape, np.float32)
    contiguous = [np.ascontiguousarray(term) for term in terms]
    native.masked_sum(out, contiguous, [*map(float, inside)], [*map(float, outside)], np.ascontiguousarray(mask))
    return out


def guide(uncond: Array, cond: Array, guidance: float) -> Array:
    """Apply classifier-free guidance, uncond + guidance * (cond - uncond), to float32 arrays of one shape."""
    return weighted_sum((uncond, cond), (1 - guidance, guidance))


def accumulate(total: Array, part: Array, frames: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
    """Add one window to the clip in place: total[:, :, frames] += weights * part.

    `total` is float32 (1, C, F, h, w), `part` is float32 (1, C, f, h, w), and `frames` are distinct indices.
    """
    total[:, :, frames] += part * weights[:, None, None]


def to_uint8(frames: Array) -> NDArray[np.uint8]:
    """Convert pixels to 0..255 as the reference implementation does: the float32 product with 255, truncated.

    Accepts any shape, and clamps values outside [0, 1].

    Raises:
        NumericalError: a value is NaN.
    """
    if native is not None:
        try:
            return native.to_uint8(np.ascontiguousarray(frames))
        except ValueError:  # it finds NaN as it converts; a check with numpy first would be a third of the time
            if not np.isnan(frames).any():
                raise
    if np.isnan(frames).any():
        raise not_finite("vae_decoder")
    return np.clip(frames * np.float32(255), 0, 255).astype(np.uint8)


def check_images(images: NDArray[np.uint8], name: str) -> None:
    """Raise InputError unless images are uint8 (F, H, W, 3) with sides that a clip can have."""
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise InputError(f"{name} is {images.dtype}, each of shape {images.shape[1:]}; give uint8 (H, W, 3)")
    check_sides(images.shape[1:3], name)


def check_floats(array: Array, shape: tuple[int, ...], name: str) -> None:
    """Raise InputError unless an array is float32 of that shape."""
    if array.shape != shape or array.dtype != np.float32:
        raise InputError(f"{name} is {array.dtype} {array.shape}; give float32 {shape}")
