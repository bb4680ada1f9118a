"""What the machine code of the kernels costs, without a GPU.

Per kernel and architecture: registers, shared memory, spills, matrix instructions, and per unit of work the
instructions of a warp and the bytes that its accesses to global memory ask for. A unit is a score of attention or an
element. The counts are of the hot loop, or of the whole kernel if it has no loop. Bytes count every access as if no
predicate masked it, so padding counts, and so does what a condition may skip.

bfloat16 is left out: `reference_attention` has as many instructions in it as in float16.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import triton

from fye_kernels import norm_silu, sass
from fye_kernels.variant import Variant

# positions and channels of group norms: the denoiser's and the VAE's at 512x512
NORMS = (
    *((4096, 320), (1024, 640), (256, 1280), (4096, 960), (64, 2560)),
    *((262144, 128), (262144, 256), (65536, 256), (65536, 512), (16384, 512), (4096, 512)),
)
_SCHEDULERS, _LANES = 4, 32


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU, with numbers from its data sheet: nothing was measured.

    Attributes:
        name: product name.
        multiprocessors: number of streaming multiprocessors; each issues four instructions per clock.
        clock: boost clock in Hz; of the H100 and the B200 the clock at which their dense rates are reached.
    """

    name: str
    multiprocessors: int
    clock: float


CARDS = {
    "sm_80": Card("A100 SXM", 108, 1.41e9),
    "sm_86": Card("RTX 3090", 82, 1.695e9),
    "sm_89": Card("RTX 4090", 128, 2.52e9),
    "sm_90a": Card("H100 SXM", 132, 1.83e9),
    "sm_100a": Card("B200", 148, 1.85e9),
    "sm_120a": Card("RTX 5090", 170, 2.407e9),
}


def measure(
    variant: Variant, entry: Mapping[str, Any], listed: Sequence[sass.Instruction], architecture: str
) -> dict[str, Any]:
    """Measure a compiled variant.

    Args:
        variant: kernel and its work.
        entry: its manifest entry.
        listed: its instructions.
        architecture: such as "sm_90a".

    Returns:
        "registers" per thread, "shared_memory" and "stack" in bytes, "matrix" instructions and "access" to global
        memory by name, "unit", "instructions" and "bytes" per unit, "least_bytes", and for attention "issue_bound": the
        useful TFLOP/s at which the schedulers of a card in `CARDS` are full; None for other architectures.
    """
    loop = sass.hot_loop(listed)
    work = variant.work
    instructions = len(loop) * variant.warps / work.count
    row = {
        **{name: entry[name] for name in ("registers", "shared_memory", "stack")},
        "matrix": sass.matrix(loop),
        "access": sass.access(listed),
        "unit": work.unit,
        "instructions": round(instructions, 4),
        "bytes": round(_LANES * variant.warps * sum(map(_width, sass.access(loop).items())) / work.count, 4),
        "least_bytes": round(work.bytes, 4),
    }
    if work.flop:
        card = CARDS.get(architecture)
        rate = None if card is None else _SCHEDULERS * card.multiprocessors * card.clock / instructions
        row["issue_bound"] = None if rate is None else round(rate * work.flop / 1e12)
    return row


def text(kernels: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the report as JSON: the cards, the traffic of group norms, and the kernels' rows, a line each."""
    norms = {}
    for positions, channels in NORMS:
        moved, least = norm_silu.traffic(positions, channels)
        norms[f"{channels}@{positions}"] = {"bytes": moved, "least_bytes": least, "ratio": round(moved / least, 4)}
    head = {
        "command": "python -m fye_kernels.aot --report bench/results/kernels_static.json",
        "triton": triton.__version__,
        "cards": {name: asdict(card) for name, card in CARDS.items()},
        "norm_silu": norms,
    }
    entries = []
    for name, rows in kernels.items():
        lines = ",\n".join(f"   {json.dumps(architecture)}: {json.dumps(row)}" for architecture, row in rows.items())
        entries.append(f"  {json.dumps(name)}: {{\n{lines}\n  }}")
    return json.dumps(head, indent=1)[:-2] + ',\n "kernels": {\n' + ",\n".join(entries) + "\n }\n}\n"


def line(name: str, architecture: str, row: Mapping[str, Any]) -> str:
    """Describe a row."""
    matrix = ", ".join(f"{count} {kind}" for kind, count in row["matrix"].items())
    bound = f", at most {row['issue_bound']} TFLOP/s" if row.get("issue_bound") else ""
    return (
        f"{name} {architecture}: {row['registers']} registers, {row['shared_memory']} bytes shared, "
        f"{row['stack']} spilled; "
        f"per {row['unit']} {row['instructions']:.3f} instructions and {row['bytes']:.2f} bytes "
        f"({row['least_bytes']:.2f} needed){bound}{'; ' * bool(matrix)}{matrix}"
    )


def _width(accesses: tuple[str, int]) -> int:
    """Return the bytes per lane of accesses with this name, which has the width in bits unless it is 32."""
    name, count = accesses
    bits = re.search(r"\.[US]?(8|16|64|128)\b", name)
    return count * (int(bits[1]) if bits else 32) // 8
