"""The few array operations of the denoising loop: numpy here, C++ where the native module was built.

Each operation is a function of plain arrays, so that twins for other devices can stand beside it.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt.errors import InputError, not_finite
from fye_rt.options import check_sides

Array = NDArray[np.float32]


def _native() -> Any:
    try:
        return importlib.import_module("fye_rt._native")
    except ImportError:  # a source checkout without a build
        return None


native = _native()


def weighted_sum(terms: Sequence[Array], weights: Sequence[float], out: Array | None = None) -> Array:
    """sum_j weights[j] * terms[j], accumulated in float64 and rounded once to float32.

    Args:
        terms: one or more float32 arrays of one shape.
        weights: one number for each.
        out: C-contiguous float32 array of that shape for the result, which may be one of the terms; else a new one.
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
    """`weighted_sum` with one row of weights where `mask` is true, and with another where it is not.

    Args:
        terms: one or more float32 arrays of one shape (..., F, h, w).
        inside: one number for each.
        outside: the same.
        mask: (F, h, w).
    """
    if native is None:
        return np.where(mask, weighted_sum(terms, inside), weighted_sum(terms, outside))
    out = np.empty(terms[0].shape, np.float32)
    contiguous = [np.ascontiguousarray(term) for term in terms]
    native.masked_sum(out, contiguous, [*map(float, inside)], [*map(float, outside)], np.ascontiguousarray(mask))
    return out


def guide(uncond: Array, cond: Array, guidance: float) -> Array:
    """Classifier-free guidance, uncond + guidance * (cond - uncond); float32 arrays of one shape."""
    return weighted_sum((uncond, cond), (1 - guidance, guidance))


def accumulate(total: Array, part: Array, frames: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
    """Add one window to the clip in place: total[:, :, frames] += weights * part.

    Args:
        total: float32 (1, C, F, h, w).
        part: float32 (1, C, f, h, w).
        frames: distinct indices (f,).
        weights: one for each of them (f,).
    """
    total[:, :, frames] += part * weights[:, None, None]


def to_uint8(frames: Array) -> NDArray[np.uint8]:
    """Pixels in [0, 1] to 0..255 by truncation of the float32 product with 255, as the public code does; any shape.

    Values outside [0, 1] are clamped.

    Raises:
        NumericalError: a NaN.
    """
    if native is not None:
        try:
            result: NDArray[np.uint8] = native.to_uint8(np.ascontiguousarray(frames))
            return result
        except ValueError:  # it finds NaN on the way; asking numpy first would be a third of the time
            if not np.isnan(frames).any():
                raise
    if np.isnan(frames).any():
        raise not_finite("vae_decoder")
    return np.clip(frames * np.float32(255), 0, 255).astype(np.uint8)


def check_images(images: NDArray[np.uint8], name: str) -> None:
    """Raise InputError unless images are uint8 (F, H, W, 3) of sides that a clip can have."""
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise InputError(f"{name} is {images.dtype}, each of shape {images.shape[1:]}; give uint8 (H, W, 3)")
    check_sides(images.shape[1:3], name)


def check_floats(array: Array, shape: tuple[int, ...], name: str) -> None:
    """Raise InputError unless an array is float32 of that shape."""
    if array.shape != shape or array.dtype != np.float32:
        raise InputError(f"{name} is {array.dtype} {array.shape}; give float32 {shape}")
