"""Kernels run on the GPU that is there, or else in Triton's interpreter, chosen before Triton is loaded."""

import os

import pytest

torch = pytest.importorskip("torch", reason="kernels need PyTorch: pip install fye-rt[kernels]")
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="kernels need Triton: pip install fye-rt[kernels]")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="session")
def device() -> str:
    """Where kernels run."""
    return DEVICE
