from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fye_export.checkpoint import Checkpoint
from tests import golden_files
from tests.data.golden import pack


def test_the_written_checkpoint_is_the_golden_one_bit_for_bit(golden_checkpoint: Path, golden: Path) -> None:
    written, original = Checkpoint.open(golden_checkpoint), Checkpoint.open(golden / "ckpt")
    assert written.config == original.config
    for network in golden_files.NETWORKS:
        ours, theirs = written.tensors(network), original.tensors(network)
        assert ours.keys() == theirs.keys()
        assert all(ours[key].dtype == theirs[key].dtype and torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", ["modules", "unet", *pack.PIPELINES])
def test_the_packed_numbers_equal_the_recorded_ones_bit_for_bit(name: str, golden: Path) -> None:
    if name in pack.PIPELINES:
        with np.load(golden / f"{name}.npz") as file:
            recorded = dict(file)
    else:
        recorded = load_file(golden / f"{name}.safetensors")
    expected, kept = pack.select(recorded), golden_files.read(name)
    assert kept.keys() == expected.keys()
    assert all(np.array_equal(kept[key], expected[key]) and kept[key].dtype == expected[key].dtype for key in kept)


def test_the_data_of_all_tests_takes_at_most_15_megabytes(data: Path) -> None:
    assert sum(file.stat().st_size for file in data.rglob("*") if file.is_file()) <= 15e6
