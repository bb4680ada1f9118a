"""Reads the names and arguments that TensorRT, TensorRT-RTX and cuda-core have, for conformance.py.

    python tests/fye_engines/bindings.py tensorrt_cu13_bindings-*.whl -o tests/data/bindings/tensorrt-11.4.txt
    python tests/fye_engines/bindings.py tensorrt_rtx -o tests/data/bindings/tensorrt_rtx-1.7.txt

The first takes a wheel for the running Python and needs neither a GPU nor TensorRT: the wheel's module is imported
against empty libraries that a C compiler makes. The second takes an installed module. Only the classes in CLASSES are
recorded; if our code begins to use another one, add it there and write all records again.
"""

import argparse
import ast
import importlib
import inspect
import json
import keyword
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

CLASSES = (
    "Builder", "BuilderFlag", "ComputeCapability", "DataType", "DynamicShapesKernelSpecializationStrategy",
    "ExecutionContextAllocationStrategy", "IBuilderConfig", "ICudaEngine", "IExecutionContext", "IHostMemory",
    "ILogger", "IOptimizationProfile", "IProgressMonitor", "IRuntimeCache", "IRuntimeConfig", "ISerializationConfig",
    "ITimingCache", "MemoryPoolType", "NetworkDefinitionCreationFlag", "OnnxParser", "OnnxParserRefitter",
    "ParserError", "Refitter", "Runtime", "SerializationFlag", "TensorIOMode",
)  # fmt: skip
CORE = (
    "Buffer", "Device", "Kernel", "LaunchConfig", "LegacyPinnedMemoryResource", "ObjectCode", "Stream", "graph.Graph",
    "graph.GraphBuilder",
)  # fmt: skip
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
SYMBOLS = (
    "createInferBuilder_INTERNAL", "createInferRuntime_INTERNAL", "createInferRefitter_INTERNAL", "getPluginRegistry",
    "getBuilderPluginRegistry", "initLibNvInferPlugins", "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion",
)  # fmt: skip
RECORDS = Path(__file__).resolve().parents[1] / "data" / "bindings"
VERSIONS = {"tensorrt-10.16": "10.16", "tensorrt-11.4": "11.4", "tensorrt_rtx-1.7": "RTX 1.7"}
# TensorRT-RTX alone has these; our code uses them behind a question which library it is
RTX_ALONE = (
    "ComputeCapability", "num_compute_capabilities", "set_compute_capability",
    "IRuntimeCache", "create_runtime_cache", "set_runtime_cache", "dynamic_shapes_kernel_specialization_strategy",
    "DynamicShapesKernelSpecializationStrategy", "is_stream_capturable",
)  # fmt: skip
_SPREAD = 8  # arguments that a `*` may stand for


@dataclass(frozen=True, slots=True)
class Thing:
    """A name of a library.

    Attributes:
        kind: "module", "class", "function", "method", "static", "property" or "value".
        calls: arguments of a call, such as "name, size=None", by overload; empty for a class that is not called.
        gives: class that a call or a reading returns an object of, or "".
        writable: whether it can be assigned.
    """

    kind: str
    calls: tuple[str, ...] = ()
    gives: str = ""
    writable: bool = False

    def takes(self, call: ast.Call, before: int = 0) -> bool:
        """Return whether a call fits, its first `before` arguments excepted."""
        starred = any(isinstance(each, ast.Starred) for each in call.args)
        count = sum(not isinstance(each, ast.Starred) for each in call.args) - before
        named = {each.arg: None for each in call.keywords if each.arg}
        for signature in map(_signature, self.calls):
            bind = signature.bind if all(each.arg for each in call.keywords) else signature.bind_partial
            for more in range(_SPREAD + 1 if starred else 1):
                try:
                    bind(*[None] * (count + more), **named)
                except TypeError:
                    continue
                return True
        return False


Names = dict[str, Thing]  # by the path below the module, such as "Builder.create_network"


@cache
def _signature(arguments: str) -> inspect.Signature:
    return inspect.signature(eval(f"lambda {arguments}: None"))


@dataclass(frozen=True, eq=False)
class Library:
    """The names of a library, by version."""

    module: str
    versions: dict[str, Names]

    def things(self, path: str) -> list[Thing]:
        """Return a path's meaning in every version that has it."""
        return [names[path] for names in self.versions.values() if path in names]

    def missing(self, path: str) -> list[str]:
        """Return the versions that lack a path, unless TensorRT-RTX alone has it and is meant to."""
        lacking = [version for version, names in self.versions.items() if path not in names]
        alone = any(part in RTX_ALONE for part in path.split(".")) and "RTX 1.7" not in lacking
        return [] if alone else lacking

    @cached_property
    def owners(self) -> dict[str, set[str]]:
        """The classes that have a member, by its name."""
        found: dict[str, set[str]] = {}
        for path in (path for names in self.versions.values() for path in names if "." in path):
            owner, _, name = path.rpartition(".")
            if any(thing.kind == "class" for thing in self.things(owner)):
                found.setdefault(name, set()).add(owner)
        return found


@cache
def libraries() -> tuple[Library, Library]:
    """Return TensorRT and cuda-core; raises ImportError without cuda-core."""
    recorded = {version: read(RECORDS / f"{file}.txt")[1] for file, version in VERSIONS.items()}
    return Library("tensorrt", recorded), Library("cuda.core", dict([names_of_cuda_core()]))


def read(record: Path) -> tuple[str, Names]:
    """Return the version and the names of a record."""
    version, *lines = record.read_text().splitlines()
    entries = {path: json.loads(entry) for path, _, entry in (line.partition(": ") for line in lines)}
    return version, {path: Thing(**entry | {"calls": tuple(entry.get("calls", ()))}) for path, entry in entries.items()}


def dump(version: str, names: Names) -> str:
    """Return a record: the version, and a line for each name."""
    return "\n".join([version, *(f"{path}: {json.dumps(_fields(names[path]))}" for path in sorted(names)), ""])


def _fields(thing: Thing) -> dict[str, Any]:
    return {name: value for name, value in asdict(thing).items() if value}


def names(module: Any) -> Names:
    """Return what a module has of CLASSES, inherited members included."""
    found: Names = {"__version__": Thing("value"), "__name__": Thing("value")}
    for name in CLASSES:
        if hasattr(module, name):
            _add_class(found, name, getattr(module, name))
    for path, thing in found.items():
        inside = (each for each in (thing.gives, thing.gives.removeprefix("I")) if each in found)  # C++ has more I's
        found[path] = replace(thing, gives=next(inside, ""))
    return found


def _add_class(found: Names, path: str, cls: type) -> None:
    own = type(vars(cls).get("__init__")).__name__ == "instancemethod"  # else nobody constructs it
    found[path] = Thing("class", _signatures(cls.__init__)[0] if own else (), path)
    for name in (each for each in dir(cls) if each[0] != "_" or (own and each == "__init__")):
        value, place = inspect.getattr_static(cls, name), f"{path}.{name}"
        if isinstance(value, type):
            _add_class(found, place, value)
        elif isinstance(value, property):
            gives = _signatures(value.fget)[1] if value.fget else ""  # some can only be assigned
            found[place] = Thing("property", gives=gives, writable=value.fset is not None)
        elif isinstance(value, staticmethod):
            found[place] = Thing("static", *_signatures(getattr(cls, name), bound=False))
        elif inspect.isroutine(value) or type(value).__name__ == "instancemethod":
            found[place] = Thing("method", *_signatures(getattr(cls, name)))
        else:
            found[place] = Thing("value", gives=type(getattr(cls, name)).__qualname__)


def _signatures(function: Any, *, bound: bool = True) -> tuple[tuple[str, ...], str]:
    """Return the arguments of every overload, such as "model, path=None", and the class that all of them return.

    Raises:
        ValueError: pybind11's text of the function has no signature.
    """
    if inspect.isfunction(function):
        return (_arguments(str(inspect.signature(function))[1:-1], bound=bound),), ""
    lines = (function.__doc__ or "").splitlines()
    overloaded = any(line.startswith("Overloaded function") for line in lines[:2])
    pattern = r"^\d+\. \w+\((.*)\) -> (.*)$" if overloaded else r"^\w*\((.*)\) -> (.*)$"
    overloads = [match.groups() for line in lines[: None if overloaded else 1] if (match := re.match(pattern, line))]
    if not overloads:
        raise ValueError(f"no signature in the text of {function}: {lines[:3]}")
    returned = {re.sub(r".*(\.|::)(?=\w+$)", "", text) for _, text in overloads}
    calls = tuple(_arguments(text, bound=bound) for text, _ in overloads)
    return calls, returned.pop() if len(returned) == 1 else ""


def _arguments(text: str, *, bound: bool) -> str:
    """Return pybind11's `self: ns::C, arg0: list[int], flag: E = <E.A: 0>` as Python's `arg0, flag=None`."""
    while (flat := re.sub(r"[\[(<][^\[\](){}<>]*[\])>]", "", text)) != text:
        text = flat
    arguments: list[str] = []
    for part in [each.strip() for each in text.split(",") if each.strip(" /")][bound:]:
        name = re.split(r"[:=]", part)[0].strip()
        name += "_" * keyword.iskeyword(name)  # nobody can pass it by its name
        if "=" not in part:  # what must be given after what need not: both must
            arguments = [each.removesuffix("=None") for each in arguments]
        arguments.append(name + "=None" * ("=" in part))
    named = next((i for i, each in enumerate(arguments) if not re.match(r"arg\d", each)), len(arguments))
    return ", ".join([*arguments[:named], *["/"] * (named > 0), *arguments[named:]])


def names_of_cuda_core() -> tuple[str, Names]:
    """Return the version and the names of the installed cuda-core; raises ImportError without it."""
    core, graph, system = (importlib.import_module(f"cuda.core{part}") for part in ("", ".graph", ".system"))
    found: Names = {"graph": Thing("module"), "system": Thing("module")}
    for prefix, module in (("", core), ("graph.", graph), ("system.", system)):
        for name, value in vars(module).items():
            path = prefix + name
            if not isinstance(value, type) and callable(value):
                found[path] = Thing("function", _cython(value))
            elif path in CORE:
                found[path] = Thing("class", _cython(value), path)
                found |= {f"{path}.{each}": _member(value, each) for each in dir(value) if each[0] != "_"}
    return core.__version__, found


def _member(cls: type, name: str) -> Thing:
    value, taken = inspect.getattr_static(cls, name), getattr(cls, name)
    if isinstance(value, property) or not callable(taken):
        return Thing("property", writable=isinstance(value, property) and value.fset is not None)
    is_method = not isinstance(value, staticmethod | classmethod)
    returned = getattr(taken, "__annotations__", {}).get("return", "").strip("'")
    gives = next((each for each in CORE if returned and each.rpartition(".")[2] == returned), "")
    return Thing("method" if is_method else "static", _cython(taken, bound=is_method), gives)


def _cython(function: Any, *, bound: bool = False) -> tuple[str, ...]:
    """Return the arguments of a function or class; a compiled class has them in its text, and a `*` if not called."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[bound:]
    except ValueError:
        text = function.__doc__ or ""
        names = re.findall(r"(\w+): [^=]*= ", text.partition("\n")[0]) or re.findall(r"^ *(\w+) : ", text, re.MULTILINE)
        return () if text.startswith(f"{function.__name__}(*") else (", ".join(f"{name}=None" for name in names),)
    plain = [each.replace(annotation=each.empty) for each in parameters]
    given = [each.replace(default=None) if each.default is not each.empty else each for each in plain]
    return (str(inspect.Signature(given))[1:-1],)


def _in_wheel(wheel: Path) -> str:
    """Return the dump of a wheel's bindings.

    Raises:
        subprocess.CalledProcessError: the C compiler failed, or the bindings do not import with this Python.
    """
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        source = Path(folder, "empty.c")
        source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS))
        for library in LIBRARIES:
            name = f"lib{library}.so.{wheel.name.split('-')[1].partition('.')[0]}"
            output = ["-o", f"{folder}/{name}", f"-Wl,-soname,{name}"]
            subprocess.run(["cc", "-shared", "-fPIC", "-w", str(source), *output], check=True)
        environment = os.environ | {"PYTHONPATH": folder, "LD_LIBRARY_PATH": folder}
        command = [sys.executable, __file__, "tensorrt_bindings"]
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description="Record the names and arguments of TensorRT's Python bindings.")
    parser.add_argument("source", help="a wheel, or the name of an installed module")
    parser.add_argument("-o", "--output", type=Path, help="the record; by default it is printed")
    arguments = parser.parse_args()
    if arguments.source.endswith(".whl"):
        text = _in_wheel(Path(arguments.source))
    else:
        module = importlib.import_module(arguments.source)
        text = dump(module.__version__, names(module))
    if arguments.output:
        arguments.output.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
