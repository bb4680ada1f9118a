"""A `cuda.core` made from the record of a real one, for machines without a GPU: it offers what was recorded only.

    fake = load("1.2")
    fake.install(monkeypatch)                   # import cuda.core
    device = cuda.core.Device(0)
    fake.enqueue(int(stream.handle), work)      # what another library, such as TensorRT, queues on a stream
    fake.implement("", "launch", lambda stream, config, kernel, *arguments: ...)

An unknown attribute, method or keyword, a missing, surplus or wrongly typed argument and an assignment to a read-only
property raise AttributeError or TypeError, and a recorded method without an implementation raises NotImplementedError.
The records lie in tests/data/cuda_core; record_cuda_core.py writes them.

Memory, be it the device's or pinned, is the host's, and addresses are real. What is queued on a stream runs when the
stream, the device or a later event is synchronized, or before what another stream queued after waiting for it: without
that, the host sees what was there before. New memory and memory that was freed hold 0xFF. While a stream is captured,
what is queued on it runs when the graph is launched, and what CUDA does not capture invalidates the capture. All
streams are non-blocking, as `create_stream` makes them. Where the real one lets a use after closing pass, this does
not, and every thread that queues work must have made a device current.
"""

import __future__

import inspect
import itertools
import json
import math
import numbers
import operator
import os
import re
import sys
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.fye_engines.fake_tensorrt import Call

RECORDS = Path(__file__).resolve().parents[1] / "data" / "cuda_core"
VERSIONS = tuple(sorted(file.stem for file in RECORDS.glob("*.json")))
DEVICE, PINNED = "device", "pinned"
_ALIGNMENT = 256  # of CUDA's allocations
_UNSET = 0xFF  # in memory that nobody has written: NaN in floating point
_KEPT = 16 << 20  # bytes of freed memory that stay mapped, so that a late reader sees what it did
_LEGACY, _PER_THREAD = 1, 2  # handles of the default streams
_DL_CUDA, _DL_CUDA_HOST = 2, 3  # DLPack's names of memory
_FIRST_STREAM = 0x7F00_0000_0100
_MODULES = ("cuda", "cuda.core", "cuda.core.graph", "cuda.core.system")


class CUDAError(Exception):
    """What cuda-core raises for an error of CUDA; its own class of this name is not public."""


@dataclass(eq=False, repr=False)
class Shell:
    """The names and signatures of a record, without behaviour.

    Attributes:
        record: what this version of cuda-core offers.
        modules: by name, what `import cuda.core` and so on give.
        calls: of recorded methods and functions, in their order; not of constructors and other special methods.
    """

    record: dict[str, Any]
    modules: dict[str, ModuleType] = field(init=False, default_factory=dict)
    calls: list[Call] = field(init=False, default_factory=list)
    _classes: dict[str, Any] = field(init=False, default_factory=dict)
    _implementations: dict[tuple[str, str], Callable[..., Any]] = field(init=False, default_factory=dict)
    _signatures: dict[str, inspect.Signature] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name in _MODULES:
            self.modules[name] = ModuleType(name)
            outer, _, short = name.rpartition(".")
            if outer:
                setattr(self.modules[outer], short, self.modules[name])
        vars(self.modules["cuda.core"])["__version__"] = self.version
        for name in self.record["classes"]:
            self._class(name)
        for name, signature in self.record["functions"].items():
            self._place(name, self._routine("", name, signature, bound=False))
        for name in self.record["exceptions"]:
            self._exception(name)

    @property
    def version(self) -> str:
        """Such as "1.2.2"."""
        return str(self.record["version"])

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let `import cuda.core` and its submodules give these."""
        for name, module in self.modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    def implement(self, owner: str, name: str, function: Callable[..., Any]) -> None:
        """Say what a method, a property's reading or a function does; an earlier implementation is replaced.

        Args:
            owner: class, such as "Stream" or "graph.Graph"; "" for a function.
            name: of the method, property or function, such as "system.get_num_devices"; "constructor" is called with
                the constructor's arguments and returns the object, see `new`.
            function: called with the object, unless it is static, a constructor or a function, and the arguments as
                the record has them, with defaults.

        Raises:
            AssertionError: this version has no such name, or the function does not take the arguments.
        """
        place = f"{owner}.{name}" if owner else name
        entry, this = self._entry(owner, name)
        assert entry is not None, f"cuda-core {self.version} has no {place}"
        parameters = self._signature(entry).parameters.values()
        kinds = [each.kind.name for each in parameters]
        positional = [None] * sum(kind in ("POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD") for kind in kinds)
        keywords = {each.name: None for each in parameters if each.kind.name == "KEYWORD_ONLY"}
        try:
            inspect.signature(function).bind(*[None] * this, *positional, **keywords)
        except TypeError as error:
            raise AssertionError(f"the implementation of {place} cannot take {entry}: {error}") from error
        self._implementations[owner, name] = function

    def does(self, owner: str, **functions: Callable[..., Any]) -> None:
        """Implement several of a class's methods and properties, those of them that this version has."""
        for name, function in functions.items():
            if self.has(owner, name):
                self.implement(owner, name, function)

    def has(self, owner: str, name: str) -> bool:
        """Whether this version has a name; see `implement`."""
        return self._entry(owner, name)[0] is not None

    def new(self, owner: str, /, **state: Any) -> Any:
        """An object of a class; see `state`."""
        made = object.__new__(self._classes[owner])
        made._state = state
        return made

    @staticmethod
    def state(this: Any) -> dict[str, Any]:
        """What an object holds: its properties' values, a constructor's arguments, and what implementations add."""
        held: dict[str, Any] = this._state
        return held

    # What the record has

    def _entry(self, owner: str, name: str) -> tuple[str | None, int]:
        """A name's signature, () for a property, and how many objects stand before the arguments: one or none."""
        if not owner:
            return self.record["functions"].get(name), 0
        for each in self._line(owner):
            record = self.record["classes"][each]
            if name == "constructor":
                return record.get("constructor"), 0
            if name in record.get("static", {}):
                return record["static"][name], 0
            if name in record.get("methods", {}):
                return record["methods"][name], 1
            if name in record.get("properties", {}):
                return "()", 1
        return None, 0

    def _line(self, owner: str) -> list[str]:
        """A class and those that it inherits from."""
        bases = self.record["classes"][owner]["bases"]
        return [owner, *(each for base in bases for each in self._line(base))]

    def _place(self, name: str, value: Any) -> None:
        module, _, short = f"cuda.core.{name}".rpartition(".")
        setattr(self.modules[module], short, value)

    # Classes

    def _class(self, name: str) -> Any:
        if name in self._classes:
            return self._classes[name]
        record = self.record["classes"][name]
        bases = tuple(self._class(base) for base in record["bases"])
        short = name.rpartition(".")[2]
        body: dict[str, Any] = {"__slots__": () if bases else ("__weakref__", "_state"), "__qualname__": short}
        body |= {"__module__": f"cuda.core.{name}".rpartition(".")[0], "_shell": self, "_recorded": name}
        for attribute, access in record.get("properties", {}).items():
            body[attribute] = self._property(name, attribute, access)
        for attribute, signature in record.get("methods", {}).items():
            body[attribute] = self._routine(name, attribute, signature, bound=True)
        for attribute, signature in record.get("static", {}).items():
            body[attribute] = staticmethod(self._routine(name, attribute, signature, bound=False))
        self._classes[name] = _Class(short, bases or (_Object,), body)
        if not record.get("unnamed"):
            self._place(name, self._classes[name])
        return self._classes[name]

    def _exception(self, name: str) -> Any:
        base = self.record["exceptions"][name]
        bases = (self._exception(base) if base else Exception,)
        module, _, short = f"cuda.core.{name}".rpartition(".")
        if not hasattr(self.modules[module], short):
            self._place(name, type(short, bases, {"__module__": module}))
        return getattr(self.modules[module], short)

    def construct(self, owner: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """What calling a class gives.

        Raises:
            RuntimeError: the class is not called; its objects come from elsewhere.
            TypeError: its constructor takes other arguments.
        """
        signature = self._entry(owner, "constructor")[0]
        if signature is None:
            raise RuntimeError(f"{owner} objects cannot be instantiated directly")
        bound = self._bound(owner, owner, signature, args, kwargs)
        implementation = self._implementations.get((owner, "constructor"))
        if implementation is not None:
            return implementation(*bound.args, **bound.kwargs)
        return self.new(owner, **bound.arguments)

    def _property(self, owner: str, name: str, access: str) -> property:
        def read(this: Any) -> Any:
            implementation = self._implementation(this, name)
            if implementation is not None:
                return implementation(this)
            if name in this._state:
                return this._state[name]
            raise NotImplementedError(self._undone(f"{owner}.{name}"))

        def write(this: Any, value: Any) -> None:
            this._state[name] = value

        return property(read, write if "set" in access else None)

    def _routine(self, owner: str, name: str, signature: str, *, bound: bool) -> Callable[..., Any]:
        place = f"{owner}.{name}" if owner else name

        def routine(*args: Any, **kwargs: Any) -> Any:
            this, rest = args[:bound], args[bound:]
            given = self._bound(place, owner, signature, rest, kwargs)
            if not name.startswith("__"):
                self.calls.append(Call(place, this[0] if bound else None, dict(given.arguments)))
            implementation = self._implementation(this[0], name) if bound else self._implementations.get((owner, name))
            if implementation is None:
                raise NotImplementedError(self._undone(place))
            return implementation(*this, *given.args, **given.kwargs)

        routine.__name__, routine.__qualname__ = name, place
        return routine

    def _implementation(self, this: Any, name: str) -> Callable[..., Any] | None:
        line = self._line(type(this)._recorded)
        return next((self._implementations[each, name] for each in line if (each, name) in self._implementations), None)

    def _undone(self, place: str) -> str:
        return f"cuda-core {self.version} has {place}, and the fake does not do it: give it to implement()"

    # Arguments

    def _signature(self, text: str) -> inspect.Signature:
        if text not in self._signatures:
            space: dict[str, Any] = {}
            flags = __future__.annotations.compiler_flag
            exec(compile(f"def function{text}: ...", "record", "exec", flags, dont_inherit=True), space)
            self._signatures[text] = inspect.signature(space["function"])
        return self._signatures[text]

    def _bound(
        self, place: str, owner: str, text: str, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> inspect.BoundArguments:
        signature = self._signature(text)
        try:
            bound = signature.bind(*args, **kwargs)
            for name, value in bound.arguments.items():
                parameter = signature.parameters[name]
                values = value if parameter.kind is parameter.VAR_POSITIONAL else [value]
                if parameter.annotation is not parameter.empty and not (value is None and parameter.default is None):
                    for each in values:
                        self._check(owner, name, parameter.annotation, each)
        except TypeError as error:
            raise TypeError(f"{place}{text} in cuda-core {self.version}: {error}") from None
        bound.apply_defaults()
        return bound

    def _check(self, owner: str, name: str, annotation: str, value: Any) -> None:
        """Raise TypeError unless a value is of one of the types; one that nobody here knows takes anything."""
        kinds = [each.partition("[")[0].strip() for each in re.split(r"\|(?![^\[]*\])", annotation)]
        prefix = owner.rpartition(".")[0]
        for kind in kinds:
            known = next((each for each in (f"{prefix}.{kind}", kind, f"graph.{kind}") if each in self._classes), None)
            good = isinstance(value, self._classes[known]) if known else _TYPES.get(kind, lambda _: True)(value)
            if good:
                return
        raise TypeError(f"{name}={value!r} is no {annotation}")


class _Class(type):
    """Of the recorded classes and of Python's subclasses of them, which are made as Python makes them."""

    _shell: Shell

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        recorded = vars(cls).get("_recorded")
        if recorded is None:
            return super().__call__(*args, **kwargs)
        return cls._shell.construct(recorded, args, kwargs)


class _Object(metaclass=_Class):
    """Without a dictionary, so that it takes no attribute but recorded ones; Python's subclasses have one."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        made: Any = super().__new__(cls)
        made._state = {}
        return made


_TYPES: dict[str, Callable[[Any], bool]] = {
    "None": lambda value: value is None,
    "bool": lambda value: isinstance(value, bool | np.bool_),
    "int": lambda value: isinstance(value, numbers.Integral) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, numbers.Real),
    "str": lambda value: isinstance(value, str),
    "bytes": lambda value: isinstance(value, bytes),
    "bytearray": lambda value: isinstance(value, bytearray),
    "tuple": lambda value: isinstance(value, tuple),
    "list": lambda value: isinstance(value, list),
    "dict": lambda value: isinstance(value, dict),
    "PathLike": lambda value: isinstance(value, os.PathLike),
    "IsStreamType": lambda value: hasattr(value, "__cuda_stream__"),
    "DevicePointerType": lambda value: isinstance(value, numbers.Integral) or hasattr(value, "__int__"),
}


# What it does


class ComputeCapability(NamedTuple):
    """Of a device."""

    major: int
    minor: int


@dataclass(eq=False, slots=True)
class Memory:
    """An allocation.

    Attributes:
        kind: "device" or "pinned".
        data: its bytes.
        counted: whether nobody has freed it.
        valid: whether it can be used: the stream has not come to where it is freed.
        synchronous: whether freeing it waits for the stream, as that of memory that is no pool's does.
    """

    kind: str
    data: np.ndarray
    counted: bool = True
    valid: bool = True
    synchronous: bool = False

    @property
    def address(self) -> int:
        """Of its first byte."""
        return int(self.data.ctypes.data)


@dataclass(frozen=True, slots=True)
class Region:
    """A part of an allocation, from `start` in bytes."""

    memory: Memory
    start: int
    size: int

    def bytes(self) -> np.ndarray:
        """What is there, not a copy.

        Raises:
            CUDAError: it was freed.
        """
        if not self.memory.valid:
            raise CUDAError("CUDA_ERROR_ILLEGAL_ADDRESS: the memory was freed before this use of it")
        return self.memory.data[self.start : self.start + self.size]


@dataclass(eq=False, slots=True)
class Queue:
    """A stream.

    Attributes:
        handle: CUDA's.
        pending: what has not run.
        captured: what a graph under construction holds; None: no capture.
        mode: of the capture.
        broken: whether something invalidated the capture.
        closed: whether it takes nothing more.
    """

    handle: int
    pending: deque[Callable[[], object]] = field(default_factory=deque)
    captured: list[Callable[[], object]] | None = None
    mode: str = ""
    broken: bool = False
    closed: bool = False


@dataclass(eq=False, slots=True)
class Mark:
    """Where an event was recorded: on which queue, whether the queue has come there, and when."""

    queue: Queue
    captured: bool
    done: bool = False
    seconds: float = 0.0

    def reach(self) -> None:
        """The queue has come there."""
        self.done, self.seconds = True, time.perf_counter()


class _Bytes:
    """What numpy makes an array of that keeps a buffer from being freed, as the real one's arrays do."""

    def __init__(self, buffer: Any, region: Region) -> None:
        self.held = buffer, region.memory
        address = region.memory.address + region.start
        self.__array_interface__ = {"data": (address, False), "shape": (region.size,), "typestr": "|i1", "version": 3}


class _Handle:
    """A handle of CUDA: an object, which int() makes a number of."""

    __slots__ = ("_value",)

    def __init__(self, value: int) -> None:
        self._value = value

    def __int__(self) -> int:
        return self._value


class _Thread(threading.local):
    """What CUDA knows of a thread: its devices' objects, and the current device."""

    def __init__(self) -> None:
        self.devices: dict[int, Any] = {}
        self.current: Any = None


@dataclass(eq=False, repr=False)
class Fake(Shell):
    """A fake that has devices, memory, streams and graphs.

    Attributes:
        devices: how many there are; none: CUDA finds no device.
        name: of all devices.
        capability: of all devices.
        properties: of all devices, by their names in `Device.properties`.
        capacity: bytes of device memory; None: any number.
        cuda: version of CUDA that the driver has.
        driver: its version; None: there is no driver.
    """

    devices: int = field(init=False, default=1)
    name: str = field(init=False, default="a GPU")
    capability: tuple[int, int] = field(init=False, default=(9, 0))
    properties: dict[str, Any] = field(init=False, default_factory=lambda: {"multiprocessor_count": 132})
    capacity: int | None = field(init=False, default=None)
    cuda: tuple[int, int] = field(init=False, default=(13, 0))
    driver: tuple[int, ...] | None = field(init=False, default=(580, 65, 6))
    thread: _Thread = field(init=False, default_factory=_Thread)
    _memories: list[Memory] = field(init=False, default_factory=list)
    _freed: deque[Memory] = field(init=False, default_factory=deque)
    _queues: dict[int, Queue] = field(init=False, default_factory=dict)
    _handles: Any = field(init=False, default_factory=lambda: itertools.count(_FIRST_STREAM, 0x100))
    _made: Any = field(init=False, default_factory=weakref.WeakSet)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, handle in (("LEGACY_DEFAULT_STREAM", _LEGACY), ("PER_THREAD_DEFAULT_STREAM", _PER_THREAD)):
            self._queues[handle] = Queue(handle)
            setattr(self.modules["cuda.core"], name, self.new("Stream", queue=self._queues[handle]))
        for name, value in self.record["constants"].items():
            if isinstance(value, bool):
                self._place(name, value)
        for part in _PARTS:
            part(self)

    # For tests, and for fakes of other libraries

    def enqueue(self, stream: int, work: Callable[[], object]) -> None:
        """Queue work on a stream, or make it part of the graph that is captured there.

        Args:
            stream: handle; 0 is the legacy default stream.
            work: called when the stream comes to it, or with every launch of the graph.

        Raises:
            CUDAError: there is no such stream, it was closed, or its capture was invalidated.
        """
        queue = self._queues.get(stream or _LEGACY)
        if queue is None or queue.closed:
            raise CUDAError(f"CUDA_ERROR_INVALID_HANDLE: {stream:#x} is no stream, or was closed")
        if queue.broken:
            raise CUDAError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED: an earlier error invalidated the capture")
        (queue.pending if queue.captured is None else queue.captured).append(work)

    def is_capturing(self, stream: int) -> bool:
        """Whether a graph is captured on a stream, by its handle."""
        return self._queues[stream or _LEGACY].captured is not None

    def invalidate(self, stream: int) -> None:
        """Invalidate the capture on a stream, by its handle, as something that cannot be captured does."""
        queue = self._queues[stream or _LEGACY]
        queue.broken = queue.captured is not None

    def array(self, address: int, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """What lies at an address of device or pinned memory, not a copy.

        Raises:
            CUDAError: no allocation has the bytes, or it was freed.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        return self.region(address, size).bytes().view(dtype).reshape(shape)

    @property
    def live_bytes(self) -> dict[str, int]:
        """How many bytes nobody has freed, of each kind."""
        counted = [each for each in self._memories if each.counted]
        return {kind: sum(each.data.size for each in counted if each.kind == kind) for kind in (DEVICE, PINNED)}

    @property
    def live_objects(self) -> dict[str, int]:
        """How many streams, events, graph builders and graphs nobody has closed, by class."""
        return dict(Counter(each._recorded for each in self._made if not self.state(each).get("closed")))

    # For the implementations

    def track(self, owner: str, /, **state: Any) -> Any:
        """A new object that is counted as long as it is not closed."""
        made = self.new(owner, **state)
        self._made.add(made)
        return made

    def opened(self, this: Any) -> dict[str, Any]:
        """An object's state. RuntimeError: it was closed."""
        if self.state(this).get("closed"):
            raise RuntimeError(f"{type(this).__name__} has been closed")
        return self.state(this)

    def needs_driver(self) -> None:
        """Raise RuntimeError, as cuda-core does, unless there is a driver."""
        if self.driver is None:
            raise RuntimeError("an NVIDIA driver library was not found: ensure the NVIDIA display driver is installed")

    def needs_current(self) -> None:
        """Raise CUDAError unless the thread has a current device."""
        if self.thread.current is None:
            raise CUDAError("CUDA_ERROR_INVALID_CONTEXT: this thread has no current device, see Device.set_current()")

    def queue(self, stream: Any) -> Queue:
        """Of a stream or of a graph builder."""
        state = self.opened(stream)
        found: Queue = state["queue"] if "queue" in state else self.opened(state["stream"])["queue"]
        return found

    def submit(self, stream: Any, work: Callable[[], object]) -> None:
        """Queue work on a stream's or graph builder's behalf."""
        self.needs_current()
        self.enqueue(self.queue(stream).handle, work)

    def new_queue(self) -> Queue:
        """One that a stream is made of."""
        queue = Queue(next(self._handles))
        self._queues[queue.handle] = queue
        return queue

    def known_queue(self, handle: int) -> Queue:
        """One by its handle. CUDAError: there is none."""
        if handle not in self._queues:
            raise CUDAError(f"CUDA_ERROR_INVALID_HANDLE: {handle:#x} is no stream")
        return self._queues[handle]

    def refuse_capture(self, queues: Sequence[Queue], what: str) -> None:
        """Raise CUDAError if one of the queues is captured, whose capture this invalidates."""
        captured = [each for each in queues if each.captured is not None]
        for each in captured:
            each.broken = True
        if captured:
            raise CUDAError(f"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: {what} while a stream is captured")

    def run(self, queue: Queue) -> None:
        """Run all that is pending."""
        self.refuse_capture([queue], "synchronizing")
        while queue.pending:
            queue.pending.popleft()()

    def run_all(self) -> None:
        """Run all that is pending anywhere."""
        for queue in self.queues():
            self.run(queue)

    def queues(self) -> list[Queue]:
        """All that there ever were."""
        return list(self._queues.values())

    def run_to(self, mark: Mark) -> None:
        """Run a queue until it has come to a mark."""
        while not mark.done:
            mark.queue.pending.popleft()()

    def allocate(self, kind: str, size: int, *, synchronous: bool = False) -> Memory:
        """New memory. CUDAError: too much of the device's, or none is asked for."""
        self.needs_current()
        size = operator.index(size)
        if size < 1:
            raise CUDAError(f"CUDA_ERROR_INVALID_VALUE: an allocation of {size} bytes")
        if kind == DEVICE and self.capacity is not None and self.live_bytes[DEVICE] + size > self.capacity:
            raise CUDAError(f"CUDA_ERROR_OUT_OF_MEMORY: {size} bytes more than {self.live_bytes[DEVICE]}")
        whole = np.full(size + _ALIGNMENT, _UNSET, np.uint8)
        start = -whole.ctypes.data % _ALIGNMENT
        memory = Memory(kind, whole[start : start + size], synchronous=synchronous)
        self._memories.append(memory)
        return memory

    @staticmethod
    def whole(memory: Memory) -> Region:
        """All of an allocation."""
        return Region(memory, 0, memory.data.size)

    def free(self, memory: Memory) -> None:
        """Make memory unusable. Its last bytes stay readable for those who hold addresses."""
        memory.valid = False
        memory.data.fill(_UNSET)
        self._memories.remove(memory)
        self._freed.append(memory)
        while sum(each.data.size for each in self._freed) > _KEPT:
            self._freed.popleft()

    def region(self, address: int, size: int) -> Region:
        """A part of an allocation by its address. CUDAError: no allocation has it all."""
        for memory in [*self._memories, *self._freed]:
            start = address - memory.address
            if start >= 0 and start + size <= memory.data.size:
                return Region(memory, start, size)
        raise CUDAError(f"CUDA_ERROR_ILLEGAL_ADDRESS: no allocation has the {size} bytes at {address:#x}")

    def new_buffer(self, region: Region, resource: Any, queue: Queue | None, owner: Any = None) -> Any:
        """A buffer.

        Args:
            region: its memory.
            resource: whose memory it is, or None.
            queue: where the memory is freed; None: this buffer does not free it.
            owner: what keeps the memory alive otherwise.
        """
        made = self.new("Buffer", region=region, memory_resource=resource, queue=queue, owner=owner)
        weakref.finalize(made, self.release, self.state(made)).atexit = False
        return made

    def release(self, buffer: dict[str, Any], queue: Queue | None = None) -> None:
        """Close a buffer with this state, on a queue or where it was allocated; a second time does nothing."""
        if buffer["region"] is None:
            return
        memory: Memory = buffer["region"].memory
        queue = queue or buffer["queue"]
        if buffer["queue"] is not None and queue is not None:
            if memory.synchronous:
                self.refuse_unsafe("freeing pinned memory")
                self.run(queue)
                self.free(memory)
            else:
                self.refuse_capture([queue], "freeing memory on that stream")
                queue.pending.append(lambda: self.free(memory))
            memory.counted = False
        buffer |= {"region": None, "memory_resource": None, "owner": None}

    def refuse_unsafe(self, what: str) -> None:
        """Raise CUDAError if a capture forbids other calls: one whose mode is not "relaxed"."""
        self.refuse_capture([each for each in self.queues() if each.mode != "relaxed"], what)


def _add_devices(fake: Fake) -> None:
    def construct(device_id: Any = None) -> Any:
        if isinstance(device_id, fake.modules["cuda.core"].Device):
            return device_id
        fake.needs_driver()
        if fake.devices == 0:
            raise CUDAError("CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected")
        if device_id is None:
            device_id = fake.thread.current.device_id if fake.thread.current is not None else 0
        if not 0 <= device_id < fake.devices:
            raise ValueError(f"device_id must be within [0, {fake.devices}), got {device_id}")
        if device_id not in fake.thread.devices:
            fake.thread.devices[device_id] = fake.new("Device", device_id=int(device_id), current=False)
        return fake.thread.devices[device_id]

    def set_current(this: Any, ctx: Any = None) -> None:
        assert ctx is None, "the fake has primary contexts only"
        fake.state(this)["current"] = True
        fake.thread.current = this

    def needs_current(this: Any) -> None:
        if not fake.state(this)["current"]:
            raise CUDAError(
                f"Device {this.device_id} is not yet initialized, perhaps you forgot to call .set_current() first?"
            )

    def memory_resource(this: Any) -> Any:
        held = fake.state(this)
        if "memory_resource" not in held:
            held["memory_resource"] = fake.modules["cuda.core"].DeviceMemoryResource(this)
        return held["memory_resource"]

    def create_stream(this: Any, obj: Any = None, options: Any = None) -> Any:
        needs_current(this)
        if obj is not None:
            return fake.new("Stream", queue=fake.known_queue(obj.__cuda_stream__()[1]), device=this)
        return fake.track("Stream", queue=fake.new_queue(), device=this, options=options)

    def create_event(this: Any, options: Any = None) -> Any:
        needs_current(this)
        return fake.track("Event", mark=None, options=options, device=this)

    def allocate(this: Any, size: int, *, stream: Any) -> Any:
        needs_current(this)
        return this.memory_resource.allocate(size, stream=stream)

    def sync(this: Any) -> None:
        needs_current(this)
        fake.run_all()

    fake.implement("Device", "constructor", construct)
    fake.does(
        "Device",
        __int__=lambda this: this.device_id,
        name=lambda this: fake.name,
        compute_capability=lambda this: ComputeCapability(*fake.capability),
        arch=lambda this: "".join(map(str, fake.capability)),
        properties=lambda this: fake.new("DeviceProperties", **fake.properties),
        set_current=set_current,
        sync=sync,
        memory_resource=memory_resource,
        allocate=allocate,
        default_stream=lambda this: fake.modules["cuda.core"].LEGACY_DEFAULT_STREAM,
        create_stream=create_stream,
        create_event=create_event,
        create_graph_builder=lambda this: create_stream(this).create_graph_builder(),
        get_all_devices=lambda: tuple(construct(index) for index in range(fake.devices)),
    )


def _add_resources(fake: Fake) -> None:
    def close(this: Any) -> None:
        fake.state(this)["closed"] = True

    def allocate(this: Any, size: int, *, stream: Any) -> Any:
        kind = fake.opened(this)["kind"]
        queue = fake.queue(stream)
        if queue.captured is not None:
            raise RuntimeError(
                "_MemPool cannot perform memory operations on a capturing stream (consider using GraphMemoryResource)."
            )
        return fake.new_buffer(fake.whole(fake.allocate(kind, size)), this, queue)

    def allocate_at_once(this: Any, size: int, *, stream: Any = None) -> Any:
        if stream is not None:
            fake.queue(stream)
        fake.refuse_unsafe("allocating pinned memory")
        memory = fake.allocate(PINNED, size, synchronous=True)
        return fake.new_buffer(fake.whole(memory), this, fake.known_queue(_LEGACY))

    def no_device(this: Any) -> int:
        raise RuntimeError("a pinned memory resource is not bound to any GPU")

    def pool(device_id: Any, options: Any = None) -> Any:
        device = fake.modules["cuda.core"].Device(device_id)
        return fake.new("DeviceMemoryResource", kind=DEVICE, device_id=device.device_id)

    def pinned_pool(options: Any = None) -> Any:
        fake.needs_driver()
        return fake.new("PinnedMemoryResource", kind=PINNED, device_id=-1)

    fake.implement("DeviceMemoryResource", "constructor", pool)
    fake.implement("PinnedMemoryResource", "constructor", pinned_pool)
    for owner in ("DeviceMemoryResource", "PinnedMemoryResource"):
        fake.does(owner, allocate=allocate, close=close, is_closed=lambda this: "closed" in fake.state(this))
    fake.does("LegacyPinnedMemoryResource", allocate=allocate_at_once, device_id=no_device)
    for owner in ("DeviceMemoryResource", "PinnedMemoryResource", "LegacyPinnedMemoryResource"):
        fake.implement(owner, "is_device_accessible", lambda this: True)
    fake.implement("DeviceMemoryResource", "is_host_accessible", lambda this: False)
    fake.implement("PinnedMemoryResource", "is_host_accessible", lambda this: True)
    fake.implement("LegacyPinnedMemoryResource", "is_host_accessible", lambda this: True)


def _add_buffers(fake: Fake) -> None:
    def region(this: Any) -> Region:
        found: Region | None = fake.state(this)["region"]
        if found is None:
            raise RuntimeError("Buffer has been closed")
        return found

    def copy(source: Any, target: Any, stream: Any, options: Any) -> None:
        if options is not None:
            raise NotImplementedError("the fake copies without options")
        here, there = region(source), region(target)
        if here.size != there.size:
            raise ValueError(
                f"buffer sizes mismatch between src and dst (sizes are: src={here.size}, dst={there.size})"
            )
        fake.submit(stream, lambda: np.copyto(there.bytes(), here.bytes()))

    def copy_from(this: Any, src: Any, *, stream: Any, options: Any = None) -> None:
        copy(src, this, stream, options)

    def copy_to(this: Any, dst: Any = None, *, stream: Any, options: Any = None) -> Any:
        if dst is None:
            dst = this.memory_resource.allocate(region(this).size, stream=stream)
        copy(this, dst, stream, options)
        return dst

    def fill(this: Any, value: Any, *, stream: Any) -> None:
        target = region(this)
        if isinstance(value, numbers.Integral):
            if not 0 <= int(value) < 256:
                raise OverflowError(f"{value} does not fit into a byte")
            value = bytes([int(value)])
        pattern = np.frombuffer(value, np.uint8)
        if pattern.size not in (1, 2, 4) or target.size % pattern.size:
            raise ValueError(f"a pattern of {pattern.size} bytes for a buffer of {target.size}")
        fake.submit(stream, lambda: np.copyto(target.bytes().reshape(-1, pattern.size), pattern))

    def close(this: Any, stream: Any = None) -> None:
        fake.release(fake.state(this), None if stream is None else fake.queue(stream))

    def is_host_accessible(this: Any) -> bool:
        return region(this).memory.kind == PINNED

    def device_id(this: Any) -> int:
        region(this)
        return int(this.memory_resource.device_id) if this.memory_resource is not None else 0

    def dlpack_device(this: Any) -> tuple[int, int]:
        return (_DL_CUDA_HOST, 0) if is_host_accessible(this) else (_DL_CUDA, device_id(this))

    def dlpack(
        this: Any, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        if dl_device is not None or copy is True:
            raise BufferError("Sorry, not supported: dl_device other than None, copy=True")
        if not is_host_accessible(this):
            raise BufferError("Unsupported device in DLTensor.")  # says numpy, of which alone this fake thinks
        return np.asarray(_Bytes(this, region(this))).__dlpack__(max_version=max_version)

    def buffer(this: Any, flags: int) -> Any:
        raise NotImplementedError("WIP: Buffer.__buffer__ hasn't been implemented yet.")

    def from_handle(ptr: Any, size: int, mr: Any = None, owner: Any = None, *, stream: Any = None) -> Any:
        if mr is not None:
            raise NotImplementedError("the fake makes such views only as free nothing")
        return fake.new_buffer(fake.region(int(ptr), size), None, None, owner)

    def set_stream(this: Any, stream: Any) -> None:
        region(this)
        fake.state(this)["queue"] = fake.queue(stream)

    fake.does(
        "Buffer",
        from_handle=from_handle,
        copy_from=copy_from,
        copy_to=copy_to,
        fill=fill,
        close=close,
        is_closed=lambda this: fake.state(this)["region"] is None,
        set_deallocation_stream=set_stream,
        handle=lambda this: region(this).memory.address + region(this).start,
        size=lambda this: 0 if fake.state(this)["region"] is None else region(this).size,
        device_id=device_id,
        is_device_accessible=lambda this: region(this).memory.kind in (DEVICE, PINNED),
        is_host_accessible=is_host_accessible,
        is_managed=lambda this: region(this).memory.kind == "managed",
        is_mapped=lambda this: False,
        __enter__=lambda this: this,
        __exit__=lambda this, exc_type, exc_val, exc_tb: close(this),
        __dlpack__=dlpack,
        __dlpack_device__=dlpack_device,
        __buffer__=buffer,
    )


def _add_streams(fake: Fake) -> None:
    def close(this: Any) -> None:
        fake.state(this)["closed"] = True
        if this in fake._made:
            fake.state(this)["queue"].closed = True

    def record(this: Any, event: Any = None, options: Any = None) -> Any:
        queue = fake.queue(this)
        event = event if event is not None else fake.track("Event", options=options, device=fake.thread.current)
        mark = Mark(queue, queue.captured is not None)
        fake.submit(this, mark.reach)
        fake.opened(event)["mark"] = mark
        return event

    def wait(this: Any, event_or_stream: Any) -> None:
        event = event_or_stream
        if "mark" not in fake.opened(event_or_stream):
            event = event_or_stream.record()
        mark, queue = fake.opened(event)["mark"], fake.queue(this)
        if mark is None or mark.queue is queue:
            return
        if mark.captured:
            raise NotImplementedError("the fake captures one stream at a time")
        if queue.captured is not None:
            queue.broken = True
            raise CUDAError("CUDA_ERROR_STREAM_CAPTURE_ISOLATION: a captured stream waits for one that is not")
        fake.submit(this, lambda: fake.run_to(mark))

    fake.does(
        "Stream",
        handle=lambda this: _Handle(fake.queue(this).handle),
        __cuda_stream__=lambda this: (0, fake.queue(this).handle),
        is_closed=lambda this: "closed" in fake.state(this),
        is_nonblocking=lambda this: True,
        sync=lambda this: fake.run(fake.queue(this)),
        record=record,
        wait=wait,
        close=close,
        from_handle=lambda handle: fake.new("Stream", queue=fake.known_queue(int(handle))),
        create_graph_builder=lambda this: fake.track("graph.GraphBuilder", stream=this, graph=None),
    )


def _add_events(fake: Fake) -> None:
    def mark(this: Any) -> Mark | None:
        found: Mark | None = fake.opened(this)["mark"]
        if found is not None and found.captured:
            found.queue.broken = found.queue.captured is not None
            raise CUDAError("CUDA_ERROR_CAPTURED_EVENT: the event is part of a graph")
        return found

    def sync(this: Any) -> None:
        found = mark(this)
        if found is not None:
            fake.run_to(found)

    def is_timed(this: Any) -> bool:
        options = fake.state(this)["options"]
        return options is not None and bool(options.timing_enabled)

    def elapsed(this: Any, other: Any) -> float:
        marks = [mark(each) for each in (this, other)]
        if not (is_timed(this) and is_timed(other)):
            raise RuntimeError("both events must be made with timing enabled")
        if any(each is None or not each.done for each in marks):
            raise RuntimeError("both events must be recorded and reached; synchronize them first")
        later, earlier = (each.seconds for each in marks if each is not None)
        return 1e3 * (later - earlier)

    def is_done(this: Any) -> bool:
        found = mark(this)
        return found is None or found.done

    def close(this: Any) -> None:
        fake.state(this)["closed"] = True

    fake.does(
        "Event",
        sync=sync,
        is_done=is_done,
        is_timing_enabled=is_timed,
        is_closed=lambda this: "closed" in fake.state(this),
        handle=lambda this: _Handle(id(fake.opened(this))),
        __sub__=elapsed,
        close=close,
    )


def _add_graphs(fake: Fake) -> None:
    def begin(this: Any, mode: str | None = "relaxed") -> Any:
        queue, state = fake.queue(this), fake.opened(this)
        if state["graph"] is not None or queue.captured is not None:
            raise RuntimeError("the graph builder has been used, or the stream is captured already")
        if mode not in ("relaxed", "thread_local", "global"):
            raise ValueError(f"Unsupported build mode: {mode}")
        if queue.handle == _LEGACY:
            raise CUDAError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: the legacy default stream")
        fake.needs_current()
        state["graph"] = queue.captured = []
        queue.mode, queue.broken = mode, False
        return this

    def is_building(this: Any) -> bool:
        queue, state = fake.queue(this), fake.opened(this)
        building = queue.captured is not None and queue.captured is state["graph"]
        if building and queue.broken:
            raise RuntimeError(
                "Build process encountered an error and has been invalidated. Build process must now be ended."
            )
        return building

    def end(this: Any) -> Any:
        if not is_building(this):
            raise RuntimeError("Graph builder is not building.")
        fake.queue(this).captured = None
        return this

    def finished(this: Any) -> list[Callable[[], object]]:
        state = fake.opened(this)
        if state["graph"] is None or fake.queue(this).captured is state["graph"]:
            raise RuntimeError("Graph has not finished building.")
        found: list[Callable[[], object]] = state["graph"]
        return found

    def close_builder(this: Any) -> None:
        state = fake.state(this)
        queue: Queue = fake.state(state["stream"])["queue"]
        state["closed"] = True
        if queue.captured is not None and queue.captured is state["graph"]:
            broken, queue.captured, queue.broken = queue.broken, None, False
            if broken:
                raise CUDAError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED: an earlier error invalidated the capture")

    def callback(this: Any, fn: Callable[[], object], *, user_data: Any = None) -> None:
        if not is_building(this):
            raise RuntimeError("Cannot add callback when graph is not being built")
        fake.submit(this, fn)

    def launch(this: Any, stream: Any) -> None:
        work = fake.opened(this)["work"]
        fake.submit(stream, lambda: [each() for each in work])

    def upload(this: Any, stream: Any) -> None:
        fake.opened(this)
        fake.queue(stream)

    def update(this: Any, source: Any) -> None:
        work = finished(source)
        if len(work) != len(fake.opened(this)["work"]):
            raise CUDAError("Graph update failed: the topologies differ")
        fake.state(this)["work"] = list(work)

    def close(this: Any) -> None:
        fake.state(this)["closed"] = True

    fake.does(
        "graph.GraphBuilder",
        begin_building=begin,
        is_building=is_building,
        end_building=end,
        complete=lambda this, options=None: fake.track("graph.Graph", work=list(finished(this))),
        callback=callback,
        close=close_builder,
        is_closed=lambda this: "closed" in fake.state(this),
        is_join_required=lambda this: False,
        __cuda_stream__=lambda this: (0, fake.queue(this).handle),
    )
    fake.does(
        "graph.Graph",
        launch=launch,
        upload=upload,
        update=update,
        close=close,
        is_closed=lambda this: "closed" in fake.state(this),
        handle=lambda this: _Handle(id(fake.opened(this))),
    )


def _add_system(fake: Fake) -> None:
    def known(value: Any) -> Any:
        fake.needs_driver()
        return value

    fake.implement("", "system.get_num_devices", lambda: known(fake.devices))
    fake.implement("", "system.get_user_mode_driver_version", lambda: known(fake.cuda))
    fake.implement("", "system.get_kernel_mode_driver_version", lambda: known(fake.driver))


def _add_launch(fake: Fake) -> None:
    """Sizes as a launch configuration has them; whoever needs kernels implements them."""

    def three(given: Any) -> tuple[int, ...] | None:
        sizes = (given,) if isinstance(given, int) else given
        return None if given is None else (*sizes, 1, 1)[:3]

    for name in ("grid", "cluster", "block"):
        fake.implement("LaunchConfig", name, lambda this, name=name: three(fake.state(this)[name]))


_PARTS = (
    _add_devices,
    _add_resources,
    _add_buffers,
    _add_streams,
    _add_events,
    _add_graphs,
    _add_system,
    _add_launch,
)


def load(version: str) -> Fake:
    """A fake of one of the recorded versions, VERSIONS.

    Raises:
        FileNotFoundError: it was not recorded.
    """
    return Fake(json.loads((RECORDS / f"{version}.json").read_text()))
