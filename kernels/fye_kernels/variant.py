"""A kernel with its compile-time choices made: what is compiled ahead of time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TYPES = {"fp16": "*fp16", "bf16": "*bf16"}  # what the released model runs in, as Triton writes pointers to it


@dataclass(frozen=True, slots=True)
class Variant:
    """One binary for each GPU architecture.

    Attributes:
        name: unique among all kernels.
        kernel: the Triton function.
        signature: type of each run-time argument, in Triton's words.
        constants: of the compile-time arguments.
        aligned: arguments that are multiples of 16 (addresses in bytes, whole numbers as they are).
        grid: how many programs are launched in each direction, in the names of its arguments.
        warps: of a program.
        stages: of its loops.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    aligned: tuple[str, ...]
    grid: tuple[str, ...]
    warps: int = 4
    stages: int = 2


def signature(pointers: Mapping[str, str], numbers: str, floats: str = "") -> dict[str, str]:
    """Pointers as given, then 32-bit whole numbers and floats by their names, set apart by spaces."""
    return dict(pointers) | {name: "i32" for name in numbers.split()} | {name: "fp32" for name in floats.split()}
