"""Switches of PyTorch that apply to the whole process, set for as long as an engine needs them."""

import threading
from collections.abc import Mapping
from contextlib import ContextDecorator
from typing import Any

import torch


class Switches(ContextDecorator):
    """Context or decorator in which some of PyTorch's switches have certain values; the last thread to leave ends it.

    Args:
        values: value of each switch, by the object and the name of its attribute.
    """

    def __init__(self, values: Mapping[tuple[Any, str], Any]) -> None:
        self._values = values
        self._lock, self._running = threading.Lock(), 0
        self._before: list[Any] = []

    def __enter__(self) -> None:
        with self._lock:
            if not self._running:
                self._before = [getattr(owner, name) for owner, name in self._values]
                for (owner, name), value in self._values.items():
                    setattr(owner, name, value)
            self._running += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                for (owner, name), value in zip(self._values, self._before, strict=True):
                    setattr(owner, name, value)


cudnn: Any = torch.backends.cudnn
# float32 stays float32; by default PyTorch lets cuDNN round it to TF32
FLOAT32 = Switches({(cudnn.conv, "fp32_precision"): "ieee", (torch.backends.cuda.matmul, "fp32_precision"): "ieee"})
# cuDNN tries all algorithms of a convolution at its first run, and remembers the fastest
SEARCH = Switches({(cudnn, "benchmark"): True})
