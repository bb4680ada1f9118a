"""What our code calls of TensorRT and TensorRT-RTX to run plans, without a GPU; and a `build` whose plans it runs.

    imitation = Imitation(RTX)
    imitation.install(monkeypatch)          # import tensorrt_rtx, and fye_engines.plans.build
    imitation.compute = lambda execution: ...

A plan is the text of what it was built from. What the libraries answer with None or False and a message to the logger
is answered so here. A graph that the real TensorRT-RTX refuses is refused: see `refuse`.
"""

import ctypes
import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from fye_engines import plans
from fye_engines.building import Built, Settings, build, parse
from fye_engines.prepare import Prepared
from fye_rt.backends.tensorrt_library import RTX, Library, messages
from fye_rt.errors import BackendError
from fye_rt.timings import Progress, no_progress

TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT64: "INT64",
}
SMALL = 300  # nodes of a graph that the real library builds in about a second
MEMORY = 1 << 20  # bytes that every engine needs to run
MAGIC = b"an imitated plan "
VERSIONS = {"tensorrt": "11.4.0.106", "tensorrt_rtx": "1.7.1.116"}

Plan = dict[str, Any]

_REAL = replace(RTX, module="the real tensorrt_rtx")  # an imitation may have its name
with suppress(ImportError):
    sys.modules[_REAL.module] = importlib.import_module(RTX.module)


@dataclass(frozen=True, slots=True)
class Execution:
    """A run of an engine: its plan, the shapes and addresses of its tensors by name, and the stream's handle."""

    plan: Plan
    shapes: dict[str, tuple[int, ...]]
    addresses: dict[str, int]
    stream: int


@dataclass(eq=False)
class Imitation:
    """An imitated library.

    Attributes:
        library: which of the two.
        compute: called with each run.
        sizes: symbolic lengths that follow from those of the inputs, by name; for the shapes of outputs.
        executions: all runs.
        builds: the graphs that were built, by name.
        compiled: what the just-in-time compiler of TensorRT-RTX has compiled, by plan.
        capturable: whether TensorRT-RTX lets a run be captured.
        memory: what a context answers when it is asked how much memory its shapes need, and what it says of it.
    """

    library: Library
    compute: Callable[[Execution], None] = lambda execution: None
    sizes: Callable[[dict[str, int]], Mapping[str, int]] = lambda known: {}
    executions: list[Execution] = field(default_factory=list)
    builds: list[str] = field(default_factory=list)
    compiled: list[str] = field(default_factory=list)
    capturable: bool = True
    memory: tuple[int, str] = MEMORY, ""

    def __post_init__(self) -> None:
        self.version = VERSIONS[self.library.module]
        self.module = _module(self)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, self.library.module, self.module)
        monkeypatch.setattr(plans, "build", self.build)

    def build(
        self,
        prepared: Prepared,
        weights: Path,
        settings: Settings,
        library: Library,
        architectures: Sequence[str] = (),
        timing: bytes | None = None,
        progress: Progress = no_progress,
    ) -> Built:
        """Build a plan that this imitation runs; arguments and errors as of `fye_engines.building.build`."""
        assert library is self.library
        refuse(prepared, weights)
        for step in range(4):
            progress(f"build {prepared.name}: Building Engine", step, 3)
        graph = onnx.load_model_from_string(prepared.onnx).graph
        tensors = [_tensor(value, "INPUT") for value in graph.input] + [_tensor(x, "OUTPUT") for x in graph.output]
        self.builds.append(prepared.name)
        plan: Plan = {
            "version": self.version,
            "onnx": prepared.digest,
            "tensors": tensors,
            "profile": {name: list(map(list, shapes)) for name, shapes in prepared.profile.items()},
            "architectures": list(architectures),
            "refittable": settings.refit,
            "stripped": settings.stripped,
            "weights": {name: length for name, (_, length) in prepared.weights.items()},
        }
        return Built(self.write(plan), b"" if library is RTX else (timing or b"") + prepared.name.encode())

    def write(self, plan: Plan) -> bytes:
        return MAGIC + json.dumps(plan, sort_keys=True).encode()

    def read(self, content: bytes) -> Plan | None:
        """What a plan was built from; None if it is not one of this version, or damaged."""
        if not bytes(content).startswith(MAGIC):
            return None
        plan: Plan = json.loads(bytes(content)[len(MAGIC) :])
        return plan if plan["version"] == self.version else None


def refuse(prepared: Prepared, weights: Path) -> None:
    """Refuse a graph as the real TensorRT-RTX does, if it is installed: it builds small graphs and parses the others.

    Raises:
        BackendError: it refuses the graph, or would refuse to build it: attention that may not be decomposed, or an
            input whose shape changes without limits. (Of such attention it builds some, but ours may all.)
    """
    graph = onnx.load_model_from_string(prepared.onnx).graph
    if _REAL.module in sys.modules:
        if len(graph.node) < SMALL:
            build(prepared, weights, Settings(level=0), _REAL, RTX.usual)
        else:
            module = _REAL.load()
            log = messages(module)
            parse(prepared, np.memmap(weights, np.uint8, mode="r"), _REAL, module.Builder(log), log)
    attention = (node for node in graph.node if node.op_type == "Attention")
    marked = all("TRT_decomposable" in (each.name for each in node.attribute) for node in attention)
    varying = {value.name for value in graph.input if any(dim.dim_param for dim in value.type.tensor_type.shape.dim)}
    if not marked or varying - prepared.profile.keys():
        raise BackendError(f"cannot build {prepared.name}: attention without a kernel, or no optimization profile")


class _Enum:
    """An enumeration's member: it has a name, and is itself alone."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __int__(self) -> int:
        return 0


def _enum(*names: str) -> Any:
    return type("Enumeration", (), {name: _Enum(name) for name in names})


def _tensor(value: Any, mode: str) -> dict[str, Any]:
    kind = value.type.tensor_type
    shape = [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
    return {"name": value.name, "mode": mode, "dtype": TYPES[kind.elem_type], "shape": shape}


def _module(imitation: Imitation) -> ModuleType:
    module: Any = ModuleType(imitation.library.module)
    module.__version__ = imitation.version
    module.ILogger = type("ILogger", (), {"Severity": _enum("INTERNAL_ERROR", "ERROR", "WARNING", "INFO")})
    module.TensorIOMode = _enum("INPUT", "OUTPUT")
    module.DataType = _enum(*TYPES.values())
    module.ExecutionContextAllocationStrategy = _enum("STATIC", "USER_MANAGED")
    module.SerializationFlag = _enum("EXCLUDE_WEIGHTS", "INCLUDE_REFIT")
    module.Runtime = lambda logger: _Runtime(imitation, logger)
    module.Refitter = _Refitter
    module.OnnxParserRefitter = _OnnxParserRefitter
    if imitation.library is RTX:
        module.DynamicShapesKernelSpecializationStrategy = _enum("LAZY", "EAGER", "NONE")
    return module  # type: ignore[no-any-return]


class _Runtime:
    def __init__(self, imitation: Imitation, logger: Any) -> None:
        self._imitation, self._logger = imitation, logger

    def deserialize_cuda_engine(self, content: bytes) -> "_Engine | None":
        plan = self._imitation.read(content)
        if plan is None:
            _say(self._imitation, self._logger, "the plan is not one of this version, or damaged")
            return None
        return _Engine(self._imitation, self._logger, plan)


class _Engine:
    device_memory_size_v2 = MEMORY

    def __init__(self, imitation: Imitation, logger: Any, plan: Plan) -> None:
        self.imitation, self.logger, self.plan = imitation, logger, plan
        self.tensors = {tensor["name"]: tensor for tensor in plan["tensors"]}
        self.refittable, self.num_io_tensors = plan["refittable"], len(self.tensors)
        if imitation.library is RTX:
            self.create_runtime_config = lambda: _RuntimeConfig(self)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self.imitation.module.DataType, self.tensors[name]["dtype"])

    def get_tensor_mode(self, name: str) -> Any:
        return getattr(self.imitation.module.TensorIOMode, self.tensors[name]["mode"])

    def create_execution_context(self, given: Any) -> "_Context":
        strategy = given.strategy if isinstance(given, _RuntimeConfig) else given
        assert strategy is self.imitation.module.ExecutionContextAllocationStrategy.USER_MANAGED
        return _Context(self, given.cache if isinstance(given, _RuntimeConfig) else None)

    def create_serialization_config(self) -> Any:
        return type("Config", (), {"clear_flag": lambda self, flag: None, "set_flag": lambda self, flag: None})()

    def serialize_with_config(self, config: Any) -> bytes:
        return self.imitation.write(self.plan)


class _RuntimeConfig:
    """The configuration of contexts that TensorRT-RTX has."""

    def __init__(self, engine: _Engine) -> None:
        self._engine, self.strategy, self.cache = engine, None, None
        self.dynamic_shapes_kernel_specialization_strategy: Any = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> "_RuntimeCache":
        return _RuntimeCache(self._engine)

    def set_runtime_cache(self, cache: "_RuntimeCache") -> bool:
        self.cache = cache
        return True


class _RuntimeCache:
    def __init__(self, engine: _Engine) -> None:
        self._engine, self.shapes = engine, set[str]()

    def serialize(self) -> bytes:
        version = self._engine.imitation.version
        return json.dumps([version, sorted(self.shapes)]).encode()

    def deserialize(self, blob: bytes) -> bool:
        version, shapes = json.loads(blob)
        if version != self._engine.imitation.version:
            return False
        self.shapes = set(shapes)
        return True

    def compile(self, shapes: str) -> None:
        if shapes not in self.shapes:
            self.shapes.add(shapes)
            self._engine.imitation.compiled.append(shapes)


class _Context:
    def __init__(self, engine: _Engine, cache: _RuntimeCache | None) -> None:
        self._engine, self._cache, self._imitation = engine, cache, engine.imitation
        self._given: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._memory = 0

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        tensor, bounds = self._engine.tensors[name], self._engine.plan["profile"].get(name)
        low, high = (bounds[0], bounds[2]) if bounds else (tensor["shape"], tensor["shape"])
        fits = len(low) == len(shape) and all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))
        if tensor["mode"] != "INPUT" or not fits:
            _say(self._imitation, self._engine.logger, f"{name} cannot have the shape {tuple(shape)}")
            return False
        self._given[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        inputs = [tensor for tensor in self._engine.tensors.values() if tensor["mode"] == "INPUT"]
        return [tensor["name"] for tensor in inputs if tensor["name"] not in self._given]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes()[name]

    def update_device_memory_size_for_shapes(self) -> int:
        needed, said = self._imitation.memory
        if said:
            _say(self._imitation, self._engine.logger, said)
        return needed

    def set_device_memory(self, memory: int, size: int) -> None:
        if size < MEMORY or memory % 256:
            _say(
                self._imitation, self._engine.logger, f"{size} bytes at {memory:#x} are not the {MEMORY} that it needs"
            )
            return
        self._memory = size

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return name in self._engine.tensors

    def is_stream_capturable(self, stream: int) -> bool:
        return self._imitation.capturable

    def execute_async_v3(self, stream: int) -> bool:
        plan, unset = self._engine.plan, self._engine.tensors.keys() - self._addresses.keys()
        if plan["stripped"] or unset or self.infer_shapes() or self._memory < MEMORY:
            _say(self._imitation, self._engine.logger, "weights, an address, a shape or memory is missing")
            return False
        if self._cache is not None:
            self._cache.compile(str(sorted(self._given.items())))
        execution = Execution(plan, self._shapes(), dict(self._addresses), stream)
        self._imitation.executions.append(execution)
        self._imitation.compute(execution)
        return True

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        known: dict[str, int] = {}
        for name, shape in self._given.items():
            for symbol, length in zip(self._engine.tensors[name]["shape"], shape, strict=True):
                if isinstance(symbol, str):
                    assert known.setdefault(symbol, length) == length, f"{name}: {symbol} has two lengths"
        known |= self._imitation.sizes(dict(known))
        return {
            name: tuple(known[n] if isinstance(n, str) else n for n in tensor["shape"])
            for name, tensor in self._engine.tensors.items()
        }


class _Refitter:
    def __init__(self, engine: _Engine, logger: Any) -> None:
        assert engine.refittable
        self.engine, self.logger, self.weights = engine, logger, dict[str, bytes]()

    def refit_cuda_engine(self) -> bool:
        if self.engine.plan["stripped"] and self.engine.plan["weights"].keys() - self.weights.keys():
            _say(self.engine.imitation, self.logger, "weights are missing")
            return False
        self.engine.plan |= {"stripped": False}
        return True


class _OnnxParserRefitter:
    num_errors = 0

    def __init__(self, refitter: _Refitter, logger: Any) -> None:
        self._refitter = refitter

    def load_model_proto(self, model: bytes) -> bool:
        graph = onnx.load_model_from_string(model).graph
        self._names = {tensor.name for tensor in graph.initializer if tensor.external_data}
        return True

    def load_initializer(self, name: str, data: int, size: int) -> bool:
        self._refitter.weights[name] = bytes(np.array((ctypes.c_uint8 * size).from_address(data)))
        return name in self._names and self._refitter.engine.plan["weights"].get(name) == size

    def refit_model_proto(self) -> bool:
        return self._names <= self._refitter.weights.keys()


def _say(imitation: Imitation, logger: Any, text: str) -> None:
    logger.log(imitation.module.ILogger.Severity.ERROR, text)
