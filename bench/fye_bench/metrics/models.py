"""Metrics that need somebody else's weights: identity by a face-recognition network, and LPIPS.

FVD, which is a number of many clips, is in `fye_bench.metrics.fvd`.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fye_bench.metrics.truth import Image
from fye_rt.errors import BackendError, InputError
from fye_training.topology import EYES, Array

# eyes, tip of the nose and corners of the mouth in a picture of 112x112, as face-recognition networks expect them:
# J. Deng et al., "ArcFace", CVPR 2019
PLACES = np.array(((38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2)))
SIDE = 112


class Network:
    """A network from an ONNX file, with one input and one output; one thread, so that its numbers are always the same.

    Args:
        path: the file, its weights inside: a hash of it is then a hash of all that it computes.
        shape: of the input; None: any size.

    Attributes:
        shape: of the input as the file states it; None for a size that it leaves open.

    Raises:
        InputError: the file does not open, or is another network.
    """

    def __init__(self, path: Path, shape: Sequence[int | None]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised
        try:
            # from memory, where weights in other files are not found
            session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; give an ONNX file") from error
        except Exception as error:  # ONNX Runtime has an exception of its own for each cause
            reason = " ".join(str(error).split())
            raise InputError(
                f"{path}: not a network that ONNX Runtime opens; its weights must be inside of it: {reason}"
            ) from error
        given, outputs = session.get_inputs(), session.get_outputs()
        if len(given) != 1 or len(outputs) != 1 or given[0].type != "tensor(float)" or not _fits(given[0].shape, shape):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            found = [(one.type, one.shape) for one in given]
            raise InputError(
                f"{path}: expected one input float32 ({wanted}) and one output, found {found} and {len(outputs)}"
            )
        self.shape = tuple(size if isinstance(size, int) else None for size in given[0].shape)
        self._path, self._session, self._name = path, session, given[0].name

    def __call__(self, values: NDArray[np.float32]) -> Array:
        """The output for an input, as one row (D,).

        Raises:
            InputError: the network fails, or what it returns is no row of finite numbers.
        """
        try:
            found = np.asarray(self._session.run(None, {self._name: values})[0], np.float64).reshape(-1)
        except Exception as error:  # as above
            raise InputError(
                f"{self._path} fails on an input {values.shape}: {' '.join(str(error).split())}"
            ) from error
        if not len(found) or not np.isfinite(found).all():
            raise InputError(f"{self._path} returns no numbers, or NaN or infinity; export it in float32")
        return found


class Identity:
    """Who a face is: unit vectors of a face-recognition network.

    Args:
        path: an ONNX file: one input float32 (N, 3, 112, 112), RGB in [-1, 1], one output (N, D).

    Raises:
        InputError: the file does not open, or is another network.
    """

    def __init__(self, path: Path) -> None:
        self._network = Network(path, (None, 3, SIDE, SIDE))

    def __call__(self, frames: Image, points: Array) -> Array:
        """Unit vectors of faces, float64 (F, D).

        Args:
            frames: uint8 (F, H, W, 3).
            points: float64 (F, 478, 2), pixels: where the face is.
        """
        rows = []
        for frame, where in zip(frames, points, strict=True):
            pixels = _aligned(frame, where).transpose(2, 0, 1).astype(np.float32) / 127.5 - 1.0
            rows.append(self._network(pixels[None]))
        found = np.stack(rows)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    def cosine(self, made: Image, points: Array, portrait: Image, portrait_points: Array) -> float:
        """Mean cosine similarity of made frames and a portrait (H, W, 3) with points (478, 2)."""
        return float((self(made, points) @ self(portrait[None], portrait_points[None])[0]).mean())


class Lpips:
    """LPIPS (R. Zhang et al., "The unreasonable effectiveness of deep features", CVPR 2018) by its authors' package.

    Args:
        path: the state dict of `lpips.LPIPS(net="alex")`, backbone included.

    Raises:
        BackendError: lpips is not installed.
        InputError: the file does not fit.
    """

    def __init__(self, path: Path) -> None:
        import torch

        try:
            lpips = importlib.import_module("lpips")
        except ImportError as error:
            raise BackendError(f"LPIPS needs its package ({error}); run: pip install lpips") from error
        self._network = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False).eval()
        try:
            self._network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # a file of any kind
            raise InputError(
                f'{path} is not the state dict of lpips.LPIPS(net="alex"); write one with torch.save'
            ) from error

    def __call__(self, made: Image, true: Image) -> float:
        """Mean over the frames uint8 (F, H, W, 3) of two clips."""
        import torch

        def tensor(frame: Image) -> Any:
            return torch.from_numpy(frame.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1.0)

        with torch.inference_mode():  # a frame at a time: clips may be long
            found = [float(self._network(tensor(a), tensor(b))) for a, b in zip(made, true, strict=True)]
        return float(np.mean(found))


def _fits(found: Sequence[Any], wanted: Sequence[int | None]) -> bool:
    """Whether a stated shape allows the wanted one; sizes that it leaves open have names, or none."""
    return len(found) == len(wanted) and all(
        size is None or not isinstance(stated, int) or stated == size
        for stated, size in zip(found, wanted, strict=True)
    )


def _aligned(frame: Image, points: Array) -> NDArray[np.uint8]:
    """The face at PLACES, by the best similarity transform (least squares), uint8 (112, 112, 3)."""
    found = np.stack((*(points[eye].mean(axis=0) for eye in EYES), points[1], points[61], points[291]))
    # x' = a x - b y + c, y' = b x + a y + d
    x, y = found.T
    one, zero = np.ones(len(found)), np.zeros(len(found))
    rows = np.concatenate((np.stack((x, -y, one, zero), -1), np.stack((y, x, zero, one), -1)))
    a, b, c, d = np.linalg.lstsq(rows, np.concatenate((PLACES[:, 0], PLACES[:, 1])), rcond=None)[0]
    return cv2.warpAffine(frame, np.array(((a, -b, c), (b, a, d))), (SIDE, SIDE), flags=cv2.INTER_LINEAR)
