"""Machine code of compiled kernels, read with the cuobjdump that comes with Triton."""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from pathlib import Path

import triton

from fye_rt.errors import BackendError

_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(.*?)\s*(?:;|\s{3})")
_MATRIX = ("HMMA", "HGMMA", "UTCHMMA")
_ACCESS = ("LDG", "LDGSTS", "STG")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a warp.

    Attributes:
        address: bytes from the kernel's start.
        name: operation with its modifiers, such as "LDG.E.128".
        conditional: whether a predicate guards it.
        target: address that a branch jumps to; None for other instructions.
    """

    address: int
    name: str
    conditional: bool = False
    target: int | None = None

    @property
    def operation(self) -> str:
        """Name without modifiers."""
        return self.name.partition(".")[0]


def usage(cubin: bytes) -> dict[str, int]:
    """Read the registers per thread, and the bytes of stack that hold spilled values, from a cubin.

    Raises:
        BackendError: cuobjdump does not report them.
    """
    output = _dump(cubin, "-res-usage")
    match = re.search(r"REG:(\d+) STACK:(\d+)", output)
    if match is None:
        raise BackendError(f"{_CUOBJDUMP} does not report a kernel's resources: {output.strip()!r}")
    return {"registers": int(match[1]), "stack": int(match[2])}


def instructions(cubin: bytes) -> list[Instruction]:
    """Read the instructions of the kernel in a cubin, without the padding after the last one."""
    return parsed(_dump(cubin, "-sass"))


def parsed(listing: str) -> list[Instruction]:
    """Read the instructions of a listing by cuobjdump."""
    listed = []
    for address, text in _LINE.findall(listing):
        guard, rest = re.fullmatch(r"(@!?U?P\w+\s+)?(.*)", text).groups()  # type: ignore[union-attr]
        name, _, operands = rest.partition(" ")
        target = re.search(r"0x([0-9a-f]+)$", operands) if name.startswith("BRA") else None
        conditional = guard is not None or (target is not None and "P" in operands)
        listed.append(Instruction(int(address, 16), name, conditional, int(target[1], 16) if target else None))
    while listed and (listed[-1].name == "NOP" or listed[-1].target == listed[-1].address):
        listed.pop()
    return listed


def hot_loop(listed: Sequence[Instruction]) -> list[Instruction]:
    """Return the innermost loop with matrix instructions, the longest if there are several.

    Without matrix instructions it is the longest innermost loop, and without loops the whole kernel.
    """
    loops = _loops(listed)
    busy = [loop for loop in loops if matrix(loop)] or loops
    members = [{each.address for each in loop} for loop in busy]
    inner = [loop for loop, own in zip(busy, members, strict=True) if not any(other < own for other in members)]
    return max(inner, key=len, default=list(listed))


def matrix(listed: Sequence[Instruction]) -> dict[str, int]:
    """Count matrix instructions by name, which has their shape."""
    return dict(Counter(each.name for each in listed if each.operation in _MATRIX))


def access(listed: Sequence[Instruction]) -> dict[str, int]:
    """Count accesses to global memory by name, which has their width in bits unless it is 32."""
    return dict(Counter(each.name for each in listed if each.operation in _ACCESS))


def _loops(listed: Sequence[Instruction]) -> list[list[Instruction]]:
    """Find the natural loops: a jump back to a block that dominates it, and all blocks in between."""
    starts = {each.target for each in listed if each.target is not None}
    starts |= {listed[0].address}
    starts |= {after.address for each, after in pairwise(listed) if each.target is not None or each.name == "EXIT"}
    blocks: list[list[Instruction]] = []
    for each in listed:
        if each.address in starts:
            blocks.append([])
        blocks[-1].append(each)
    numbers = {block[0].address: number for number, block in enumerate(blocks)}
    before: list[list[int]] = [[] for _ in blocks]
    for number, block in enumerate(blocks):
        end = block[-1]
        if end.target is not None and end.target in numbers:
            before[numbers[end.target]].append(number)
        if number + 1 < len(blocks) and (end.conditional or (end.target is None and end.name != "EXIT")):
            before[number + 1].append(number)
    dominators = [1] + [(1 << len(blocks)) - 1] * (len(blocks) - 1)  # sets of blocks, as bits
    changed = True
    while changed:
        changed = False
        for number in range(1, len(blocks)):
            common = reduce(int.__and__, (dominators[other] for other in before[number]), dominators[number])
            if (now := common | 1 << number) != dominators[number]:
                dominators[number], changed = now, True
    bodies: dict[int, set[int]] = {}
    for number in range(len(blocks)):
        for last in before[number]:
            if dominators[last] >> number & 1:
                body, unseen = bodies.setdefault(number, {number}), [last]
                while unseen:
                    if (block_number := unseen.pop()) not in body:
                        body.add(block_number)
                        unseen += before[block_number]
    return [[each for number in sorted(body) for each in blocks[number]] for body in bodies.values()]


def _dump(cubin: bytes, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([_CUOBJDUMP, option, file.name], capture_output=True, text=True, check=False).stdout
