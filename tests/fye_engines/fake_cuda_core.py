"""An imitation of `cuda.core` for machines without a GPU: the part that our code calls.

    fake = Fake()
    fake.install(monkeypatch)                # import cuda.core
    fake.enqueue(int(stream.handle), work)   # work that another library, such as TensorRT, queues on a stream

Device memory and pinned memory are host memory with real addresses. Queued work runs when its stream is synchronized;
until then the host sees the old content. New and freed memory holds 0xFF: NaN in floating point. While a stream is
captured, its work becomes part of the graph, and a call that CUDA does not capture invalidates the capture.

test_fake_cuda_core.py compares the names and arguments with the installed cuda-core; only the range in pyproject.toml
vouches for the oldest version, 1.0.
"""

import itertools
import math
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest

DEVICE, PINNED = "device", "pinned"
_ALIGNMENT = 256  # of CUDA's allocations
_UNSET = 0xFF
_FREED = 64  # freed allocations whose addresses are not used again, so that a late use is noticed
_DL_CUDA, _DL_CUDA_HOST = 2, 3  # DLPack's kinds of memory

Work = Callable[[], object]


class CUDAError(Exception):
    """Raised for an error of the driver; the class of this name in cuda-core is not public."""


class Call(NamedTuple):
    """A call that queued work, such as "Buffer.copy_from"."""

    name: str


@dataclass(eq=False, slots=True)
class Memory:
    """An allocation: DEVICE or PINNED, its bytes, and whether its stream has not freed it yet."""

    kind: str
    data: np.ndarray
    valid: bool = True

    @property
    def address(self) -> int:
        return int(self.data.ctypes.data)

    def part(self, start: int, size: int) -> np.ndarray:
        """Return a view of some bytes; raises CUDAError if the memory was freed."""
        if not self.valid:
            raise CUDAError("CUDA_ERROR_ILLEGAL_ADDRESS: the memory was freed before this use of it")
        return self.data[start : start + size]

    def free(self) -> None:
        self.valid = False
        self.data.fill(_UNSET)


@dataclass(eq=False, slots=True)
class Fake:
    """The machine.

    Attributes:
        devices: number of GPUs, 0 or 1.
        capability: compute capability of the GPU.
        capacity: bytes of device memory; None: any number.
        driver: version of the driver.
        calls: calls of our code that queued work.
        thread: what each thread has made current.
        streams: by handle.
        handles: of the next streams.
    """

    devices: int = 1
    capability: tuple[int, int] = (9, 0)
    capacity: int | None = None
    driver: tuple[int, ...] = (580, 65, 6)
    calls: list[Call] = field(default_factory=list)
    thread: threading.local = field(default_factory=threading.local)
    _live: list[Memory] = field(default_factory=list)
    _freed: deque[Memory] = field(default_factory=lambda: deque(maxlen=_FREED))
    streams: weakref.WeakValueDictionary[int, "Stream"] = field(default_factory=weakref.WeakValueDictionary)
    handles: Any = field(default_factory=lambda: itertools.count(0x7F00_0000_0100, 0x100))

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let `import cuda.core` import the imitation."""
        cuda, core, system = ModuleType("cuda"), ModuleType("cuda.core"), ModuleType("cuda.core.system")
        system.get_kernel_mode_driver_version = lambda: self.driver  # type: ignore[attr-defined]
        vars(cuda)["core"], vars(core)["system"] = core, system
        vars(core).update({cls.__name__: type(cls.__name__, (cls,), {"_fake": self}) for cls in CONSTRUCTED})
        for module in (cuda, core, system):
            monkeypatch.setitem(sys.modules, module.__name__, module)

    def enqueue(self, stream: int, work: Work) -> None:
        """Queue work on a stream, or add it to the graph that is captured there.

        Args:
            stream: handle.
            work: called when the stream reaches it, or with every launch of the graph.

        Raises:
            CUDAError: the stream does not exist, its capture is invalid, or the thread has no current device.
        """
        self.needs_current()
        queue = self._stream(stream)
        if queue._broken:
            raise CUDAError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED: an earlier error invalidated the capture")
        (queue._pending if queue._captured is None else queue._captured).append(work)

    def invalidate(self, stream: int) -> None:
        """Invalidate the capture on a stream, if there is one."""
        queue = self._stream(stream)
        queue._broken = queue._captured is not None

    def array(self, address: int, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """Return a view of the memory at an address; raises CUDAError if it is not allocated."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        for memory in (*self._live, *self._freed):
            start = address - memory.address
            if 0 <= start <= memory.data.size - size:
                return memory.part(start, size).view(dtype).reshape(shape)
        raise CUDAError(f"CUDA_ERROR_ILLEGAL_ADDRESS: no allocation has the {size} bytes at {address:#x}")

    @property
    def live_bytes(self) -> dict[str, int]:
        """Number of allocated bytes, by kind of memory."""
        return {kind: sum(each.data.size for each in self._live if each.kind == kind) for kind in (DEVICE, PINNED)}

    def needs_current(self) -> None:
        """Raise CUDAError unless the thread has a current device."""
        if not getattr(self.thread, "current", False):
            raise CUDAError("CUDA_ERROR_INVALID_CONTEXT: this thread has no current device, see Device.set_current()")

    def allocate(self, kind: str, size: int) -> Memory:
        """Allocate memory; raises CUDAError if the device has too little, or for no bytes."""
        self.needs_current()
        if size < 1:
            raise CUDAError(f"CUDA_ERROR_INVALID_VALUE: an allocation of {size} bytes")
        if kind == DEVICE and self.capacity is not None and self.live_bytes[DEVICE] + size > self.capacity:
            raise CUDAError(f"CUDA_ERROR_OUT_OF_MEMORY: {size} bytes more than {self.live_bytes[DEVICE]}")
        whole = np.full(size + _ALIGNMENT, _UNSET, np.uint8)
        start = -whole.ctypes.data % _ALIGNMENT
        self._live.append(Memory(kind, whole[start : start + size]))
        return self._live[-1]

    def release(self, memory: Memory, stream: "Stream | None") -> None:
        """Free memory when its stream reaches this, or at once; a capture on the stream becomes invalid."""
        self._live.remove(memory)
        self._freed.append(memory)
        if stream is None:
            memory.free()
        else:
            stream._broken = stream._captured is not None
            stream._pending.append(memory.free)

    def _stream(self, handle: int) -> "Stream":
        if handle not in self.streams:
            raise CUDAError(f"CUDA_ERROR_INVALID_HANDLE: {handle:#x} is no stream")
        return self.streams[handle]


class Device:
    """The GPU; each thread must make it current."""

    _fake: ClassVar[Fake]

    def __init__(self) -> None:
        if not self._fake.devices:
            raise CUDAError("CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected")

    @property
    def arch(self) -> str:
        return "".join(map(str, self._fake.capability))

    def set_current(self) -> None:
        self._fake.thread.current = True

    def create_stream(self) -> "Stream":
        self._fake.needs_current()
        stream = Stream(self._fake, next(self._fake.handles))
        self._fake.streams[stream.handle] = stream
        return stream

    def allocate(self, size: int, *, stream: "Stream") -> "Buffer":
        if stream._captured is not None:
            raise RuntimeError("_MemPool cannot perform memory operations on a capturing stream")
        return Buffer(self._fake, self._fake.allocate(DEVICE, size), stream)


class LegacyPinnedMemoryResource:
    """Pinned memory, which is freed at once."""

    _fake: ClassVar[Fake]

    def allocate(self, size: int) -> "Buffer":
        return Buffer(self._fake, self._fake.allocate(PINNED, size))


CONSTRUCTED = (Device, LegacyPinnedMemoryResource)  # all else comes from their methods


class Buffer:
    """An allocation, freed with its last reference; or a part of one, which keeps the whole."""

    def __init__(self, fake: Fake, memory: Memory, stream: "Stream | None" = None, part: Any = None) -> None:
        self._fake, self._memory = fake, memory
        self._start, self._size, self._owner = part or (0, memory.data.size, None)
        if part is None:
            weakref.finalize(self, fake.release, memory, stream).atexit = False

    @staticmethod
    def from_handle(ptr: int, size: int, *, owner: "Buffer") -> "Buffer":
        memory = owner._memory
        start = ptr - memory.address
        if not owner._start <= start <= owner._start + owner._size - size:
            raise CUDAError(f"CUDA_ERROR_ILLEGAL_ADDRESS: its owner does not have the {size} bytes at {ptr:#x}")
        return Buffer(owner._fake, memory, part=(start, size, owner))

    @property
    def handle(self) -> int:
        return self._memory.address + self._start

    @property
    def size(self) -> int:
        return int(self._size)

    def copy_from(self, src: "Buffer", *, stream: "Stream") -> None:
        _copy("copy_from", src, self, stream)

    def copy_to(self, dst: "Buffer", *, stream: "Stream") -> None:
        _copy("copy_to", self, dst, stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (_DL_CUDA_HOST if self._memory.kind == PINNED else _DL_CUDA, 0)

    def __dlpack__(self, *, max_version: Any = None, dl_device: Any = None, copy: Any = None) -> Any:
        if self._memory.kind != PINNED or dl_device is not None or copy:
            raise BufferError("Unsupported device in DLTensor.")
        place = {"data": (self.handle, False), "shape": (self.size,), "typestr": "|i1", "version": 3}
        array = np.asarray(SimpleNamespace(__array_interface__=place, buffer=self))  # which keeps this buffer
        return array.__dlpack__(max_version=max_version)


def _copy(name: str, source: Buffer, target: Buffer, stream: "Stream") -> None:
    if source.size != target.size:
        raise ValueError(f"buffer sizes mismatch between src and dst (src={source.size}, dst={target.size})")
    here, there, size = (source._memory, source._start), (target._memory, target._start), source.size

    def work() -> None:
        there[0].part(there[1], size)[...] = here[0].part(here[1], size)

    stream._submit(f"Buffer.{name}", work)


class Stream:
    """A stream: its pending work, and that of the graph which is captured; None: no capture."""

    def __init__(self, fake: Fake, handle: int) -> None:
        self._fake, self._handle = fake, handle
        self._pending: deque[Work] = deque()
        self._captured: list[Work] | None = None
        self._broken = False  # whether the capture is invalid

    @property
    def handle(self) -> int:
        return self._handle

    def _submit(self, name: str, work: Work) -> None:
        self._fake.enqueue(self._handle, work)
        self._fake.calls.append(Call(name))

    def sync(self) -> None:
        self._fake.needs_current()
        if self._captured is not None:
            self._broken = True
            raise CUDAError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: synchronizing while the stream is captured")
        while self._pending:
            self._pending.popleft()()

    def create_graph_builder(self) -> "GraphBuilder":
        return GraphBuilder(self)


class GraphBuilder:
    """A capture: begin_building, end_building, complete, close, each once and in this order."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._work: list[Work] | None = None
        self._closed = False

    def begin_building(self) -> "GraphBuilder":
        self._stream._fake.needs_current()
        if self._closed or self._work is not None or self._stream._captured is not None:
            raise RuntimeError("the graph builder was used or closed, or the stream is captured already")
        self._work = self._stream._captured = []
        return self

    @property
    def _is_building(self) -> bool:
        return self._work is not None and self._stream._captured is self._work

    def end_building(self) -> "GraphBuilder":
        if not self._is_building:
            raise RuntimeError("Graph builder is not building.")
        if self._stream._broken:
            raise RuntimeError("Build process encountered an error and has been invalidated.")
        self._stream._captured = None
        return self

    def complete(self) -> "Graph":
        if self._closed or self._work is None or self._is_building:
            raise RuntimeError("Graph has not finished building, or its builder was closed.")
        return Graph(tuple(self._work))

    def close(self) -> None:
        self._closed = True
        if self._is_building:
            broken, self._stream._captured, self._stream._broken = self._stream._broken, None, False
            if broken:
                raise CUDAError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED: an earlier error invalidated the capture")


class Graph:
    """Captured work."""

    def __init__(self, work: tuple[Work, ...]) -> None:
        self._work = work

    def launch(self, stream: Stream) -> None:
        stream._submit("graph.Graph.launch", lambda: [work() for work in self._work])
