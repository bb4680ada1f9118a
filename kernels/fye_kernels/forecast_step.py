"""Update of the latents after a network evaluation, in one pass over memory.

    v    = u + guidance (c - u)                    classifier-free guidance
    v    = sum_k share_k v_k                       where windows overlap: each window's share of a frame
    q    = C v + D x                               the forecast quantity, written into the ring
    x   <- A x + B v + sum_s W_s ring_s            with the new q in its slot

The coefficients lie in device memory, ordered by slot of the ring and not by age, so that one captured graph serves
every step. Sums are float32. With a face mask, a second row of coefficients applies outside of it.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from fye_kernels.forecast_tables import Blend
from fye_kernels.variant import TYPES, Variant, Work, signature
from fye_rt.backends.jump_row import GUIDANCE, ROW, SLOTS, A, B, C, D, W

_BLOCK = 512  # in larger blocks 16-bit predictions go through shared memory to match the layout of the latents


def reference(
    latents: Tensor,
    unconditional: Tensor | None,
    conditional: Tensor,
    ring: Tensor,
    slot: Tensor,
    numbers: Tensor,
    face: Tensor | None = None,
    blend: Blend | None = None,
) -> None:
    """Compute `forecast_step` in plain PyTorch."""
    inside, outside = numbers.float()
    v = conditional.float()
    if unconditional is not None:
        v = unconditional.float() + inside[GUIDANCE] * (v - unconditional.float())
    if blend is not None:
        channels, length = v.shape[1:3]
        planes = v.flatten(0, 2)
        parts = [
            share[:, None, None] * planes[first + length * torch.arange(channels, device=v.device)[:, None]]
            for first, share in zip(blend.planes.long(), blend.shares, strict=True)
        ]
        v = torch.stack(parts).sum(dim=0)[None]
    ring.index_copy_(0, slot.long(), (inside[C] * v + inside[D] * latents)[None])
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
    blend: Blend | None = None,
) -> None:
    """Move the latents from one evaluated step to the next, in place.

    Args:
        latents: float32 (1, 4, F, h, w), overwritten.
        unconditional: prediction of v, any floating type, shape of `latents`; None if `conditional` is guided already.
        conditional: prediction of v, any floating type, shape of `latents`.
        ring: float32 (slots, 1, 4, F, h, w). One slot is overwritten; slots without weight are not read.
        slot: int32 (1,), index of the slot to overwrite.
        numbers: float32 (2, ROW), from `fye_kernels.forecast_tables.numbers`, on the device.
        face: bool (F, h, w), where the first row of numbers applies; None means everywhere.
        blend: tables on the device if predictions come from N windows, (N, 4, f, h, w). Their contents are not checked.

    Raises:
        ValueError: shapes, types or strides do not match.
    """
    optional = (unconditional, face, *(blend or ()))
    tensors = (latents, conditional, ring, slot, numbers, *(x for x in optional if x is not None))
    if any(not x.is_contiguous() for x in tensors):
        raise ValueError("all tensors must be contiguous")
    if latents.dtype != torch.float32 or ring.dtype != torch.float32 or ring.shape[1:] != latents.shape:
        raise ValueError(f"latents and ring must be float32 of one shape, not {latents.shape} and {ring.shape}")
    if not 1 <= len(ring) <= SLOTS:
        raise ValueError(f"ring must have 1 to {SLOTS} slots, not {len(ring)}")
    if numbers.shape != (2, ROW) or numbers.dtype != torch.float32 or slot.shape != (1,) or slot.dtype != torch.int32:
        raise ValueError(f"numbers must be float32 (2, {ROW}) and slot int32 (1,)")
    _check_predictions(latents, unconditional, conditional, blend)
    if face is not None and face.shape != latents.shape[2:]:
        raise ValueError(f"the face mask must have shape {tuple(latents.shape[2:])}, not {tuple(face.shape)}")
    first = conditional if unconditional is None else unconditional
    mask = latents if face is None else face.view(torch.uint8)
    pointers = latents, first, conditional, ring, slot, numbers, mask
    guided, masked = unconditional is not None, face is not None
    choices = {"SLOTS": SLOTS, "ROW": ROW, "GUIDED": guided, "MASKED": masked, "BLOCK": _BLOCK}
    count, (channels, frames, height, width) = latents.numel(), latents.shape[1:]
    if blend is None:
        plane = 1 if face is None else face.numel()
        _kernel[(triton.cdiv(count, _BLOCK),)](*pointers, count, plane, **choices)
        return
    pixels = height * width
    sizes = count, len(blend.planes), frames, conditional.shape[2], pixels
    _blended_kernel[triton.cdiv(pixels, _BLOCK), channels * frames](*pointers, *blend, *sizes, **choices)


def _check_predictions(latents: Tensor, unconditional: Tensor | None, conditional: Tensor, blend: Blend | None) -> None:
    expected: tuple[int, ...] = latents.shape
    if blend is not None:
        expected = (len(conditional), latents.shape[1], *conditional.shape[2:3], *latents.shape[3:])
        frames = latents.shape[2]
        types, shape = (blend.planes.dtype, blend.shares.dtype), blend.planes.shape
        if types != (torch.int32, torch.float32) or shape != blend.shares.shape or shape[1:] != (frames,):
            raise ValueError(f"a blend of {frames} frames must be int32 and float32 (K, {frames})")
    if any(half is not None and half.shape != expected for half in (unconditional, conditional)):
        raise ValueError(f"predictions must have the shape {tuple(expected)}, not {tuple(conditional.shape)}")


def variants() -> Iterator[Variant]:
    """Yield variants for guided or plain predictions, with or without a face mask, of one window or of several.

    Float32 variants serve TensorRT's plans, whose predictions are float32; they take one window.
    """
    for name, pointer in (TYPES | {"fp32": "*fp32"}).items():
        pointers = {"latents": "*fp32", "unconditional": pointer, "conditional": pointer, "ring": "*fp32"}
        pointers |= {"slot": "*i32", "numbers": "*fp32", "face": "*u8"}
        blended_pointers = pointers | {"planes": "*i32", "shares": "*fp32"}
        for guided in (True, False):
            for masked in (False, True):
                choices = {"SLOTS": SLOTS, "ROW": ROW, "GUIDED": guided, "MASKED": masked, "BLOCK": _BLOCK}
                kind = f"forecast_step_{'guided' if guided else 'plain'}{'_masked' if masked else ''}"
                # predictions, latents both ways, the newest slot, all other slots, and a byte of the face mask
                predicted = (2 if guided else 1) * (2 if name in TYPES else 4)
                moved = 8 + 4 * SLOTS + masked
                yield Variant(
                    f"{kind}_{name}",
                    _kernel,
                    signature(pointers, "count plane"),
                    choices,
                    (*pointers, "count"),
                    (f"ceil(count / {_BLOCK})",),
                    Work(_BLOCK, predicted + moved),
                )
                if name in TYPES:
                    yield Variant(
                        f"{kind}_blended_{name}",
                        _blended_kernel,
                        signature(blended_pointers, "count covers frames length pixels"),
                        choices,
                        (*blended_pointers, "count", "pixels"),
                        (f"ceil(pixels / {_BLOCK})", "count / pixels"),
                        Work(_BLOCK, predicted),  # of a window: the hot loop runs over windows
                    )


@triton.jit
def _kernel(
    latents, unconditional, conditional, ring, slot, numbers, face, count, plane,
    SLOTS: tl.constexpr, ROW: tl.constexpr, GUIDED: tl.constexpr, MASKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    valid = at < count
    v = _guided(unconditional, conditional, at, valid, tl.load(numbers), GUIDED)
    _move(latents, v, at, valid, ring, slot, numbers, face, count, plane, SLOTS, ROW, MASKED)


@triton.jit
def _blended_kernel(
    latents, unconditional, conditional, ring, slot, numbers, face, planes, shares,
    count, covers, frames, length, pixels,
    SLOTS: tl.constexpr, ROW: tl.constexpr, GUIDED: tl.constexpr, MASKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channel, frame = tl.program_id(1) // frames, tl.program_id(1) % frames
    valid = pixel < pixels
    guidance = tl.load(numbers)
    v = tl.zeros((BLOCK,), tl.float32)
    for k in range(covers):
        share = tl.load(shares + k * frames + frame)
        first = tl.load(planes + k * frames + frame) + channel * length
        source = first.to(tl.int64) * pixels + pixel
        end = tl.where(share == 0, 0, pixels)  # a share of 0 is not read: memory there may hold NaN
        v += share * _guided(unconditional, conditional, source, pixel < end, guidance, GUIDED)
    at = tl.program_id(1).to(tl.int64) * pixels + pixel
    _move(latents, v, at, valid, ring, slot, numbers, face, count, frames * pixels, SLOTS, ROW, MASKED)


@triton.jit
def _guided(unconditional, conditional, at, valid, guidance, GUIDED: tl.constexpr):
    v = tl.load(conditional + at, mask=valid, other=0.0).to(tl.float32)
    if GUIDED:
        u = tl.load(unconditional + at, mask=valid, other=0.0).to(tl.float32)
        v = u + guidance * (v - u)
    return v


@triton.jit
def _move(
    latents, v, at, valid, ring, slot, numbers, face, count, plane,
    SLOTS: tl.constexpr, ROW: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    x = tl.load(latents + at, mask=valid)
    newest = tl.load(slot)
    q = tl.load(numbers + 1) * v + tl.load(numbers + 2) * x
    inside = tl.load(numbers + 3) * x + tl.load(numbers + 4) * v
    outside = tl.load(numbers + ROW + 3) * x + tl.load(numbers + ROW + 4) * v
    for s in tl.static_range(SLOTS):
        w = tl.load(numbers + 5 + s)
        w_outside = tl.load(numbers + ROW + 5 + s)
        # slots without weight and the slot being written are not read: they may hold NaN, or not exist
        weight = tl.abs(w) + tl.abs(w_outside) if MASKED else tl.abs(w)
        end = tl.where((newest == s) | (weight == 0), 0, count)
        term = tl.load(ring + s * count.to(tl.int64) + at, mask=valid & (at < end), other=0.0)
        term = tl.where(newest == s, q, term)
        inside += w * term
        if MASKED:
            outside += w_outside * term
    tl.store(ring + newest * count.to(tl.int64) + at, q, mask=valid)
    if MASKED:
        shown = tl.load(face + at % plane, mask=valid, other=0)
        inside = tl.where(shown != 0, inside, outside)
    tl.store(latents + at, inside, mask=valid)
