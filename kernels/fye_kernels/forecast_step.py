"""The denoising loop's one line, in one pass over memory.

    v    = u + guidance (c - u)                    classifier-free guidance
    q    = C v + D x                               the quantity that is forecast, written into the ring
    x   <- A x + B v + sum_s W_s ring_s            with the new q in its slot

The numbers lie in device memory, by slot of the ring and not by age, so that one captured graph serves every step. Sums
are float32. With a face mask there is a second row of numbers, for what lies outside of it.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from fye_kernels.jump_row import GUIDANCE, ROW, SLOTS, A, B, C, D, W, rows
from fye_kernels.variant import TYPES, Variant, signature
from fye_rt.forecast import Jump

_BLOCK = 1024


def numbers(jump: Jump, guidance: float, slot: int, slots: int) -> Tensor:
    """The rows of `fye_kernels.jump_row.rows`, float32 (2, ROW)."""
    return torch.tensor(rows(jump, guidance, slot, slots))


def reference(
    latents: Tensor,
    unconditional: Tensor | None,
    conditional: Tensor,
    ring: Tensor,
    slot: Tensor,
    numbers: Tensor,
    face: Tensor | None = None,
) -> None:
    """The same in plain PyTorch; see `forecast_step`."""
    inside, outside = numbers.float()
    v = conditional.float()
    if unconditional is not None:
        v = unconditional.float() + inside[GUIDANCE] * (v - unconditional.float())
    ring[int(slot)] = inside[C] * v + inside[D] * latents
    moved = [
        row[A] * latents + row[B] * v + torch.tensordot(row[W : W + len(ring)], ring, dims=1)
        for row in (inside, outside)
    ]
    latents.copy_(moved[0] if face is None else torch.where(face, moved[0], moved[1]))


def forecast_step(
    latents: Tensor,
    unconditional: Tensor | None,
    conditional: Tensor,
    ring: Tensor,
    slot: Tensor,
    numbers: Tensor,
    face: Tensor | None = None,
) -> None:
    """Move the latents from one evaluated step to the next, in place.

    Args:
        latents: float32 (1, 4, F, h, w), overwritten.
        unconditional: prediction of v in any floating type, of the same shape; None where `conditional` is guided.
        conditional: likewise.
        ring: float32 (slots, 1, 4, F, h, w), of which one slot is overwritten; what has no weight is not read.
        slot: int32 (1,), which.
        numbers: float32 (2, ROW), from `numbers`, on the device.
        face: bool (F, h, w), where the first row of numbers holds; everywhere if None.

    Raises:
        ValueError: shapes, types or strides that don't fit together.
    """
    tensors = (latents, conditional, ring, slot, numbers, *(x for x in (unconditional, face) if x is not None))
    if any(not x.is_contiguous() for x in tensors):
        raise ValueError("all tensors must be contiguous")
    if latents.dtype != torch.float32 or ring.dtype != torch.float32 or ring.shape[1:] != latents.shape:
        raise ValueError(f"latents and ring must be float32 of one shape, not {latents.shape} and {ring.shape}")
    if not 1 <= len(ring) <= SLOTS:
        raise ValueError(f"a ring has 1 to {SLOTS} slots, not {len(ring)}")
    if numbers.shape != (2, ROW) or numbers.dtype != torch.float32 or slot.shape != (1,) or slot.dtype != torch.int32:
        raise ValueError(f"numbers must be float32 (2, {ROW}) and slot int32 (1,)")
    if conditional.shape != latents.shape or (unconditional is not None and unconditional.shape != latents.shape):
        raise ValueError(f"predictions must have the latents' shape {tuple(latents.shape)}")
    if face is not None and face.shape != latents.shape[2:]:
        raise ValueError(f"the face mask must have shape {tuple(latents.shape[2:])}, not {tuple(face.shape)}")
    count = latents.numel()
    _kernel[(triton.cdiv(count, _BLOCK),)](
        latents,
        conditional if unconditional is None else unconditional,
        conditional,
        ring,
        slot,
        numbers,
        latents if face is None else face.view(torch.uint8),
        count,
        1 if face is None else face.numel(),
        SLOTS=SLOTS,
        ROW=ROW,
        GUIDED=unconditional is not None,
        MASKED=face is not None,
        BLOCK=_BLOCK,
    )


def variants() -> Iterator[Variant]:
    """What the released model launches: predictions of both halves or of one, with a face mask or without."""
    for name, pointer in TYPES.items():
        for guided in (True, False):
            for masked in (False, True):
                pointers = {
                    "latents": "*fp32",
                    "unconditional": pointer,
                    "conditional": pointer,
                    "ring": "*fp32",
                    "slot": "*i32",
                    "numbers": "*fp32",
                    "face": "*u8",
                }
                yield Variant(
                    f"forecast_step_{'guided' if guided else 'plain'}{'_masked' if masked else ''}_{name}",
                    _kernel,
                    signature(pointers, "count plane"),
                    {"SLOTS": SLOTS, "ROW": ROW, "GUIDED": guided, "MASKED": masked, "BLOCK": _BLOCK},
                    (*pointers, "count"),
                    (f"ceil(count / {_BLOCK})",),
                )


@triton.jit
def _kernel(
    latents,
    unconditional,
    conditional,
    ring,
    slot,
    numbers,
    face,
    count,
    plane,
    SLOTS: tl.constexpr,
    ROW: tl.constexpr,
    GUIDED: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = at < count
    x = tl.load(latents + at, mask=valid)
    v = tl.load(conditional + at, mask=valid).to(tl.float32)
    if GUIDED:
        u = tl.load(unconditional + at, mask=valid).to(tl.float32)
        v = u + tl.load(numbers) * (v - u)
    newest = tl.load(slot)
    q = tl.load(numbers + 1) * v + tl.load(numbers + 2) * x
    inside = tl.load(numbers + 3) * x + tl.load(numbers + 4) * v
    outside = tl.load(numbers + ROW + 3) * x + tl.load(numbers + ROW + 4) * v
    for s in tl.static_range(SLOTS):
        w = tl.load(numbers + 5 + s)
        w_outside = tl.load(numbers + ROW + 5 + s)
        # what has no weight is not read, nor is the slot that is being written: neither need hold a number, nor exist
        weight = tl.abs(w) + tl.abs(w_outside) if MASKED else tl.abs(w)
        end = tl.where((newest == s) | (weight == 0), 0, count)
        held = tl.load(ring + s * count.to(tl.int64) + at, mask=at < end, other=0.0)
        held = tl.where(newest == s, q, held)
        inside += w * held
        if MASKED:
            outside += w_outside * held
    tl.store(ring + newest * count.to(tl.int64) + at, q, mask=valid)
    if MASKED:
        shown = tl.load(face + at % plane, mask=valid, other=0)
        inside = tl.where(shown != 0, inside, outside)
    tl.store(latents + at, inside, mask=valid)
