"""How many of a multiprocessor's warps a kernel can keep in flight, by arithmetic.

Limits are those of the CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
"""

from dataclasses import dataclass

REGISTERS = 65536  # of a multiprocessor, on all architectures here
_REGISTER_UNIT = 256  # a warp's registers are given out in
_SHARED_UNIT = 128  # bytes that shared memory is given out in
_SHARED_RESERVED = 1024  # bytes of each block that the system keeps
_LANES = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one multiprocessor.

    Attributes:
        warps: in flight.
        blocks: in flight.
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
    """What fits at once.

    Attributes:
        blocks: of the kernel on a multiprocessor; 0 where not even one fits.
        warps: of all of them.
        share: of the warps that a multiprocessor holds, 0 to 1.
        bound: what is used up first: "registers", "shared memory", "warps" or "blocks".
    """

    blocks: int
    warps: int
    share: float
    bound: str


def occupancy(architecture: str, registers: int, warps: int, shared: int) -> Occupancy:
    """Of a kernel.

    Args:
        architecture: one of `LIMITS`.
        registers: of a thread.
        warps: of a block.
        shared: bytes of shared memory of a block.
    """
    limits = LIMITS[architecture]
    of_warp = _round_up(registers * _LANES, _REGISTER_UNIT)
    of_block = _round_up(shared + _SHARED_RESERVED, _SHARED_UNIT)
    fitting = {
        "registers": REGISTERS // of_warp // warps,
        "shared memory": limits.shared // of_block,
        "warps": limits.warps // warps,
        "blocks": limits.blocks,
    }
    bound = min(fitting, key=fitting.__getitem__)
    blocks = fitting[bound]
    return Occupancy(blocks, blocks * warps, blocks * warps / limits.warps, bound)


def _round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit
