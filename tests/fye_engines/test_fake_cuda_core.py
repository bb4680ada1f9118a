"""The imitated `cuda.core` has names and arguments of the real one, and orders and refuses work as CUDA does."""

import gc
import importlib
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.fye_engines import fake_cuda_core
from tests.fye_engines.bindings import names_of_cuda_core
from tests.fye_engines.fake_cuda_core import CUDAError, Fake

OFFERED = ("Buffer", "Device", "LegacyPinnedMemoryResource", "Stream", "graph.Graph", "graph.GraphBuilder")
SIZE = 16


@pytest.mark.parametrize("name", OFFERED)
def test_the_imitation_has_names_and_arguments_of_the_real_one(name: str) -> None:
    pytest.importorskip("cuda.core", reason="cuda-core is not installed: pip install 'fye-rt[cuda]'")
    _, real = names_of_cuda_core()
    cls = getattr(fake_cuda_core, name.rpartition(".")[2])
    members = {each for each in dir(cls) if each[0] != "_"}
    assert members
    for member in members:
        thing, value = real[f"{name}.{member}"], inspect.getattr_static(cls, member)
        assert isinstance(value, property) == (thing.kind == "property"), member
        assert isinstance(value, staticmethod) == (thing.kind == "static"), member
        if thing.kind == "property":
            continue
        (arguments,) = thing.calls
        theirs = inspect.signature(eval(f"lambda {arguments}: None")).parameters
        ours = list(inspect.signature(getattr(cls, member)).parameters.values())[thing.kind == "method" :]
        positional = [each.name for each in ours if each.kind is each.POSITIONAL_OR_KEYWORD]
        assert positional == list(theirs)[: len(positional)], member
        needed = {each.name for each in theirs.values() if each.default is each.empty}
        assert needed <= {each.name for each in ours} <= {*theirs}, member


@pytest.mark.parametrize("name", ["Device", "LegacyPinnedMemoryResource", "system.get_kernel_mode_driver_version"])
def test_what_is_imported_takes_no_arguments_in_the_real_one_either(name: str) -> None:
    pytest.importorskip("cuda.core", reason="cuda-core is not installed: pip install 'fye-rt[cuda]'")
    (arguments,) = names_of_cuda_core()[1][name].calls
    assert inspect.signature(eval(f"lambda {arguments}: None")).bind().args == ()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    fake.install(monkeypatch)
    importlib.import_module("cuda.core").Device().set_current()
    return fake


@pytest.fixture
def device(fake: Fake) -> Any:
    return importlib.import_module("cuda.core").Device()


@pytest.fixture
def stream(device: Any) -> Any:
    return device.create_stream()


@pytest.fixture
def pinned(device: Any) -> Any:
    return importlib.import_module("cuda.core").LegacyPinnedMemoryResource().allocate(SIZE)


def test_copies_run_when_the_stream_is_synchronized(device: Any, stream: Any, pinned: Any) -> None:
    memory, host = device.allocate(SIZE, stream=stream), np.from_dlpack(pinned).view(np.float32)
    assert memory.handle % 256 == 0 and np.isnan(host).all()
    host[:] = 1
    memory.copy_from(pinned, stream=stream)
    host[:] = 2  # before the copy has run
    stream.sync()
    host[:] = 3
    memory.copy_to(pinned, stream=stream)
    assert host.tolist() == [3] * 4
    stream.sync()
    assert host.tolist() == [2] * 4
    with pytest.raises(ValueError, match="sizes mismatch"):
        type(memory).from_handle(memory.handle, SIZE - 1, owner=memory).copy_to(pinned, stream=stream)
    with pytest.raises(CUDAError, match="ILLEGAL_ADDRESS"):
        type(memory).from_handle(memory.handle + 1, SIZE, owner=memory)
    with pytest.raises(BufferError):
        np.from_dlpack(memory)


def test_memory_is_freed_in_the_order_of_its_stream(fake: Fake, device: Any, stream: Any, pinned: Any) -> None:
    fake.capacity = SIZE
    memory = device.allocate(SIZE, stream=stream)
    address = memory.handle
    part = type(memory).from_handle(address, SIZE // 2, owner=memory)
    with pytest.raises(CUDAError, match="OUT_OF_MEMORY"):
        device.allocate(1, stream=stream)
    memory.copy_to(pinned, stream=stream)
    del memory
    gc.collect()
    assert fake.live_bytes == {"device": SIZE, "pinned": SIZE} and part.size == SIZE // 2
    del part
    gc.collect()
    assert fake.live_bytes["device"] == 0
    fake.enqueue(int(stream.handle), lambda: fake.array(address, (SIZE,), np.uint8))
    with pytest.raises(CUDAError, match="freed before"):
        stream.sync()


def test_every_thread_makes_the_device_current(device: Any, stream: Any) -> None:
    with ThreadPoolExecutor(1) as other:
        for call in (device.create_stream, stream.sync, lambda: device.allocate(SIZE, stream=stream)):
            with pytest.raises(CUDAError, match="set_current"):
                other.submit(call).result()
        other.submit(device.set_current).result()
        assert other.submit(device.create_stream).result().handle != stream.handle


def test_a_captured_graph_runs_with_every_launch(fake: Fake, stream: Any) -> None:
    done: list[str] = []
    builder = stream.create_graph_builder()
    builder.begin_building()
    fake.enqueue(int(stream.handle), lambda: done.append("captured"))
    builder.end_building()
    graph = builder.complete()
    builder.close()
    with pytest.raises(RuntimeError):
        builder.begin_building()
    with pytest.raises(RuntimeError):
        builder.complete()
    graph.launch(stream)
    fake.enqueue(int(stream.handle), lambda: done.append("after"))
    graph.launch(stream)
    assert done == [] and [call.name for call in fake.calls] == ["graph.Graph.launch"] * 2
    stream.sync()
    assert done == ["captured", "after", "captured"]


@pytest.mark.parametrize("cause", ["sync", "free", "another library"])
def test_a_call_that_cannot_be_captured_invalidates_the_capture(
    cause: str, fake: Fake, device: Any, stream: Any
) -> None:
    memory = [device.allocate(SIZE, stream=stream)]
    builder = stream.create_graph_builder()
    builder.begin_building()
    with pytest.raises(RuntimeError, match="capturing stream"):
        device.allocate(SIZE, stream=stream)
    if cause == "sync":
        with pytest.raises(CUDAError, match="CAPTURE_UNSUPPORTED"):
            stream.sync()
    elif cause == "free":
        memory.clear()
        gc.collect()
    else:
        fake.invalidate(int(stream.handle))
    with pytest.raises(CUDAError, match="CAPTURE_INVALIDATED"):
        fake.enqueue(int(stream.handle), lambda: None)
    with pytest.raises(RuntimeError, match="invalidated"):
        builder.end_building()
    with pytest.raises(CUDAError, match="CAPTURE_INVALIDATED"):
        builder.close()
    stream.sync()
