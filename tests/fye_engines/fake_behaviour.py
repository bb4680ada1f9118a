"""What the fake `tensorrt` does: it parses ONNX graphs, builds plans, opens, refits and runs them, all without a GPU.

    fake = load("11.4")
    fake.install(monkeypatch)
    fake.compute = lambda execution: ...    # what an engine's run does to the memory at its addresses

A plan is the text of what it was built from; `read_plan` gives it back. What TensorRT answers with None or False and a
message to the logger is answered so here.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fye_engines import fake_build, fake_runtime
from tests.fye_engines.fake_build import Plan
from tests.fye_engines.fake_runtime import Execution
from tests.fye_engines.fake_tensorrt import RECORDS, Fake

_PLAN = b"a plan of the fake TensorRT "
_PARTS = (
    fake_build.add_module,
    fake_build.add_values,
    fake_build.add_flags,
    fake_build.add_configuration,
    fake_build.add_network,
    fake_build.add_parser,
    fake_build.add_build,
    fake_runtime.add_engine,
    fake_runtime.add_context,
    fake_runtime.add_refit,
)


@dataclass(eq=False, repr=False)
class TensorRT(Fake):
    """A fake that builds and runs.

    Attributes:
        refusals: why the ONNX parser refuses whatever it is given; none: it takes it.
        sizes: symbolic lengths that follow from those of the inputs, by name; for the shapes of outputs.
        compute: called with each run.
        device: what a timing cache was measured on.
        executions: all runs.
        messages: to all loggers, severity's name and text.
        swallowed: what TensorRT's callbacks raised, be it KeyboardInterrupt: the bindings print it and go on.
    """

    refusals: list[str] = field(init=False, default_factory=list)
    sizes: Callable[[dict[str, int]], Mapping[str, int]] = field(init=False, default_factory=lambda: dict)
    compute: Callable[[Execution], None] = field(init=False, default_factory=lambda: _nothing)
    device: str = field(init=False, default="a GPU")
    executions: list[Execution] = field(init=False, default_factory=list)
    messages: list[tuple[str, str]] = field(init=False, default_factory=list)
    swallowed: list[BaseException] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        for part in _PARTS:
            part(self)

    def read_plan(self, data: Any) -> Plan | None:
        """What a plan was built from; None if it is not one of this version, or damaged."""
        return self.unpack(_PLAN, bytes(data))

    def write_plan(self, plan: Plan) -> Any:
        """A plan, an IHostMemory."""
        return self.pack(_PLAN, plan)

    def does(self, owner: str, **functions: Callable[..., Any]) -> None:
        """Implement several of a class's methods and properties."""
        for name, function in functions.items():
            self.implement(owner, name, function)

    def member(self, enum: str, name: str) -> Any:
        """An enum's member."""
        return getattr(getattr(self.module, enum), name)

    def names(self, enum: str, bits: int) -> list[str]:
        """The flags whose bits are set, by all their names.

        Raises:
            AssertionError: a bit of no flag, which TensorRT lets pass.
        """
        members = getattr(self.module, enum).__members__
        found = sorted(name for name, member in members.items() if bits >> int(member) & 1)
        assert bits == sum({1 << int(members[name]) for name in found}), f"{bits:#b} has bits of no {enum}"
        return found

    def say(self, this: Any, text: str, severity: str = "ERROR") -> None:
        """Log a message with an object's logger."""
        self.messages.append((severity, text))
        self.call_back(self.state(this)["logger"], "log", self.member("Logger", severity), text)

    def call_back(self, this: Any, name: str, *arguments: Any) -> Any:
        """Call a method of what may be a user's subclass, as TensorRT does: by position, and None if it raises."""
        try:
            return getattr(this, name)(*arguments)
        except BaseException as error:
            self.swallowed.append(error)
            return None

    def pack(self, magic: bytes, content: dict[str, Any]) -> Any:
        """Something that this version serializes, an IHostMemory; `unpack` reads it."""
        text = json.dumps(content, sort_keys=True).encode()
        return self.new("IHostMemory", data=magic + self.version.encode() + b"\n" + text)

    def unpack(self, magic: bytes, data: bytes) -> dict[str, Any] | None:
        """What was packed; None if it was something else or by another version, or is damaged."""
        start = magic + self.version.encode() + b"\n"
        if not data.startswith(start):
            return None
        try:
            content: dict[str, Any] = json.loads(data[len(start) :])
        except ValueError:
            return None
        return content


def _nothing(execution: Execution) -> None:
    """The memory stays as it is."""


def load(version: str) -> TensorRT:
    """A fake of one of the recorded versions, fake_tensorrt.VERSIONS."""
    return TensorRT(json.loads((RECORDS / f"{version}.json").read_text()))
