from pathlib import Path

import pytest
import torch

from fye_export import random_checkpoint
from fye_export.checkpoint import Checkpoint
from fye_rt.errors import OutputError
from tests.fye_export.checkpoint_files import TINY, assert_same_weights


def test_the_seed_alone_decides_the_weights_of_a_random_checkpoint(tmp_path: Path, tiny_checkpoint: Path) -> None:
    first = Checkpoint.open(tiny_checkpoint)
    for seed in (0, 1):
        random_checkpoint.write(tmp_path / str(seed), TINY, seed=seed)
    assert_same_weights(Checkpoint.open(tmp_path / "0"), first)
    other = Checkpoint.open(tmp_path / "1")
    assert not torch.equal(other.tensors("unet")["conv_in.weight"], first.tensors("unet")["conv_in.weight"])


def test_a_random_checkpoint_overwrites_no_folder_with_files(folder: Path) -> None:
    with pytest.raises(OutputError, match="not empty"):
        random_checkpoint.write(folder, TINY)
    Checkpoint.open(folder).check()
