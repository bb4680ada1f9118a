"""Fixtures for the export's tests."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fye_export import random_checkpoint
from tests.fye_export.repacks import Packer


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


@pytest.fixture
def pack(tiny_checkpoint: Path, tmp_path: Path) -> Packer:
    return Packer(tiny_checkpoint, tmp_path / "repacked")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """What was logged since the last call, one line each."""
    caplog.set_level(logging.INFO, "fye_rt")

    def lines() -> str:
        text = "\n".join(record.getMessage() for record in caplog.records)
        caplog.clear()
        return text

    return lines
