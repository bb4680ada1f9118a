"""What the kernel `forecast_step` needs to know of a jump, in a row of numbers. Needs neither PyTorch nor Triton."""

from collections.abc import Sequence

from fye_rt.forecast import Jump

SLOTS = 5  # of the ring, at most
GUIDANCE, C, D, A, B, W = range(6)  # places in a row; the weights of the ring's slots from W on
ROW = W + SLOTS


def rows(jump: Jump, guidance: float, slot: int, slots: int) -> list[list[float]]:
    """Two rows: inside the face mask, and outside.

    Args:
        jump: from a plan.
        guidance: classifier-free guidance scale.
        slot: of the ring, where the new quantity goes; the one before holds the quantity before.
        slots: of the ring, 1 to 5.

    Raises:
        ValueError: another number of slots, or fewer than the jump has weights.
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
