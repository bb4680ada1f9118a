"""Fixtures shared by all tests: where the recorded numbers of the reference lie."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data() -> Path:
    """Small fixtures that are part of the repository."""
    return ROOT / "tests" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Larger reference material that may lie beside a checkout; not needed by users."""
    folder = ROOT.parent / "shared"
    if not (folder / "reference").is_dir():
        pytest.skip("needs the reference material in ../shared, which is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Recorded inputs and outputs of the reference implementation, with its tiny checkpoint."""
    return shared / "reference" / "golden"
