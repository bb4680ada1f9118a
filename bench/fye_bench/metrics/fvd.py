"""Fréchet video distance: distance of a run's clips to the true ones, between features of a video network.

T. Unterthiner et al., "Towards accurate generative models of video: a new metric and challenges", arXiv:1812.01717,
2018. It is one number of a whole run, from its pairs with a truth. It has two limits. Each clip is one sample of the
fitted Gaussians, and few samples make the distance too large: compare only runs of the same pairs, and trust no value
of fewer than a few hundred clips. And networks that recognise actions see single frames better than motion: S. Ge et
al., "On the content bias in Fréchet video distance", CVPR 2024.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fye_bench.metrics.models import Network
from fye_rt.errors import InputError

SIDE = 224

Array = NDArray[np.float64]
Image = NDArray[np.uint8]


class VideoFeatures:
    """A network that describes a video, such as I3D, from an ONNX file; fye-rt has none.

    This writes the file of `network`, a torch.nn.Module that takes float32 (1, 3, T, 224, 224) and returns (1, D):

        frames = torch.export.Dim("frames", min=16, max=4096)
        torch.onnx.export(network.eval(), (torch.zeros(1, 3, 32, 224, 224),), "features.onnx", dynamo=True,
                          dynamic_shapes=({2: frames},), external_data=False)

    Without `dynamic_shapes` it takes as many frames as the example has, the first ones of a clip. The published
    distances use the logits of an I3D trained on Kinetics-400, of 16 frames.

    Args:
        path: ONNX file with its weights inside: one input float32 (1, 3, T, 224, 224), RGB in [-1, 1], with T fixed
            or open, and one output (1, D).

    Attributes:
        frames: number of frames that the network takes; None: any.

    Raises:
        InputError: the file does not open or holds another network.
    """

    def __init__(self, path: Path) -> None:
        self._network = Network(path, (1, 3, None, SIDE, SIDE))
        self.frames = self._network.shape[2]

    def takes(self, frames: int) -> bool:
        """Return whether a clip of that many frames is long enough."""
        return self.frames is None or frames >= self.frames

    def __call__(self, clip: Image) -> Array:
        """Return the features of a clip, float64 (D,).

        Args:
            clip: uint8 (F, H, W, 3); the first `frames` are used. Like the published distances, this resizes them
                bilinearly to a square, whatever their shape.

        Raises:
            InputError: the clip is too short, or the network fails on it.
        """
        if not self.takes(len(clip)):
            raise InputError(f"a clip of {len(clip)} frames is too short for features of {self.frames}; make it longer")
        video = np.empty((1, 3, self.frames or len(clip), SIDE, SIDE), np.float32)
        for k, frame in enumerate(clip[: video.shape[2]]):
            small = cv2.resize(frame.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
            video[0, :, k] = small.transpose(2, 0, 1) / 127.5 - 1.0
        return self._network(video)


def frechet(features: Array, others: Array) -> float:
    """Return the Fréchet distance of the Gaussians fitted to two sets of features.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) with means m and unbiased covariances S: D. C. Dowson and B. V. Landau,
    "The Fréchet distance between multivariate normal distributions", Journal of Multivariate Analysis 12(3), 1982.

    With S1 = A'A and S2 = B'B, the root's trace is the sum of the singular values of AB'. This avoids the root of a
    matrix, which fails where clips are fewer than features and S is singular.

    Args:
        features: float64 (N, D), one row per clip; N at least 2.
        others: float64 (M, D); M at least 2.

    Raises:
        InputError: fewer than two clips, or features that differ in length or are not finite.
    """
    if features.ndim != 2 or others.ndim != 2 or features.shape[1] != others.shape[1]:
        raise InputError(f"features of shapes {features.shape} and {others.shape} cannot be compared; use one network")
    if min(len(features), len(others)) < 2:
        raise InputError(f"FVD needs two clips or more, not {min(len(features), len(others))}; evaluate more pairs")
    if not (np.isfinite(features).all() and np.isfinite(others).all()):
        raise InputError("features have NaN or infinity; export their network in float32")
    root, other_root = _root(features), _root(others)
    apart = np.square(features.mean(axis=0) - others.mean(axis=0)).sum()
    spread = np.square(root).sum() + np.square(other_root).sum()
    shared = np.linalg.svd(root @ other_root.T, compute_uv=False).sum()
    return max(0.0, float(apart + spread - 2.0 * shared))  # rounding may leave a little less than zero


def _root(features: Array) -> Array:
    """Return a matrix A of at most (D, D) with A'A the covariance."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r"), np.float64)
