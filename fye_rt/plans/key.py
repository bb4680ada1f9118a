"""What a TensorRT plan was built for."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from fye_rt.errors import OptionError

Shape = tuple[int, ...]
Profile = tuple[tuple[str, tuple[Shape, Shape, Shape]], ...]
_NAMES = {
    "graph": "graph",
    "sm": "GPU architecture",
    "tensorrt": "TensorRT",
    "driver": "driver",
    "onnx": "ONNX file",
    "weights": "weights",
    "profile": "shapes",
    "precision": "precision",
    "flags": "flags",
}


def profile(shapes: Mapping[str, Sequence[Sequence[int]]]) -> Profile:
    """An optimization profile as a `PlanKey` holds it.

    Args:
        shapes: smallest, most usual and largest shape of each input, by its name.

    Raises:
        OptionError: an input without these three shapes.
    """
    sorted_shapes = []
    for name, given in sorted(shapes.items()):
        if len(given) != 3:
            raise OptionError(f"profile: {name} has {len(given)} shapes; give the smallest, usual and largest")
        smallest, usual, largest = (tuple(int(length) for length in shape) for shape in given)
        sorted_shapes.append((name, (smallest, usual, largest)))
    return tuple(sorted_shapes)


@dataclass(frozen=True, slots=True)
class PlanKey:
    """All that a plan depends on; the order of inputs and flags makes no difference.

    Attributes:
        graph: name of the graph, as in a bundle.
        sm: GPU architecture, such as "sm_90".
        tensorrt: its version.
        driver: the driver's version.
        onnx: SHA-256 of the bundle's graph, hexadecimal.
        weights: SHA-256 of the weights; "" if the plan holds none, and is refitted with any of the same shapes.
        profile: smallest, usual and largest shape of each input; see `profile`.
        precision: that it computes in, such as "fp16".
        flags: how it was built, such as "refit", "strip_plan", "opt_level=3".

    Raises:
        OptionError: a text with line breaks or other control characters, an input named twice, or one without three
            shapes.
    """

    graph: str
    sm: str
    tensorrt: str
    driver: str
    onnx: str
    weights: str
    profile: Profile
    precision: str
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        inputs = [name for name, _ in self.profile]
        texts = (self.graph, self.sm, self.tensorrt, self.driver, self.onnx, self.weights, self.precision)
        for text in (*texts, *inputs, *self.flags):
            if not text.isprintable():
                raise OptionError(f"a plan's key holds {text!r}; give text without control characters")
        if len(set(inputs)) < len(inputs):
            raise OptionError(f"profile: an input is named twice in {', '.join(inputs)}")
        object.__setattr__(self, "profile", profile(dict(self.profile)))
        object.__setattr__(self, "flags", tuple(sorted(set(self.flags))))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal."""
        return hashlib.sha256(canonical(self.to_json())).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """What `json` can write and `from_json` takes."""
        shapes = {name: [list(shape) for shape in three] for name, three in self.profile}
        return {**asdict(self), "profile": shapes, "flags": list(self.flags)}

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """The key that `to_json` gave.

        Raises:
            ValueError: it is not what `to_json` gives.
        """
        try:
            key = cls(**{**values, "profile": tuple(values["profile"].items()), "flags": tuple(values["flags"])})
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"not a plan's key: {error!r}") from error
        if key.to_json() != values:
            raise ValueError("not a plan's key: it is not in canonical form")
        return key


def differences(there: PlanKey, here: PlanKey) -> list[tuple[str, str]]:
    """The fields in which two keys differ, in words: of the one, and of the other."""
    return [
        (_told(field, there, here), _told(field, here, there))
        for field in _NAMES
        if getattr(there, field) != getattr(here, field)
    ]


def canonical(values: Any) -> bytes:
    """JSON of which there is one for equal values.

    Raises:
        TypeError: a value that JSON cannot hold.
        ValueError: NaN or infinity.
    """
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _told(field: str, key: PlanKey, other: PlanKey) -> str:
    if field == "profile":
        changed = [entry for entry in key.profile if entry not in other.profile]
        value = "; ".join(f"{name} {_shapes(three)}" for name, three in changed[:1]) or "fewer inputs"
        value += f" and {len(changed) - 1} more inputs" if len(changed) > 1 else ""
    elif field == "flags":
        value = " ".join(key.flags) or "none"
    elif field in ("onnx", "weights"):
        value = getattr(key, field)[:12] or "none"
    else:
        value = getattr(key, field)
    return f"{_NAMES[field]} {value}"


def _shapes(three: tuple[Shape, ...]) -> str:
    return " to ".join("x".join(map(str, shape)) for shape in (three[0], three[-1])) + (
        f", most often {'x'.join(map(str, three[1]))}"
    )
