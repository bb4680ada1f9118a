"""CUDA graphs: launch all kernels of a function at once, from its second run with the same shapes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SHAPES = 16  # graphs per function, one for each shape; progressive windows have about a dozen lengths


class Memory:
    """Device memory shared by the graphs of a network, which run one after another.

    Attributes:
        pool: the graphs' working memory; the outputs of one graph are valid until the next graph runs.
    """

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self._places: dict[tuple[int, torch.Size, torch.dtype], Tensor] = {}
        self._contents: dict[tuple[int, torch.Size, torch.dtype], Tensor] = {}

    def place(self, number: int, given: Tensor) -> Tensor:
        """Return the buffer from which all graphs read an argument of this number, shape and type.

        Numbers are negative and count back from the last argument.
        """
        key = (number, given.shape, given.dtype)
        if key not in self._places:
            self._places[key] = torch.empty_like(given)
        return self._places[key]

    def put(self, number: int, given: Tensor, held: bool) -> None:
        """Copy an argument into its buffer; a held argument does not change and is copied once."""
        key = (number, given.shape, given.dtype)
        if not held or self._contents.get(key) is not given:
            self._places[key].copy_(given)
            self._contents[key] = given


class Replayed:
    """A function replayed from CUDA graphs; whatever else it reads on the GPU must stay at its address.

    Args:
        function: takes and returns tensors.
        memory: shared by all graphs of a network.
        varying: number of leading arguments that differ from call to call; the others are held.
    """

    def __init__(self, function: Callable[..., Any], memory: Memory, varying: int) -> None:
        self._function, self._memory, self._varying = function, memory, varying
        self._seen: set[tuple[torch.Size, ...]] = set()
        self._captured: dict[tuple[torch.Size, ...], tuple[Any, Any]] = {}

    def __call__(self, *inputs: Tensor) -> Any:
        """Run the function; its outputs are valid until the next call of any function with the same memory."""
        shapes = tuple(tensor.shape for tensor in inputs)
        if shapes not in self._seen:  # the first run may prepare or compile things, which must not be captured
            self._seen.add(shapes)
            return self._function(*inputs)
        if shapes not in self._captured:
            while len(self._captured) >= SHAPES:
                del self._captured[next(iter(self._captured))]
            self._captured[shapes] = self._capture(inputs)
        for number, tensor in enumerate(inputs):
            self._memory.put(number - len(inputs), tensor, number >= self._varying)
        graph, outputs = self._captured[shapes]
        graph.replay()
        return outputs

    def _capture(self, inputs: tuple[Tensor, ...]) -> tuple[Any, Any]:
        places = [self._memory.place(number - len(inputs), tensor) for number, tensor in enumerate(inputs)]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory.pool):
            outputs = self._function(*places)
        return graph, outputs
