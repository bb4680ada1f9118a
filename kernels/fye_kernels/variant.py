"""Kernels with their compile-time arguments fixed, ready to be compiled ahead of time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TYPES = {"fp16": "*fp16", "bf16": "*bf16"}  # precisions of the released model, and Triton's pointer types for them


@dataclass(frozen=True, slots=True)
class Work:
    """Work of one program in a pass of its hot loop, or in all if it has no loop.

    Attributes:
        count: number of units.
        bytes: least bytes of global memory that a unit reads and writes.
        unit: "score" of attention, or "element".
        flop: useful operations per unit; 0 if memory bounds the kernel.
    """

    count: int
    bytes: float
    unit: str = "element"
    flop: float = 0.0


@dataclass(frozen=True, slots=True)
class Variant:
    """A kernel that compiles to one binary per GPU architecture.

    Attributes:
        name: unique among all kernels.
        kernel: the Triton function.
        signature: type of each run-time argument, in Triton's notation.
        constants: values of the compile-time arguments.
        aligned: arguments that are multiples of 16 (addresses in bytes, integers by value).
        grid: number of programs in each dimension, as expressions over argument names.
        work: work of a program.
        warps: warps per program.
        stages: pipeline stages of its loops.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    aligned: tuple[str, ...]
    grid: tuple[str, ...]
    work: Work
    warps: int = 4
    stages: int = 2


def signature(pointers: Mapping[str, str], numbers: str, floats: str = "") -> dict[str, str]:
    """Return argument types: the pointers, then 32-bit integers and floats from space-separated names."""
    return dict(pointers) | {name: "i32" for name in numbers.split()} | {name: "fp32" for name in floats.split()}
