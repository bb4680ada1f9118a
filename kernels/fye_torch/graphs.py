"""CUDA graphs: launch all kernels of a function at once, in runs of shapes that come back."""

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

SHAPES = 16  # shapes per function; progressive windows have about a dozen lengths
# Runs of a clip that repay a capture. It takes 0.2 to 0.4 s for 1,100 kernels, and saves at most the 20 ms in which
# Python launches them; both are estimates
REPAY = 12
HIGH, LOW = -1, 0  # priorities of streams; CUDA has none below 0, its default

# Held by whatever uses the GPU: PyTorch allows no other work of the process during a capture, on any thread
ALONE = threading.RLock()

Shapes = tuple[torch.Size, ...]

logger = logging.getLogger("fye_rt")


class Memory:
    """Device memory shared by the graphs of a network, which run one after another; all calls need `ALONE`.

    Graphs share their working memory: the outputs of one are valid until the next one runs. An argument of all graphs
    has one buffer, of the largest size yet. A buffer that grows moves; then all graphs are dropped, to be captured
    again.

    Args:
        name: name of the network, for messages.

    Attributes:
        stream: stream on which graphs are captured; their kernels keep its priority wherever they run.
        clip: number of the present clip.
        repays: whether the present clip alone repays a capture.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._pool: Any = None
        self.stream = torch.cuda.Stream(priority=HIGH)
        self.clip, self.repays = 0, True  # callers that tell of no clip run a network many times
        self._buffers: dict[tuple[int, torch.dtype], Tensor] = {}
        self._contents: dict[tuple[int, torch.dtype], tuple[weakref.ref[Tensor], tuple[int, ...]]] = {}
        self._users: weakref.WeakSet[Replayed] = weakref.WeakSet()

    @property
    def bytes(self) -> int:
        """Size of all buffers."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def begin(self, runs: int) -> None:
        """Begin a clip, or a piece of one, of so many runs of the network."""
        self.clip, self.repays = self.clip + 1, runs >= REPAY

    def register(self, user: "Replayed") -> None:
        """Note a function whose graphs use this memory."""
        self._users.add(user)

    def place(self, number: int, given: Tensor) -> Tensor:
        """Return the part of an argument's buffer from which graphs of this shape and layout read it.

        Numbers are negative and count back from the last argument.
        """
        key, size = (number, given.dtype), given.numel()
        if key not in self._buffers or self._buffers[key].numel() < size:
            self.drop_graphs()
            self._buffers.pop(key, None)  # frees the old memory first
            self._contents.pop(key, None)
            self._buffers[key] = torch.empty(size, dtype=given.dtype, device=given.device)
        layout = torch.empty_like(given, device="meta").stride()
        return self._buffers[key].as_strided(given.shape, layout)

    def put(self, number: int, given: Tensor, place: Tensor, held: bool) -> None:
        """Copy an argument to its place; a held argument does not change, and is copied only if it is not there."""
        key = number, given.dtype
        content = self._contents.get(key)
        if not held or content is None or content[0]() is not given or content[1] != place.stride():
            place.copy_(given)
            self._contents[key] = weakref.ref(given), place.stride()

    def drop_graphs(self) -> None:
        """Drop all graphs."""
        for user in self._users:
            user.drop_graphs()

    def pool(self) -> Any:
        """Return the pool of the graphs, a new one if there are none.

        PyTorch forgets a pool without graphs only when all its memory is free, and refuses to use it until then.
        """
        if not any(user.has_graphs for user in self._users):
            self._pool = torch.cuda.graph_pool_handle()
        return self._pool


@dataclass(slots=True)
class _Shape:
    """What is known of the runs of one shape.

    Attributes:
        clip: number of the clip of its first run.
        capture: whether to try a capture; False after one that failed.
        graph: the captured graph, or None.
        places: where the graph reads its arguments.
        outputs: what the graph writes.
    """

    clip: int
    capture: bool = True
    graph: Any = None
    places: list[Tensor] = field(default_factory=list)
    outputs: Any = None


class Replayed:
    """A function replayed from CUDA graphs; whatever else it reads on the GPU must stay at its address.

    The first run of a shape is as it is, since it may prepare or compile things, which must not be captured. Later runs
    are captured if the clip repays it, or an earlier clip had the shape too.

    Args:
        function: takes and returns tensors.
        memory: shared by all graphs of a network.
        varying: number of leading arguments that differ from call to call; the others are held.
    """

    def __init__(self, function: Callable[..., Any], memory: Memory, varying: int) -> None:
        self._function, self._memory, self._varying = function, memory, varying
        self._shapes: OrderedDict[Shapes, _Shape] = OrderedDict()  # the least recently used first
        memory.register(self)

    def __call__(self, *inputs: Tensor) -> Any:
        """Run the function; its outputs are valid until the next call of any function with the same memory.

        Call it with `ALONE` held.
        """
        shapes, memory = tuple(tensor.shape for tensor in inputs), self._memory
        known = self._shapes.get(shapes)
        if known is None:
            outputs = self._function(*inputs)
            self._shapes[shapes] = _Shape(memory.clip)
            while len(self._shapes) > SHAPES:
                self._shapes.popitem(last=False)
            return outputs
        self._shapes.move_to_end(shapes)
        if known.graph is None and known.capture and (memory.repays or known.clip != memory.clip):
            self._capture(known, inputs)
        if known.graph is None:
            return self._function(*inputs)
        for number, (tensor, place) in enumerate(zip(inputs, known.places, strict=True)):
            memory.put(number - len(inputs), tensor, place, number >= self._varying)
        known.graph.replay()
        return known.outputs

    @property
    def has_graphs(self) -> bool:
        """Whether some shape is captured."""
        return any(known.graph is not None for known in self._shapes.values())

    def drop_graphs(self) -> None:
        """Drop the graphs of all shapes."""
        for known in self._shapes.values():
            known.graph = known.outputs = None
            known.places = []

    def _capture(self, known: _Shape, inputs: tuple[Tensor, ...]) -> None:
        """Capture a run; if that fails, this shape is never captured."""
        memory, stream = self._memory, torch.cuda.current_stream()
        try:
            places = [memory.place(number - len(inputs), tensor) for number, tensor in enumerate(inputs)]
            graph = torch.cuda.CUDAGraph()
            # other threads may still free memory, which must not fail the capture
            with torch.cuda.graph(graph, pool=memory.pool(), stream=memory.stream, capture_error_mode="thread_local"):
                outputs = self._function(*places)
            known.graph, known.places, known.outputs = graph, places, outputs
        except BaseException as error:
            torch.cuda.set_stream(stream)  # PyTorch leaves the stream of a capture that it cannot end
            known.capture = False
            memory.drop_graphs()  # with their pool, whose memory may be what was lacking
            if not isinstance(error, Exception):
                raise
            reason = " ".join(str(error).split())
            logger.warning("%s runs without a CUDA graph, and a little slower (%s)", memory.name, reason)
