"""Encodes a jump as the row of numbers that the kernel `forecast_step` reads. Needs neither PyTorch nor Triton."""

from collections.abc import Sequence

from fye_rt.forecast import Jump

SLOTS = 5  # largest number of slots of the ring
GUIDANCE, C, D, A, B, W = range(6)  # positions in a row; the weights of the ring's slots begin at W
ROW = W + SLOTS


def rows(jump: Jump, guidance: float, slot: int, slots: int) -> list[list[float]]:
    """Encode a jump as two rows: inside the face mask, and outside.

    Args:
        jump: a jump of the jump table.
        guidance: classifier-free guidance scale.
        slot: slot of the ring for the new quantity; the slot before it holds the previous quantity.
        slots: number of slots of the ring, 1 to 5.

    Raises:
        ValueError: the number of slots is not 1 to 5, or smaller than the jump's number of weights.
    """
    if not 1 <= slots <= SLOTS:
        raise ValueError(f"a ring has 1 to {SLOTS} slots, not {slots}")
    return [_row(jump, guidance, slot, slots, w) for w in (jump.w, jump.outside or jump.w)]


def _row(jump: Jump, guidance: float, slot: int, slots: int, w: Sequence[float]) -> list[float]:
    if len(w) > slots:
        raise ValueError(f"a jump over {len(w)} quantities needs as many slots, not {slots}")
    row = [guidance, jump.c, jump.d, jump.a, jump.b] + SLOTS * [0.0]
    for age, weight in enumerate(w):
        row[W + (slot - age) % slots] = weight
    return row
