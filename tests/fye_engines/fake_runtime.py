"""How the fake `tensorrt` opens, refits and runs plans; see fake_build.py."""

import ctypes
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from tests.fye_engines.fake_build import BYTES, MEMORY, TYPES, Plan, fits, lengths_of

if TYPE_CHECKING:
    from tests.fye_engines.fake_behaviour import TensorRT

CHUNK = 1 << 16  # bytes asked of a stream at once


@dataclass(frozen=True, slots=True)
class Execution:
    """A run of an engine.

    Attributes:
        plan: what it was built from.
        shapes: of inputs and outputs by name; -1 where only TensorRT would know a length.
        addresses: of inputs and outputs by name.
        stream: handle.
        weights: what it was refitted with, `Weights` by name.
    """

    plan: Plan
    shapes: dict[str, tuple[int, ...]]
    addresses: dict[str, int]
    stream: int
    weights: dict[str, Any]


def add_engine(fake: "TensorRT") -> None:
    def deserialize(
        this: Any, serialized_engine: Any = None, stream_reader: Any = None, stream_reader_v2: Any = None
    ) -> Any:
        if stream_reader_v2 is not None:
            fake.call_back(stream_reader_v2, "seek", 0, fake.module.SeekPosition.SET)
            serialized_engine = read(stream_reader_v2, CHUNK, 0)
        elif stream_reader is not None:
            serialized_engine = read(stream_reader, CHUNK)
        plan = fake.read_plan(serialized_engine)
        if plan is None:
            fake.say(this, "the plan is not one of this version, or damaged")
            return None
        weights = sum(math.ceil(count * BYTES.get(kind, 1)) for kind, count in plan["weights"].values())
        return fake.new(
            "ICudaEngine",
            logger=this.logger,
            plan=plan,
            refitted={},
            name="Unnamed Network 0",
            num_io_tensors=len(plan["tensors"]),
            num_layers=plan["layers"],
            num_optimization_profiles=max(1, len(plan["profiles"])),
            refittable=plan["refittable"],
            device_memory_size=MEMORY,
            device_memory_size_v2=MEMORY,
            num_aux_streams=0,
            streamable_weights_size=weights if "WEIGHT_STREAMING" in plan["flags"] else 0,
            weight_streaming_budget=0,
            weight_streaming_budget_v2=0,
            weight_streaming_scratch_memory_size=0,
            profiling_verbosity=fake.member("ProfilingVerbosity", plan["settings"]["profiling_verbosity"]),
        )

    def read(reader: Any, *arguments: int) -> bytes:
        return b"".join(iter(lambda: fake.call_back(reader, "read", *arguments) or b"", b""))

    def tensor(this: Any, name: str) -> dict[str, Any]:
        found = [each for each in fake.state(this)["plan"]["tensors"] if each["name"] == name]
        assert found, f"the engine has no tensor {name}"
        return dict(found[0])

    def profile_shape(this: Any, name: str, profile_index: int) -> list[Any]:
        found: list[Any] = fake.state(this)["plan"]["profiles"][profile_index].get(
            name, [lengths_of(tensor(this, name))] * 3
        )
        return [tuple(shape) for shape in found]

    def serialize(this: Any, arg0: Any = None) -> Any:
        flags = fake.names("SerializationFlag", arg0.flags if arg0 is not None else 0)
        state = fake.state(this)
        stripped = "EXCLUDE_WEIGHTS" in flags or (state["plan"]["stripped"] and not state["refitted"])
        return fake.write_plan(state["plan"] | {"stripped": stripped})

    fake.implement("Runtime", "deserialize_cuda_engine", deserialize)
    fake.does(
        "ICudaEngine",
        get_tensor_name=lambda this, index: fake.state(this)["plan"]["tensors"][index]["name"],
        get_tensor_mode=lambda this, name: fake.member("TensorIOMode", tensor(this, name)["mode"]),
        get_tensor_dtype=lambda this, name: fake.member("DataType", tensor(this, name)["dtype"]),
        get_tensor_shape=lambda this, name: lengths_of(tensor(this, name)),
        get_tensor_format=lambda this, name, profile_index=0: fake.module.TensorFormat.LINEAR,
        get_tensor_location=lambda this, name: fake.module.TensorLocation.DEVICE,
        get_tensor_profile_shape=profile_shape,
        get_device_memory_size_for_profile_v2=lambda this, profile_index: MEMORY,
        get_weight_streaming_automatic_budget=lambda this: this.streamable_weights_size // 2,
        is_shape_inference_io=lambda this, name: False,
        serialize=serialize,
        serialize_with_config=serialize,
        create_serialization_config=lambda this: fake.new("ISerializationConfig", flags=0),
    )


def add_context(fake: "TensorRT") -> None:
    strategies = fake.module.ExecutionContextAllocationStrategy

    def create(this: Any, strategy: Any = None, runtime_config: Any = None) -> Any:
        if runtime_config is not None:
            strategy = runtime_config.get_execution_context_allocation_strategy()
        return fake.new(
            "IExecutionContext",
            engine=this,
            logger=fake.state(this)["logger"],
            active_optimization_profile=0,
            shapes={},
            addresses={},
            memory=0 if strategy == strategies.USER_MANAGED else MEMORY,
            name="",
            debug_sync=False,
            enqueue_emits_profile=True,
            persistent_cache_limit=0,
        )

    def set_strategy(this: Any, strategy: Any) -> None:
        fake.state(this)["strategy"] = strategy

    def plan(this: Any) -> Plan:
        found: Plan = fake.state(this.engine)["plan"]
        return found

    def set_profile(this: Any, profile_index: int, stream_handle: int) -> bool:
        if not 0 <= profile_index < this.engine.num_optimization_profiles:
            fake.say(this, f"there is no optimization profile {profile_index}")
            return False
        fake.state(this).update(active_optimization_profile=profile_index, shapes={})
        return True

    def set_shape(this: Any, name: str, shape: Any) -> bool:
        given = tuple(int(length) for length in shape)
        inputs = {each["name"]: lengths_of(each) for each in plan(this)["tensors"] if each["mode"] == "INPUT"}
        profiles = plan(this)["profiles"]
        bounds = profiles[this.active_optimization_profile].get(name) if profiles else None
        good = name in inputs and fits(inputs[name], given)
        if bounds and good:
            good = all(low <= length <= high for low, length, high in zip(bounds[0], given, bounds[2], strict=True))
        if not good:
            fake.say(this, f"{name} cannot have the shape {given}: {bounds or inputs.get(name)}")
            return False
        fake.state(this)["shapes"][name] = given
        return True

    def missing(this: Any) -> list[str]:
        given = fake.state(this)["shapes"]
        inputs = [each for each in plan(this)["tensors"] if each["mode"] == "INPUT"]
        return [each["name"] for each in inputs if -1 in lengths_of(each) and each["name"] not in given]

    def infer(this: Any) -> list[str]:
        shapes(this)
        return missing(this)

    def shapes(this: Any) -> dict[str, tuple[int, ...]]:
        """Of all tensors, as far as the inputs' are known. RuntimeError: a symbol has two lengths."""
        given = fake.state(this)["shapes"]
        known: dict[str, int] = {}
        for tensor in plan(this)["tensors"]:
            for symbol, length in zip(tensor["shape"], given.get(tensor["name"], ()), strict=False):
                if isinstance(symbol, str) and known.setdefault(symbol, length) != length:
                    raise RuntimeError(f"{tensor['name']}: {symbol} is {length}, and {known[symbol]} elsewhere")
        known |= fake.sizes(dict(known))
        tensors = plan(this)["tensors"]
        return {each["name"]: given.get(each["name"], lengths_of(each, known)) for each in tensors}

    def set_address(this: Any, name: str, memory: int) -> bool:
        if name not in {each["name"] for each in plan(this)["tensors"]}:
            fake.say(this, f"there is no tensor {name}")
            return False
        fake.state(this)["addresses"][name] = memory
        return True

    def obstacle(this: Any) -> str:
        """Why a run is impossible, or ""."""
        state = fake.state(this)
        if plan(this)["stripped"] and not fake.state(this.engine)["refitted"]:
            return "the plan was stripped of its weights, and the engine was not refitted"
        if missing(this):
            return f"without a shape: {missing(this)}"
        try:
            unset = [name for name in shapes(this) if not state["addresses"].get(name)]
        except RuntimeError as error:
            return str(error)
        if unset:
            return f"without an address: {unset}"
        if state["memory"] < MEMORY and not state.get("device_memory"):
            return f"the context needs {MEMORY} bytes of device memory"
        return ""

    def execute(this: Any, stream_handle: int) -> bool:
        if problem := obstacle(this):
            fake.say(this, problem)
            return False
        weights = dict(fake.state(this.engine)["refitted"])
        addresses = dict(fake.state(this)["addresses"])
        execution = Execution(plan(this), shapes(this), addresses, stream_handle, weights)
        fake.executions.append(execution)
        fake.compute(execution)
        return True

    fake.does(
        "ICudaEngine",
        create_execution_context=create,
        create_runtime_config=lambda this: fake.new("IRuntimeConfig", strategy=strategies.STATIC),
    )
    if fake.has("ICudaEngine", "create_execution_context_without_device_memory"):
        fake.implement(
            "ICudaEngine",
            "create_execution_context_without_device_memory",
            lambda this: create(this, strategies.USER_MANAGED),
        )
    fake.does(
        "IRuntimeConfig",
        set_execution_context_allocation_strategy=set_strategy,
        get_execution_context_allocation_strategy=lambda this: fake.state(this)["strategy"],
    )
    fake.does(
        "IExecutionContext",
        set_optimization_profile_async=set_profile,
        set_input_shape=set_shape,
        get_tensor_shape=lambda this, name: shapes(this)[name],
        infer_shapes=infer,
        all_binding_shapes_specified=lambda this: not missing(this),
        set_tensor_address=set_address,
        get_tensor_address=lambda this, name: fake.state(this)["addresses"].get(name, 0),
        set_device_memory=lambda this, memory, size: fake.state(this).update(memory=size),
        update_device_memory_size_for_shapes=lambda this: MEMORY,
        execute_async_v3=execute,
    )


def add_refit(fake: "TensorRT") -> None:
    def make(this: Any, engine: Any, logger: Any) -> None:
        if not engine.refittable:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        fake.state(this).update(engine=engine, logger=logger, weights={}, weights_validation=True, max_threads=1)

    def known(this: Any) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = fake.state(fake.state(this)["engine"])["plan"]["weights"]
        return found

    def set_weights(this: Any, name: str, weights: Any, location: Any = None) -> bool:
        if known(this).get(name) != [weights.dtype.name, weights.size]:
            fake.say(this, f"{name} has {known(this).get(name)}, not {[weights.dtype.name, weights.size]}")
            return False
        fake.state(this)["weights"][name] = weights
        return True

    def unset(this: Any, weights_name: str) -> bool:
        return fake.state(this)["weights"].pop(weights_name, None) is not None

    def missing(this: Any) -> list[str]:
        engine = fake.state(fake.state(this)["engine"])
        supplied = engine["refitted"].keys() | fake.state(this)["weights"].keys()
        return sorted(known(this).keys() - supplied) if engine["plan"]["stripped"] else []

    def refit(this: Any, stream_handle: int = 0) -> bool:
        if missing(this):
            fake.say(this, f"without weights: {missing(this)}")
            return False
        fake.state(fake.state(this)["engine"])["refitted"].update(fake.state(this)["weights"])
        return True

    def prototype(this: Any, weights_name: str) -> Any:
        kind, count = known(this).get(weights_name, ["FLOAT", -1])
        return fake.new("Weights", dtype=fake.member("DataType", kind), size=count, pointer=0, array=None)

    fake.does(
        "Refitter",
        __init__=make,
        get_all_weights=lambda this: sorted(known(this)),
        get_missing_weights=missing,
        get_weights_prototype=prototype,
        set_named_weights=set_weights,
        unset_named_weights=unset,
        get_named_weights=lambda this, weights_name: fake.state(this)["weights"][weights_name],
        refit_cuda_engine=refit,
        refit_cuda_engine_async=refit,
    )

    def refit_from_file(this: Any, model: str) -> bool:
        return refit_from(this, Path(model).read_bytes(), model)

    def refit_from(this: Any, model: Any, path: str | None = None) -> bool:
        refitter = fake.state(this)["refitter"]
        found = {}
        for each in onnx.load_model_from_string(bytes(model)).graph.initializer:
            array = numpy_helper.to_array(each, str(Path(path).parent) if path else "")
            kind = fake.member("DataType", TYPES[each.data_type])
            found[each.name] = fake.new("Weights", dtype=kind, size=array.size, pointer=0, array=array)
        return all([set_weights(refitter, name, found[name]) for name in known(refitter) if name in found])

    def load_model(this: Any, model: Any, path: str | None = None) -> bool:
        stored = onnx.load_model_from_string(bytes(model)).graph.initializer
        fake.state(this).update(stored={each.name: each for each in stored}, given={})
        return True

    def load_initializer(this: Any, name: str, data: int, size: int) -> bool:
        each = fake.state(this)["stored"].get(name)
        if each is None or math.prod(each.dims) * BYTES.get(TYPES[each.data_type], 1) != size:
            return False
        fake.state(this)["given"][name] = np.array((ctypes.c_uint8 * size).from_address(data))
        return True

    def refit_model(this: Any) -> bool:
        refitter, given = fake.state(this)["refitter"], fake.state(this)["given"]
        for name, each in fake.state(this)["stored"].items():
            if name in known(refitter):
                raw = given.get(name)
                if raw is None and each.external_data:
                    return False
                array = numpy_helper.to_array(each) if raw is None else raw
                kind = fake.member("DataType", TYPES[each.data_type])
                weights = fake.new("Weights", dtype=kind, size=math.prod(each.dims), pointer=0, array=array)
                if not set_weights(refitter, name, weights):
                    return False
        return True

    fake.does("OnnxParserRefitter", refit_from_file=refit_from_file, refit_from_bytes=refit_from)
    fake.does("OnnxParserRefitter", load_model_proto=load_model, load_initializer=load_initializer)
    fake.does("OnnxParserRefitter", refit_model_proto=refit_model, num_errors=lambda this: 0)
