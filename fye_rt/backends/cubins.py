"""Kernels compiled ahead of time (`fye_kernels.aot`), launched without Triton or PyTorch.

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
ALIGNMENT = 16  # kernels are compiled for arguments that are multiples of this
_DEFAULT_SHARED = 48 << 10  # bytes of shared memory that a block gets by default


class Kernel:
    """One kernel, loaded on one GPU."""

    def __init__(self, name: str, entry: Mapping[str, Any], cubin: Path, device: Any) -> None:
        """Load the kernel of a manifest entry from `cubin`, whose hash the caller has checked."""
        from cuda.core import ObjectCode

        self.name, self._entry = name, entry
        self._kernel = ObjectCode.from_cubin(str(cubin)).get_kernel(entry["symbol"])
        if entry["shared_memory"] > _DEFAULT_SHARED:
            _grant(self._kernel, entry["shared_memory"], device)

    def launch(self, stream: Any, arguments: Mapping[str, int | float], **sizes: int) -> None:
        """Queue one launch.

        Args:
            stream: cuda-core stream.
            arguments: device addresses, integers and floats, by name.
            sizes: values that the grid depends on beyond the arguments, such as the batch.

        Raises:
            ValueError: an argument is missing, unknown, or not the multiple of 16 that the kernel requires.
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
        values = [_converted(arguments[name], kind) for name, kind in self._entry["arguments"]]
        launch(stream, config, self._kernel, *values, 0, 0)  # Triton's two scratch pointers; no kernel here uses them

    def grid(self, sizes: Mapping[str, int | float]) -> tuple[int, int, int]:
        """Return the number of programs in each direction; raises ValueError if the grid needs a missing size."""
        lengths = [_evaluate(ast.parse(rule, mode="eval").body, sizes) for rule in self._entry["grid"]]
        x, y, z = lengths + [1] * (3 - len(lengths))
        return x, y, z


class Kernels(Mapping[str, Kernel]):
    """The kernels of a folder, each loaded on first use."""

    def __init__(self, folder: Path, entries: Mapping[str, Mapping[str, Any]], device: Any) -> None:
        self._folder, self._entries, self._device = folder, entries, device
        self._loaded: dict[str, Kernel] = {}

    @classmethod
    def load(cls, folder: Path, device: Any) -> Self:
        """Read the kernels that `python -m fye_kernels.aot` wrote into `folder`, for a cuda-core device.

        Raises:
            BackendError: the manifest is missing, or a kernel was not compiled for the device.
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
        """Load a kernel on first use; raises BackendError if its file is missing or altered."""
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
    """Return the exact architecture, else the newest older one of its major version; one with an `a` must be exact."""
    exact = [name for name in architectures if name.rstrip("a") == f"sm_{major}{minor}"]
    older = sorted(
        name
        for name in architectures
        if not name.endswith("a") and name.startswith(f"sm_{major}") and int(name[3:]) < 10 * major + minor
    )
    return next(iter(exact + older[::-1]), None)


def _converted(value: int | float, kind: str) -> Any:
    """Convert an argument for cuda-core, which reads a plain int as an address."""
    if kind.startswith("*"):
        return int(value)
    return np.int32(value) if kind == "i32" else np.float32(value)


def _evaluate(rule: ast.expr, sizes: Mapping[str, int | float]) -> int:
    """Evaluate a grid rule, made of sizes, integers, products, quotients (rounded down), and ceil of a quotient."""
    match rule:
        case ast.Constant(int(value)):
            return value
        case ast.Name(name):
            if name not in sizes:
                raise ValueError(f"the grid depends on {name}; pass it")
            return int(sizes[name])
        case ast.BinOp(left, ast.Mult(), right):
            return _evaluate(left, sizes) * _evaluate(right, sizes)
        case ast.BinOp(left, ast.Div(), right):
            return _evaluate(left, sizes) // _evaluate(right, sizes)
        case ast.Call(ast.Name("ceil"), [ast.BinOp(left, ast.Div(), right)]):
            return math.ceil(_evaluate(left, sizes) / _evaluate(right, sizes))
    raise ValueError(f"{ast.unparse(rule)} is not a grid rule")


def _grant(kernel: Any, size: int, device: Any) -> None:
    from cuda.bindings import driver

    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    (error,) = driver.cuKernelSetAttribute(attribute, size, kernel.handle, device.device_id)
    if error != driver.CUresult.CUDA_SUCCESS:
        raise BackendError(f"a kernel needs {size} bytes of shared memory, which this GPU does not grant ({error})")
