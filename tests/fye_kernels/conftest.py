"""Kernels run on the GPU that is there, or else in Triton's interpreter (tests/conftest.py)."""

import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="kernels need PyTorch: pip install fye-rt[kernels]")
pytest.importorskip("triton", reason="kernels need Triton: pip install fye-rt[kernels]")

ALLOCATING = ("geglu", "norm_silu", "reference_attention", "temporal_attention", "to_uint8")
GUARD, BYTE = 256, 0xA5


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """Float32 is float32 on a GPU too, whose convolutions PyTorch otherwise rounds to TF32."""
    convolutions = torch.backends.cudnn.conv
    before, convolutions.fp32_precision = convolutions.fp32_precision, "ieee"
    yield
    convolutions.fp32_precision = before


@pytest.fixture
def head(device: str, dim: int) -> int:
    """A head dimension in float32; on a GPU large heads fill more registers than there are, and PyTorch has them."""
    if device == "cuda" and dim > 48:
        pytest.skip("attention of large heads in float32 is PyTorch's own on a GPU")
    return dim


class Poisoning(ModuleType):
    """PyTorch, but new memory holds NaN (whole numbers: `BYTE`) until it is written, and lies between guards."""

    def __init__(self) -> None:
        super().__init__("torch")
        self.guarded: list[tuple[Any, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def empty(self, shape: tuple[int, ...], *, dtype: Any, device: Any) -> Any:
        return self._between_guards(torch.empty(shape, dtype=dtype, device="meta"), device)

    def empty_like(self, given: Any) -> Any:
        return self._between_guards(torch.empty_like(given, device="meta"), given.device)

    def _between_guards(self, like: Any, device: Any) -> Any:
        memory = torch.empty(like.numel() + 2 * GUARD, dtype=like.dtype, device=device)
        memory.fill_(torch.nan if memory.is_floating_point() else BYTE)
        self.guarded.append((memory, like.numel()))
        return memory.as_strided(like.shape, like.stride(), GUARD)

    def guards_stand(self) -> bool:
        for memory, size in self.guarded:
            around = torch.cat([memory[:GUARD], memory[GUARD + size :]])
            if not (around.isnan() if memory.is_floating_point() else around == BYTE).all():
                return False
        return True


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a kernel doesn't write is NaN in every test here, and what it writes beside its result is found."""
    poisoning = Poisoning()
    for name in ALLOCATING:
        monkeypatch.setattr(importlib.import_module(f"fye_kernels.{name}"), "torch", poisoning)
    yield
    assert poisoning.guards_stand(), "a kernel wrote outside of its result"
