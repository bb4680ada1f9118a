"""Computes how many of a multiprocessor's warps a kernel can keep in flight.

The limits come from the CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
"""

from dataclasses import dataclass

REGISTERS = 65536  # per multiprocessor, on all architectures here
_REGISTER_UNIT = 256  # allocation unit of a warp's registers
_SHARED_UNIT = 128  # bytes, allocation unit of shared memory
_SHARED_RESERVED = 1024  # bytes that the system reserves in each block
_LANES = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one multiprocessor.

    Attributes:
        warps: most warps in flight.
        blocks: most blocks in flight.
        shared: bytes of shared memory.
    """

    warps: int
    blocks: int
    shared: int


LIMITS = {
    "sm_80": Limits(64, 32, 164 << 10),
    "sm_86": Limits(48, 16, 100 << 10),
    "sm_89": Limits(48, 24, 100 << 10),
    "sm_90a": Limits(64, 32, 228 << 10),
    "sm_100a": Limits(64, 32, 228 << 10),
    "sm_120a": Limits(48, 24, 100 << 10),
}


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How much of a kernel fits on a multiprocessor at once.

    Attributes:
        blocks: number of blocks; 0 if not even one fits.
        warps: number of warps in these blocks.
        share: these warps as a share of the most that a multiprocessor holds, 0 to 1.
        bound: the resource used up first: "registers", "shared memory", "warps" or "blocks".
    """

    blocks: int
    warps: int
    share: float
    bound: str


def occupancy(architecture: str, registers: int, warps: int, shared: int) -> Occupancy:
    """Compute the occupancy of a kernel on an architecture of `LIMITS`.

    The kernel uses `registers` per thread, and per block `warps` and `shared` bytes of shared memory.
    """
    limits = LIMITS[architecture]
    warp_registers = _round_up(registers * _LANES, _REGISTER_UNIT)
    block_shared = _round_up(shared + _SHARED_RESERVED, _SHARED_UNIT)
    fitting = {
        "registers": REGISTERS // warp_registers // warps,
        "shared memory": limits.shared // block_shared,
        "warps": limits.warps // warps,
        "blocks": limits.blocks,
    }
    bound = min(fitting, key=fitting.__getitem__)
    blocks = fitting[bound]
    return Occupancy(blocks, blocks * warps, blocks * warps / limits.warps, bound)


def _round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit
