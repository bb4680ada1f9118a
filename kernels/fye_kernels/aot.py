"""Compile all kernels ahead of time, without a GPU.

    python -m fye_kernels.aot --arch sm_80,sm_90a --out DIR

Writes to DIR a cubin for every variant and architecture, and manifest.json, which says how to launch each cubin and
which resources it needs. Fails if a kernel spills registers into memory, or uses more registers than resources.json
records for this version of Triton.
"""

import argparse
import hashlib
import inspect
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fye_kernels import forecast_step, geglu, norm_silu, reference_attention, temporal_attention, to_uint8
from fye_kernels.variant import Variant
from fye_rt.backends.cubins import MANIFEST
from fye_rt.errors import BackendError, FyeError, OptionError
from fye_rt.files import atomic_file, atomic_folder

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a")
RESOURCES = Path(__file__).with_name("resources.json")
_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def variants() -> Iterator[Variant]:
    """Yield the variants of all kernels."""
    for module in (reference_attention, temporal_attention, forecast_step, norm_silu, geglu, to_uint8):
        yield from module.variants()


def compile_variant(variant: Variant, architecture: str) -> tuple[bytes, dict[str, Any]]:
    """Compile a variant for an architecture; returns its cubin and its manifest entry, without the file name."""
    order = list(inspect.signature(variant.kernel.fn).parameters)
    types = {name: variant.signature.get(name, "constexpr") for name in order}
    aligned = {(order.index(name),): [["tt.divisibility", 16]] for name in variant.aligned}
    constants = {(order.index(name),): value for name, value in variant.constants.items()}
    compiled = triton.compile(
        ASTSource(variant.kernel, types, constants, attrs=aligned),
        target=GPUTarget("cuda", int(re.sub(r"\D", "", architecture)), 32),
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
        **usage(cubin),
        "sha256": hashlib.sha256(cubin).hexdigest(),
    }


def _compile_named(name: str, architecture: str) -> tuple[bytes, dict[str, Any]]:
    """Compile the variant of this name; a worker process receives names, not kernels."""
    return compile_variant(next(variant for variant in variants() if variant.name == name), architecture)


def usage(cubin: bytes) -> dict[str, int]:
    """Read the registers per thread, and the bytes of stack that hold spilled values, from a cubin.

    Raises:
        BackendError: cuobjdump does not report them.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        output = subprocess.run([_CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True).stdout
    match = re.search(r"REG:(\d+) STACK:(\d+)", output)
    if match is None:
        raise BackendError(f"{_CUOBJDUMP} does not report a kernel's resources: {output.strip()!r}")
    return {"registers": int(match[1]), "stack": int(match[2])}


def check(name: str, architecture: str, entry: dict[str, Any], recorded: dict[str, Any]) -> str | None:
    """Describe what is wrong with a compiled kernel; None if nothing is."""
    if entry["stack"]:
        return f"{name} for {architecture} spills {entry['stack']} bytes"
    bound = recorded.get(name, {}).get(architecture)
    if bound is None:
        return f"{name} for {architecture} has no bound in {RESOURCES.name}; add it with --record"
    if entry["registers"] > bound:
        return f"{name} for {architecture} uses {entry['registers']} registers, but {RESOURCES.name} allows {bound}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fye_kernels.aot", description="Compile all kernels, without a GPU."
    )
    parser.add_argument("--arch", default=",".join(ARCHITECTURES), help="architectures; default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="output folder")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="compile kernels whose names contain TEXT; several with commas"
    )
    parser.add_argument("--record", action="store_true", help=f"write the kernels' registers to {RESOURCES.name}")
    options = parser.parse_args(arguments)
    try:
        return _compile_all(options)
    except FyeError as error:
        print(f"fye: {error}", file=sys.stderr)
        return 2


def _compile_all(options: argparse.Namespace) -> int:
    names = options.arch.split(",")
    architectures = [name if name in ARCHITECTURES or f"{name}a" not in ARCHITECTURES else f"{name}a" for name in names]
    if unknown := [name for name in architectures if name not in ARCHITECTURES]:
        raise OptionError(f"--arch {','.join(unknown)} is not valid; allowed: {', '.join(ARCHITECTURES)}")
    chosen = [variant.name for variant in variants() if any(text in variant.name for text in options.only.split(","))]
    if not chosen:
        raise OptionError(f"--only {options.only!r} names no kernel")
    recorded = json.loads(RESOURCES.read_text())
    if recorded["triton"] != triton.__version__ and not options.record:
        print(f"bounds are for Triton {recorded['triton']}, not {triton.__version__}: only spills are checked")
    bounds = recorded["registers"]
    manifest: dict[str, Any] = {"triton": triton.__version__, "kernels": {}}
    faults = []
    with atomic_folder(options.out) as folder, ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        jobs = [(name, architecture) for name in chosen for architecture in architectures]
        compiled = pool.map(_compile_named, *zip(*jobs, strict=True))
        for (name, architecture), (cubin, entry) in zip(jobs, compiled, strict=True):
            entry["file"] = f"{name}.{architecture}.cubin"
            (folder / entry["file"]).write_bytes(cubin)
            manifest["kernels"].setdefault(name, {})[architecture] = entry
            if options.record:
                bounds.setdefault(name, {})[architecture] = entry["registers"]
            fault = check(name, architecture, entry, bounds)
            if fault is not None and (entry["stack"] or recorded["triton"] == triton.__version__):
                faults.append(fault)
            print(f"{name} {architecture}: {entry['registers']} registers, {entry['shared_memory']} bytes shared")
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    if options.record:
        with atomic_file(RESOURCES) as temporary:
            content = {"triton": triton.__version__, "registers": dict(sorted(bounds.items()))}
            temporary.write_text(json.dumps(content, indent=1) + "\n")
    for fault in faults:
        print(f"fye: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
