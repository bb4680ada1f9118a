"""Compile all kernels ahead of time, without a GPU.

    python -m fye_kernels.aot --arch sm_80,sm_90a --out DIR
    python -m fye_kernels.aot --report [FILE]

The first writes to DIR a cubin for every variant and architecture, and manifest.json, which says how to launch each
cubin and which resources it needs. It fails if a kernel spills registers into memory, or needs more shared memory than
the architecture grants a block. The second measures the machine code (`fye_kernels.report`), prints a line for each
kernel, and writes the report to FILE if there is one.
"""

import argparse
import hashlib
import inspect
import json
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fye_kernels import (
    forecast_step,
    geglu,
    norm_silu,
    reference_attention,
    report,
    sass,
    temporal_attention,
    to_uint8,
)
from fye_kernels.variant import Variant
from fye_rt.backends.cubins import MANIFEST
from fye_rt.errors import FyeError, OptionError
from fye_rt.files import atomic_file, atomic_folder

# bytes of shared memory that a block gets at most
SHARED = {
    "sm_80": 163 << 10,
    "sm_86": 99 << 10,
    "sm_89": 99 << 10,
    "sm_90a": 227 << 10,
    "sm_100a": 227 << 10,
    "sm_103a": 227 << 10,
    "sm_120a": 99 << 10,
    "sm_121a": 99 << 10,
}
# Triton compiles for exactly one GPU since sm_90, so these relatives of sm_100 and sm_120 have kernels only if named
ON_REQUEST = ("sm_103a", "sm_121a")
ARCHITECTURES = tuple(name for name in SHARED if name not in ON_REQUEST)
_NO_FILE = Path("-")


def variants(architecture: str) -> Iterator[Variant]:
    """Yield the variants of all kernels for an architecture such as "sm_90a"."""
    yield from reference_attention.variants(_capability(architecture))
    for module in (temporal_attention, forecast_step, norm_silu, geglu, to_uint8):
        yield from module.variants()


def _capability(architecture: str) -> int:
    """Return the compute capability of an architecture, 10 major + minor."""
    return int(re.sub(r"\D", "", architecture))


def compile_variant(variant: Variant, architecture: str) -> tuple[bytes, dict[str, Any]]:
    """Compile a variant for an architecture; returns its cubin and its manifest entry, without the file name."""
    order = list(inspect.signature(variant.kernel.fn).parameters)
    types = {name: variant.signature.get(name, "constexpr") for name in order}
    aligned = {(order.index(name),): [["tt.divisibility", 16]] for name in variant.aligned}
    constants = {(order.index(name),): value for name, value in variant.constants.items()}
    compiled = triton.compile(
        ASTSource(variant.kernel, types, constants, attrs=aligned),
        target=GPUTarget("cuda", _capability(architecture), 32),
        options={"num_warps": variant.warps, "num_stages": variant.stages},
    )
    cubin = compiled.asm["cubin"]
    return cubin, {
        "symbol": compiled.metadata.name,
        "arguments": [[name, types[name]] for name in order if types[name] != "constexpr"],
        "constants": dict(variant.constants),
        "aligned": list(variant.aligned),
        "grid": list(variant.grid),
        "warps": compiled.metadata.num_warps,
        "shared_memory": compiled.metadata.shared,
        **sass.usage(cubin),
        "sha256": hashlib.sha256(cubin).hexdigest(),
    }


def _compile_named(name: str, architecture: str) -> tuple[bytes, dict[str, Any]]:
    """Compile the variant of this name; a worker process receives names, not kernels."""
    return compile_variant(_named(name, architecture), architecture)


def _measure_named(name: str, architecture: str) -> dict[str, Any]:
    """Compile and measure the variant of this name."""
    variant = _named(name, architecture)
    cubin, entry = compile_variant(variant, architecture)
    return report.measure(variant, entry, sass.instructions(cubin), architecture)


def _named(name: str, architecture: str) -> Variant:
    return next(variant for variant in variants(architecture) if variant.name == name)


def check(name: str, architecture: str, entry: dict[str, Any]) -> str | None:
    """Describe what is wrong with a compiled kernel; None if nothing is."""
    if entry["stack"]:
        return f"{name} for {architecture} spills {entry['stack']} bytes"
    if entry["shared_memory"] > SHARED[architecture]:
        allowed = f"a block of {architecture} gets {SHARED[architecture]} at most"
        return f"{name} needs {entry['shared_memory']} bytes of shared memory, but {allowed}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fye_kernels.aot", description="Compile all kernels, without a GPU."
    )
    parser.add_argument("--arch", default=",".join(ARCHITECTURES), help="architectures; default: %(default)s")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="compile kernels whose names contain TEXT; several with commas"
    )
    purpose = parser.add_mutually_exclusive_group(required=True)
    purpose.add_argument("--out", type=Path, metavar="DIR", help="output folder")
    purpose.add_argument(
        "--report",
        type=Path,
        nargs="?",
        const=_NO_FILE,
        metavar="FILE",
        help="measure the machine code and print it; with FILE also write it there, as JSON",
    )
    options = parser.parse_args(arguments)
    try:
        jobs = _jobs(options)
        return _compile_all(jobs, options.out) if options.report is None else _report(jobs, options.report)
    except FyeError as error:
        print(f"fye: {error}", file=sys.stderr)
        return 2


def _jobs(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Return names of kernels with architectures, as the options choose them."""
    names = options.arch.split(",")
    architectures = [name if name in SHARED or f"{name}a" not in SHARED else f"{name}a" for name in names]
    if unknown := [name for name in architectures if name not in SHARED]:
        raise OptionError(f"--arch {','.join(unknown)} is not valid; allowed: {', '.join(SHARED)}")
    chosen = [
        (variant.name, architecture)
        for architecture in architectures
        for variant in variants(architecture)
        if any(text in variant.name for text in options.only.split(","))
        and not (options.report and variant.name.endswith("_bf16"))
    ]
    if not chosen:
        raise OptionError(f"--only {options.only!r} names no kernel")
    return chosen


def _compile_all(jobs: Sequence[tuple[str, str]], out: Path) -> int:
    manifest: dict[str, Any] = {"triton": triton.__version__, "kernels": {}}
    faults = []
    with atomic_folder(out) as folder, ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        compiled = pool.map(_compile_named, *zip(*jobs, strict=True))
        for (name, architecture), (cubin, entry) in zip(jobs, compiled, strict=True):
            entry["file"] = f"{name}.{architecture}.cubin"
            (folder / entry["file"]).write_bytes(cubin)
            manifest["kernels"].setdefault(name, {})[architecture] = entry
            if fault := check(name, architecture, entry):
                faults.append(fault)
            print(f"{name} {architecture}: {entry['registers']} registers, {entry['shared_memory']} bytes shared")
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    for fault in faults:
        print(f"fye: {fault}", file=sys.stderr)
    return 1 if faults else 0


def _report(jobs: Sequence[tuple[str, str]], file: Path) -> int:
    kernels: dict[str, dict[str, Any]] = {}
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        measured = pool.map(_measure_named, *zip(*jobs, strict=True))
        for (name, architecture), row in zip(jobs, measured, strict=True):
            kernels.setdefault(name, {})[architecture] = row
            print(report.line(name, architecture, row), flush=True)
    if file != _NO_FILE:
        with atomic_file(file) as temporary:
            temporary.write_text(report.text(kernels))
    return 0


if __name__ == "__main__":
    sys.exit(main())
