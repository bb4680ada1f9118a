"""Record what cuda-core offers, for the fake `cuda.core` of the tests.

    python -m tests.fye_engines.record_cuda_core cuda_core-1.2.2-*.whl -o tests/data/cuda_core/1.2.json

Neither a GPU nor a driver is needed, but cuda-bindings, which cuda-core imports, must be installed or on PYTHONPATH.
Without a wheel the installed cuda-core is recorded. Names in a record are those in `cuda.core`, signatures Python's.
Methods tell their own; the constructors of classes in Cython do not, so these come from the stubs in the package or,
where it has none, from the class's text, and are compared with which arguments the class takes.
"""

import argparse
import ast
import ctypes
import dataclasses
import enum
import hashlib
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import GetSetDescriptorType
from typing import Any

from tests.fye_engines.record_tensorrt import dump

MODULES = {"": "cuda.core", "graph.": "cuda.core.graph", "system.": "cuda.core.system"}
UNNAMED = {"cuda.core._device": ["DeviceProperties"], "cuda.core._module": ["KernelAttributes", "KernelOccupancy"]}
_CYTHON = {
    "__reduce_cython__",
    "__setstate_cython__",
    "__setstate__",
    "__post_init__",
    "__isub__",
    "__release_buffer__",
}
_BINARY = {"__getitem__", "__contains__", "__sub__", "__rsub__", "__add__"}
_NO_NAME = "no_argument_has_this_name"
_MANY = 99  # arguments, more than any constructor takes

Record = dict[str, Any]


def record(wheel: Path | None) -> Record:
    """What the cuda-core in a wheel, or else the installed one, offers.

    Raises:
        subprocess.CalledProcessError: it does not import with this Python, or takes other arguments than it says.
    """
    with tempfile.TemporaryDirectory() as name:
        source = {}
        if wheel is not None:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(name)
            source = {"wheel": wheel.name, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}
        inside = subprocess.run(
            [sys.executable, "-m", "tests.fye_engines.record_cuda_core", "--inspect"],
            cwd=Path(__file__).resolve().parents[2],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([name, os.environ.get("PYTHONPATH", "")])},
            stdout=subprocess.PIPE,
            check=True,
        )
        found: Record = json.loads(inside.stdout)
    return source | found


# From inside a Python that has imported it


def _inspect() -> Record:
    modules = {prefix: importlib.import_module(name) for prefix, name in MODULES.items()}
    names = {
        id(value): prefix + name
        for prefix, module in modules.items()
        for name, value in _public(module)
        if isinstance(value, type)
    }
    found: Record = {
        "version": modules[""].__version__,
        "bindings": metadata.version("cuda-bindings"),
        "classes": {},
        "functions": {},
        "constants": {},
        "exceptions": {},
    }
    for prefix, module in modules.items():
        for name, value in _public(module):
            if not isinstance(value, type):
                section = "functions" if inspect.isroutine(value) else "constants"
                found[section][prefix + name] = _signature(value) if inspect.isroutine(value) else _constant(value)
            elif issubclass(value, Exception):
                found["exceptions"][prefix + name] = names.get(id(value.__base__), "")
            else:
                found["classes"][prefix + name] = _class(value, names)
    for place, classes in UNNAMED.items():
        for name in classes:
            cls = getattr(importlib.import_module(place), name)
            found["classes"][name] = _class(cls, names) | {"unnamed": True}
    return found


def _public(module: Any) -> Iterator[tuple[str, Any]]:
    """A module's names that are its own."""
    for name in dir(module):
        value = getattr(module, name)
        own = getattr(value, "__module__", type(value).__module__).startswith("cuda.")
        if not name.startswith("_") and not inspect.ismodule(value) and (own or name.startswith("CUDA_")):
            yield name, value


def _constant(value: Any) -> Any:
    return value if isinstance(value, bool | int | str) else type(value).__name__


def _class(cls: type, names: dict[int, str]) -> Record:
    unnamed = [cls]  # with the bases that have no public name: their members become its own
    while id(unnamed[-1].__base__) not in names and unnamed[-1].__base__ not in (object, None):
        unnamed.append(unnamed[-1].__base__)
    base = names.get(id(unnamed[-1].__base__))
    found: Record = {"bases": [base] if base else []}
    constructor = _constructor(cls)
    if constructor is not None:
        found["constructor"] = constructor
    sections: Record = {"methods": {}, "static": {}, "properties": {}}
    for owner in reversed(unnamed):
        for name, value in vars(owner).items():
            special = name.startswith("__")
            if name in _CYTHON or (name in vars(object) if special else name.startswith("_")):
                continue
            if isinstance(value, staticmethod | classmethod):
                sections["static"][name] = _signature(getattr(owner, name))
            elif isinstance(value, property) or (isinstance(value, GetSetDescriptorType) and not special):
                sections["properties"][name] = "get, set" if _is_writable(value) else "get"
            elif inspect.isroutine(value):
                sections["methods"][name] = _signature(value, bound=True, name=name)
    if dataclasses.is_dataclass(cls):
        sections["properties"] |= {each.name: "get, set" for each in dataclasses.fields(cls)}
    return found | {name: section for name, section in sections.items() if section}


def _is_writable(descriptor: property | GetSetDescriptorType) -> bool:
    """Whether an attribute can be assigned; of a class in C, whether its PyGetSetDef has a setter."""
    if isinstance(descriptor, property):
        return descriptor.fset is not None
    word = ctypes.sizeof(ctypes.c_void_p)
    base = object.__basicsize__ + 3 * word  # behind the type, the name and the qualified name
    definition = ctypes.c_void_p.from_address(id(descriptor) + base).value
    assert definition is not None
    name = ctypes.c_char_p.from_address(definition).value
    assert name == descriptor.__name__.encode(), "this Python lays its descriptors out in another way"
    return bool(ctypes.c_void_p.from_address(definition + 2 * word).value)


# Signatures


class _Verbatim:
    """What a signature's text shows as it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _signature(function: Any, *, bound: bool = False, name: str = "") -> str:
    try:
        signature = inspect.signature(function)
    except ValueError:  # an operator in C
        return "(other, /)" if name in _BINARY else "()"
    parameters = [
        each.replace(
            annotation=_Verbatim(kind) if (kind := _annotation(each.annotation)) else each.empty,
            default=each.empty if each.default is each.empty else _Verbatim(_default(each.default)),
        )
        for each in signature.parameters.values()
    ]
    text = str(inspect.Signature(parameters[bound:]))
    ast.parse(f"def _{text}: ...")
    return text


def _annotation(value: Any) -> str:
    """What stands behind the colon or arrow; "" for nothing."""
    if value is inspect.Parameter.empty:
        return ""
    text = value if isinstance(value, str) else getattr(value, "__name__", repr(value))
    return re.sub(r"['\"]", "", str(text)).replace("cuda.bindings.", "")


def _default(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return repr(value.value)
    try:
        ast.literal_eval(repr(value))
    except (SyntaxError, ValueError):
        return "..."  # such as a factory of a dataclass
    return repr(value)


# Constructors


def _constructor(cls: type) -> str | None:
    """How a class is called; None if its objects come from elsewhere."""
    try:
        cls()
    except (RuntimeError, NotImplementedError) as error:
        if "direct" in str(error):
            return None
    except Exception:
        pass  # it needs arguments, or a driver
    if dataclasses.is_dataclass(cls):
        fields = [each for each in dataclasses.fields(cls) if each.init]
        given = [_field(each) for each in fields]
        return f"({', '.join(given)})"
    try:
        inspect.signature(cls)
    except ValueError:
        pass
    else:
        return _signature(cls)
    if cls.__init__ is object.__init__:  # type: ignore[misc]
        return "()"
    stubs = [_stub(each) for each in cls.__mro__]
    text = next((each for each in stubs if each is not None), None) or _described(cls)
    return _compared(cls, text)


def _field(field: Any) -> str:
    default = "" if field.default is dataclasses.MISSING else f" = {_default(field.default)}"
    if field.default_factory is not dataclasses.MISSING:
        default = " = ..."
    return f"{field.name}: {_annotation(field.type)}{default}"


def _described(cls: type) -> str:
    """From the class's text: each argument starts a line of the section of parameters or attributes."""
    found = re.search(r"^(?:Parameters|Attributes)\n-+\n(.*?)(?:^\w+\n-+\n|\Z)", inspect.getdoc(cls) or "", re.M | re.S)
    section = found[1] if found else ""
    names = re.findall(r"^(\w+) ?: ", section, re.M)
    most, least = _limits(cls)
    if not names and most:
        return f"({', '.join(f'argument{index}' for index in range(most))}, /)"
    if most is None:
        return f"(*{names[0]}, {', '.join(f'{name} = None' for name in names[1:])})"
    given = [name if index < least else f"{name} = None" for index, name in enumerate(names)]
    return f"({', '.join([*given[:most], *(['*'] if given[most:] else []), *given[most:]])})"


def _limits(cls: type) -> tuple[int | None, int]:
    """How many arguments without a name a class takes at most, None for any number, and at least."""
    most = re.search(r"(?:at most|exactly) (\d+) positional", _refusal(cls, *[None] * _MANY))
    least = re.search(r"(?:at least|exactly) (\d+) positional", _refusal(cls))
    return int(most[1]) if most else None, int(least[1]) if least else 0


def _refusal(cls: type, *args: Any, **kwargs: Any) -> str:
    try:
        cls(*args, **kwargs)
    except Exception as error:
        return str(error)
    return ""


def _compared(cls: type, text: str) -> str:
    """A signature. ValueError: the class takes fewer arguments or more."""
    space: dict[str, Any] = {}
    exec(f"from __future__ import annotations\ndef function{text}: ...", space)
    parameters = inspect.signature(space["function"]).parameters.values()
    named = [each.name for each in parameters if each.kind.name in ("POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY")]
    for name in named:
        if _NO_NAME not in _refusal(cls, **{name: None, _NO_NAME: None}):
            raise ValueError(f"{cls.__name__}{text}: it takes no {name}")
    most: int | None = sum(each.kind.name.startswith("POSITIONAL") for each in parameters)
    if any(each.kind.name == "VAR_POSITIONAL" for each in parameters):
        most = None
    if _limits(cls)[0] != most:
        raise ValueError(f"{cls.__name__}{text}: it takes {_limits(cls)[0]} arguments without a name")
    return _signature(space["function"])


def _stub(cls: type) -> str | None:
    """A constructor as a stub, which lies beside the module, has it."""
    compiled = Path(getattr(sys.modules.get(cls.__module__), "__file__", None) or "none")
    file = compiled.with_name(compiled.name.partition(".")[0] + ".pyi")
    nodes = ast.walk(ast.parse(file.read_text())) if file.is_file() else iter(())
    for node in (each for each in nodes if isinstance(each, ast.ClassDef) and each.name == cls.__name__):
        for function in node.body:
            if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                del function.args.args[0]
                return f"({ast.unparse(function.args)})"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description="Record what cuda-core offers.")
    parser.add_argument("wheel", type=Path, nargs="?", help="of cuda-core; without it, the installed one is recorded")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the record, JSON")
    arguments = parser.parse_args()
    arguments.output.write_text(dump(record(arguments.wheel)) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--inspect"]:
        json.dump(_inspect(), sys.stdout)
    else:
        main()
