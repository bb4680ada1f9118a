"""Compares what our code uses of TensorRT, TensorRT-RTX and cuda-core, as its source shows, with what these offer.

    problems(source) -> ["line 3: tensorrt.BuilderFlag.TF23 is not in 10.16, 11.4, RTX 1.7"]

TensorRT's names were recorded from three versions; cuda-core's are read from the installed package: see bindings.py. A
name below a module, or below an object whose class is known because a constructor or method returned it, must be in
every version, with these arguments. The attributes of other objects are compared by name: one that the libraries have
must be in the same class of every version and take that call, and one that neither they, our code, nor Python has is
misspelt. Types of arguments are not compared, nor is cuda.bindings.
"""

import ast
import builtins
import importlib
import re
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.fye_engines.bindings import Library, Thing, libraries

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("fye_rt", "engines/fye_engines")
USERS = re.compile(
    r"^\s*(from|import) (cuda|tensorrt\w*)\b|\b(library|self)\.load\(\)"
    r"|from fye_rt\.backends\.(cuda_memory|cubins|tensorrt_plan|tensorrt_library)\b",
    re.MULTILINE,
)
PUBLIC_NOWHERE = {"major", "minor"}  # members of cuda-core's ComputeCapability
PASSED_AS = ("module",)  # variables that hold the module of one of TensorRT's libraries


@cache
def trees() -> dict[str, ast.Module]:
    """Return our code that may come near the libraries, by file."""
    files = (file for folder in SOURCES for file in sorted((ROOT / folder).rglob("*.py")))
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text()) for file in files}


@cache
def users() -> list[str]:
    """Return the files that import the libraries or load one."""
    return [file for file in trees() if USERS.search((ROOT / file).read_text())]


@cache
def our_names() -> set[str]:
    """Return the names that our modules and classes define."""
    found: set[str] = set()
    for node in (node for tree in trees().values() for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
    return found


def _names_of_python(tree: ast.AST) -> set[str]:
    """Return the members of built-in types and of all other modules that a module imports."""
    modules: list[Any] = [builtins]
    for node in ast.walk(tree):
        named = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in named:
            if not re.match(r"fye_|cuda\b|tensorrt|$", name):
                with suppress(ImportError):  # not installed
                    modules.append(importlib.import_module(name))
    types = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return {name for each in (*modules, *types) for name in dir(each)}


@dataclass(frozen=True, slots=True)
class Place:
    """An expression that is a name of a library, or an object of its class `path`."""

    library: Library
    path: str
    is_object: bool = False
    bound: bool = False  # a method taken from an object


ELSEWHERE = "a module of ours or Python's, or a name in one"
CUDA = "the package cuda"
Value = Place | str | None  # None may be anything


def problems(source: str | ast.Module) -> list[str]:
    """Return what a module uses of the libraries although one of the versions does not have it."""
    tree = ast.parse(source) if isinstance(source, str) else source
    scan = _Scan(_names_of_python(tree) | our_names() | PUBLIC_NOWHERE)
    scan.visit(tree)
    return [f"line {line}: {text}" for line, text in sorted(scan.found)]


@dataclass(eq=False)
class _Scan(ast.NodeVisitor):
    """Goes through a module in its order; visiting an expression gives its value."""

    others: set[str]
    found: set[tuple[int, str]] = field(default_factory=set)
    scopes: list[dict[str, Value]] = field(default_factory=lambda: [{}])

    def report(self, node: Any, text: str) -> None:
        self.found.add((node.lineno, text))

    # Names

    def visit_Import(self, node: ast.Import) -> None:
        for each in node.names:
            value = self._imported(node, each.name)
            self.scopes[-1][each.asname or each.name.partition(".")[0]] = value if each.asname else self._top(each.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for each in node.names:
            self.scopes[-1][each.asname or each.name] = self._imported(node, f"{node.module}.{each.name}")

    def _imported(self, node: ast.AST, name: str) -> Value:
        for library in libraries():
            if f"{name}.".startswith(f"{library.module}."):
                path = name[len(library.module) + 1 :]
                return self._at(node, library, path) if path else Place(library, "")
        return ELSEWHERE

    def _top(self, name: str) -> Value:
        return CUDA if name.startswith("cuda.") else self._imported(ast.Module(), name.partition(".")[0])

    def visit_Name(self, node: ast.Name) -> Value:
        if isinstance(node.ctx, ast.Store):
            self._set(node.id, None)
        return next((scope[node.id] for scope in reversed(self.scopes) if node.id in scope), None)

    def _set(self, name: str, value: Value) -> None:
        self.scopes[-1][name] = Place(libraries()[0], "") if name in PASSED_AS else value

    def visit_Constant(self, node: ast.Constant) -> Value:
        return ELSEWHERE if isinstance(node.value, str | bytes) else None

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.visit(node.value)
        for target in node.targets:
            self.visit(target)
            if isinstance(target, ast.Name):
                self._set(target.id, value)

    # Attributes and calls

    def visit_Attribute(self, node: ast.Attribute) -> Value:
        base = self.visit(node.value)
        return self._by_name(node, None) if base is None else self._below(node, base)

    def visit_Call(self, node: ast.Call) -> Value:
        values = [self.visit(each) for each in (*node.args, *node.keywords)]
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            self._looked_up(node, values[0])
            return None
        if not isinstance(node.func, ast.Attribute):
            return self._called(node, self.visit(node.func))
        base = self.visit(node.func.value)
        return self._by_name(node.func, node) if base is None else self._called(node, self._below(node.func, base))

    def _called(self, node: ast.Call, function: Value) -> Value:
        if not isinstance(function, Place):
            return function
        things = function.library.things(function.path)
        before = int(things[0].kind == "method" and not function.bound)
        if function.is_object or not all(thing.takes(node, before) for thing in things):
            self.report(node, f"{ast.unparse(node)}: {function.library.module}.{function.path} does not take that")
        return self._object(function.library, things)

    def _below(self, node: ast.Attribute, base: Value) -> Value:
        """Return an attribute of something known."""
        if base == CUDA and node.attr == "core":
            return Place(libraries()[1], "")
        if not isinstance(base, Place):
            return base
        path = f"{base.path}.{node.attr}".removeprefix(".")
        if isinstance(node.ctx, ast.Store) and not all(thing.writable for thing in base.library.things(path)):
            self.report(node, f"{base.library.module}.{path} cannot be assigned")
        return self._at(node, base.library, path, bound=base.is_object)

    def _at(self, node: ast.AST, library: Library, path: str, *, bound: bool = False) -> Value:
        """Return the value of a path, which every version must have."""
        if missing := library.missing(path):
            self.report(node, f"{library.module}.{path} is not in {', '.join(missing)}")
            return ELSEWHERE
        things = library.things(path)
        is_read = things[0].kind in ("property", "value")
        return self._object(library, things) if is_read else Place(library, path, bound=bound)

    def _object(self, library: Library, things: list[Thing]) -> Value:
        gives = {thing.gives for thing in things}
        return Place(library, gives.pop(), is_object=True) if len(gives) == 1 and "" not in gives else None

    def _by_name(self, node: ast.Attribute, call: ast.Call | None) -> Value:
        """Return an attribute of something unknown, or what a call of it returns."""
        name = node.attr
        if name.startswith("__") or name in self.others:
            return None
        paths = [(library, f"{owner}.{name}") for library in libraries() for owner in library.owners.get(name, ())]
        fitting = []
        for library, path in paths:
            things = library.things(path)
            fits = all(thing.writable for thing in things) if isinstance(node.ctx, ast.Store) else True
            fits = all(thing.takes(call) for thing in things) if call is not None else fits
            if fits and not library.missing(path):
                fitting.append((library, things))
        if not paths:
            self.report(node, f"{name}: nobody has it, neither the libraries nor we nor Python")
        elif not fitting:
            of = ", ".join(sorted(f"{library.module}.{path.rpartition('.')[0]}" for library, path in paths))
            self.report(node, f"{ast.unparse(call or node)}: not in all versions of {of}, or not so")
        is_read = call is not None or (fitting and fitting[0][1][0].kind == "property")
        return self._object(*fitting[0]) if len(fitting) == 1 and is_read else None

    def _looked_up(self, node: ast.Call, base: Value) -> None:
        """Check `getattr` and `hasattr`: if the name may be absent, one version is enough."""
        if not isinstance(base, Place):
            return
        if not isinstance(node.args[1], ast.Constant):
            if base.is_object or not base.path:  # the members of an enumeration are compared by a test
                self.report(node, f"{ast.unparse(node)}: which name this looks up is not written there")
            return
        path = f"{base.path}.{node.args[1].value}".removeprefix(".")
        if ast.unparse(node.func) == "getattr" and len(node.args) == 2:
            self._at(node, base.library, path)
        elif not base.library.things(path):
            self.report(node, f"{base.library.module}.{path} is in no version of {base.library.module}")

    # Classes and functions

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in (self.visit(each) for each in node.bases):
            if isinstance(base, Place):
                self._check_overrides(node, base)
        self.generic_visit(node)

    def _check_overrides(self, node: ast.ClassDef, base: Place) -> None:
        for function in (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name[0] != "_"):
            given = ", ".join(each.arg for each in function.args.args[1:])
            for version, names in base.library.versions.items():
                thing = names.get(f"{base.path}.{function.name}")
                if thing is None or given not in thing.calls:
                    what = f"{base.library.module}.{base.path}.{function.name} of {version}"
                    self.report(function, f"{function.name}({given}) is not {what}: {thing and thing.calls}")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.scopes.append({})
        for each in (each for each in ast.walk(node.args) if isinstance(each, ast.arg)):
            self._set(each.arg, None)
        self.generic_visit(node)
        self.scopes.pop()
