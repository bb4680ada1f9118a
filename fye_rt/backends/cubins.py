"""Kernels that were compiled ahead of time (`fye_kernels.aot`), launched without Triton and without PyTorch.

kernels = Kernels.load(DIR, Device())
kernels["geglu_fp16"].launch(stream, {"x": pointer, "out": pointer, "count": n, "channels": c})
"""

import ast
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from fye_rt.errors import BackendError

MANIFEST = "manifest.json"
ALIGNMENT = 16  # of the arguments that a kernel was compiled for
_GRANTED = 48 << 10  # bytes of shared memory that a block gets without asking


class Kernel:
    """One kernel, on one GPU."""

    def __init__(self, name: str, entry: Mapping[str, Any], cubin: Path, device: Any) -> None:
        """Takes an entry of the manifest and its file, which has been checked."""
        from cuda.core import ObjectCode

        self.name, self._entry = name, entry
        self._kernel = ObjectCode.from_cubin(str(cubin)).get_kernel(entry["symbol"])
        if entry["shared_memory"] > _GRANTED:
            _grant(self._kernel, entry["shared_memory"], device)

    def launch(self, stream: Any, arguments: Mapping[str, int | float], **sizes: int) -> None:
        """Queue one launch.

        Args:
            stream: of cuda-core.
            arguments: by name: device addresses, whole numbers and floats.
            sizes: what the grid depends on beyond the arguments, such as the batch.

        Raises:
            ValueError: an argument is missing, is none of the kernel's, or isn't the multiple of 16 it must be.
        """
        from cuda.core import LaunchConfig, launch

        names = [name for name, _ in self._entry["arguments"]]
        if set(arguments) != set(names):
            wrong = ", ".join(sorted(set(arguments) ^ set(names)))
            raise ValueError(f"{self.name} takes {', '.join(names)}: {wrong} is missing or none of them")
        for name in self._entry["aligned"]:
            if arguments[name] % ALIGNMENT:
                raise ValueError(f"{self.name}: {name}={arguments[name]} must be a multiple of {ALIGNMENT}")
        config = LaunchConfig(
            grid=self.grid({**arguments, **sizes}),
            block=32 * self._entry["warps"],
            shmem_size=self._entry["shared_memory"],
        )
        given = [_converted(arguments[name], kind) for name, kind in self._entry["arguments"]]
        launch(stream, config, self._kernel, *given, 0, 0)  # Triton's two scratch pointers, which none of them uses

    def grid(self, sizes: Mapping[str, int | float]) -> tuple[int, int, int]:
        """How many programs are launched in each direction.

        Raises:
            ValueError: a size that the grid depends on is missing.
        """
        found = [_evaluate(ast.parse(rule, mode="eval").body, sizes) for rule in self._entry["grid"]]
        x, y, z = found + [1] * (3 - len(found))
        return x, y, z


class Kernels(Mapping[str, Kernel]):
    """All kernels of a folder, loaded when they are first asked for."""

    def __init__(self, folder: Path, entries: Mapping[str, Mapping[str, Any]], device: Any) -> None:
        self._folder, self._entries, self._device = folder, entries, device
        self._loaded: dict[str, Kernel] = {}

    @classmethod
    def load(cls, folder: Path, device: Any) -> Self:
        """Those that `python -m fye_kernels.aot` wrote into `folder`, for a device of cuda-core.

        Raises:
            BackendError: no manifest, or no kernel for the device.
        """
        capability = device.compute_capability
        remedy = f"compile them: python -m fye_kernels.aot --out {folder}"
        try:
            kernels = json.loads((folder / MANIFEST).read_text())["kernels"]
        except (OSError, ValueError, KeyError) as error:
            raise BackendError(f"{folder} has no compiled kernels ({error}); {remedy}") from error
        entries = {}
        for name, architectures in kernels.items():
            chosen = _choose(architectures, capability.major, capability.minor)
            if chosen is None:
                raise BackendError(
                    f"{folder} has {name} for {', '.join(architectures)}, not for sm_{capability.major}"
                    f"{capability.minor}; {remedy}"
                )
            entries[name] = architectures[chosen]
        return cls(folder, entries, device)

    def __getitem__(self, name: str) -> Kernel:
        """The kernel of that name.

        Raises:
            BackendError: its file is missing or altered.
        """
        if name not in self._loaded:
            entry = self._entries[name]
            file = self._folder / entry["file"]
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
                raise BackendError(f"{file} differs from its hash in {MANIFEST}; compile the kernels again")
            self._loaded[name] = Kernel(name, entry, file, self._device)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _choose(architectures: Mapping[str, Any], major: int, minor: int) -> str | None:
    """The very architecture, or the nearest before it of its major number; those with an `a` run on one alone."""
    exact = [name for name in architectures if name.rstrip("a") == f"sm_{major}{minor}"]
    older = sorted(
        name
        for name in architectures
        if not name.endswith("a") and name.startswith(f"sm_{major}") and int(name[3:]) < 10 * major + minor
    )
    return next(iter(exact + older[::-1]), None)


def _converted(value: int | float, kind: str) -> Any:
    """An argument as cuda-core takes it; plain whole numbers are addresses."""
    if kind.startswith("*"):
        return int(value)
    return np.int32(value) if kind == "i32" else np.float32(value)


def _evaluate(rule: ast.expr, sizes: Mapping[str, int | float]) -> int:
    """A grid's rule: sizes, whole numbers, products, quotients, and ceil around a quotient."""
    match rule:
        case ast.Constant(int(value)):
            return value
        case ast.Name(name):
            if name not in sizes:
                raise ValueError(f"the grid depends on {name}; give it")
            return int(sizes[name])
        case ast.BinOp(left, ast.Mult(), right):
            return _evaluate(left, sizes) * _evaluate(right, sizes)
        case ast.BinOp(left, ast.Div(), right):
            return _evaluate(left, sizes) // _evaluate(right, sizes)
        case ast.Call(ast.Name("ceil"), [ast.BinOp(left, ast.Div(), right)]):
            return math.ceil(_evaluate(left, sizes) / _evaluate(right, sizes))
    raise ValueError(f"{ast.unparse(rule)} is no rule of a grid")


def _grant(kernel: Any, size: int, device: Any) -> None:
    from cuda.bindings import driver

    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    (error,) = driver.cuKernelSetAttribute(attribute, size, kernel.handle, device.device_id)
    if error != driver.CUresult.CUDA_SUCCESS:
        raise BackendError(f"a kernel needs {size} bytes of shared memory, which this GPU does not grant ({error})")
