"""CUDA graphs and streams on a CPU: what PyTorch is asked to do is written down, and done when a GPU might do it.

A graph does nothing while it is captured, and the same on the same memory whenever it is replayed; to ask for a number
meanwhile is an error, as it is there, which leaves the capture's stream and an unusable pool behind. What a second
stream is given is done as late as possible: when it is waited for.
"""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Record(TorchDispatchMode):
    """Operations and their operands. As long as they are written down they are done, and then undone."""

    def __init__(self) -> None:
        super().__init__()
        self._done: list[tuple[Callable[..., Any], Any, Any, Any]] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a number is asked for that is not there yet")
        for argument, given in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                whole = given.as_strided((given.untyped_storage().nbytes() // given.itemsize,), (1,), 0)
                self._before.setdefault(whole.data_ptr(), (whole, whole.clone()))
        made = func(*args, **kwargs)
        self._done.append((func, args, kwargs, made))
        return made

    @torch.inference_mode()
    def undo(self) -> None:
        """What was there is as it was; what was made holds nothing of use."""
        for func, args, _, made in self._done:
            for each in self._new(func, args, made):
                each.fill_(torch.nan if each.is_floating_point() else 0)
        for whole, before in self._before.values():
            whole.copy_(before)

    @torch.inference_mode()
    def run(self) -> None:
        """Do it again."""
        for func, args, kwargs, made in self._done:
            fresh = self._new(func, args, made)
            if fresh or func._schema.is_mutable:
                again = func(*args, **kwargs)
                for old, new in zip(fresh, self._new(func, args, again), strict=True):
                    old.copy_(new)

    @staticmethod
    def _new(func: Any, args: Any, made: Any) -> list[Tensor]:
        """Outputs with memory of their own."""
        there = {each.untyped_storage().data_ptr() for each in tree_leaves(args) if isinstance(each, Tensor)}
        outputs = [each for each in tree_leaves(made) if isinstance(each, Tensor)]
        return [each for each in outputs if each.untyped_storage().data_ptr() not in there]


class Capture:
    """What is told of a graph: the times it was replayed, and the stream it was captured on."""

    def __init__(self) -> None:
        self.replays, self.stream = 0, MAIN


class Graph:
    """In the place of `torch.cuda.CUDAGraph`."""

    def __init__(self, capture: Capture) -> None:
        self.record, self.capture = Record(), capture

    def replay(self) -> None:
        self.capture.replays += 1
        self.record.run()


class Pool:
    """In the place of a pool's handle. Without graphs PyTorch frees a pool, but does not forget it."""

    def __init__(self) -> None:
        self.used, self.graphs = False, weakref.WeakSet[Graph]()


class Stream:
    """In the place of `torch.cuda.Stream`."""

    def __init__(self, priority: int = 0) -> None:
        self.priority = priority
        self.waiting: list[Record] = []

    def wait_stream(self, other: "Stream") -> None:
        assert other is MAIN

    def finish(self) -> None:
        with HERE.by_the_device():
            while self.waiting:
                self.waiting.pop(0).run()


MAIN = Stream()


class Here(threading.local):
    """The present stream of each thread, and whether it does what a GPU would do by itself."""

    stream, device = MAIN, False

    @contextmanager
    def by_the_device(self) -> Iterator[None]:
        self.device = True
        yield
        self.device = False


HERE = Here()


class Alone(TorchDispatchMode):
    """Operations of a thread must not meet the capture of another."""

    def __init__(self, captures: list[int]) -> None:
        super().__init__()
        self._captures = captures

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        others = set(self._captures) - {threading.get_ident()}
        assert HERE.device or not others, f"{func} runs while another thread captures a graph"
        return func(*args, **(kwargs or {}))


def tensors() -> list[Tensor]:
    """All tensors of the process."""
    return [each for each in gc.get_objects() if type(each) is Tensor]


class Cuda:
    """A GPU, or what stands in its place.

    Attributes:
        device: where tensors are.
        captures: graphs captured so far; of an imitation alone.
        pause: seconds that a capture takes at least; of an imitation alone.
    """

    def __init__(self, device: str) -> None:
        self.device, self.imitated = torch.device(device), device == "cpu"
        self.captures: list[Capture] = []
        self.pause = 0.0
        self._underway: list[int] = []  # threads that capture a graph
        # what other tests left, which may go at any time
        self._earlier = {id(tensor): weakref.ref(tensor) for tensor in tensors()} if self.imitated else {}

    def allocated(self) -> int:
        """Bytes of all tensors, of an imitation all that are younger than it."""
        gc.collect()
        if not self.imitated:
            return torch.cuda.memory_allocated()
        storages = [each.untyped_storage() for each in tensors() if not self._is_earlier(each)]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def _is_earlier(self, tensor: Tensor) -> bool:
        reference = self._earlier.get(id(tensor))
        return reference is not None and reference() is tensor

    def watched(self) -> Any:
        """A context of a thread's work, which fails if it meets the capture of another thread."""
        return Alone(self._underway) if self.imitated else nullcontext()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have PyTorch use the imitation."""

        def new() -> Graph:
            self.captures.append(Capture())
            return Graph(self.captures[-1])

        @contextmanager
        def captured(graph: Graph, pool: Pool, stream: Stream, capture_error_mode: str) -> Iterator[None]:
            assert pool.graphs or not pool.used, "use_count > 0 INTERNAL ASSERT FAILED"
            pool.used = True
            assert capture_error_mode == "thread_local" and HERE.stream is MAIN
            assert not self._underway, "only one capture may be underway"
            self._underway.append(threading.get_ident())
            HERE.stream = graph.capture.stream = stream
            time.sleep(self.pause)
            try:
                with graph.record:
                    yield
                HERE.stream = MAIN
                pool.graphs.add(graph)
            finally:
                self._underway.remove(threading.get_ident())
                with HERE.by_the_device():
                    graph.record.undo()

        @contextmanager
        def stream(of: Stream) -> Iterator[None]:
            record, before = Record(), HERE.stream
            HERE.stream = of
            with record:
                yield
            HERE.stream = before
            record.undo()
            of.waiting.append(record)

        class Event:
            def record(self) -> None:
                self.stream = HERE.stream

            def synchronize(self) -> None:
                self.stream.finish()

        def set_stream(stream: Stream) -> None:
            HERE.stream = stream

        for name, imitation in {
            "CUDAGraph": new,
            "graph": captured,
            "graph_pool_handle": Pool,
            "Stream": Stream,
            "stream": stream,
            "set_stream": set_stream,
            "current_stream": lambda: HERE.stream,
            "Event": Event,
        }.items():
            monkeypatch.setattr(torch.cuda, name, imitation)


def install(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """Have PyTorch use an imitation from now on."""
    cuda = Cuda("cpu")
    cuda.install(monkeypatch)
    return cuda
