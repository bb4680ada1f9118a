"""The key of a TensorRT plan: everything that it was built for."""

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
    """Build a `PlanKey`'s profile from the smallest, most usual and largest shape of each input, by name.

    Raises:
        OptionError: an input does not have three shapes.
    """
    sorted_shapes = []
    for name, three in sorted(shapes.items()):
        if len(three) != 3:
            raise OptionError(f"profile: {name} has {len(three)} shapes; give the smallest, usual and largest")
        smallest, usual, largest = (tuple(int(length) for length in shape) for shape in three)
        sorted_shapes.append((name, (smallest, usual, largest)))
    return tuple(sorted_shapes)


@dataclass(frozen=True, slots=True)
class PlanKey:
    """Everything that a plan depends on; the order of inputs and flags makes no difference.

    Attributes:
        graph: name of the graph in the bundle.
        sm: GPU architecture, such as "sm_90"; or several, joined by "+".
        tensorrt: version of TensorRT, or "rtx-" and the version of TensorRT-RTX.
        driver: version of the driver, or "any".
        onnx: SHA-256 of the graph's ONNX file, hexadecimal.
        weights: SHA-256 of the weights; "" if the plan holds none and is refitted with any weights of the same shapes.
        profile: smallest, usual and largest shape of each input; see `profile`.
        precision: compute precision, such as "fp16".
        flags: how the plan was built, such as "refit", "strip_plan", "opt_level=3".

    Raises:
        OptionError: a text has line breaks or other control characters, an input is named twice, or an input does not
            have three shapes.
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
    def architectures(self) -> tuple[str, ...]:
        """GPU architectures that the plan serves."""
        return tuple(self.sm.split("+"))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal."""
        return hashlib.sha256(canonical(self.to_json())).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Convert the key to JSON values, for `from_json`."""
        shapes = {name: [list(shape) for shape in three] for name, three in self.profile}
        return {**asdict(self), "profile": shapes, "flags": list(self.flags)}

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """Rebuild a key from the values of `to_json`; raises ValueError for any other values."""
        try:
            key = cls(**{**values, "profile": tuple(values["profile"].items()), "flags": tuple(values["flags"])})
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"not a plan's key: {error!r}") from error
        if key.to_json() != values:
            raise ValueError("not a plan's key: it is not in canonical form")
        return key


def differences(there: PlanKey, here: PlanKey) -> list[tuple[str, str]]:
    """Describe the fields in which a plan's key differs from a wanted one, as (plan's value, wanted value).

    An architecture that the plan serves among others is no difference.
    """
    return [
        (_described(field, there, here), _described(field, here, there))
        for field in _NAMES
        if getattr(there, field) != getattr(here, field) and not (field == "sm" and here.sm in there.architectures)
    ]


def canonical(values: Any) -> bytes:
    """Encode equal values as equal JSON; raises TypeError for values that JSON lacks, ValueError for NaN, infinity."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _described(field: str, key: PlanKey, other: PlanKey) -> str:
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
