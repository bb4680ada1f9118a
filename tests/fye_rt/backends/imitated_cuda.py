"""CUDA graphs and streams on a CPU: what PyTorch is asked to do is written down, and done when a GPU might do it.

A graph does nothing while it is captured, and the same on the same memory whenever it is replayed; to ask for a number
meanwhile is an error, as it is there. What a second stream is given is done as late as possible: when it is waited for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


class Graph:
    """In the place of `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.record, self.replays = Record(), 0

    def replay(self) -> None:
        self.replays += 1
        self.record.run()


class Stream:
    """In the place of `torch.cuda.Stream`."""

    def __init__(self) -> None:
        self.waiting: list[Record] = []

    def wait_stream(self, other: "Stream") -> None:
        assert other is MAIN

    def finish(self) -> None:
        while self.waiting:
            self.waiting.pop(0).run()


MAIN = Stream()


def install(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Have PyTorch use them; returns the graphs that are made from now on."""
    graphs: list[Graph] = []
    entered: list[Stream] = []

    def new() -> Graph:
        graphs.append(Graph())
        return graphs[-1]

    @contextmanager
    def captured(graph: Graph, pool: object) -> Iterator[None]:
        assert pool == "pool"
        with graph.record:
            yield
        graph.record.undo()

    @contextmanager
    def stream(of: Stream) -> Iterator[None]:
        record = Record()
        entered.append(of)
        with record:
            yield
        entered.pop()
        record.undo()
        of.waiting.append(record)

    class Event:
        def record(self) -> None:
            self.stream, self.count = entered[-1], len(entered[-1].waiting)

        def synchronize(self) -> None:
            self.stream.finish()

    for name, imitation in {
        "CUDAGraph": new,
        "graph": captured,
        "graph_pool_handle": lambda: "pool",
        "Stream": Stream,
        "stream": stream,
        "current_stream": lambda: MAIN,
        "Event": Event,
    }.items():
        monkeypatch.setattr(torch.cuda, name, imitation)
    return graphs
