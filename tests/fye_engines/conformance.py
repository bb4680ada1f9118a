"""What our code uses of TensorRT and cuda-core, read from its source, against what was recorded of them.

    problems(source) -> ["line 3: tensorrt.BuilderFlag.TF23 is not in tensorrt 10.16, 11.4"]

What hangs on a module must be there in every recorded version, under exactly that name and for exactly these arguments.
So must what hangs on an object whose class is known, since a recorded class, method or property gave it. All other
attributes are found by their names: one that recorded classes have must be in one and the same class of every version,
and one that neither they nor our code nor Python has is misspelt. A name that our code has too says little of an object
that may be anybody's: there a call must fit one of those that have the name. One that Python has says nothing.

Names and the shape of calls are compared; types of arguments are checked by the fakes, when tests run the code.
cuda.bindings is not recorded: nothing is said about it.
"""

import ast
import builtins
import importlib
import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tests.fye_engines import fake_cuda_core, fake_tensorrt
from tests.fye_engines.record_tensorrt import ENUM_MEMBERS

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"fye_rt": ROOT, "fye_engines": ROOT / "engines", "fye_kernels": ROOT / "kernels"}  # package: its source root
BINDINGS = ("tensorrt", "cuda")
PASSED_AS = ("tensorrt", "trt")  # arguments that are the module
_SPREAD = 8  # arguments that a `*` may stand for


@dataclass(frozen=True, slots=True)
class Thing:
    """A recorded name.

    Attributes:
        kind: "module", "class", "function", "method", "static", "property" or "value".
        signatures: of a call, by overload; none for a class that is not called.
        gives: name of the class that a call or a reading gives an object of, or "".
        writable: whether it can be assigned.
        called: names of the arguments that the library gives a subclass's method, where the signatures are others.
    """

    kind: str
    signatures: tuple[inspect.Signature, ...] = ()
    gives: str = ""
    writable: bool = False
    called: tuple[tuple[str, ...], ...] = ()

    @property
    def overridden(self) -> tuple[tuple[str, ...], ...]:
        """The arguments, by overload, that a subclass's method of this name must take."""
        return self.called or tuple(tuple(each.parameters) for each in self.signatures)


Names = dict[str, Thing]  # by the path below the module, such as "Builder.create_network", inherited ones included


@dataclass(frozen=True, eq=False)
class Library:
    """All that was recorded of one library, by version."""

    module: str
    versions: dict[str, Names]

    def things(self, path: str) -> list[Thing]:
        """What a path is in every version that has it."""
        return [names[path] for names in self.versions.values() if path in names]

    @cached_property
    def owners(self) -> dict[str, set[str]]:
        """By the name of a member, the classes that have it in one version at least."""
        found: dict[str, set[str]] = {}
        for path in (path for names in self.versions.values() for path in names):
            owner, _, name = path.rpartition(".")
            if any(thing.kind == "class" for thing in self.things(owner)):
                found.setdefault(name, set()).add(owner)
        return found


@cache
def libraries() -> tuple[Library, ...]:
    """TensorRT and cuda-core."""

    def read(module: str, fake: Any, names: Any) -> Library:
        return Library(module, {v: names(json.loads((fake.RECORDS / f"{v}.json").read_text())) for v in fake.VERSIONS})

    return read("tensorrt", fake_tensorrt, _of_tensorrt), read("cuda.core", fake_cuda_core, _of_cuda_core)


def _of_tensorrt(record: dict[str, Any]) -> Names:
    found = {"__version__": Thing("value"), "plugin": Thing("module")}
    for prefix, part in (("", ""), ("plugin.", "plugin_")):
        classes = record[f"{part}classes"]
        for name, entry in record[f"{part}functions"].items():
            found[prefix + name] = _callable("function", entry, classes, prefix)
        for name, entry in classes.items():
            constructor = _callable("class", entry.get("methods", {}).get("__init__", []), {}, "")
            found[prefix + name] = Thing("class", constructor.signatures, prefix + name)
            for member, thing in _members(name, classes, prefix).items():
                found.setdefault(f"{prefix}{name}.{member}", thing)
    for name, path in record["constants"].items():
        found[name] = Thing("value", gives=path.rpartition(".")[0])
    return found


def _members(name: str, classes: dict[str, Any], prefix: str) -> Names:
    entry, found = classes[name], {}
    for base in entry["bases"]:
        found |= _members(base, classes, prefix)
    for section, kind in (("methods", "method"), ("static", "static")):
        for member, overloads in entry.get(section, {}).items():
            found[member] = _callable(kind, overloads, classes, prefix)
    for member, overloads in entry.get("callbacks", {}).items():
        called = tuple(tuple(_signature(text)[0].parameters) for text in overloads)
        found[member] = replace(found.get(member, Thing("method")), called=called)
    for member, access in entry.get("properties", {}).items():
        gives = prefix + access["get"] if access.get("get") in classes else ""
        found[member] = Thing("property", gives=gives, writable="set" in access)
    for member, path in entry.get("attributes", {}).items():
        found[member] = Thing("class", gives=path) if path in classes else Thing("value", gives=path.rpartition(".")[0])
    if "enum" in entry:
        found |= {member: Thing("value", gives=prefix + name) for member in entry["enum"]}
        found |= {member: Thing("property") for member in ENUM_MEMBERS if not member.endswith("__")}
    return found


def _of_cuda_core(record: dict[str, Any]) -> Names:
    found = {"__version__": Thing("value"), "graph": Thing("module"), "system": Thing("module")}
    classes = record["classes"]
    found |= {name: Thing("value") for name in record["constants"]}
    found |= {name: Thing("class", gives=name) for name in record["exceptions"]}
    found |= {name: _callable("function", [text], {}, "") for name, text in record["functions"].items()}
    for name, entry in classes.items():
        place = f"?{name}" if entry.get("unnamed") else name  # no name below the module
        signatures = [entry["constructor"]] if "constructor" in entry else []
        found[place] = Thing("class", _callable("class", signatures, {}, "").signatures, place)
        line = [name]
        for each in line:
            line += classes[each]["bases"]
            for section, kind in (("methods", "method"), ("static", "static")):
                for member, text in classes[each].get(section, {}).items():
                    found.setdefault(f"{place}.{member}", _callable(kind, [text], {}, ""))
            for member, access in classes[each].get("properties", {}).items():
                found.setdefault(f"{place}.{member}", Thing("property", writable="set" in access))
    return found


def _callable(kind: str, overloads: Iterable[str], classes: dict[str, Any], prefix: str) -> Thing:
    signatures = [_signature(text) for text in overloads]
    gives = {returned for _, returned in signatures if returned in classes}
    return Thing(kind, tuple(one for one, _ in signatures), prefix + gives.pop() if len(gives) == 1 else "")


def _signature(text: str) -> tuple[inspect.Signature, str]:
    """The arguments of a recorded signature, and what it returns; defaults are there, whatever they are."""
    (function,) = ast.parse(f"def function{text}: ...").body
    assert isinstance(function, ast.FunctionDef)
    returned = ast.unparse(function.returns) if function.returns else ""
    return _plain(function.args), returned


def _plain(arguments: ast.arguments) -> inspect.Signature:
    text = ast.unparse(
        ast.arguments(
            [ast.arg(each.arg) for each in arguments.posonlyargs],
            [ast.arg(each.arg) for each in arguments.args],
            arguments.vararg and ast.arg(arguments.vararg.arg),
            [ast.arg(each.arg) for each in arguments.kwonlyargs],
            [each and ast.Constant(None) for each in arguments.kw_defaults],
            arguments.kwarg and ast.arg(arguments.kwarg.arg),
            [ast.Constant(None)] * len(arguments.defaults),
        )
    )
    return inspect.signature(eval(f"lambda {text}: None"))


def _fits(signatures: Iterable[inspect.Signature], call: ast.Call, before: int = 0) -> bool:
    """Whether one of them takes a call's arguments, but for the first `before`."""
    starred = any(isinstance(each, ast.Starred) for each in call.args)
    count = sum(not isinstance(each, ast.Starred) for each in call.args) - before
    named = {each.arg: None for each in call.keywords if each.arg}
    for signature in signatures:
        bind = signature.bind if all(each.arg for each in call.keywords) else signature.bind_partial
        for more in range(_SPREAD + 1 if starred else 1):
            try:
                bind(*[None] * (count + more), **named)
            except TypeError:
                continue
            return True
    return False


# Our code


@cache
def trees() -> dict[str, ast.Module]:
    """All of our code that may come near the bindings, by the modules' names."""
    files = ((root, file) for package, root in FOLDERS.items() for file in sorted((root / package).rglob("*.py")))
    return {
        ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): ast.parse(file.read_text())
        for root, file in files
    }


def imported(tree: ast.AST) -> set[str]:
    """The modules that code imports, wherever in it; names that are taken from one count as modules too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{each.name}" for each in node.names}
    return found


def users() -> tuple[set[str], set[str]]:
    """The modules that import the bindings, and those that import one of these and may be handed their objects."""
    direct = {
        name for name, tree in trees().items() if any(each.partition(".")[0] in BINDINGS for each in imported(tree))
    }
    return direct, {name for name, tree in trees().items() if imported(tree) & direct} - direct


@cache
def our_names() -> dict[str, list[inspect.Signature]]:
    """What our classes and modules define and what objects keep in `self`; functions with their signatures."""
    found: dict[str, list[inspect.Signature]] = {}
    for node in (node for tree in trees().values() for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef):
            parameters = list(_plain(node.args).parameters.values())
            if parameters and parameters[0].name in ("self", "cls"):
                del parameters[0]
            found.setdefault(node.name, []).append(inspect.Signature(parameters))
        elif isinstance(node, ast.ClassDef):
            found.setdefault(node.name, [])
            for each in node.body:
                targets = [each.target] if isinstance(each, ast.AnnAssign) else getattr(each, "targets", [])
                for target in targets:
                    found.setdefault(ast.unparse(target), [])
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.setdefault(node.attr, [])
    return found


def _names_elsewhere(tree: ast.AST) -> set[str]:
    """What Python has, and the other libraries that a module imports."""
    modules: list[Any] = [builtins, fake_cuda_core.ComputeCapability]  # the latter is not recorded: a named tuple
    for name in imported(tree):
        if name.partition(".")[0] not in (*FOLDERS, *BINDINGS):
            try:
                modules.append(importlib.import_module(name))
            except ImportError:  # a class, or what is not installed
                pass
    names: set[str] = set()
    for module in modules:
        names.update(dir(module))
        for value in list(vars(module).values()):
            if isinstance(value, type):
                names.update(dir(value))
    return names


# What is used


@dataclass(frozen=True, slots=True)
class Place:
    """An expression that is a recorded name, or an object of a recorded class.

    Attributes:
        library: whose.
        path: of the name or of the object's class.
        is_object: whether it is an object.
        bound: for a method, whether it was taken from an object.
    """

    library: Library
    path: str
    is_object: bool = False
    bound: bool = False


PYTHON = "Python's, or another library's: nothing of the bindings comes from it"
OURS = "a module of ours, or a name in one"
CUDA = "the package cuda"
SELF = "self"
Value = Place | str | None  # None may be anything


def problems(source: str | ast.Module, *, misspelt: bool = True) -> list[str]:
    """What a module uses of the bindings although they do not have it, in one of the recorded versions at least.

    Args:
        source: its text, or what was parsed of it.
        misspelt: whether attributes that nobody has are among them; in a module that works with many other libraries'
            objects they may be theirs.
    """
    tree = ast.parse(source) if isinstance(source, str) else source
    scan = _Scan(_names_elsewhere(tree), misspelt)
    scan.visit(tree)
    return [f"line {line}: {text}" for line, text in sorted(scan.found)]


@dataclass(eq=False)
class _Scan(ast.NodeVisitor):
    """Goes through a module in its order; visiting an expression gives its value."""

    elsewhere: set[str]
    misspelt: bool
    found: set[tuple[int, str]] = field(default_factory=set)
    scopes: list[dict[str, Value]] = field(default_factory=lambda: [{}])
    kept: list[dict[str, Value]] = field(default_factory=list)  # in `self`, for each class around

    def report(self, node: ast.AST, text: str) -> None:
        self.found.add((getattr(node, "lineno", 0), text))

    def _misspelt(self, node: ast.AST, name: str) -> None:
        if self.misspelt:
            self.report(node, f"{name}: nobody has it, neither the bindings nor we nor Python")

    # Names

    def visit_Import(self, node: ast.Import) -> None:
        for each in node.names:
            value = self._imported(node, each.name)
            top = each.name.partition(".")[0]
            self.scopes[-1][each.asname or top] = value if each.asname else self._module(top)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for each in node.names:
            value = OURS if node.level else self._imported(node, f"{node.module}.{each.name}")
            self.scopes[-1][each.asname or each.name] = value

    def _module(self, name: str) -> Value:
        if name == "cuda":
            return CUDA
        for library in libraries():
            if name == library.module or name.startswith(f"{library.module}."):
                return Place(library, name[len(library.module) + 1 :])
        return OURS if name.partition(".")[0] in FOLDERS else PYTHON

    def _imported(self, node: ast.AST, name: str) -> Value:
        value = self._module(name)
        return self._at(node, value.library, value.path) if isinstance(value, Place) and value.path else value

    def visit_Name(self, node: ast.Name) -> Value:
        return next((scope[node.id] for scope in reversed(self.scopes) if node.id in scope), None)

    def visit_Constant(self, node: ast.Constant) -> Value:
        return PYTHON if isinstance(node.value, str | bytes) else None

    def visit_JoinedStr(self, node: ast.JoinedStr) -> Value:
        self.generic_visit(node)
        return PYTHON

    # Attributes and calls

    def visit_Attribute(self, node: ast.Attribute) -> Value:
        base = self.visit(node.value)
        return self._below(node, base) if base is not None else self._by_name(node, None)

    def visit_Call(self, node: ast.Call) -> Value:
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            return self._looked_up(node)
        if isinstance(node.func, ast.Attribute) and (base := self.visit(node.func.value)) is None:
            value = self._by_name(node.func, node)
        elif isinstance(node.func, ast.Attribute):
            value = self._called(node, self._below(node.func, base))
        else:
            value = self._called(node, self.visit(node.func))
        for each in (*node.args, *node.keywords):
            self.visit(each)
        return value

    def _called(self, node: ast.Call, function: Value) -> Value:
        if not isinstance(function, Place):
            return PYTHON if function == PYTHON else None
        things = function.library.things(function.path)
        before = int(things[0].kind == "method" and not function.bound)
        if function.is_object or not all(_fits(thing.signatures, node, before) for thing in things):
            self.report(node, f"{ast.unparse(node)}: {function.library.module}.{function.path} does not take that")
        return self._object(function.library, things)

    def _below(self, node: ast.Attribute, base: Value) -> Value:
        """An attribute of what is known."""
        if base == SELF:
            return self.kept[-1].get(node.attr)
        if base == CUDA:
            return self._module(f"cuda.{node.attr}")
        if not isinstance(base, Place):
            return base
        path = f"{base.path}.{node.attr}".removeprefix(".")
        if isinstance(node.ctx, ast.Store) and not all(thing.writable for thing in base.library.things(path)):
            self.report(node, f"{base.library.module}.{path} cannot be assigned")
        return self._at(node, base.library, path, bound=base.is_object)

    def _at(self, node: ast.AST, library: Library, path: str, *, bound: bool = False) -> Value:
        """What is found at a path, which every version must have."""
        missing = [version for version, names in library.versions.items() if path not in names]
        if missing:
            self.report(node, f"{library.module}.{path} is not in {library.module} {', '.join(missing)}")
            return PYTHON
        things = library.things(path)
        if things[0].kind in ("property", "value"):
            return self._object(library, things)
        return Place(library, things[0].gives if things[0].kind == "class" else path, bound=bound)

    def _object(self, library: Library, things: list[Thing]) -> Value:
        gives = {thing.gives for thing in things}
        return Place(library, gives.pop(), is_object=True) if len(gives) == 1 and "" not in gives else None

    def _by_name(self, node: ast.Attribute, call: ast.Call | None) -> Value:
        """An attribute of what may be anything."""
        name = node.attr
        having = [(library, owner) for library in libraries() for owner in library.owners.get(name, ())]
        ours = our_names().get(name)
        if name.startswith("__") or name in self.elsewhere:
            return None
        fitting = []
        for library, owner in having:
            things = library.things(f"{owner}.{name}")
            fits = all(thing.writable for thing in things) if isinstance(node.ctx, ast.Store) else True
            if call is not None:
                fits = all(thing.kind != "property" and _fits(thing.signatures, call) for thing in things)
            if fits and len(things) == len(library.versions):
                fitting.append((library, things))
        if ours is not None:
            if call is not None and ours and not fitting and not _fits(ours, call):
                self.report(node, f"{ast.unparse(call)}: no {name} of the bindings or of ours takes that")
            return None
        if not having:
            self._misspelt(node, name)
        elif not fitting:
            of = ", ".join(sorted(f"{library.module}.{owner}" for library, owner in having))
            self.report(node, f"{ast.unparse(call or node)}: not in all versions of {of}, or not so")
        is_read = call is not None or (fitting and fitting[0][1][0].kind == "property")
        return self._object(*fitting[0]) if len(fitting) == 1 and is_read else None

    def _looked_up(self, node: ast.Call) -> Value:
        """`getattr` and `hasattr`: with a default, or asked whether it is there, one version is enough."""
        base, *rest = (self.visit(each) for each in node.args)
        name = node.args[1]
        if isinstance(base, str):
            return None
        if not isinstance(name, ast.Constant):
            self.report(node, f"{ast.unparse(node)}: which name this looks up is not written there")
        elif not isinstance(base, Place):
            known = self.elsewhere | set(our_names()) | {each for library in libraries() for each in library.owners}
            if name.value not in known:
                self._misspelt(node, str(name.value))
        else:
            path = f"{base.path}.{name.value}".removeprefix(".")
            if ast.unparse(node.func) == "getattr" and len(rest) == 1:
                return self._at(node, base.library, path, bound=base.is_object)
            if not base.library.things(path):
                self.report(node, f"{base.library.module}.{path} is in no version of {base.library.module}")
        return None

    # Classes and functions

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in (self.visit(each) for each in node.bases):
            if isinstance(base, Place):
                self._check_overrides(node, base)
        self.scopes[-1][node.name] = None
        self.kept.append({})
        self.scopes.append({})
        for each in (*node.decorator_list, *node.body):
            self.visit(each)
        self.scopes.pop()
        self.kept.pop()

    def _check_overrides(self, node: ast.ClassDef, base: Place) -> None:
        for function in (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name[0] != "_"):
            given = tuple(_plain(function.args).parameters)[1:]
            for version, names in base.library.versions.items():
                thing = names.get(f"{base.path}.{function.name}")
                if thing is None or given not in thing.overridden:
                    takes = thing.overridden if thing else "it is not there"
                    what = f"{base.library.module}.{base.path}.{function.name} of {version}: {takes}"
                    self.report(function, f"{function.name}({', '.join(given)}) is not {what}")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.scopes[-1][node.name] = None
        self._function(node.args, [*node.decorator_list, *node.body])

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node.args, [node.body])

    def _function(self, arguments: ast.arguments, body: list[Any]) -> None:
        self.visit(arguments)
        scope: dict[str, Value] = {}
        for each in (each for each in ast.walk(arguments) if isinstance(each, ast.arg)):
            kind = ast.unparse(each.annotation) if each.annotation else "Any"
            scope[each.arg] = self._module("tensorrt") if each.arg in PASSED_AS and kind == "Any" else None
        if self.kept and "self" in scope:
            scope["self"] = SELF
        self.scopes.append(scope)
        for each in body:
            self.visit(each)
        self.scopes.pop()

    def _comprehension(self, node: ast.GeneratorExp | ast.ListComp | ast.SetComp | ast.DictComp) -> None:
        self.scopes.append({})
        for each in node.generators:
            self.visit(each.iter)
            self._assign(each.target, None)
            for condition in each.ifs:
                self.visit(condition)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(part)
        self.scopes.pop()

    visit_GeneratorExp = visit_ListComp = visit_SetComp = visit_DictComp = _comprehension

    # Assignments

    def _assign(self, target: ast.AST, value: Value) -> None:
        if isinstance(target, ast.Name):
            self.scopes[-1][target.id] = value
        elif isinstance(target, ast.Attribute) and self.visit(target.value) == SELF:
            kept = self.kept[-1]
            kept[target.attr] = value if kept.get(target.attr, value) == value else None
        elif isinstance(target, ast.Attribute | ast.Subscript):
            self.visit(target)
        else:
            for each in ast.iter_child_nodes(target):
                self._assign(each, None)

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.visit(node.value)
        for target in node.targets:
            self._assign(target, value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.annotation)
        self._assign(node.target, self.visit(node.value) if node.value else None)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> Value:
        value: Value = self.visit(node.value)
        self._assign(node.target, value)
        return value

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        self._assign(node.target, None)
        for each in (*node.body, *node.orelse):
            self.visit(each)

    def visit_withitem(self, node: ast.withitem) -> None:
        value = self.visit(node.context_expr)
        if node.optional_vars is not None:
            self._assign(node.optional_vars, value if isinstance(value, Place) else None)
