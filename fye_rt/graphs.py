"""Engines for the graphs of a bundle: opened on first use, for one thread at a time."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fye_rt import backends
from fye_rt.arrays import Array
from fye_rt.bundle import Bundle
from fye_rt.engine import Arrays, DeviceArray, Engine, Settings, is_finite
from fye_rt.errors import BusyError, OptionError, OutOfMemoryError, memory_for, not_finite
from fye_rt.options import Options


class Graphs:
    """Opens graphs, runs them, and frees their memory. Arguments and errors are those of `Stages`.

    Attributes:
        backend: name of the backend.
        open: opens an engine: (bundle, graph, settings); may be replaced by another function.
        settings: settings of the engines.
        low_memory: whether to release graphs that run once per portrait or clip right after they have run.
    """

    def __init__(self, bundle: Bundle, backend: str, compute: str, threads: int, low_memory: bool) -> None:
        if threads < 0:
            raise OptionError(f"threads={threads} is not valid; allowed: 0 (one per physical core) or more")
        self._bundle = bundle
        self.backend = backends.choose(backend, bundle)
        self.open = backends.load(self.backend)
        backends.resolve_compute(self.backend, compute)  # fail now, not after minutes of landmark detection
        self.settings = Settings(compute=compute, threads=threads)
        self.low_memory = low_memory
        self._engines: dict[tuple[str, str], Engine] = {}
        self._placed: tuple[object, Engine, Mapping[str, Any]] | None = None
        self._lock = threading.RLock()  # stages call each other
        self._closed = False

    @contextmanager
    def serving(self, work: str, size: tuple[int, ...] | None = None, options: Options | None = None) -> Iterator[None]:
        """Keep other threads out; an error for want of memory names `work`, the clip's size and its windows.

        Raises:
            BusyError: another thread is being served, or this object is closed.
        """
        if not self._lock.acquire(blocking=False):
            raise BusyError("this Animator is serving another call; give each thread an Animator of its own")
        try:
            if self._closed:
                raise BusyError("this Animator is closed; make a new one")
            with self._memory_for(work, size, options):
                yield
        except OutOfMemoryError:
            self._release_all()  # the next call opens the graphs again, and may need less
            raise
        finally:
            self._lock.release()

    def engine(self, graph: str, compute: str = "auto") -> Engine:
        """Return the engine of a graph, opened on first use; `compute` "auto" means that of the settings."""
        compute = self.settings.compute if compute == "auto" else compute
        if (graph, compute) not in self._engines:
            self._engines[graph, compute] = self.open(self._bundle, graph, replace(self.settings, compute=compute))
        return self._engines[graph, compute]

    def hold(self, owner: object, tensors: Mapping[str, Array | DeviceArray], engine: Engine) -> Mapping[str, Any]:
        """Return tensors placed where `engine` reads them; only those of the last `owner` are kept there."""
        if self._placed is None or self._placed[0] is not owner or self._placed[1] is not engine:
            self._placed = owner, engine, {name: engine.to_device(array) for name, array in tensors.items()}
        return self._placed[2]

    def run(self, graph: str, size: tuple[int, ...], **inputs: NDArray[Any]) -> Arrays:
        """Run a graph for a clip of `size` (height, width); return its outputs by name.

        Raises:
            NumericalError: an output holds NaN or infinity.
            OutOfMemoryError: memory ran out.
        """
        with self._memory_for(graph, size):
            outputs = self.engine(graph).run(inputs)
        if not all(np.isfinite(output).all() for output in outputs.values()):
            raise not_finite(graph)
        return outputs

    def run_on_device(self, graph: str, size: tuple[int, ...], **inputs: NDArray[Any]) -> Mapping[str, Any]:
        """Run a graph; its outputs may stay on the engine's device, unless `low_memory` is set. See `run`."""
        if self.low_memory:
            return self.run(graph, size, **inputs)
        with self._memory_for(graph, size):
            outputs = self.engine(graph).run_on_device(inputs)
            if not all(map(is_finite, outputs.values())):
                raise not_finite(graph)
        return outputs

    def run_once(self, graph: str, size: tuple[int, ...], **inputs: NDArray[Any]) -> Arrays:
        """Run a graph that this portrait or clip will not need again; see `run`."""
        outputs = self.run(graph, size, **inputs)
        self.release(graph)
        return outputs

    def release(self, graph: str) -> None:
        """Close a graph if `low_memory` is set."""
        if self.low_memory:
            self._engines.pop((graph, self.settings.compute), None)

    def close(self) -> None:
        """Free the memory of all graphs. Refuses all later calls, except another `close`."""
        if not self._closed:
            with self.serving("close"):
                self._release_all()
                self._closed = True

    def _release_all(self) -> None:
        self._engines.clear()
        self._placed = None
        self.settings.shared.clear()

    def _memory_for(self, work: str, size: tuple[int, ...] | None, options: Options | None = None) -> Any:
        remedies = ["a smaller size"]
        work += f" at size {size[0]}x{size[1]}" if size and len(size) == 2 else ""
        if options is not None:
            work += f" with window_size={options.window_size}"
            remedies.append("a smaller window_size")
        remedies += [] if self.low_memory else ["low_memory"]
        return memory_for(work, " or ".join(filter(None, (", ".join(remedies[:-1]), remedies[-1]))))
