"""Metrics that need somebody else's weights: identity by a face-recognition network, and LPIPS.

FVD is left out: its features come from a video network of 50 MB and its value is biased for fewer than about two
thousand clips.
"""

import importlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fye_bench.quality.suite import Drawn, Image, Shown
from fye_rt.errors import BackendError, InputError
from fye_training.topology import EYES, Array

# eyes, tip of the nose and corners of the mouth in a picture of 112x112, as face-recognition networks expect them:
# J. Deng et al., "ArcFace", CVPR 2019
PLACES = np.array(((38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2)))
SIDE = 112

Metric = Callable[[Drawn, Image, Shown], dict[str, float]]


def identity_by(path: Path) -> Metric:
    """Mean cosine similarity of a face-recognition network's features of the made frames and of the portrait.

    Args:
        path: an ONNX file: one input float32 (N, 3, 112, 112), RGB in [-1, 1], one output (N, D).

    Raises:
        InputError: the file does not open, or is another network.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has an exception of its own for each cause
        raise InputError(f"{path}: not a network that ONNX Runtime opens: {error}") from error
    given = session.get_inputs()
    if len(given) != 1 or len(given[0].shape) != 4 or given[0].shape[1] != 3:
        raise InputError(f"{path}: expected one input (N, 3, {SIDE}, {SIDE}), found {[i.shape for i in given]}")

    def features(frames: Image, face: Shown) -> Array:
        faces = np.stack([_aligned(frame, points) for frame, points in zip(frames, face.points, strict=True)])
        pixels = faces.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1.0
        found = [session.run(None, {given[0].name: pixel[None]})[0].reshape(-1) for pixel in pixels]
        rows = np.stack(found).astype(np.float64)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def measure(drawn: Drawn, made: Image, face: Shown) -> dict[str, float]:
        portrait = features(drawn.portrait[None], drawn.portrait_face)[0]
        return {"identity_cosine": float((features(made, face) @ portrait).mean())}

    return measure


def lpips_by(path: Path) -> Metric:
    """Mean LPIPS to the true frames, by the package of the metric's authors.

    Args:
        path: the state dict of `lpips.LPIPS(net="alex")`, backbone included.

    Raises:
        BackendError: lpips is not installed.
        InputError: the file does not fit.
    """
    import torch

    try:
        lpips = importlib.import_module("lpips")
    except ImportError as error:
        raise BackendError(f"LPIPS needs its package ({error}); run: pip install lpips") from error
    network = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False).eval()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a file of any kind
        raise InputError(
            f'{path} is not the state dict of lpips.LPIPS(net="alex"); write one with torch.save'
        ) from error

    def tensor(frames: Image) -> "torch.Tensor":
        return torch.from_numpy(frames.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1.0)

    def measure(drawn: Drawn, made: Image, face: Shown) -> dict[str, float]:
        with torch.inference_mode():
            return {"lpips": float(network(tensor(made), tensor(drawn.frames)).mean())}

    return measure


def _aligned(frame: Image, points: Array) -> NDArray[np.uint8]:
    """The face at PLACES, by the best similarity transform (least squares), uint8 (112, 112, 3)."""
    found = np.stack((*(points[eye].mean(axis=0) for eye in EYES), points[1], points[61], points[291]))
    # x' = a x - b y + c, y' = b x + a y + d
    x, y = found.T
    one, zero = np.ones(len(found)), np.zeros(len(found))
    rows = np.concatenate((np.stack((x, -y, one, zero), -1), np.stack((y, x, zero, one), -1)))
    a, b, c, d = np.linalg.lstsq(rows, np.concatenate((PLACES[:, 0], PLACES[:, 1])), rcond=None)[0]
    return cv2.warpAffine(frame, np.array(((a, -b, c), (b, a, d))), (SIDE, SIDE), flags=cv2.INTER_LINEAR)
