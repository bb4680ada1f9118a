"""Record what a wheel of TensorRT's Python bindings offers, for the fake `tensorrt` module of the tests.

    python tests/fye_engines/record_tensorrt.py tensorrt_cu13_bindings-*.whl -o tests/data/tensorrt/11.4.json

Neither a GPU nor TensorRT itself is needed: the bindings are imported against empty libraries that a C compiler makes.
The wheel must be one for the Python that runs this. Signatures in a record are Python's: `(name: str, size: int = 0) ->
bool`, where what stands before a `/` has no name to be passed by, and one for each overload.
"""

import argparse
import ast
import copy
import ctypes
import hashlib
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createInferRefitter_INTERNAL",
    "getPluginRegistry",
    "getBuilderPluginRegistry",
    "initLibNvInferPlugins",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getNvOnnxParserVersion",
)
PACKAGE = "tensorrt_bindings"
NOT_API = {"attr", "value", "common_enter", "common_exit"}  # left over from the package's own initialisation
_COMPARED = {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__"}
_CONVERTED = {"__init__", "__repr__", "__str__", "__int__", "__index__", "__getstate__", "__setstate__"}
ENUM_MEMBERS = _COMPARED | _CONVERTED | {"__doc__", "__members__", "name", "value"}  # what every enum has
HIDDEN = {"__del__", "__nonzero__"}  # pybind11's and Python 2's
_GET_BUFFER = 1  # CPython's number of the slot that bytes() and memoryview() call
_EXPANDED = 4  # depth down to which a record has a line for each entry

Record = dict[str, Any]


def record(wheel: Path) -> Record:
    """What the bindings in a wheel offer.

    Raises:
        subprocess.CalledProcessError: no C compiler, or the bindings do not import with this Python.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        major = wheel.name.split("-")[1].partition(".")[0]
        _make_libraries(folder, major)
        inside = subprocess.run(
            [sys.executable, __file__, "--inspect"],
            env=os.environ | {"PYTHONPATH": name, "LD_LIBRARY_PATH": name},
            stdout=subprocess.PIPE,
            check=True,
        )
        bindings: Record = json.loads(inside.stdout)
        plugin = _python_package(folder / PACKAGE / "plugin")
    source = {"wheel": wheel.name, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}
    return source | bindings | plugin


def dump(value: Any, depth: int = 0) -> str:
    """JSON with sorted keys and a line for each class, section and member."""
    if not isinstance(value, dict) or depth == _EXPANDED or not value:
        return json.dumps(value, sort_keys=True)
    lines = [f"{' ' * (depth + 1)}{json.dumps(key)}: {dump(value[key], depth + 1)}" for key in sorted(value)]
    return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"


def _make_libraries(folder: Path, major: str) -> None:
    source = folder / "empty.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS))
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        output = ["-o", str(folder / name), f"-Wl,-soname,{name}"]
        subprocess.run(["cc", "-shared", "-fPIC", "-w", str(source), *output], check=True)


# The compiled module, from inside a Python that has imported it


def _inspect() -> Record:
    module = importlib.import_module(PACKAGE)
    public = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in NOT_API and not inspect.ismodule(value)
    }
    classes = dict(_classes(public))
    found: Record = {"version": module.__version__, "classes": {}, "functions": {}, "constants": {}}
    for name, value in public.items():
        if inspect.isroutine(value):
            found["functions"][name] = signatures(value, classes, bound=False)
        elif not isinstance(value, type):
            found["constants"][name] = _value(value)
    for name, cls in classes.items():
        found["classes"][name] = _class(cls, classes)
    return found


def _classes(namespace: Record, prefix: str = "") -> Iterator[tuple[str, type]]:
    for name, value in namespace.items():
        if isinstance(value, type) and value.__qualname__ == prefix + name:  # not a second name for another's
            yield prefix + name, value
            yield from _classes(dict(vars(value)), f"{prefix}{name}.")


def _class(cls: type, classes: dict[str, type]) -> Record:
    members: dict[str, Any] | None = getattr(cls, "__members__", None)
    found: Record = {"bases": [base.__qualname__ for base in cls.__bases__ if base.__qualname__ in classes]}
    sections: Record = {"methods": {}, "static": {}, "properties": {}, "attributes": {}}
    for name, value in vars(cls).items():
        if members is not None and (name in members or name in ENUM_MEMBERS):
            continue
        if isinstance(value, property):
            sections["properties"][name] = _property(value, classes)
        elif name in HIDDEN or (name.startswith("_") and not callable(getattr(cls, name))):
            continue
        elif isinstance(value, staticmethod):
            sections["static"][name] = signatures(getattr(cls, name), classes, bound=False)
        elif type(value).__name__ in ("instancemethod", "function") and not name.startswith("_pybind11"):
            sections["methods"][name] = signatures(value, classes, bound=True)
        elif not name.startswith("_") and f"{cls.__qualname__}.{name}" not in classes:
            sections["attributes"][name] = _value(value)
    if members is not None:
        found["enum"] = {name: int(member) if member.name == name else member.name for name, member in members.items()}
        found["ordered"] = "__lt__" in vars(cls)
    if _is_buffer(cls):
        found["buffer"] = True
    sections["callbacks"] = _callbacks(cls)
    return found | {name: section for name, section in sections.items() if section}


def _callbacks(cls: type) -> Record:
    """What TensorRT calls on a Python subclass, as the class's text shows it: its own method may be another or none."""
    shown = re.findall(r"^ *def (\w+)\(self(?:, )?(.*?)\)(?: -> (\w+))?:", cls.__doc__ or "", re.MULTILINE)
    return {
        name: [_checked(f"({arguments})" + (f" -> {returned}" if returned else ""))]
        for name, arguments, returned in shown
        if name != "__init__"
    }


def _property(value: property, classes: dict[str, type]) -> dict[str, str]:
    found = {}
    if value.fget is not None:
        (signature,) = signatures(value.fget, classes, bound=True)
        found["get"] = signature.partition(" -> ")[2] or "object"
    if value.fset is not None:
        (signature,) = signatures(value.fset, classes, bound=True)
        found["set"] = re.split(r", /|\)|=", signature.partition(": ")[2])[0].strip()
    return found


def _value(value: Any) -> Any:
    if isinstance(value, type):
        return value.__qualname__
    if hasattr(type(value), "__members__"):
        return f"{type(value).__qualname__}.{value.name}"
    return value if isinstance(value, bool | int | float | str) else repr(value)


def _is_buffer(cls: type) -> bool:
    """Whether bytes() and memoryview() take its instances, of which there are none without TensorRT."""
    slot = ctypes.pythonapi.PyType_GetSlot
    slot.argtypes, slot.restype = [ctypes.py_object, ctypes.c_int], ctypes.c_void_p
    return bool(slot(cls, _GET_BUFFER))


def signatures(function: Any, classes: dict[str, type], *, bound: bool) -> list[str]:
    """Every overload of a function, as pybind11's text or, for one written in Python, inspect tells it."""
    if inspect.isfunction(function):
        parameters = list(inspect.signature(function).parameters.values())[bound:]
        return [str(inspect.Signature([each.replace(annotation=each.empty) for each in parameters]))]
    text = function.__doc__ or ""
    lines = text.splitlines()
    name = re.escape(function.__name__)
    if "Overloaded function." in lines[:2]:
        found = re.findall(rf"^\d+\. {name}(\(.*\)) -> (.*)$", text, re.MULTILINE)
    else:
        found = re.findall(rf"^(?:{name})?(\(.*\)) -> (.*)$", lines[0])
    if not found:
        raise ValueError(f"no signature in the text of {function}: {text[:200]!r}")
    return [
        _checked(f"({arguments}) -> {_type(returned, classes)}")
        for inside, returned in found
        for arguments in _arguments(inside[1:-1], classes, bound=bound)
    ]


def _arguments(text: str, classes: dict[str, type], *, bound: bool) -> list[str]:
    """An overload's arguments as Python writes them, from pybind11's `self: C, arg0: ns::T, flag: E = <E.A: 0>`."""
    split = [each for each in _split(text) if each != "/"][bound:]
    found: list[str] = []
    positional = 0
    for argument in split:
        name, _, rest = argument.partition(": ")
        name += "_" * keyword.iskeyword(name)  # nobody can pass it by its name
        kind, equals, default = rest.partition(" = ")
        kind = _type(kind, classes)
        if equals:
            default = re.sub(r"^<[\w.]+\.(\w+): -?\d+>$", rf"{kind}.\1", default)
        found.append(f"{name}: {kind}" + (f" = {default}" if equals else ""))
        positional += bool(re.fullmatch(r"arg\d+", name))
    if positional:
        found.insert(positional, "/")
    optional = [index for index, argument in enumerate(found) if " = " in argument]
    last = optional[-1] + 1 if optional else len(found)
    if last < len(found):  # what must be given after what need not: two of Python's
        required = [argument.partition(" = ")[0] for argument in found]
        return [", ".join(required), ", ".join([*found[:last], "*", *found[last:]])]
    return [", ".join(found)]


def _split(arguments: str) -> list[str]:
    """What stands between the commas that no bracket encloses."""
    parts, depth = [""], 0
    for character in arguments:
        depth += (character in "([{<") - (character in ")]}>")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _type(text: str, classes: dict[str, type]) -> str:
    """A type without the modules and C++ namespaces that pybind11 puts before it."""
    if text.startswith("detail::"):
        return "object"
    text = re.sub(rf"\b({PACKAGE}\.tensorrt|typing|typing_extensions|collections\.abc)\.", "", text)
    text = re.sub(r"\b(nvinfer1|nvonnxparser)::(v_\d+_\d+::)?", "", text)
    return re.sub(
        r"\bI(\w+)\b", lambda word: word[1] if word[0] not in classes and word[1] in classes else word[0], text
    )


def _checked(signature: str) -> str:
    ast.parse(f"def _{signature}: ...")
    return signature


# The parts written in Python, which import a whole TensorRT: read, not imported


def _python_package(folder: Path) -> Record:
    """What a package exports with its own `@public_api()`, with the methods that its classes inherit in there."""
    trees = [ast.parse(file.read_text()) for file in sorted(folder.glob("*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    local = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    classes = {node.name: _python_class(node, local) for node in local.values() if _is_exported(node)}
    functions = {
        node.name: [_python_signature(node)]
        for node in nodes
        if isinstance(node, ast.FunctionDef) and _is_exported(node)
    }
    return {"plugin_classes": classes, "plugin_functions": functions}


def _is_exported(node: ast.ClassDef | ast.FunctionDef) -> bool:
    return any("public_api" in ast.unparse(decorator) for decorator in node.decorator_list)


def _python_class(node: ast.ClassDef, local: dict[str, ast.ClassDef]) -> Record:
    bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in local]
    found: Record = {"bases": [base for base in bases if _is_exported(local[base])]}
    sections: Record = {"methods": {}, "static": {}, "properties": {}}
    for base in (local[base] for base in bases if not _is_exported(local[base])):
        for section in sections:
            sections[section] |= _python_class(base, local).get(section, {})
    for function in (each for each in node.body if isinstance(each, ast.FunctionDef)):
        decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
        name = function.name
        if name == "__setattr__" or (name.startswith("_") and not name.endswith("__")):
            continue
        inherited = {kind: entries.pop(name, None) for kind, entries in sections.items()}
        if f"{name}.setter" in decorators:
            sections["properties"][name] = inherited["properties"] | {"set": "object"}
        elif "property" in decorators:
            sections["properties"][name] = {"get": "object"}
        elif "staticmethod" in decorators or "classmethod" in decorators:
            sections["static"][name] = [_python_signature(function, bound="classmethod" in decorators)]
        else:
            sections["methods"][name] = [_python_signature(function, bound=True)]
        if name == "__init__":
            own = re.findall(r"\bself\.([a-z]\w*) = ", ast.unparse(function))
            sections["properties"] = {each: {"get": "object", "set": "object"} for each in own} | sections["properties"]
    return found | {name: section for name, section in sections.items() if section}


def _python_signature(node: ast.FunctionDef, *, bound: bool = False) -> str:
    arguments = copy.deepcopy(node.args)
    if bound:
        del (arguments.posonlyargs or arguments.args)[0]
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return _checked(f"({ast.unparse(arguments)}){returned}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Record what a wheel of TensorRT's Python bindings offers.")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the record, JSON")
    arguments = parser.parse_args()
    arguments.output.write_text(dump(record(arguments.wheel)) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--inspect"]:
        json.dump(_inspect(), sys.stdout)
    else:
        main()
