"""The fake `tensorrt` refuses what the recorded one lacks, and builds and runs what the recorded one would."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.fye_engines import fake_tensorrt, record_tensorrt
from tests.fye_engines.fake_behaviour import TensorRT, load
from tests.fye_engines.fake_tensorrt import VERSIONS

SHAPES = [(1, 2, 4), (1, 8, 4), (1, 24, 4)]


@pytest.fixture(params=VERSIONS)
def fake(request: pytest.FixtureRequest) -> TensorRT:
    return load(request.param)


@pytest.fixture
def trt(fake: TensorRT) -> Any:
    return fake.module


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = x * scale and z = x + x for x of (1, frames, 4); the scale in a file of its own."""
    shape = [1, "frames", 4]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "yz"]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["y"]), helper.make_node("Add", ["x", "x"], ["z"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        outputs,
        [numpy_helper.from_array(np.ones(4, np.float32), "scale")],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph), path, save_as_external_data=True, location="weights", size_threshold=0)
    return path


@pytest.fixture
def text(model: Path) -> bytes:
    return model.read_bytes()


class Parts:
    """What a build needs, from a fake: logger, builder, network, parser and configuration."""

    def __init__(self, trt: Any) -> None:
        self.trt = trt
        self.logger = trt.Logger(trt.Logger.WARNING)
        self.builder = trt.Builder(self.logger)
        self.network = self.builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self.parser = trt.OnnxParser(self.network, self.logger)
        self.config = self.builder.create_builder_config()

    def build(self, model: Path, *flags: str, shapes: Any = SHAPES) -> Any:
        assert self.parser.parse_from_file(str(model))
        profile = self.builder.create_optimization_profile()
        profile.set_shape("x", *shapes)
        assert self.config.add_optimization_profile(profile) == 0
        for flag in flags:
            self.config.set_flag(getattr(self.trt.BuilderFlag, flag))
        return self.builder.build_serialized_network(self.network, self.config)

    def engine(self, model: Path, *flags: str) -> Any:
        return self.trt.Runtime(self.logger).deserialize_cuda_engine(self.build(model, *flags))


@pytest.fixture
def parts(trt: Any) -> Parts:
    return Parts(trt)


# What is refused


def test_unknown_names_are_refused(trt: Any, parts: Parts) -> None:
    for owner, name in (
        (trt, "IBuilder"),
        (trt.BuilderFlag, "FLOAT16"),
        (trt.DataType.FLOAT, "FLOAT16"),
        (trt.Builder, "build_cuda_engine"),
        (parts.builder, "max_workspace_size"),
        (parts.config, "set_memory_limit"),
    ):
        with pytest.raises(AttributeError, match=name):
            getattr(owner, name)


def test_unknown_missing_and_surplus_arguments_are_refused(parts: Parts) -> None:
    for call, said in (
        (lambda: parts.builder.create_network(flag=1), "unexpected keyword argument 'flag'"),
        (lambda: parts.builder.create_network(0, 1), "too many positional arguments"),
        (lambda: parts.builder.build_serialized_network(parts.network), "missing a required argument: 'config'"),
        (lambda: parts.config.set_memory_pool_limit(parts.trt.MemoryPoolType.WORKSPACE, size=1), "'pool_size'"),
        (lambda: parts.trt.volume((1, 2), 3), "too many positional arguments"),
    ):
        with pytest.raises(TypeError, match=said):
            call()


def test_arguments_of_another_type_are_refused(trt: Any, parts: Parts, model: Path) -> None:
    profile = parts.builder.create_optimization_profile()
    for call in (
        lambda: parts.config.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM),
        lambda: parts.config.set_flag(int(trt.BuilderFlag.REFIT)),
        lambda: parts.builder.create_network(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED),
        lambda: parts.config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1e9),
        lambda: parts.parser.parse_from_file(model),
        lambda: parts.parser.parse("model.onnx"),
        lambda: profile.set_shape("x", *["1x8x4"] * 3),
        lambda: parts.config.set_timing_cache(None, False),
        lambda: trt.OnnxParser(parts.config, parts.logger),
        lambda: trt.BuilderFlag(99),
    ):
        with pytest.raises(TypeError):
            call()


def test_properties_that_are_unknown_or_read_only_or_of_another_type_are_not_assigned(parts: Parts) -> None:
    for owner, name, value, error in (
        (parts.config, "max_workspace_size", 1, AttributeError),
        (parts.config, "num_optimization_profiles", 1, AttributeError),
        (parts.network, "num_inputs", 1, AttributeError),
        (parts.builder, "create_network", None, AttributeError),
        (parts.config, "builder_optimization_level", "3", TypeError),
        (parts.config, "builder_optimization_level", None, TypeError),
        (parts.config, "profiling_verbosity", 2, TypeError),
        (parts.config, "progress_monitor", object(), TypeError),
        (parts.trt.PluginTensorDesc(), "dims", None, TypeError),
    ):
        with pytest.raises(error, match=name):
            setattr(owner, name, value)


def test_a_property_holds_what_it_was_assigned(trt: Any, parts: Parts) -> None:
    parts.config.builder_optimization_level = np.int64(5)
    parts.config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    assert parts.config.builder_optimization_level == 5
    assert parts.config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED


def test_a_property_that_can_only_be_written_is_not_read(parts: Parts, model: Path) -> None:
    context = parts.engine(model).create_execution_context()
    context.device_memory = 256
    with pytest.raises(AttributeError, match="device_memory"):
        _ = context.device_memory


def test_classes_that_only_tensorrt_makes_are_not_constructed(trt: Any) -> None:
    for name in ("INetworkDefinition", "ICudaEngine", "IHostMemory", "ITimingCache", "IExecutionContext"):
        with pytest.raises(TypeError, match=f"{name}: No constructor defined"):
            getattr(trt, name)()


def test_a_subclass_has_to_construct_its_base(trt: Any) -> None:
    class Forgets(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            self.steps = 0

    class Remembers(Forgets):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps = 1

    with pytest.raises(TypeError, match=r"must be called when overriding __init__"):
        Forgets()
    assert Remembers().steps == 1


def test_a_recorded_method_without_an_implementation_says_so_until_it_has_one(fake: TensorRT, parts: Parts) -> None:
    with pytest.raises(NotImplementedError, match=r"Builder\.reset"):
        parts.builder.reset()
    fake.implement("Builder", "reset", lambda builder: None)
    parts.builder.reset()
    assert fake.calls[-1] == fake_tensorrt.Call("Builder.reset", parts.builder, {})


def test_a_property_without_a_value_says_so_until_it_has_an_implementation(fake: TensorRT, parts: Parts) -> None:
    with pytest.raises(NotImplementedError, match=r"Builder\.max_threads"):
        _ = parts.builder.max_threads
    fake.implement("Builder", "max_threads", lambda builder: 7)
    assert parts.builder.max_threads == 7


def test_implementations_of_unknown_names_or_with_other_arguments_are_refused(fake: TensorRT) -> None:
    for owner, name, function, said in (
        ("Builder", "build_engine", lambda builder: None, "has no Builder.build_engine"),
        ("IBuilder", "reset", lambda builder: None, "has no IBuilder.reset"),
        ("", "load_engine", lambda: None, "has no load_engine"),
        ("Builder", "reset", lambda: None, "cannot take"),
        ("Builder", "create_network", lambda builder, flag: None, "cannot take"),
        ("Refitter", "set_named_weights", lambda refitter, name, weights: True, "cannot take"),  # an overload has more
    ):
        with pytest.raises(AssertionError, match=said):
            fake.implement(owner, name, function)


def test_an_implementation_returns_what_tensorrt_returns(fake: TensorRT, parts: Parts) -> None:
    fake.implement("Builder", "is_network_supported", lambda builder, network, config: "yes")
    with pytest.raises(AssertionError, match="is_network_supported"):
        parts.builder.is_network_supported(parts.network, parts.config)


def test_names_of_one_version_only_are_absent_from_the_other() -> None:
    old, new = load("10.16").module, load("11.4").module
    for path in (
        "BuilderFlag.FP16",
        "BuilderFlag.BF16",
        "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
        "IBuilderConfig.int8_calibrator",
        "ICudaEngine.device_memory_size",
        "ICudaEngine.weight_streaming_budget",
        "ILayer.precision",
        "OnnxParser.supports_model",
        "IInt8EntropyCalibrator2",
        "IStreamReader",
    ):
        assert resolve(old, path) is not None
        assert resolve(new, path) is None
    for path in ("INetworkDefinition.add_attention_v2", "Refitter.release_refit_resources", "CausalMaskKind"):
        assert resolve(old, path) is None
        assert resolve(new, path) is not None


def resolve(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name, None)
    return module


def test_flags_have_the_values_of_their_version() -> None:
    for name, values in (("STRONGLY_TYPED", [1, 0]), ("PREFER_AOT_PYTHON_PLUGINS", [3, 2])):
        flags = [load(version).module.NetworkDefinitionCreationFlag for version in ("10.16", "11.4")]
        assert [int(getattr(each, name)) for each in flags] == values
    assert [int(load(version).module.BuilderFlag.STRIP_PLAN) for version in ("10.16", "11.4")] == [19, 18]


def test_enums_behave_as_the_bindings_make_them(trt: Any) -> None:
    refit = trt.BuilderFlag.REFIT
    assert (refit.name, refit.value, int(refit), 1 << int(refit)) == ("REFIT", 4, 4, 16)
    assert refit == trt.BuilderFlag(4) == trt.BuilderFlag.__members__["REFIT"]
    assert (refit != trt.DataType.INT8, refit != 4) == (True, True)
    assert {refit: "refit"}[trt.BuilderFlag.REFIT] == "refit"
    assert (str(refit), repr(refit)) == ("BuilderFlag.REFIT", "<BuilderFlag.REFIT: 4>")
    assert list(trt.TensorIOMode.__members__) == ["NONE", "INPUT", "OUTPUT"]
    assert trt.Logger.ERROR == trt.ILogger.Severity.ERROR
    assert trt.float16 == trt.DataType.HALF
    for combine in (lambda: refit | 1, lambda: 1 << refit, lambda: trt.DataType.HALF < trt.DataType.FLOAT):
        with pytest.raises(TypeError):
            combine()
    with pytest.raises(TypeError):
        iter(trt.BuilderFlag)


def test_two_names_of_one_value_are_one_flag() -> None:
    flags = load("10.16").module.BuilderFlag
    assert flags.STRIP_PLAN == flags.WEIGHTLESS
    assert flags.STRIP_PLAN.name == "WEIGHTLESS"  # as the bindings say it


def test_shapes_are_sequences_that_equal_tuples_and_lists(trt: Any) -> None:
    shape = trt.Dims((1, -1, 4))
    assert (tuple(shape), len(shape), shape[1], shape[1:]) == ((1, -1, 4), 3, -1, (-1, 4))
    assert shape == (1, -1, 4)
    assert shape == [1, -1, 4]
    assert tuple(trt.Dims2(3, 4)) == (3, 4)
    for use in (lambda: trt.Dims("12"), lambda: shape == trt.Dims((1, -1, 4)), lambda: hash(shape)):
        with pytest.raises(TypeError):
            use()


def test_weights_are_made_of_whole_arrays_of_types_that_tensorrt_has(trt: Any) -> None:
    array = np.zeros((3, 4), np.float16)
    weights = trt.Weights(array)
    assert (weights.dtype, weights.size, weights.nbytes) == (trt.DataType.HALF, 12, 24)
    assert weights.numpy() is array
    assert trt.Weights(trt.DataType.BF16, 4096, 10).nbytes == 20
    with pytest.raises(ValueError, match="float64"):
        trt.Weights(np.zeros(3))
    with pytest.raises(ValueError, match="non-contiguous"):
        trt.Weights(array[:, ::2])


def test_serialized_memory_has_its_bytes_and_nothing_else_of_bytes(parts: Parts, model: Path) -> None:
    plan = parts.build(model)
    assert bytes(plan) == bytes(memoryview(plan)) == np.frombuffer(plan, np.uint8).tobytes()
    assert plan.nbytes == len(bytes(plan))
    assert plan
    for use in (lambda: len(plan), lambda: plan[0], lambda: plan + b"", lambda: plan.hex()):
        with pytest.raises((TypeError, AttributeError)):
            use()


def test_it_is_imported_under_tensorrts_name(fake: TensorRT, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.install(monkeypatch)
    assert importlib.import_module("tensorrt").__version__ == fake.version
    plugin = importlib.import_module("tensorrt.plugin")
    fake.implement("plugin", "register", lambda plugin_id, lazy_register: lambda function: function)
    assert plugin.register("fye::scale")(len) is len
    with pytest.raises(TypeError, match="eager"):
        plugin.register("fye::scale", eager=True)
    with pytest.raises(NotImplementedError, match=r"plugin\.aot_impl"):
        plugin.aot_impl("fye::scale")
    with pytest.raises(AttributeError, match="jit_impl"):
        _ = plugin.jit_impl


# What it does


def test_a_network_has_the_graphs_inputs_and_outputs(trt: Any, parts: Parts, text: bytes, model: Path) -> None:
    assert parts.parser.parse(text, str(model))
    assert (parts.network.num_inputs, parts.network.num_outputs, parts.parser.num_errors) == (1, 2, 0)
    tensor = parts.network.get_input(0)
    assert (tensor.name, tuple(tensor.shape), tensor.dtype) == ("x", (1, -1, 4), trt.DataType.FLOAT)
    assert [parts.network.get_output(index).name for index in range(2)] == ["y", "z"]


def test_a_type_of_a_networks_tensor_is_assigned_in_10_only(fake: TensorRT, parts: Parts, model: Path) -> None:
    parts.parser.parse_from_file(str(model))
    tensor = parts.network.get_input(0)
    if fake.version.startswith("10."):
        tensor.dtype = fake.module.DataType.HALF
        assert tensor.dtype == fake.module.DataType.HALF
    else:
        with pytest.raises(AttributeError, match="dtype"):
            tensor.dtype = fake.module.DataType.HALF


def test_what_is_assigned_to_a_networks_tensor_is_built(fake: TensorRT, parts: Parts, model: Path) -> None:
    parts.parser.parse_from_file(str(model))
    parts.network.get_input(0).shape = (1, 8, 4)
    parts.network.get_output(0).name = "scaled"
    plan = fake.read_plan(parts.builder.build_serialized_network(parts.network, parts.config))  # no profile is needed
    assert plan is not None
    assert [(tensor["name"], tensor["shape"]) for tensor in plan["tensors"]] == [
        ("x", [1, 8, 4]),
        ("scaled", [1, "frames", 4]),
        ("z", [1, "frames", 4]),
    ]


def test_a_refused_graph_has_errors(fake: TensorRT, parts: Parts, model: Path) -> None:
    fake.refusals = ["no importer for Wavelet", "no importer for Curvelet"]
    assert not parts.parser.parse_from_file(str(model))
    errors = [parts.parser.get_error(index) for index in range(parts.parser.num_errors)]
    assert [error.desc() for error in errors] == fake.refusals
    assert errors[0].code() == fake.module.ErrorCode.UNSUPPORTED_NODE
    assert fake.messages == [("ERROR", text) for text in fake.refusals]


def test_a_graph_whose_weights_are_nowhere_is_refused(parts: Parts, text: bytes, tmp_path: Path) -> None:
    assert not parts.parser.parse(text)  # without a path there is no folder to look in
    (tmp_path / "weights").unlink()
    assert not parts.parser.parse(text, str(tmp_path / "model.onnx"))
    assert "cannot open weights" in parts.parser.get_error(0).desc()


def test_weights_may_be_given_to_the_parser(parts: Parts, text: bytes) -> None:
    scale = np.ones(4, np.float32)
    assert parts.parser.load_model_proto(text)
    assert not parts.parser.load_initializer("scale", scale.ctypes.data, 4)
    assert parts.parser.load_initializer("scale", scale.ctypes.data, scale.nbytes)
    assert parts.parser.parse_model_proto()


def test_what_is_no_onnx_file_is_refused(parts: Parts, tmp_path: Path) -> None:
    assert not parts.parser.parse(b"\xff\xff\xff\xff")
    assert not parts.parser.parse_from_file(str(tmp_path / "absent.onnx"))
    assert parts.parser.num_errors == 2
    parts.parser.clear_errors()
    assert parts.parser.num_errors == 0


def test_a_plan_says_what_it_was_built_from(fake: TensorRT, trt: Any, parts: Parts, model: Path) -> None:
    parts.config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 30)
    parts.config.builder_optimization_level = 5
    plan = fake.read_plan(parts.build(model, "REFIT", "STRIP_PLAN"))
    assert plan is not None
    assert plan["version"] == fake.version
    assert {"REFIT", "STRIP_PLAN"} <= set(plan["flags"])
    assert "STRONGLY_TYPED" in plan["network_flags"]
    assert plan["profiles"] == [{"x": [list(shape) for shape in SHAPES]}]
    assert plan["memory_pools"] == {"WORKSPACE": 1 << 30}
    assert plan["settings"]["builder_optimization_level"] == 5
    assert plan["weights"] == {"scale": ["FLOAT", 4]}


def test_the_same_build_gives_the_same_plan_and_another_graph_another(trt: Any, model: Path) -> None:
    plans = [bytes(Parts(trt).build(model)) for _ in range(2)]
    assert plans[0] == plans[1]
    changed = onnx.load(model, load_external_data=False)
    changed.graph.node[1].op_type = "Sub"
    model.write_bytes(changed.SerializeToString())
    assert bytes(Parts(trt).build(model)) != plans[0]


def test_a_dynamic_input_without_a_fitting_profile_is_not_built(trt: Any, model: Path) -> None:
    class Collecting(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.said: list[tuple[Any, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            self.said.append((severity, msg))

    logger = Collecting()
    builder = trt.Builder(logger)
    network, config = builder.create_network(), builder.create_builder_config()
    assert trt.OnnxParser(network, logger).parse_from_file(str(model))
    assert builder.build_serialized_network(network, config) is None
    assert logger.said == [(trt.Logger.ERROR, "x is dynamic, and there is no optimization profile")]
    assert Parts(trt).build(model, shapes=[(1, 2, 5), (1, 8, 5), (1, 24, 5)]) is None


def test_a_profile_whose_shapes_are_in_no_order_is_refused(parts: Parts) -> None:
    profile = parts.builder.create_optimization_profile()
    with pytest.raises(ValueError, match="inconsistent"):
        profile.set_shape("x", *reversed(SHAPES))
    profile.set_shape("x", *SHAPES)
    assert [tuple(shape) for shape in profile.get_shape("x")] == SHAPES


@pytest.mark.parametrize("last", [None, 0, 2])
def test_a_build_tells_its_progress_and_ends_when_told_to(
    trt: Any, parts: Parts, model: Path, last: int | None
) -> None:
    told: list[Any] = []

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            told.append(("start", phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            told.append(("step", phase_name, step))
            return step != last

        def phase_finish(self, phase_name: str) -> None:
            told.append(("finish", phase_name))

    parts.config.progress_monitor = Monitor()
    plan = parts.build(model)
    assert (plan is None) == (last is not None)
    assert told[:2] == [("start", "Building Engine", None, 3), ("start", "Tactic Selection", "Building Engine", 3)]
    assert told[-1] == ("finish", "Building Engine")
    assert sum(entry[0] == "step" for entry in told) == (6 if last is None else last + 1)


def test_a_build_ends_without_an_error_when_its_monitor_raises_one(fake: TensorRT, parts: Parts, model: Path) -> None:
    class Interrupted(fake.module.IProgressMonitor):  # type: ignore[misc,name-defined]
        def step_complete(self, phase_name: str, step: int) -> bool:
            raise KeyboardInterrupt

    parts.config.progress_monitor = Interrupted()
    assert parts.build(model) is None
    kinds = [type(error) for error in fake.swallowed]
    assert kinds.count(KeyboardInterrupt) == 1
    assert kinds.count(NotImplementedError) == 4  # the phases' starts and ends, which it does not override


def test_a_plan_of_another_version_or_a_damaged_one_is_not_opened(fake: TensorRT, parts: Parts, model: Path) -> None:
    data = bytes(parts.build(model))
    (other,) = [version for version in VERSIONS if not fake.version.startswith(version)]
    stranger = load(other).module
    assert stranger.Runtime(stranger.Logger()).deserialize_cuda_engine(data) is None
    runtime = fake.module.Runtime(parts.logger)
    assert runtime.deserialize_cuda_engine(data[:-1]) is None
    assert runtime.deserialize_cuda_engine(b"") is None
    assert runtime.deserialize_cuda_engine(data) is not None


def test_a_plan_is_opened_from_a_stream(trt: Any, parts: Parts, model: Path) -> None:
    left = [bytes(parts.build(model))]

    class Reader(trt.IStreamReaderV2):  # type: ignore[misc]
        def read(self, num_bytes: int, stream: int) -> bytes:
            data, left[0] = left[0][:num_bytes], left[0][num_bytes:]
            return data

        def seek(self, offset: int, where: Any) -> bool:
            return True

    engine = trt.Runtime(parts.logger).deserialize_cuda_engine(stream_reader_v2=Reader())
    assert engine.num_io_tensors == 3


def test_a_plan_is_written_to_a_stream(fake: TensorRT, trt: Any, parts: Parts, model: Path) -> None:
    written: list[bytes] = []

    class Writer(trt.IStreamWriter):  # type: ignore[misc]
        def write(self, data: bytes) -> int:
            written.append(data)
            return len(data)

    expected = bytes(parts.build(model))
    assert parts.builder.build_serialized_network_to_stream(parts.network, parts.config, Writer())
    assert b"".join(written) == expected


def test_an_engine_names_its_tensors(trt: Any, parts: Parts, model: Path) -> None:
    engine = parts.engine(model)
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    modes = [engine.get_tensor_mode(name) for name in names]
    assert (names, modes) == (["x", "y", "z"], [trt.TensorIOMode.INPUT] + [trt.TensorIOMode.OUTPUT] * 2)
    assert engine.get_tensor_dtype("y") == trt.DataType.FLOAT
    assert tuple(engine.get_tensor_shape("y")) == (1, -1, 4)
    assert [tuple(shape) for shape in engine.get_tensor_profile_shape("x", 0)] == SHAPES
    assert (engine.num_optimization_profiles, engine.refittable, engine.device_memory_size_v2) == (1, False, 1 << 20)


def test_a_run_computes_at_the_addresses_that_it_was_given(fake: TensorRT, parts: Parts, model: Path) -> None:
    x, y, z = (np.full((1, 8, 4), value, np.float32) for value in (3, 0, 0))
    context = parts.engine(model).create_execution_context()
    assert context.infer_shapes() == ["x"]
    assert context.set_input_shape("x", x.shape)
    assert context.infer_shapes() == []
    assert [tuple(context.get_tensor_shape(name)) for name in "xyz"] == [(1, 8, 4)] * 3
    for name, array in zip("xyz", (x, y, z), strict=True):
        assert context.set_tensor_address(name, array.ctypes.data)

    def compute(execution: Any) -> None:
        assert execution.addresses["x"] == x.ctypes.data
        y[:] = 2 * x

    fake.compute = compute
    assert context.execute_async_v3(stream_handle=77)
    assert np.all(y == 6)
    (execution,) = fake.executions
    assert (execution.stream, execution.shapes["z"]) == (77, (1, 8, 4))


def test_a_run_without_shapes_addresses_or_memory_fails_and_says_so(fake: TensorRT, parts: Parts, model: Path) -> None:
    engine = parts.engine(model)
    context = engine.create_execution_context(fake.module.ExecutionContextAllocationStrategy.USER_MANAGED)
    assert not context.set_input_shape("x", (1, 25, 4))  # the profile ends at 24
    assert not context.set_input_shape("x", (1, 8, 5))
    assert not context.set_input_shape("w", (1, 8, 4))
    assert not context.set_tensor_address("w", 256)
    for name in "xyz":
        context.set_tensor_address(name, 256)
    assert not context.execute_async_v3(0)
    assert "without a shape: ['x']" in fake.messages[-1][1]
    context.set_input_shape("x", [1, 8, 4])
    context.set_tensor_address("z", 0)
    assert not context.execute_async_v3(0)
    assert "without an address: ['z']" in fake.messages[-1][1]
    context.set_tensor_address("z", 256)
    assert not context.execute_async_v3(0)
    assert "device memory" in fake.messages[-1][1]
    context.set_device_memory(512, engine.device_memory_size_v2)
    assert context.execute_async_v3(0)
    assert not context.set_optimization_profile_async(1, 0)
    assert context.set_optimization_profile_async(0, 0)


def test_lengths_that_inputs_do_not_name_come_from_the_test(fake: TensorRT, parts: Parts, model: Path) -> None:
    changed = onnx.load(model, load_external_data=False)
    changed.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "doubled"
    model.write_bytes(changed.SerializeToString())
    context = parts.engine(model).create_execution_context()
    context.set_input_shape("x", (1, 8, 4))
    assert tuple(context.get_tensor_shape("y")) == (1, -1, 4)
    fake.sizes = lambda known: {"doubled": 2 * known["frames"]}
    assert tuple(context.get_tensor_shape("y")) == (1, 16, 4)


def test_one_symbol_has_one_length(parts: Parts, model: Path) -> None:
    changed = onnx.load(model, load_external_data=False)
    changed.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "frames"
    model.write_bytes(changed.SerializeToString())
    context = parts.engine(model).create_execution_context()
    context.set_input_shape("x", (1, 8, 4))
    with pytest.raises(RuntimeError, match="frames is 8"):
        context.infer_shapes()
    assert not context.execute_async_v3(0)


def test_a_stripped_engine_runs_once_it_has_its_weights(fake: TensorRT, trt: Any, parts: Parts, model: Path) -> None:
    engine = parts.engine(model, "REFIT", "STRIP_PLAN")
    context = engine.create_execution_context()
    context.set_input_shape("x", (1, 8, 4))
    for name in "xyz":
        context.set_tensor_address(name, 256)
    assert not context.execute_async_v3(0)
    refitter = trt.Refitter(engine, parts.logger)
    assert refitter.get_all_weights() == refitter.get_missing_weights() == ["scale"]
    assert not refitter.refit_cuda_engine()
    scale = np.arange(4, dtype=np.float32)
    assert not refitter.set_named_weights("scale", scale.astype(np.float16))
    assert not refitter.set_named_weights("shift", scale)
    assert refitter.get_weights_prototype("scale").size == 4
    assert refitter.set_named_weights("scale", scale)
    assert refitter.get_missing_weights() == []
    assert refitter.refit_cuda_engine()
    assert context.execute_async_v3(0)
    assert fake.executions[-1].weights["scale"].numpy() is scale


def test_an_engine_is_refitted_from_a_file(trt: Any, parts: Parts, model: Path) -> None:
    engine = parts.engine(model, "REFIT_IDENTICAL", "STRIP_PLAN")
    refitter = trt.Refitter(engine, parts.logger)
    assert trt.OnnxParserRefitter(refitter, parts.logger).refit_from_file(str(model))
    assert refitter.refit_cuda_engine()
    assert np.array_equal(refitter.get_named_weights("scale").numpy(), np.ones(4, np.float32))


def test_an_engine_that_was_not_built_for_it_is_not_refitted(trt: Any, parts: Parts, model: Path) -> None:
    with pytest.raises(TypeError, match="nullptr"):
        trt.Refitter(parts.engine(model), parts.logger)


def test_a_refitted_engine_is_serialized_with_its_weights_unless_told_otherwise(
    fake: TensorRT, trt: Any, parts: Parts, model: Path
) -> None:
    engine = parts.engine(model, "REFIT", "STRIP_PLAN")

    def is_stripped(data: Any) -> bool:
        plan = fake.read_plan(data)
        assert plan is not None
        return bool(plan["stripped"])

    assert is_stripped(engine.serialize())
    refitter = trt.Refitter(engine, parts.logger)
    refitter.set_named_weights("scale", np.ones(4, np.float32))
    refitter.refit_cuda_engine()
    assert not is_stripped(engine.serialize())
    config = engine.create_serialization_config()
    assert config.set_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    assert is_stripped(engine.serialize_with_config(config))


def test_a_timing_cache_grows_with_what_is_built_and_outlives_its_builder(
    fake: TensorRT, trt: Any, parts: Parts, model: Path
) -> None:
    cache = parts.config.create_timing_cache(b"")
    empty = bytes(cache.serialize())
    assert parts.config.get_timing_cache() is None
    assert parts.config.set_timing_cache(cache, ignore_mismatch=False)
    parts.build(model)
    grown = bytes(parts.config.get_timing_cache().serialize())
    assert grown != empty
    config = Parts(trt).config
    read = config.create_timing_cache(grown)
    assert read.combine(config.create_timing_cache(empty), False)
    assert bytes(read.serialize()) == grown
    assert config.create_timing_cache(grown[:-1]) is None
    fake.device = "another GPU"
    assert not config.set_timing_cache(read, False)
    assert config.set_timing_cache(read, True)


def test_flags_are_set_and_cleared_one_by_one(trt: Any, parts: Parts) -> None:
    flags = trt.BuilderFlag
    assert parts.config.get_flag(flags.TF32)
    parts.config.clear_flag(flags.TF32)
    parts.config.set_flag(flags.REFIT)
    assert parts.config.flags == 1 << int(flags.REFIT)
    assert (parts.config.get_flag(flags.TF32), parts.config.get_flag(flags.REFIT)) == (False, True)
    parts.parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)
    assert parts.parser.get_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)


def test_bits_of_no_flag_are_refused(parts: Parts) -> None:
    with pytest.raises(AssertionError, match="NetworkDefinitionCreationFlag"):
        parts.builder.create_network(1 << 9)


# What is recorded


class Documented:
    """As pybind11 makes methods: all that is known of them is their text."""

    def __init__(self, name: str, text: str) -> None:
        self.__name__ = name
        self.__doc__ = text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "f(self: tensorrt_bindings.tensorrt.Builder, flags: typing.SupportsInt = 0) -> bool\n\n :arg flags: f",
            ["(flags: SupportsInt = 0) -> bool"],
        ),
        (
            "f(*args, **kwargs)\nOverloaded function.\n\n1. f(self: t.C, a: str) -> None\n\n\n2. f(self: t.C, arg0: "
            "list[int], arg1: str) -> nvinfer1::v_1_0::IBuilder\n",
            ["(a: str) -> None", "(arg0: list[int], arg1: str, /) -> Builder"],
        ),
        ("f(self: t.C, mode: E = <E.STATIC: 0>) -> None\n", ["(mode: E = E.STATIC) -> None"]),
        (
            "f(self: t.C, a: int = None, b: int) -> None\n",
            ["(a: int, b: int) -> None", "(a: int = None, *, b: int) -> None"],
        ),
        ("f(self: t.C, in: str) -> None\n", ["(in_: str) -> None"]),
    ],
)
def test_pybind11s_text_becomes_pythons_signatures(text: str, expected: list[str]) -> None:
    assert record_tensorrt.signatures(Documented("f", text), {"Builder": object}, bound=True) == expected


def test_a_method_whose_text_has_no_signature_is_not_recorded_as_taking_anything() -> None:
    with pytest.raises(ValueError, match="no signature"):
        record_tensorrt.signatures(Documented("f", "Does something."), {}, bound=True)


def test_callbacks_of_classes_to_be_subclassed_are_recorded(fake: TensorRT) -> None:
    classes = fake.record["classes"]
    assert classes["IStreamReaderV2"]["callbacks"]["read"] == ["(num_bytes: int, stream: int) -> bytes"]
    assert "notify_shape" in classes["IOutputAllocator"]["callbacks"]
    assert classes["IProgressMonitor"]["methods"]["step_complete"] == ["(phase_name: str, step: SupportsInt) -> bool"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_record_is_as_it_was_written(version: str) -> None:
    text = (fake_tensorrt.RECORDS / f"{version}.json").read_text()
    record = json.loads(text)
    assert record_tensorrt.dump(record) + "\n" == text
    assert record["version"].startswith(version)
    assert record["version"] in record["wheel"]
