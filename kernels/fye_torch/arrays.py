"""Results that stay on the GPU until another engine or the host reads them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fye_torch.graphs import ALONE


class TorchArray:
    """A `fye_rt.engine.DeviceArray` of PyTorch, in the compute precision of its engine.

    Attributes:
        tensor: the numbers, on the GPU; channels-last if they have 4 dimensions.
        shape: shape of the array.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.shape = tensor, tuple(tensor.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        with ALONE, torch.inference_mode():
            array = np.ascontiguousarray(self.tensor.float().cpu().numpy())
        return array if dtype is None else array.astype(dtype, copy=False)

    def __getitem__(self, frames: NDArray[np.int64]) -> "TorchArray":
        if np.array_equal(frames, np.arange(len(self))):  # all of them, as in a clip of one window
            return self
        with ALONE, torch.inference_mode():
            return TorchArray(self.tensor[torch.tensor(frames, device=self.tensor.device)])

    def finite(self) -> bool:
        """Wait for the GPU, and return whether no number is NaN or infinity."""
        with ALONE, torch.inference_mode():
            return bool(self.tensor.isfinite().all())

    def join(self, others: Sequence["TorchArray"]) -> "TorchArray":
        """Return this array and others, one after another along the first axis."""
        with ALONE, torch.inference_mode():
            return TorchArray(torch.cat([self.tensor, *(other.tensor for other in others)]))
