"""Prepare images for the networks: fit them to a size, preprocess them for CLIP, round as the reference does."""

import numpy as np
from numpy.typing import NDArray

from fye_rt.media.checks import check_rgb

CLIP_MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
CLIP_STD = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)


def fit_image(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Fit a whole image into `height` x `width`, centred on black, as the reference implementation does.

    Args:
        image: uint8 RGB, (h, w, 3).
        height: height of the result, pixels.
        width: width of the result, pixels.

    Returns:
        uint8 RGB, (height, width, 3): scaled by s = min(width / w, height / h) to (int(w * s), int(h * s)) with
        Pillow's bicubic filter, then cropped by the centred box; black outside the image.
    """
    from PIL import Image

    check_rgb(image)
    h, w = image.shape[:2]
    scale = min(width / w, height / h)
    # int() may lose a pixel to rounding (w * (width / w) < width), as in the reference
    w, h = max(int(w * scale), 1), max(int(h * scale), 1)
    resized = Image.fromarray(image).resize((w, h), Image.Resampling.BICUBIC)
    left, top = w // 2 - width // 2, h // 2 - height // 2
    return np.array(resized.crop((left, top, left + width, top + height)))


def clip_pixels(image: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """CLIP's image preprocessing with its defaults (transformers' CLIPImageProcessor, Pillow backend).

    Args:
        image: uint8 RGB, (H, W, 3).
        size: side of the result, pixels; 224 for CLIP ViT-L/14.

    Returns:
        float32 (3, size, size): shortest side scaled to `size` (bicubic), centre crop, / 255, normalised by CLIP's mean
        and standard deviation.
    """
    from PIL import Image

    check_rgb(image)
    h, w = image.shape[:2]
    w, h = (size, int(size * h / w)) if w <= h else (int(size * w / h), size)
    resized = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BICUBIC))
    top, left = (h - size) // 2, (w - size) // 2
    crop = resized[top : top + size, left : left + size].astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(((crop - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1))


def reference_round_trip(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Round a portrait, uint8 of any shape, as the reference implementation does: levels 1 to 63 become one lower.

    The reference converts the image to [-1, 1] and back in float32 and truncates; the other levels survive.
    """
    levels = np.arange(256, dtype=np.float32)
    signed = levels / np.float32(255) * 2 - 1
    table = (((signed + 1) / 2).clip(0, 1) * 255).astype(np.uint8)
    return table[image]
