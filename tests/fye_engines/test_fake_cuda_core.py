"""The fake `cuda.core` refuses what the recorded one lacks, and runs streams and graphs as CUDA would."""

import gc
import importlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.fye_engines import fake_behaviour, fake_cuda_core, fake_tensorrt, record_cuda_core, record_tensorrt
from tests.fye_engines.fake_cuda_core import VERSIONS, CUDAError, Fake, load

FLOATS = 4  # in the buffers of most tests
SIZE = 4 * FLOATS


@pytest.fixture(params=VERSIONS)
def fake(request: pytest.FixtureRequest) -> Fake:
    return load(request.param)


@pytest.fixture
def core(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Any:
    fake.install(monkeypatch)
    return importlib.import_module("cuda.core")


@pytest.fixture
def device(core: Any) -> Any:
    found = core.Device(0)
    found.set_current()
    return found


@pytest.fixture
def stream(device: Any) -> Any:
    return device.create_stream()


@pytest.fixture
def memory(device: Any, stream: Any) -> Any:
    return device.allocate(SIZE, stream=stream)


@pytest.fixture
def pinned(core: Any, device: Any) -> Any:
    return core.LegacyPinnedMemoryResource().allocate(SIZE)


def floats(buffer: Any) -> np.ndarray:
    return np.from_dlpack(buffer).view(np.float32)


def doubling(fake: Fake, buffer: Any) -> Callable[[], None]:
    """Work that doubles what lies at a buffer's address, as a kernel would."""
    address = buffer.handle

    def work() -> None:
        fake.array(address, (FLOATS,), np.float32)[:] *= 2

    return work


# What is refused


def test_unknown_names_are_refused(core: Any, device: Any, stream: Any, memory: Any) -> None:
    graph = importlib.import_module("cuda.core.graph")
    system = importlib.import_module("cuda.core.system")
    for owner, name in (
        (core, "cudaMalloc"),
        (core, "Graph"),
        (graph, "CapturedGraph"),
        (system, "get_driver_version"),
        (device, "synchronize"),
        (stream, "synchronize"),
        (memory, "ptr"),
        (core.Buffer, "to_numpy"),
        (device.properties, "sm_count"),
    ):
        with pytest.raises(AttributeError, match=name):
            getattr(owner, name)


def test_modules_that_were_not_recorded_do_not_import(core: Any) -> None:
    for name in ("cuda.core.experimental", "cuda.core._stream"):
        with pytest.raises(ModuleNotFoundError, match=name):
            importlib.import_module(name)


def test_unknown_missing_and_surplus_arguments_are_refused(
    core: Any, device: Any, stream: Any, memory: Any, pinned: Any
) -> None:
    for call, said in (
        (lambda: device.allocate(SIZE), "missing a required argument: 'stream'"),
        (lambda: device.allocate(SIZE, stream), "too many positional arguments"),
        (lambda: core.DeviceMemoryResource(), "missing a required argument: 'device_id'"),
        (lambda: core.DeviceMemoryResource(0, size=1), "unexpected keyword argument 'size'"),
        (lambda: core.LegacyPinnedMemoryResource(0), "too many positional arguments"),
        (lambda: memory.copy_from(pinned), "missing a required argument: 'stream'"),
        (lambda: memory.copy_from(pinned, stream), "too many positional arguments"),
        (lambda: memory.copy_from(source=pinned, stream=stream), "missing a required argument: 'src'"),
        (lambda: stream.sync(True), "too many positional arguments"),
        (lambda: core.StreamOptions(blocking=True), "unexpected keyword argument 'blocking'"),
        (lambda: core.LaunchConfig(grid=1, block=32, shared=0), "unexpected keyword argument 'shared'"),
        (lambda: core.Program("code"), "missing a required argument: 'code_type'"),
        (lambda: core.launch(stream), "missing a required argument: 'config'"),
    ):
        with pytest.raises(TypeError, match=said):
            call()


def test_arguments_of_another_type_are_refused(core: Any, device: Any, stream: Any, memory: Any, pinned: Any) -> None:
    for call in (
        lambda: device.allocate(1.5 * SIZE, stream=stream),
        lambda: device.allocate(SIZE, stream=int(stream.handle)),
        lambda: memory.copy_from(np.zeros(FLOATS, np.float32), stream=stream),
        lambda: memory.copy_from(pinned, stream=None),
        lambda: device.create_stream(options={"priority": 1}),
        lambda: core.Device("0"),
        lambda: stream.wait(0),
        lambda: core.launch(stream, {"grid": 1}, None),
    ):
        with pytest.raises(TypeError):
            call()


def test_objects_that_come_from_elsewhere_are_not_constructed(core: Any) -> None:
    graph = importlib.import_module("cuda.core.graph")
    for cls in (core.Stream, core.Buffer, core.Event, core.Kernel, core.ObjectCode, graph.GraphBuilder, graph.Graph):
        with pytest.raises(RuntimeError, match="directly"):
            cls()


def test_only_what_can_be_written_is_assigned(core: Any, device: Any, stream: Any, memory: Any) -> None:
    for owner, name in ((device, "arch"), (device, "stream"), (stream, "handle"), (memory, "size"), (memory, "shape")):
        with pytest.raises(AttributeError, match=name):
            setattr(owner, name, 1)
    options = core.StreamOptions(priority=-1)
    options.nonblocking = False
    assert (options.priority, options.nonblocking) == (-1, False)
    device.memory_resource = resource = core.DeviceMemoryResource(device)
    assert device.memory_resource is resource


def test_what_has_no_implementation_says_so_until_it_gets_one(fake: Fake, core: Any, stream: Any) -> None:
    with pytest.raises(NotImplementedError, match=r"ObjectCode\.from_cubin"):
        core.ObjectCode.from_cubin(b"cubin")
    fake.implement("ObjectCode", "from_cubin", lambda module, *, name="", symbol_mapping=None: fake.new("ObjectCode"))
    fake.implement("ObjectCode", "get_kernel", lambda this, name: fake.new("Kernel", name=name))
    launched = []
    fake.implement("", "launch", lambda stream, config, kernel, *values: launched.append((config, kernel, values)))
    kernel = core.ObjectCode.from_cubin(b"cubin").get_kernel("add")
    core.launch(stream, core.LaunchConfig(grid=(3, 2), block=32), kernel, 1, np.int32(2))
    ((config, found, values),) = launched
    assert (config.grid, config.block, config.cluster) == ((3, 2, 1), (32, 1, 1), None)
    assert (found, values) == (kernel, (1, 2))


def test_an_implementation_takes_the_recorded_arguments_of_a_recorded_name(fake: Fake) -> None:
    for owner, name, function in (
        ("Stream", "synchronize", lambda this: None),
        ("Stream", "sync", lambda: None),
        ("Buffer", "copy_from", lambda this, src: None),
        ("", "launch", lambda stream, config: None),
    ):
        with pytest.raises(AssertionError):
            fake.implement(owner, name, function)


def test_newer_names_are_in_the_newer_version_only(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = load("1.0"), load("1.2")
    assert new.has("Buffer", "is_closed") and not old.has("Buffer", "is_closed")
    old.modules["cuda.core"].LaunchConfig(grid=1, block=1)
    new.modules["cuda.core"].LaunchConfig(grid=1, block=1, programmatic_stream_serialization=True)
    with pytest.raises(TypeError, match="programmatic_stream_serialization"):
        old.modules["cuda.core"].LaunchConfig(grid=1, block=1, programmatic_stream_serialization=True)


def test_calls_are_listed_with_their_arguments_and_defaults(fake: Fake, stream: Any) -> None:
    fake.calls.clear()
    event = stream.record()
    stream.wait(event)
    assert [(call.name, call.this) for call in fake.calls] == [("Stream.record", stream), ("Stream.wait", stream)]
    assert [call.arguments for call in fake.calls] == [{"event": None, "options": None}, {"event_or_stream": event}]


# Devices


def test_a_device_tells_its_architecture_and_the_driver_its_version(fake: Fake, core: Any) -> None:
    fake.capability, fake.driver, fake.cuda, fake.name = (12, 0), (590, 1, 2), (13, 1), "RTX"
    system = importlib.import_module("cuda.core.system")
    device = core.Device()
    capability = device.compute_capability
    assert (device.arch, capability.major, capability.minor, device.name) == ("120", 12, 0, "RTX")
    assert (device.device_id, int(device), device.properties.multiprocessor_count) == (0, 0, 132)
    assert system.get_kernel_mode_driver_version() == (590, 1, 2)
    assert system.get_user_mode_driver_version() == (13, 1)
    assert system.get_num_devices() == len(core.Device.get_all_devices()) == 1


def test_a_device_is_one_object(core: Any) -> None:
    assert core.Device(0) is core.Device() is core.Device(core.Device(0))
    with pytest.raises(ValueError, match="device_id"):
        core.Device(1)


def test_without_a_driver_or_a_device_there_is_an_error(fake: Fake, core: Any) -> None:
    system = importlib.import_module("cuda.core.system")
    fake.devices = 0
    assert system.get_num_devices() == 0
    with pytest.raises(CUDAError, match="NO_DEVICE"):
        core.Device()
    fake.driver = None
    for call in (core.Device, system.get_num_devices, system.get_kernel_mode_driver_version):
        with pytest.raises(RuntimeError, match="driver"):
            call()


def test_a_device_must_be_made_current_in_every_thread(core: Any, device: Any, stream: Any, memory: Any) -> None:
    errors = []

    def use() -> None:
        for call in (core.Device(0).create_stream, lambda: memory.fill(0, stream=stream)):
            with pytest.raises(CUDAError) as caught:
                call()
            errors.append(str(caught.value))
        core.Device(0).set_current()
        memory.fill(0, stream=stream)
        errors.append("")

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert ["set_current" in error for error in errors] == [True, True, False]


# Memory and streams


def test_pinned_memory_is_a_writable_array_of_bytes(core: Any, device: Any, stream: Any) -> None:
    for buffer in (
        core.LegacyPinnedMemoryResource().allocate(SIZE),
        core.PinnedMemoryResource().allocate(SIZE, stream=stream),
    ):
        array = np.from_dlpack(buffer)
        assert array.dtype == np.int8 and array.shape == (SIZE,) and array.ctypes.data == buffer.handle
        assert array.flags.writeable and buffer.is_host_accessible and buffer.__dlpack_device__() == (3, 0)


def test_memory_of_the_device_is_no_array(memory: Any) -> None:
    assert isinstance(memory.handle, int) and memory.handle % 256 == 0 and memory.size == SIZE
    assert not memory.is_host_accessible and memory.__dlpack_device__() == (2, 0)
    with pytest.raises(BufferError, match="Unsupported device"):
        np.from_dlpack(memory)


def test_new_memory_holds_no_zeros(fake: Fake, memory: Any, pinned: Any) -> None:
    assert np.isnan(floats(pinned)).all()
    assert np.isnan(fake.array(memory.handle, (FLOATS,), np.float32)).all()


def test_a_round_trip_brings_the_numbers_back(core: Any, stream: Any, memory: Any, pinned: Any) -> None:
    back = core.LegacyPinnedMemoryResource().allocate(SIZE)
    floats(pinned)[:] = [1, 2, 3, 4]
    memory.copy_from(pinned, stream=stream)
    assert memory.copy_to(back, stream=stream) is back
    stream.sync()
    assert floats(back).tolist() == [1, 2, 3, 4]


def test_without_a_sync_the_host_sees_what_was_there_before(stream: Any, memory: Any, pinned: Any) -> None:
    memory.fill(0, stream=stream)
    memory.copy_to(pinned, stream=stream)
    assert np.isnan(floats(pinned)).all()
    stream.sync()
    assert not floats(pinned).any()


def test_a_source_that_is_written_before_the_sync_is_what_the_copy_takes(
    fake: Fake, stream: Any, memory: Any, pinned: Any
) -> None:
    floats(pinned)[:] = 1
    memory.copy_from(pinned, stream=stream)
    floats(pinned)[:] = 2
    stream.sync()
    assert fake.array(memory.handle, (FLOATS,), np.float32).tolist() == [2] * FLOATS


def test_synchronizing_another_stream_is_not_enough(device: Any, stream: Any, memory: Any, pinned: Any) -> None:
    other = device.create_stream()
    memory.fill(0, stream=stream)
    memory.copy_to(pinned, stream=other)
    other.sync()
    assert np.isnan(floats(pinned)).all()


def test_a_stream_that_waits_sees_what_came_before(device: Any, stream: Any, memory: Any, pinned: Any) -> None:
    for wait in (lambda other: other.wait(stream), lambda other: other.wait(stream.record())):
        other = device.create_stream()
        memory.fill(0, stream=stream)
        wait(other)
        memory.fill(1, stream=stream)
        memory.copy_to(pinned, stream=other)
        other.sync()
        assert np.from_dlpack(pinned).tolist() == [0] * SIZE
        device.sync()


def test_an_event_runs_its_stream_only_as_far_as_it_was_recorded(stream: Any, memory: Any, pinned: Any) -> None:
    memory.fill(1, stream=stream)
    memory.copy_to(pinned, stream=stream)
    event = stream.record()
    memory.fill(2, stream=stream)
    memory.copy_to(pinned, stream=stream)
    assert not event.is_done
    event.sync()
    assert event.is_done and set(np.from_dlpack(pinned).tolist()) == {1}


def test_the_time_between_events_needs_timing_and_their_completion(core: Any, stream: Any) -> None:
    first, last = (stream.record(options=core.EventOptions(timing_enabled=True)) for _ in range(2))
    with pytest.raises(RuntimeError, match="synchronize"):
        last - first
    last.sync()
    assert last - first >= 0
    with pytest.raises(RuntimeError, match="timing"):
        stream.record() - first


def test_a_device_synchronizes_all_streams(device: Any, stream: Any, memory: Any, pinned: Any) -> None:
    memory.fill(b"\x00\x00\x80\x3f", stream=stream)
    memory.copy_to(pinned, stream=stream)
    stream.close()
    device.sync()
    assert floats(pinned).tolist() == [1] * FLOATS


def test_copies_of_another_size_and_fills_that_do_not_fit_are_refused(
    core: Any, device: Any, stream: Any, memory: Any
) -> None:
    for size in (SIZE - 1, SIZE + 1):
        other = core.LegacyPinnedMemoryResource().allocate(size)
        for call in (lambda a, b: a.copy_to(b, stream=stream), lambda a, b: a.copy_from(b, stream=stream)):
            with pytest.raises(ValueError, match="sizes mismatch"):
                call(memory, other)
    odd = device.allocate(6, stream=stream)
    for pattern, error in ((256, OverflowError), (b"\0\0\0", ValueError), (b"\0\0\0\0", ValueError)):
        with pytest.raises(error):
            odd.fill(pattern, stream=stream)


def test_a_part_of_a_buffer_is_a_buffer_that_frees_nothing(fake: Fake, core: Any, stream: Any, memory: Any) -> None:
    memory.fill(0, stream=stream)
    part = core.Buffer.from_handle(memory.handle + 4, 8, owner=memory)
    part.fill(1, stream=stream)
    stream.sync()
    assert fake.array(memory.handle, (SIZE,), np.int8).tolist() == [0] * 4 + [1] * 8 + [0] * 4
    part.close()
    assert fake.live_bytes["device"] == SIZE


def test_addresses_outside_of_every_allocation_are_refused(fake: Fake, core: Any, memory: Any) -> None:
    for offset, size in ((0, SIZE + 1), (-1, 4), (SIZE, 1), (1 << 40, 4)):
        with pytest.raises(CUDAError, match="ILLEGAL_ADDRESS"):
            fake.array(memory.handle + offset, (size,), np.int8)
        with pytest.raises(CUDAError, match="ILLEGAL_ADDRESS"):
            core.Buffer.from_handle(memory.handle + offset, size)


def test_a_closed_buffer_is_not_used(stream: Any, memory: Any, pinned: Any) -> None:
    memory.close()
    assert memory.size == 0
    for call in (
        lambda: memory.handle,
        lambda: memory.fill(0, stream=stream),
        lambda: memory.copy_from(pinned, stream=stream),
        lambda: pinned.copy_to(memory, stream=stream),
        lambda: memory.is_host_accessible,
    ):
        with pytest.raises(RuntimeError, match="Buffer has been closed"):
            call()


def test_closing_twice_frees_once(fake: Fake, device: Any, stream: Any, memory: Any) -> None:
    other = device.allocate(SIZE, stream=stream)
    for _ in range(2):
        memory.close()
        stream.close()
    assert fake.live_bytes == {"device": SIZE, "pinned": 0}
    other.close()
    assert fake.live_bytes["device"] == 0


def test_memory_is_freed_in_the_order_of_its_stream(device: Any, stream: Any, memory: Any, pinned: Any) -> None:
    memory.fill(0, stream=stream)
    memory.copy_to(pinned, stream=stream)
    memory.close()
    stream.sync()
    assert not floats(pinned).any()
    early = device.allocate(SIZE, stream=stream)
    other = device.create_stream()
    early.copy_to(pinned, stream=other)
    early.close()
    stream.sync()
    with pytest.raises(CUDAError, match="freed before"):
        other.sync()


def test_pinned_memory_is_freed_at_once_and_its_array_shows_it(stream: Any, memory: Any, pinned: Any) -> None:
    array = floats(pinned)
    array[:] = 1
    memory.copy_from(pinned, stream=stream)
    pinned.close()
    assert np.isnan(array).all()
    with pytest.raises(CUDAError, match="freed before"):
        stream.sync()


def test_pinned_memory_waits_for_the_stream_that_it_is_closed_on(
    fake: Fake, stream: Any, memory: Any, pinned: Any
) -> None:
    floats(pinned)[:] = 1
    memory.copy_from(pinned, stream=stream)
    pinned.close(stream)
    assert fake.array(memory.handle, (FLOATS,), np.float32).tolist() == [1] * FLOATS


def test_an_array_keeps_its_buffer_and_a_lost_buffer_is_freed(fake: Fake, core: Any, device: Any) -> None:
    array = floats(core.LegacyPinnedMemoryResource().allocate(SIZE))
    array[:] = 1
    gc.collect()
    assert fake.live_bytes["pinned"] == SIZE and array.tolist() == [1] * FLOATS
    del array
    gc.collect()
    assert fake.live_bytes["pinned"] == 0


def test_bytes_and_objects_are_counted_until_they_are_closed(fake: Fake, core: Any, device: Any, stream: Any) -> None:
    builder = stream.create_graph_builder()
    with device.allocate(100, stream=stream), core.LegacyPinnedMemoryResource().allocate(10):
        assert fake.live_bytes == {"device": 100, "pinned": 10}
    assert fake.live_bytes == {"device": 0, "pinned": 0}
    assert fake.live_objects == {"Stream": 1, "graph.GraphBuilder": 1}
    builder.close()
    stream.close()
    assert not fake.live_objects


def test_a_full_device_gives_no_more_memory(fake: Fake, device: Any, stream: Any) -> None:
    fake.capacity = 100
    first = device.allocate(60, stream=stream)
    with pytest.raises(CUDAError, match="OUT_OF_MEMORY"):
        device.allocate(60, stream=stream)
    first.close()
    assert device.allocate(60, stream=stream).size == 60


def test_a_closed_stream_takes_no_work(fake: Fake, stream: Any, memory: Any) -> None:
    handle = int(stream.handle)
    stream.close()
    for call in (stream.sync, lambda: stream.handle, lambda: memory.fill(0, stream=stream)):
        with pytest.raises(RuntimeError, match="Stream has been closed"):
            call()
    for unknown in (handle, 12345):
        with pytest.raises(CUDAError, match="INVALID_HANDLE"):
            fake.enqueue(unknown, lambda: None)


def test_a_stream_of_another_owner_is_the_same_queue(fake: Fake, core: Any, device: Any, stream: Any) -> None:
    done: list[int] = []
    for index, view in enumerate((core.Stream.from_handle(int(stream.handle)), device.create_stream(stream))):
        fake.enqueue(int(view.handle), partial(done.append, index))
        view.close()
    stream.sync()
    assert done == [0, 1]


def test_stream_zero_is_the_default_stream(fake: Fake, core: Any, device: Any) -> None:
    done: list[bool] = []
    fake.enqueue(0, lambda: done.append(True))
    assert not done
    core.LEGACY_DEFAULT_STREAM.sync()
    assert done and device.default_stream is core.LEGACY_DEFAULT_STREAM
    assert (int(core.LEGACY_DEFAULT_STREAM.handle), int(core.PER_THREAD_DEFAULT_STREAM.handle)) == (1, 2)


# Graphs


@pytest.fixture
def captured(fake: Fake, stream: Any, memory: Any, pinned: Any) -> Any:
    """A graph: pinned to memory, doubled there by another library, and back."""
    builder = stream.create_graph_builder().begin_building()
    memory.copy_from(pinned, stream=stream)
    fake.enqueue(int(stream.handle), doubling(fake, memory))
    memory.copy_to(pinned, stream=builder)
    graph = builder.end_building().complete()
    builder.close()
    return graph


def test_a_capture_runs_nothing_and_every_launch_runs_it_all(captured: Any, stream: Any, pinned: Any) -> None:
    floats(pinned)[:] = 1
    stream.sync()
    assert floats(pinned).tolist() == [1] * FLOATS
    captured.upload(stream)
    for _ in range(3):
        captured.launch(stream)
    assert floats(pinned).tolist() == [1] * FLOATS
    stream.sync()
    assert floats(pinned).tolist() == [8] * FLOATS


def test_what_was_queued_before_a_capture_is_no_part_of_it(fake: Fake, stream: Any) -> None:
    done: list[str] = []
    handle = int(stream.handle)
    fake.enqueue(handle, lambda: done.append("before"))
    builder = stream.create_graph_builder().begin_building()
    assert builder.is_building and fake.is_capturing(handle)
    fake.enqueue(handle, lambda: done.append("captured"))
    builder.callback(lambda: done.append("host"))
    graph = builder.end_building().complete()
    fake.enqueue(handle, lambda: done.append("after"))
    graph.launch(stream)
    stream.sync()
    assert done == ["before", "after", "captured", "host"]


def test_a_graph_launches_on_other_streams_and_inside_other_graphs(fake: Fake, device: Any, captured: Any) -> None:
    other = device.create_stream()
    builder = other.create_graph_builder().begin_building()
    captured.launch(other)
    captured.launch(other)
    outer = builder.end_building().complete()
    captured.close()
    done: list[bool] = []
    outer.launch(other)
    fake.enqueue(int(other.handle), lambda: done.append(True))
    other.sync()
    assert done


def test_a_graph_is_updated_from_a_capture_of_as_many_operations(fake: Fake, stream: Any) -> None:
    done: list[int] = []

    def capture(*numbers: int) -> Any:
        builder = stream.create_graph_builder().begin_building()
        for number in numbers:
            fake.enqueue(int(stream.handle), partial(done.append, number))
        return builder.end_building()

    graph = capture(1).complete()
    graph.update(capture(2))
    with pytest.raises(CUDAError, match="topologies differ"):
        graph.update(capture(3, 4))
    graph.launch(stream)
    stream.sync()
    assert done == [2]


def test_a_graph_whose_memory_was_freed_fails_when_it_is_launched(captured: Any, stream: Any, memory: Any) -> None:
    memory.close()
    captured.launch(stream)
    with pytest.raises(CUDAError, match="freed before"):
        stream.sync()


def test_a_closed_graph_is_not_launched(captured: Any, stream: Any) -> None:
    captured.close()
    captured.close()
    with pytest.raises(RuntimeError, match="Graph has been closed"):
        captured.launch(stream)


def test_what_cannot_be_captured_raises_and_invalidates_the_capture(
    fake: Fake, core: Any, device: Any, stream: Any, memory: Any
) -> None:
    other = device.create_stream()
    for call in (
        stream.sync,
        device.sync,
        memory.close,
        lambda: stream.wait(other),
        lambda: stream.record().sync(),
        lambda: stream.record().is_done,
    ):
        builder = stream.create_graph_builder().begin_building()
        with pytest.raises(CUDAError, match="CAPTURE"):
            call()
        with pytest.raises(CUDAError, match="CAPTURE_INVALIDATED"):
            memory.fill(0, stream=stream)
        with pytest.raises(RuntimeError, match="invalidated"):
            builder.end_building()
        with pytest.raises(CUDAError, match="CAPTURE_INVALIDATED"):
            builder.close()
        stream.sync()


def test_a_fake_of_another_library_can_refuse_to_be_captured(fake: Fake, stream: Any) -> None:
    fake.invalidate(int(stream.handle))
    stream.record()  # nothing was captured, so nothing is invalid
    builder = stream.create_graph_builder().begin_building()
    fake.invalidate(int(stream.handle))
    with pytest.raises(RuntimeError, match="invalidated"):
        builder.end_building()


def test_pools_do_not_allocate_on_a_captured_stream(device: Any, stream: Any) -> None:
    other = device.create_stream()
    builder = stream.create_graph_builder().begin_building()
    with pytest.raises(RuntimeError, match="capturing stream"):
        device.allocate(SIZE, stream=stream)
    assert device.allocate(SIZE, stream=other).size == SIZE
    assert builder.end_building() is builder


def test_pinned_memory_is_allocated_during_a_relaxed_capture_only(core: Any, device: Any) -> None:
    resource = core.LegacyPinnedMemoryResource()
    for mode in ("thread_local", "global"):
        builder = device.create_graph_builder().begin_building(mode)
        with pytest.raises(CUDAError, match="CAPTURE_UNSUPPORTED"):
            resource.allocate(SIZE)
        with pytest.raises(CUDAError, match="CAPTURE_INVALIDATED"):
            builder.close()
    builder = device.create_graph_builder().begin_building()
    resource.allocate(SIZE).close()
    assert builder.is_building


def test_a_builder_is_used_in_its_order(core: Any, stream: Any) -> None:
    builder = stream.create_graph_builder()
    for call in (builder.end_building, builder.complete):
        with pytest.raises(RuntimeError):
            call()
    with pytest.raises(ValueError, match="mode"):
        builder.begin_building("eager")
    builder.begin_building()
    for call in (builder.begin_building, builder.complete, stream.create_graph_builder().begin_building):
        with pytest.raises(RuntimeError):
            call()
    builder.end_building()
    with pytest.raises(RuntimeError, match="used"):
        builder.begin_building()
    with pytest.raises(CUDAError, match="legacy default stream"):
        core.LEGACY_DEFAULT_STREAM.create_graph_builder().begin_building()


def test_a_builder_that_is_closed_ends_its_capture(fake: Fake, stream: Any, memory: Any) -> None:
    builder = stream.create_graph_builder().begin_building()
    memory.fill(0, stream=stream)
    builder.close()
    assert not fake.is_capturing(int(stream.handle))
    stream.sync()
    assert np.isnan(fake.array(memory.handle, (FLOATS,), np.float32)).all()


# With the fake TensorRT, and the record


def test_a_run_of_the_fake_tensorrt_is_queued_and_captured_like_a_copy(
    fake: Fake, stream: Any, memory: Any, pinned: Any
) -> None:
    trt = fake_behaviour.load(fake_tensorrt.VERSIONS[-1])
    trt.compute = lambda execution: fake.enqueue(execution.stream, doubling(fake, memory))
    tensor = {"name": "x", "mode": "INPUT", "dtype": "FLOAT", "shape": [FLOATS]}
    plan = {"tensors": [tensor], "profiles": [{}], "stripped": False, "flags": [], "weights": {}}
    engine = trt.new("ICudaEngine", plan=plan, refitted={}, num_optimization_profiles=1, logger=None)
    context = engine.create_execution_context()
    context.set_tensor_address("x", memory.handle)
    floats(pinned)[:] = 1
    memory.copy_from(pinned, stream=stream)
    assert context.execute_async_v3(int(stream.handle))
    builder = stream.create_graph_builder().begin_building()
    assert context.execute_async_v3(int(stream.handle))
    graph = builder.end_building().complete()
    memory.copy_to(pinned, stream=stream)
    stream.sync()
    assert floats(pinned).tolist() == [2] * FLOATS
    graph.launch(stream)
    memory.copy_to(pinned, stream=stream)
    stream.sync()
    assert floats(pinned).tolist() == [4] * FLOATS


class Compiled:
    """Tells its arguments as classes in Cython do: here, and when it is called with others.

    Parameters
    ----------
    first : int
        One.
    second : str, optional
        Two.

    Notes
    -----
    third : none at all
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in ("first", "second"):
                raise TypeError(f"__init__() got an unexpected keyword argument '{name}'")
        if len(args) > 2 or not args:
            side, count = ("most", 2) if args else ("least", 1)
            raise TypeError(f"__init__() takes at {side} {count} positional arguments ({len(args)} given)")


def test_a_constructor_without_a_signature_is_read_from_its_text_and_tried() -> None:
    assert record_cuda_core._described(Compiled) == "(first, second = None)"
    assert record_cuda_core._compared(Compiled, "(first, second = None)") == "(first, second=None)"
    for signature in ("(first, third = None)", "(first)", "(first, *, second = None)", "(first, *second)"):
        with pytest.raises(ValueError, match="it takes"):
            record_cuda_core._compared(Compiled, signature)


def test_only_writable_attributes_of_compiled_classes_are_recorded_as_such() -> None:
    assert record_cuda_core._is_writable(vars(type)["__name__"])
    assert not record_cuda_core._is_writable(vars(type)["__text_signature__"])


def test_the_records_are_as_the_recorder_writes_them() -> None:
    for version in VERSIONS:
        text = (fake_cuda_core.RECORDS / f"{version}.json").read_text()
        assert text == record_tensorrt.dump(load(version).record) + "\n"
