"""Networks run where kernels do (tests/fye_kernels/conftest.py)."""

import pytest


@pytest.fixture(scope="session")
def device() -> str:
    """Where the networks lie."""
    from fye_kernels import tiles

    return "cpu" if tiles.interpreted() else "cuda"
