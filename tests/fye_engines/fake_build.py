"""How the fake `tensorrt` builds: its values, configurations, networks, ONNX parser and builder.

Each function gives a fake its part of what TensorRT does.
"""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

if TYPE_CHECKING:
    from tests.fye_engines.fake_behaviour import TensorRT

TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT8: "INT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.UINT8: "UINT8",
    TensorProto.BOOL: "BOOL",
}
NUMPY = {"FLOAT": "f4", "HALF": "f2", "INT8": "i1", "INT32": "i4", "INT64": "i8", "UINT8": "u1", "BOOL": "?"}
BYTES = {"FLOAT": 4, "INT32": 4, "HALF": 2, "BF16": 2, "INT64": 8, "INT4": 0.5, "FP4": 0.5}  # the others have one
REFITTABLE = {"REFIT", "REFIT_IDENTICAL", "REFIT_INDIVIDUAL", "STRIP_PLAN"}
MEMORY = 1 << 20  # bytes that every engine needs to run
PHASES = ("Building Engine", "Tactic Selection")  # the second in the course of the first
STEPS = 3
CACHE = b"a timing cache of the fake TensorRT "

Plan = dict[str, Any]


def add_module(fake: "TensorRT") -> None:
    def nptype(trt_type: Any) -> type:
        if trt_type.name not in NUMPY:
            raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
        return np.dtype(NUMPY[trt_type.name]).type

    fake.implement("", "nptype", nptype)
    fake.implement("", "volume", lambda iterable: math.prod(iterable))
    fake.implement("", "init_libnvinfer_plugins", lambda logger, namespace: True)
    fake.implement("ILogger", "__enter__", lambda this: this)
    fake.implement("Logger", "log", lambda this, severity, msg: None)
    fake.implement("DataType", "itemsize", lambda this: BYTES.get(this.name, 1))
    fake.implement("IHostMemory", "nbytes", lambda this: memoryview(this).nbytes)


def add_values(fake: "TensorRT") -> None:
    def lengths(this: Any) -> list[int]:
        found: list[int] = fake.state(this)["lengths"]
        return found

    def make_dims(this: Any, **given: Any) -> None:
        fake.state(this)["lengths"] = [int(length) for length in given.get("shape", given.values())]

    def get(this: Any, arg0: int | slice) -> int | tuple[int, ...]:
        return tuple(lengths(this)[arg0]) if isinstance(arg0, slice) else lengths(this)[arg0]

    fake.does(
        "Dims",
        __init__=make_dims,
        __len__=lambda this: len(lengths(this)),
        __getitem__=get,
        __setitem__=lambda this, arg0, arg1: lengths(this).__setitem__(arg0, arg1),
        __eq__=lambda this, arg0: lengths(this) == list(arg0),
        __repr__=lambda this: str(tuple(lengths(this))),
        __str__=lambda this: str(tuple(lengths(this))),
    )

    def make_weights(this: Any, type: Any = None, ptr: int = 0, count: int = 0, a: Any = None) -> None:
        if a is not None:
            names = [name for name, code in NUMPY.items() if np.dtype(code) == a.dtype]
            if not names:
                raise ValueError(f"Could not implicitly convert NumPy data type: {a.dtype} to TensorRT.")
            if not a.flags.c_contiguous:
                raise ValueError("Could not convert non-contiguous NumPy array to Weights.")
            type, count = fake.member("DataType", names[0]), a.size
        fake.state(this).update(dtype=type, size=count, pointer=ptr, array=a)

    fake.does(
        "Weights",
        __init__=make_weights,
        __len__=lambda this: this.size,
        nbytes=lambda this: math.ceil(this.size * this.dtype.itemsize),
        numpy=lambda this: fake.state(this)["array"],
    )


def add_flags(fake: "TensorRT") -> None:
    def change(this: Any, flag: Any, *, on: bool) -> bool | None:
        state, bit = fake.state(this), 1 << int(flag)
        state["flags"] = state["flags"] | bit if on else state["flags"] & ~bit
        return True if type(this).__name__ == "ISerializationConfig" else None

    for owner in ("IBuilderConfig", "OnnxParser", "ISerializationConfig"):
        fake.implement(owner, "set_flag", lambda this, flag: change(this, flag, on=True))
        fake.implement(owner, "clear_flag", lambda this, flag: change(this, flag, on=False))
    for owner in ("IBuilderConfig", "OnnxParser", "ISerializationConfig", "INetworkDefinition"):
        fake.implement(owner, "get_flag", lambda this, flag: bool(this.flags >> int(flag) & 1))


def add_configuration(fake: "TensorRT") -> None:
    def create_config(this: Any) -> Any:
        return fake.new(
            "IBuilderConfig",
            logger=this.logger,
            flags=1 << int(fake.module.BuilderFlag.TF32),
            profiles=[],
            pools={},
            features={},
            timing_cache=None,
            progress_monitor=None,
            builder_optimization_level=3,
            avg_timing_iterations=1,
            max_aux_streams=-1,
            max_num_tactics=-1,
            l2_limit_for_tiling=-1,
            plugins_to_serialize=[],
            tactic_sources=sum(1 << int(source) for source in fake.module.TacticSource.__members__.values()),
            engine_capability=fake.module.EngineCapability.STANDARD,
            hardware_compatibility_level=fake.module.HardwareCompatibilityLevel.NONE,
            profiling_verbosity=fake.module.ProfilingVerbosity.LAYER_NAMES_ONLY,
            runtime_platform=fake.module.RuntimePlatform.SAME_AS_BUILD,
            tiling_optimization_level=fake.module.TilingOptimizationLevel.NONE,
        )

    def set_shape(this: Any, input: str, min: Any, opt: Any, max: Any) -> None:
        shapes = [tuple(shape) for shape in (min, opt, max)]
        if len(set(map(len, shapes))) > 1 or not all(a <= b <= c for a, b, c in zip(*shapes, strict=True)):
            raise ValueError(f"Shape provided for {input} is inconsistent with other shapes.")
        fake.state(this)["shapes"][input] = shapes

    def add_profile(this: Any, profile: Any) -> int:
        profiles = fake.state(this)["profiles"]
        profiles.append(dict(fake.state(profile)["shapes"]))
        return len(profiles) - 1

    def set_pool(this: Any, pool: Any, pool_size: int) -> None:
        fake.state(this)["pools"][pool.name] = pool_size

    def set_feature(this: Any, feature: Any, enable: bool) -> None:
        fake.state(this)["features"][feature.name] = enable

    def set_sources(this: Any, tactic_sources: int) -> bool:
        fake.names("TacticSource", tactic_sources)
        fake.state(this)["tactic_sources"] = tactic_sources
        return True

    def create_cache(this: Any, serialized_timing_cache: Any) -> Any:
        data = bytes(serialized_timing_cache)
        content = fake.unpack(CACHE, data) if data else {"device": fake.device, "entries": []}
        if content is None:
            fake.say(this, "the timing cache is not one of this version")
            return None
        return fake.new("ITimingCache", **content)

    def set_cache(this: Any, cache: Any, ignore_mismatch: bool) -> bool:
        if fake.state(cache)["device"] != fake.device and not ignore_mismatch:
            fake.say(this, "the timing cache was measured on another device")
            return False
        fake.state(this)["timing_cache"] = cache
        return True

    def combine(this: Any, input_cache: Any, ignore_mismatch: bool) -> bool:
        mine, its = fake.state(this), fake.state(input_cache)
        if mine["device"] != its["device"] and not ignore_mismatch:
            return False
        mine["entries"] = sorted({*mine["entries"], *its["entries"]})
        return True

    def reset(this: Any) -> bool:
        fake.state(this)["entries"] = []
        return True

    fake.does(
        "Builder",
        create_builder_config=create_config,
        create_optimization_profile=lambda this: fake.new("IOptimizationProfile", shapes={}, extra_memory_target=1.0),
    )
    fake.does(
        "IOptimizationProfile",
        set_shape=set_shape,
        get_shape=lambda this, input: fake.state(this)["shapes"].get(input, []),
        __bool__=lambda this: True,
    )
    fake.does(
        "IBuilderConfig",
        add_optimization_profile=add_profile,
        num_optimization_profiles=lambda this: len(fake.state(this)["profiles"]),
        set_memory_pool_limit=set_pool,
        get_memory_pool_limit=lambda this, pool: fake.state(this)["pools"].get(pool.name, 1 << 34),
        set_preview_feature=set_feature,
        get_preview_feature=lambda this, feature: fake.state(this)["features"].get(feature.name, False),
        set_tactic_sources=set_sources,
        get_tactic_sources=lambda this: fake.state(this)["tactic_sources"],
        create_timing_cache=create_cache,
        set_timing_cache=set_cache,
        get_timing_cache=lambda this: fake.state(this)["timing_cache"],
    )
    fake.does(
        "ITimingCache",
        serialize=lambda this: fake.pack(CACHE, fake.state(this)),
        combine=combine,
        reset=reset,
    )


def add_network(fake: "TensorRT") -> None:
    def create_network(this: Any, flags: int) -> Any:
        fake.names("NetworkDefinitionCreationFlag", flags)
        state = {"builder": this, "flags": flags, "name": "Unnamed Network 0", "num_layers": 0}
        return fake.new("INetworkDefinition", **state, onnx=None, tensors=[], inputs=[], outputs=[], weights={})

    fake.implement("Builder", "create_network", create_network)
    for kind in ("input", "output"):
        counted = f"{kind}s"
        fake.implement("INetworkDefinition", f"num_{counted}", lambda this, each=counted: len(fake.state(this)[each]))
        fake.implement(
            "INetworkDefinition", f"get_{kind}", lambda this, index, each=counted: fake.state(this)[each][index]
        )


def add_parser(fake: "TensorRT") -> None:
    def make(this: Any, network: Any, logger: Any) -> None:
        fake.state(this).update(network=network, logger=logger, flags=0, errors=[], model=None, given={})

    def refuse(this: Any, text: str, code: str = "UNSUPPORTED_NODE") -> bool:
        error = fake.new("ParserError", desc=text, code=fake.member("ErrorCode", code), node=0)
        fake.state(this)["errors"].append(error)
        fake.say(this, text)
        return False

    def parse(this: Any, model: Any, path: str | None = None) -> bool:
        return load_model(this, model, path) and convert(this)

    def parse_file(this: Any, model: str) -> bool:
        if not Path(model).is_file():
            return refuse(this, f"cannot open {model}", "MODEL_DESERIALIZE_FAILED")
        return parse(this, Path(model).read_bytes(), model)

    def load_model(this: Any, model: Any, path: str | None = None) -> bool:
        data = bytes(model)
        try:
            graph = onnx.load_model_from_string(data).graph
        except DecodeError:
            return refuse(this, "this is no ONNX model", "MODEL_DESERIALIZE_FAILED")
        digest = hashlib.sha256(data).hexdigest()
        fake.state(this)["model"] = (graph, digest, Path(path).parent if path else None)
        return True

    def load_initializer(this: Any, name: str, data: int, size: int) -> bool:
        graph = fake.state(this)["model"][0]
        sizes = {each.name: math.prod(each.dims) * BYTES.get(TYPES[each.data_type], 1) for each in graph.initializer}
        if sizes.get(name) != size:
            return False
        fake.state(this)["given"][name] = data
        return True

    def convert(this: Any) -> bool:
        graph, digest, folder = fake.state(this)["model"]
        given = fake.state(this)["given"]
        for text in fake.refusals:
            refuse(this, text)
        for each in graph.initializer:
            where = {entry.key: entry.value for entry in each.external_data}.get("location")
            if where and each.name not in given and not (folder and (folder / where).is_file()):
                refuse(this, f"{each.name}: cannot open {where}", "MODEL_DESERIALIZE_FAILED")
        stored = {each.name for each in graph.initializer}
        tensors = [describe(each, "INPUT") for each in graph.input if each.name not in stored]
        tensors += [describe(each, "OUTPUT") for each in graph.output]
        for tensor in tensors:
            if tensor["dtype"] is None:
                refuse(this, f"{tensor['name']} has a type that TensorRT lacks", "UNSUPPORTED_NODE_DATATYPE")
        if fake.state(this)["errors"]:
            return False
        state = fake.state(fake.state(this)["network"])
        weights = {each.name: [TYPES.get(each.data_type), math.prod(each.dims)] for each in graph.initializer}
        state.update(onnx=digest, tensors=tensors, weights=weights, num_layers=len(graph.node))
        for tensor in tensors:
            kind = tensor["mode"].lower()
            state[f"{kind}s"].append(
                fake.new(
                    "ITensor",
                    name=tensor["name"],
                    shape=lengths_of(tensor),
                    dtype=fake.member("DataType", tensor["dtype"]),
                    location=fake.module.TensorLocation.DEVICE,
                    is_network_input=kind == "input",
                    is_network_output=kind == "output",
                    is_shape_tensor=False,
                )
            )
        return True

    fake.does(
        "OnnxParser",
        __init__=make,
        parse=parse,
        parse_from_file=parse_file,
        load_model_proto=load_model,
        load_initializer=load_initializer,
        parse_model_proto=convert,
        supports_operator=lambda this, op_name: onnx.defs.has(op_name),
        num_errors=lambda this: len(fake.state(this)["errors"]),
        get_error=lambda this, index: fake.state(this)["errors"][index],
        clear_errors=lambda this: fake.state(this)["errors"].clear(),
    )
    fake.does(
        "ParserError",
        desc=lambda this: fake.state(this)["desc"],
        code=lambda this: fake.state(this)["code"],
        node=lambda this: fake.state(this)["node"],
        __str__=lambda this: fake.state(this)["desc"],
        __repr__=lambda this: fake.state(this)["desc"],
    )


def describe(value: Any, mode: str) -> dict[str, Any]:
    """An input or output of an ONNX graph; a length is a number, a symbol or, if only TensorRT would know it, -1."""
    kind = value.type.tensor_type
    shape = [each.dim_param or (each.dim_value if each.HasField("dim_value") else -1) for each in kind.shape.dim]
    return {"name": value.name, "mode": mode, "dtype": TYPES.get(kind.elem_type), "shape": shape}


def lengths_of(tensor: dict[str, Any], sizes: Mapping[str, int] | None = None) -> tuple[int, ...]:
    known = sizes or {}
    return tuple(known.get(length, -1) if isinstance(length, str) else length for length in tensor["shape"])


def add_build(fake: "TensorRT") -> None:
    def build(this: Any, network: Any, config: Any, kernel_text: Any = None) -> Any:
        tensors = current(network)
        problem = _problem(tensors, fake.state(config)["profiles"])
        if problem:
            fake.say(this, problem)
            return None
        if config.progress_monitor is not None and not progress(config.progress_monitor):
            return None
        flags = fake.names("BuilderFlag", config.flags)
        source = fake.state(network)
        plan = {
            "version": fake.version,
            "onnx": source["onnx"],
            "network_flags": fake.names("NetworkDefinitionCreationFlag", network.flags),
            "flags": flags,
            "settings": settings(config),
            "memory_pools": fake.state(config)["pools"],
            "preview_features": fake.state(config)["features"],
            "profiles": fake.state(config)["profiles"],
            "tensors": tensors,
            "weights": source["weights"],
            "layers": source["num_layers"],
            "refittable": bool(REFITTABLE & set(flags)),
            "stripped": "STRIP_PLAN" in flags,
        }
        if config.get_timing_cache() is not None:
            cache = fake.state(config.get_timing_cache())
            cache["entries"] = sorted({*cache["entries"], source["onnx"]})
        return fake.write_plan(plan)

    def current(network: Any) -> list[dict[str, Any]]:
        """The network's inputs and outputs, with what was assigned to them since the graph was parsed."""
        held = fake.state(network)
        found = []
        for tensor, made in zip(held["tensors"], held["inputs"] + held["outputs"], strict=True):
            shape = tensor["shape"] if tuple(made.shape) == lengths_of(tensor) else list(made.shape)
            found.append(tensor | {"name": made.name, "dtype": made.dtype.name, "shape": shape})
        return found

    def settings(config: Any) -> dict[str, Any]:
        """What was assigned to the configuration's properties, or stood there."""
        held = fake.state(config)
        names = fake.record["classes"]["IBuilderConfig"]["properties"].keys() & held.keys() - {"flags"}
        values = {name: getattr(held[name], "name", held[name]) for name in names}
        return {name: value for name, value in values.items() if isinstance(value, bool | int | float | str | list)}

    def progress(monitor: Any) -> bool:
        """Whether the monitor lets the build go on to its end."""

        def steps(phase: str) -> bool:
            return all(fake.call_back(monitor, "step_complete", phase, step) for step in range(STEPS))

        outer, inner = PHASES
        fake.call_back(monitor, "phase_start", outer, None, STEPS)
        fake.call_back(monitor, "phase_start", inner, outer, STEPS)
        goes_on = steps(inner)
        fake.call_back(monitor, "phase_finish", inner)
        goes_on = goes_on and steps(outer)
        fake.call_back(monitor, "phase_finish", outer)
        return goes_on

    def build_to_stream(this: Any, network: Any, config: Any, writer: Any) -> bool:
        plan = build(this, network, config)
        return plan is not None and fake.call_back(writer, "write", bytes(plan)) == plan.nbytes

    fake.does("Builder", build_serialized_network=build, is_network_supported=lambda this, network, config: True)
    fake.implement("Builder", "build_serialized_network_to_stream", build_to_stream)


def _problem(tensors: list[dict[str, Any]], profiles: list[dict[str, Any]]) -> str:
    """Why TensorRT would not build it, or ""."""
    if not tensors:
        return "the network has no output"
    inputs = {each["name"]: lengths_of(each) for each in tensors if each["mode"] == "INPUT"}
    dynamic = [name for name, shape in inputs.items() if -1 in shape]
    if dynamic and not profiles:
        return f"{dynamic[0]} is dynamic, and there is no optimization profile"
    for profile in profiles:
        for name in [*dynamic, *profile]:
            if name not in profile or name not in inputs:
                return f"{name} is not in an optimization profile" if name in inputs else f"there is no input {name}"
            if not all(fits(inputs[name], shape) for shape in profile[name]):
                return f"the optimization profile has another shape for {name} than {inputs[name]}"
    return ""


def fits(lengths: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(lengths) == len(shape) and all(a in (-1, b) for a, b in zip(lengths, shape, strict=True))
