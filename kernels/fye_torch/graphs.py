"""CUDA graphs: kernels that are launched all at once, from the second run of a shape on."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SHAPES = 16  # of a function, each a graph; progressive windows have some dozen lengths


class Memory:
    """What the graphs of a network share, since one runs after the other.

    Attributes:
        pool: of memory that they work in, so that what one gives out holds until the next one runs.
    """

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self._places: dict[tuple[int, torch.Size, torch.dtype], Tensor] = {}
        self._held: dict[tuple[int, torch.Size, torch.dtype], Tensor] = {}

    def place(self, number: int, given: Tensor) -> Tensor:
        """Where an argument of this number, shape and type is read by all graphs. Numbers count from the last one."""
        key = (number, given.shape, given.dtype)
        if key not in self._places:
            self._places[key] = torch.empty_like(given)
        return self._places[key]

    def put(self, number: int, given: Tensor, held: bool) -> None:
        """Have an argument there. What is held doesn't change, and is copied once."""
        key = (number, given.shape, given.dtype)
        if not held or self._held.get(key) is not given:
            self._places[key].copy_(given)
            self._held[key] = given


class Replayed:
    """A function of tensors, and of whatever it has of its own on the GPU, which stays where it is.

    Args:
        function: gives tensors.
        memory: for all graphs of a network.
        varying: how many of its arguments, the first ones, differ from call to call; the others are held.
    """

    def __init__(self, function: Callable[..., Any], memory: Memory, varying: int) -> None:
        self._function, self._memory, self._varying = function, memory, varying
        self._seen: set[tuple[torch.Size, ...]] = set()
        self._captured: dict[tuple[torch.Size, ...], tuple[Any, Any]] = {}

    def __call__(self, *inputs: Tensor) -> Any:
        """What the function gives; it holds until the next call of any function with the same memory."""
        shapes = tuple(given.shape for given in inputs)
        if shapes not in self._seen:  # whatever is prepared or compiled in a first run is not captured
            self._seen.add(shapes)
            return self._function(*inputs)
        if shapes not in self._captured:
            while len(self._captured) >= SHAPES:
                del self._captured[next(iter(self._captured))]
            self._captured[shapes] = self._capture(inputs)
        for number, given in enumerate(inputs):
            self._memory.put(number - len(inputs), given, number >= self._varying)
        graph, outputs = self._captured[shapes]
        graph.replay()
        return outputs

    def _capture(self, inputs: tuple[Tensor, ...]) -> tuple[Any, Any]:
        places = [self._memory.place(number - len(inputs), given) for number, given in enumerate(inputs)]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory.pool):
            outputs = self._function(*places)
        return graph, outputs
