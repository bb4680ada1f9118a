"""A `tensorrt` module made from the record of a real one, for machines without a GPU. It offers what was recorded only.

    fake = load("11.4")
    fake.install(monkeypatch)               # import tensorrt
    fake.implement("Builder", "reset", lambda builder: None)

An unknown attribute, method or keyword, a missing, surplus or wrongly typed argument and an assignment to a read-only
property raise AttributeError or TypeError, as in the bindings, and a recorded method without an implementation raises
NotImplementedError. One thing is refused that the bindings take: a flag where an integer of such flags' bits is meant.
The records lie in tests/data/tensorrt; record_tensorrt.py writes them. What the module does is fake_behaviour's.
"""

import __future__

import inspect
import json
import numbers
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import pytest

RECORDS = Path(__file__).resolve().parents[1] / "data" / "tensorrt"
VERSIONS = tuple(sorted(file.stem for file in RECORDS.glob("*.json")))
_LENGTHS = ("Dims", "Dims2", "Dims3", "Dims4", "DimsHW", "Permutation")
_TAKEN = (tuple, list, np.ndarray)
CONVERTED = dict.fromkeys(_LENGTHS, _TAKEN) | {"Weights": (np.ndarray,)}  # what the bindings make objects of these from
NULLABLE = {"output_allocator", "listener", "parent_phase"}  # arguments that may be None although they have no default
_OF_BUFFERS = {"__new__", "__init__", "__doc__", "__getattribute__"}  # of bytearray's methods, what a buffer keeps
_EMPTY = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a recorded method or function.

    Attributes:
        name: such as "Builder.create_network".
        this: whose method it is, or None.
        arguments: by name, with defaults.
    """

    name: str
    this: Any
    arguments: dict[str, Any]


@dataclass(eq=False, repr=False)
class Fake:
    """A fake `tensorrt`.

    Attributes:
        record: what the bindings of this version offer.
        module: what `import tensorrt` gives.
        plugin: what `import tensorrt.plugin` gives.
        calls: of recorded methods and functions, in their order; not of constructors and other special methods.
    """

    record: dict[str, Any]
    module: ModuleType = field(init=False)
    plugin: ModuleType = field(init=False)
    calls: list[Call] = field(init=False, default_factory=list)
    _classes: dict[str, Any] = field(init=False, default_factory=dict)
    _implementations: dict[tuple[type | None, str], Callable[..., Any]] = field(init=False, default_factory=dict)
    _signatures: dict[str, inspect.Signature] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        record = self.record
        self.module = ModuleType("tensorrt")
        self.plugin = ModuleType("tensorrt.plugin")
        vars(self.module).update(__version__=self.version, plugin=self.plugin)
        for part, module, prefix in (("", self.module, ""), ("plugin_", self.plugin, "plugin.")):
            for name in record[f"{part}classes"]:
                self._class(name, record[f"{part}classes"], prefix)
            for name, signatures in record[f"{part}functions"].items():
                setattr(module, name, self._function(prefix + name, name, signatures))
        for name, member in record["constants"].items():
            setattr(self.module, name, self._named(member))

    @property
    def version(self) -> str:
        """Such as "11.4.0.106"."""
        return str(self.record["version"])

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let `import tensorrt` and `import tensorrt.plugin` give this one."""
        monkeypatch.setitem(sys.modules, "tensorrt", self.module)
        monkeypatch.setitem(sys.modules, "tensorrt.plugin", self.plugin)

    def implement(self, owner: str, name: str, function: Callable[..., Any]) -> None:
        """Say what a method, a property's reading or a function does; an earlier implementation is replaced.

        Args:
            owner: class, such as "Builder" or "plugin.Tensor"; "" for a function of the module, "plugin" of the other.
            name: of the method, property or function; "__init__" is called with the constructor's arguments.
            function: called with the object, unless it is static or a function, and the arguments by their recorded
                names. It may return a tuple where the record has Dims; what it returns is checked.

        Raises:
            AssertionError: this version has no such name, or the function does not take an overload's arguments.
        """
        cls = self._classes.get(owner) if owner not in ("", "plugin") else None
        place = f"{owner}.{name}" if owner else name
        entry = self._entry(owner, name)
        assert entry is not None, f"TensorRT {self.version} has no {place}"
        overloads = entry if isinstance(entry, list) else ["()"]
        this = () if cls is None or name in self._section(owner, "static") else (None,)
        for overload in overloads:
            names = list(self._signature(overload).parameters)
            try:
                inspect.signature(function).bind(*this, **dict.fromkeys(names))
            except TypeError as error:
                raise AssertionError(f"the implementation of {place} cannot take {overload}: {error}") from error
        self._implementations[cls, name if cls else place] = function

    def has(self, owner: str, name: str) -> bool:
        """Whether this version has a name; see `implement`."""
        return self._entry(owner, name) is not None

    def new(self, owner: str, **state: Any) -> Any:
        """An object that no constructor makes, such as those that a Builder's methods return; see `state`."""
        cls = self._classes[owner]
        made = cls.__new__(cls)
        if isinstance(made, bytearray):
            bytearray.__init__(made, state.pop("data"))
        made._state = state
        return made

    @staticmethod
    def state(this: Any) -> dict[str, Any]:
        """What an object holds: its properties' values, a constructor's arguments, and what implementations add."""
        held: dict[str, Any] = this._state
        return held

    # What the record has

    def _section(self, owner: str, section: str) -> dict[str, Any]:
        classes = self.record["plugin_classes" if owner.startswith("plugin.") else "classes"]
        return dict(classes.get(owner.removeprefix("plugin."), {}).get(section, {}))

    def _entry(self, owner: str, name: str) -> list[str] | dict[str, str] | None:
        if owner in ("", "plugin"):
            found: list[str] | None = self.record["plugin_functions" if owner else "functions"].get(name)
            return found
        for cls in getattr(self._classes.get(owner), "__mro__", ()):
            for section in ("methods", "static", "properties"):
                entry = self._section(vars(cls).get("_recorded", ""), section).get(name)
                if entry is not None:
                    return entry  # type: ignore[no-any-return]
        return None

    def _named(self, path: str) -> Any:
        """A class or an enum's member by its name in the module."""
        if path in self._classes:
            return self._classes[path]
        owner, _, member = path.rpartition(".")
        return self._classes[owner].__members__[member]

    # Classes

    def _class(self, name: str, records: dict[str, Any], prefix: str) -> Any:
        if prefix + name in self._classes:
            return self._classes[prefix + name]
        record = records[name]
        bases = tuple(self._class(base, records, prefix) for base in record["bases"])
        outer, _, short = name.rpartition(".")
        body: dict[str, Any] = {"__slots__": (), "__module__": "tensorrt", "__qualname__": name}
        body["_recorded"] = prefix + name
        for attribute, entry in record.get("properties", {}).items():
            body[attribute] = self._property(f"{prefix}{name}.{attribute}", attribute, entry)
        for attribute, entry in record.get("methods", {}).items():
            body[attribute] = self._method(f"{prefix}{name}.{attribute}", attribute, entry)
        for attribute, entry in record.get("static", {}).items():
            body[attribute] = staticmethod(self._function(f"{prefix}{name}.{attribute}", attribute, entry))
        if "enum" in record:
            made = _enum(short, body, record)
        else:
            if "__init__" not in body:
                body["__init__"] = _refuse_construction
            if record.get("buffer"):
                bases, body = (_Object, bytearray), _buffer() | body
            if not any(issubclass(base, _Object) and base is not _Object for base in bases):
                body["__slots__"] = ("__weakref__", "_state")
            made = _Class(short, bases or (_Object,), body)
        self._classes[prefix + name] = made
        for attribute, path in record.get("attributes", {}).items():
            self._class(path.rpartition(".")[0] if path not in records else path, records, prefix)
            setattr(made, attribute, self._named(path))
        if outer:
            setattr(self._class(outer, records, prefix), short, made)
        else:
            setattr(self.plugin if prefix else self.module, short, made)
        return made

    def _property(self, place: str, name: str, entry: dict[str, str]) -> property:
        def read(this: Any) -> Any:
            implementation = self._implementation(type(this), name)
            if implementation is not None:
                return self._returned(place, entry["get"], implementation(this))
            if name in (held := getattr(this, "_state", {})):
                return self._returned(place, entry["get"], held[name])
            raise NotImplementedError(self._undone(place))

        def write(this: Any, value: Any) -> None:
            try:
                unset = value is None and self._is_pointer(entry["set"])
                self.state(this)[name] = None if unset else self._taken(entry["set"], value)
            except TypeError as error:
                raise TypeError(f"{place} = {value!r}: {error}") from None

        return property(read if "get" in entry else None, write if "set" in entry else None)

    def _method(self, place: str, name: str, overloads: Sequence[str]) -> Callable[..., Any]:
        def method(this: Any, *args: Any, **kwargs: Any) -> Any:
            if name == "__init__":
                this._state = {}
            arguments, returned = self._bound(place, overloads, args, kwargs)
            if not name.startswith("__"):
                self.calls.append(Call(place, this, arguments))
            implementation = self._implementation(type(this), name)
            if implementation is not None:
                return self._returned(place, returned, implementation(this, **arguments))
            if name != "__init__":
                raise NotImplementedError(self._undone(place))
            self.state(this).update(arguments)

        method.__name__, method.__qualname__ = name, place
        return method

    def _function(self, place: str, name: str, overloads: Sequence[str]) -> Callable[..., Any]:
        def function(*args: Any, **kwargs: Any) -> Any:
            arguments, returned = self._bound(place, overloads, args, kwargs)
            self.calls.append(Call(place, None, arguments))
            owner = self._classes.get(place.rpartition(".")[0])
            implementation = self._implementations.get((owner, name if owner else place))
            if implementation is None:
                raise NotImplementedError(self._undone(place))
            return self._returned(place, returned, implementation(**arguments))

        function.__name__, function.__qualname__ = name, place
        return function

    def _implementation(self, cls: type, name: str) -> Callable[..., Any] | None:
        return next(
            (self._implementations[each, name] for each in cls.__mro__ if (each, name) in self._implementations), None
        )

    def _undone(self, place: str) -> str:
        return f"TensorRT {self.version} has {place}, and the fake does not do it: give it to implement()"

    # Arguments

    def _signature(self, text: str) -> inspect.Signature:
        if text not in self._signatures:
            space: dict[str, Any] = dict(vars(self.module))
            flags = __future__.annotations.compiler_flag
            exec(compile(f"def function{text}: ...", "record", "exec", flags, dont_inherit=True), space)
            self._signatures[text] = inspect.signature(space["function"])
        return self._signatures[text]

    def _bound(
        self, place: str, overloads: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[dict[str, Any], str]:
        """The arguments of the first overload that takes them, by name, and what it returns."""
        reasons = []
        for overload in overloads:
            signature = self._signature(overload)
            try:
                bound = signature.bind(*args, **kwargs)
                for name, value in bound.arguments.items():
                    kind = signature.parameters[name].annotation
                    if not (value is None and (name in NULLABLE or signature.parameters[name].default is None)):
                        bound.arguments[name] = self._taken(kind, value)
            except TypeError as error:
                reasons.append(f"{overload}: {error}")
                continue
            bound.apply_defaults()
            return dict(bound.arguments), signature.return_annotation
        given = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
        raise TypeError(f"{place}({given}) in TensorRT {self.version}: {'; '.join(reasons)}")

    def _taken(self, kind: str, value: Any) -> Any:
        """A value as something of the recorded type, or TypeError; unknown types, as in Python code, take anything."""
        cls = self._classes.get(kind)
        if cls is not None:
            if kind in CONVERTED and isinstance(value, CONVERTED[kind]):
                return cls(value)
            good = isinstance(value, cls)
        elif isinstance(kind, str) and kind.startswith(("Sequence[", "list[")):
            if isinstance(value, str | bytes) or not hasattr(type(value), "__getitem__"):
                raise TypeError(f"{value!r} is no {kind}")
            return [self._taken(kind.partition("[")[2][:-1], each) for each in value]
        else:
            good = _TYPES.get(kind, lambda _: True)(value)
        if not good:
            raise TypeError(f"{value!r} is no {kind}")
        return int(value) if kind in ("SupportsInt", "int") else value

    def _is_pointer(self, kind: str) -> bool:
        """Whether None stands for no object of this class."""
        cls = self._classes.get(kind)
        return cls is not None and not issubclass(cls, _Enum) and kind not in CONVERTED

    def _returned(self, place: str, kind: Any, value: Any) -> Any:
        if kind is _EMPTY or (value is None and (kind in ("None", "str") or self._is_pointer(kind))):
            return value
        try:
            return self._taken(kind, value)
        except TypeError as error:
            raise AssertionError(f"an implementation of {place} returned what TensorRT does not: {error}") from error


def load(version: str) -> Fake:
    """A fake that does nothing yet.

    Args:
        version: one of VERSIONS.

    Raises:
        FileNotFoundError: it was not recorded.
    """
    return Fake(json.loads((RECORDS / f"{version}.json").read_text()))


class _Class(type):
    """Of the recorded classes and of Python's subclasses of them."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        if made._state is None:
            raise TypeError(f"{cls.__mro__[1].__qualname__}.__init__() must be called when overriding __init__")
        return made


class _Object(metaclass=_Class):
    """Without a dictionary, so that it takes no attribute but recorded ones; Python's subclasses have one."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        made: Any = super().__new__(cls)
        made._state = None
        return made


def _refuse_construction(this: Any, *args: Any, **kwargs: Any) -> None:
    raise TypeError(f"{type(this).__qualname__}: No constructor defined!")


def _buffer() -> dict[str, Any]:
    """What makes of a bytearray an object that has its bytes and none of its methods."""

    def get(this: Any, name: str) -> Any:
        if not name.startswith("__") and name in vars(bytearray) and name not in vars(type(this)):
            raise AttributeError(f"{type(this).__qualname__!r} object has no attribute {name!r}")
        return object.__getattribute__(this, name)

    body: dict[str, Any] = {name: None for name in vars(bytearray) if name.startswith("__") and name not in _OF_BUFFERS}
    kept = {
        name: getattr(object, name) for name in ("__eq__", "__ne__", "__hash__", "__repr__", "__str__", "__sizeof__")
    }
    return body | kept | {"__getattribute__": get, "__bool__": lambda this: True}


class _Enum:
    """As pybind11 makes them: no integers, though int() and hash() take them, and unequal to another enum's."""

    __slots__ = ("_name", "_value")
    __members__: dict[str, "_Enum"]
    _ordered: bool

    def __new__(cls, value: Any) -> "_Enum":
        for member in cls.__members__.values():
            if _TYPES["SupportsInt"](value) and int(member) == int(value):
                return member
        raise TypeError(f"{value!r} is no {cls.__qualname__}")

    name = property(lambda self: self._name)
    value = property(lambda self: self._value)

    def __int__(self) -> int:
        return self._value  # type: ignore[attr-defined,no-any-return]

    __index__ = __int__

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and int(self) == int(other)

    def __hash__(self) -> int:
        return hash(int(self))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {int(self)}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    def _key(self, other: Any) -> tuple[int, int]:
        if not self._ordered or type(self) is not type(other):
            raise TypeError(f"{self!r} and {other!r} have no order")
        return int(self), int(other)

    def __lt__(self, other: Any) -> bool:
        mine, its = self._key(other)
        return mine < its

    def __le__(self, other: Any) -> bool:
        mine, its = self._key(other)
        return mine <= its

    def __gt__(self, other: Any) -> bool:
        return not self <= other

    def __ge__(self, other: Any) -> bool:
        return not self < other


def _enum(name: str, body: dict[str, Any], record: dict[str, Any]) -> Any:
    made: Any = type(name, (_Enum,), body | {"_ordered": record["ordered"]})
    values = record["enum"]
    members: dict[str, Any] = {}
    for member in sorted(values, key=lambda each: values.get(values[each], values[each])):
        first = member if isinstance(values[member], int) else values[member]  # its name, if two have one value
        members[member] = object.__new__(made)
        members[member]._name, members[member]._value = first, values[first]
        setattr(made, member, members[member])
    made.__members__ = MappingProxyType(members)
    return made


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def _is_integer(value: Any) -> bool:
    """Whether a C++ integer is made of it: a float is not, nor, here, a flag, whose bit was meant."""
    is_number = hasattr(type(value), "__index__") or hasattr(type(value), "__int__")
    is_fraction = isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)
    return is_number and not is_fraction and not isinstance(value, _Enum)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "None": lambda value: value is None,
    "str": lambda value: isinstance(value, str),
    "bytes": lambda value: isinstance(value, bytes),
    "bool": lambda value: isinstance(value, bool | np.bool_),
    "int": _is_integer,
    "SupportsInt": _is_integer,
    "float": lambda value: isinstance(value, numbers.Real),
    "SupportsFloat": lambda value: isinstance(value, numbers.Real),
    "list": lambda value: isinstance(value, list),
    "tuple": lambda value: isinstance(value, tuple),
    "slice": lambda value: isinstance(value, slice),
    "numpy.ndarray": lambda value: isinstance(value, np.ndarray),
    "Buffer": _is_buffer,
}
