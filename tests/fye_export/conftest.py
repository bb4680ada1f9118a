"""Fixtures for the export's tests."""

import shutil
from pathlib import Path

import pytest

from fye_export import random_checkpoint


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded random checkpoint of the smallest size, in the released layout. Not to be written to."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    random_checkpoint.write(folder, random_checkpoint.PRESETS["tiny"])
    return folder


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may change."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
