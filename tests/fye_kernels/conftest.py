"""Kernels run on the GPU that is there, or else in Triton's interpreter (tests/conftest.py)."""

import pytest

torch = pytest.importorskip("torch", reason="kernels need PyTorch: pip install fye-rt[kernels]")
pytest.importorskip("triton", reason="kernels need Triton: pip install fye-rt[kernels]")


@pytest.fixture(scope="session")
def device() -> str:
    """Where kernels run."""
    return "cuda" if torch.cuda.is_available() else "cpu"
