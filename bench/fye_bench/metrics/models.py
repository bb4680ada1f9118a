"""Metrics that need third-party weights: identity by a face-recognition network, and LPIPS.

`fye_bench.metrics.fvd` has FVD, a number of many clips.
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
    """A network from an ONNX file, with one input and one output. It has one thread, for reproducible numbers.

    Args:
        path: ONNX file with its weights inside, so that its hash covers all that it computes.
        shape: expected shape of the input; None: any size.

    Attributes:
        shape: shape of the input in the file; None for a size that it leaves open.

    Raises:
        InputError: the file does not open or holds another network.
    """

    def __init__(self, path: Path, shape: Sequence[int | None]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised
        try:
            # read into memory, where ONNX Runtime finds no weights in other files
            session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; give an ONNX file") from error
        except Exception as error:  # ONNX Runtime has an exception of its own for each cause
            reason = " ".join(str(error).split())
            raise InputError(
                f"{path}: not a network that ONNX Runtime opens; its weights must be inside the file: {reason}"
            ) from error
        inputs, outputs = session.get_inputs(), session.get_outputs()
        stated = [(each.type, each.shape) for each in inputs]
        if len(inputs) != 1 or len(outputs) != 1 or stated[0][0] != "tensor(float)" or not _fits(stated[0][1], shape):
            expected = ", ".join("any" if size is None else str(size) for size in shape)
            raise InputError(
                f"{path}: expected one input float32 ({expected}) and one output, found {stated} and {len(outputs)}"
            )
        self.shape = tuple(size if isinstance(size, int) else None for size in inputs[0].shape)
        self._path, self._session, self._name = path, session, inputs[0].name

    def __call__(self, values: NDArray[np.float32]) -> Array:
        """Return the output for an input, as one row (D,).

        Raises:
            InputError: the network fails, or returns no finite numbers.
        """
        try:
            output = np.asarray(self._session.run(None, {self._name: values})[0], np.float64).reshape(-1)
        except Exception as error:  # as above
            reason = " ".join(str(error).split())
            raise InputError(f"{self._path} fails on an input {values.shape}: {reason}") from error
        if not len(output) or not np.isfinite(output).all():
            raise InputError(f"{self._path} returns no numbers, or NaN or infinity; export it in float32")
        return output


class Identity:
    """Identity of faces: unit vectors from a face-recognition network.

    Args:
        path: ONNX file with one input float32 (N, 3, 112, 112), RGB in [-1, 1], and one output (N, D).

    Raises:
        InputError: the file does not open or holds another network.
    """

    def __init__(self, path: Path) -> None:
        self._network = Network(path, (None, 3, SIDE, SIDE))

    def __call__(self, frames: Image, points: Array) -> Array:
        """Return unit vectors of faces, float64 (F, D).

        Args:
            frames: uint8 (F, H, W, 3).
            points: float64 (F, 478, 2), landmarks in pixels.
        """
        rows = []
        for frame, landmarks in zip(frames, points, strict=True):
            pixels = _aligned(frame, landmarks).transpose(2, 0, 1).astype(np.float32) / 127.5 - 1.0
            rows.append(self._network(pixels[None]))
        vectors = np.stack(rows)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def cosine(self, generated: Image, points: Array, portrait: Image, portrait_points: Array) -> float:
        """Return the mean cosine similarity of generated frames and a portrait (H, W, 3) with landmarks (478, 2)."""
        return float((self(generated, points) @ self(portrait[None], portrait_points[None])[0]).mean())


class Lpips:
    """LPIPS (R. Zhang et al., "The unreasonable effectiveness of deep features", CVPR 2018) by its authors' package.

    Args:
        path: state dict of `lpips.LPIPS(net="alex")`, backbone included.

    Raises:
        BackendError: lpips is not installed.
        InputError: the file holds something else.
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
        except Exception as error:  # the file may hold anything
            raise InputError(
                f'{path} is not the state dict of lpips.LPIPS(net="alex"); write one with torch.save'
            ) from error

    def __call__(self, generated: Image, true: Image) -> float:
        """Return the mean over the frames uint8 (F, H, W, 3) of two clips."""
        import torch

        def tensor(frame: Image) -> Any:
            return torch.from_numpy(frame.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1.0)

        with torch.inference_mode():  # a frame at a time: clips may be long
            pairs = zip(generated, true, strict=True)
            return float(np.mean([float(self._network(tensor(a), tensor(b))) for a, b in pairs]))


def _fits(stated: Sequence[Any], expected: Sequence[int | None]) -> bool:
    """Return whether a stated shape allows the expected one; an open size in it has a name, or none."""
    return len(stated) == len(expected) and all(
        size is None or not isinstance(side, int) or side == size for side, size in zip(stated, expected, strict=True)
    )


def _aligned(frame: Image, points: Array) -> NDArray[np.uint8]:
    """Move the face to PLACES by the least-squares similarity transform, uint8 (112, 112, 3)."""
    # x' = a x - b y + c, y' = b x + a y + d
    x, y = np.stack((*(points[eye].mean(axis=0) for eye in EYES), points[1], points[61], points[291])).T
    ones, zeros = np.ones(len(x)), np.zeros(len(x))
    rows = np.concatenate((np.stack((x, -y, ones, zeros), -1), np.stack((y, x, zeros, ones), -1)))
    a, b, c, d = np.linalg.lstsq(rows, np.concatenate((PLACES[:, 0], PLACES[:, 1])), rcond=None)[0]
    return cv2.warpAffine(frame, np.array(((a, -b, c), (b, a, d))), (SIDE, SIDE), flags=cv2.INTER_LINEAR)
