"""The twin's weights round to the bundle's, and are what any weights that do might have been."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fye_bench.studies import float16_storage
from fye_export.checkpoint import Checkpoint
from fye_rt import Bundle
from fye_rt.errors import BundleError


def test_a_value_before_rounding_is_drawn_around_its_float16_value() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    # beyond the largest, a half step up is infinity
    values = every[np.abs(every) < np.finfo(np.float16).max]
    drawn = float16_storage.unrounded(values, np.random.default_rng(0))
    assert np.array_equal(drawn.astype(np.float16), values)
    steps = (drawn - values) / np.spacing(np.abs(values)).astype(np.float32)
    inner = np.abs(values) > np.finfo(np.float16).smallest_normal
    assert abs(steps[inner].mean()) < 0.01
    assert steps[inner].std() == pytest.approx(12**-0.5, rel=0.02)  # of a rounding error
    assert np.abs(steps).max() <= 0.5


def test_float32_weights_are_not_changed() -> None:
    values = np.float32([0.1, -3])
    assert float16_storage.unrounded(values, np.random.default_rng(0)) is values


def test_the_twins_checkpoint_rounds_to_the_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(tiny_bundle)
    float16_storage.write(bundle, tmp_path / "twin", seed=1)
    twin = Checkpoint.open(tmp_path / "twin")
    changed = 0
    for name, stored in load_file(bundle.path / bundle.weights).items():
        network, key = name.split(".", 1)
        if key not in twin.tensors(network):
            continue  # derived
        made = twin.tensors(network)[key].numpy()
        assert made.dtype == np.float32 and np.array_equal(made.astype(stored.dtype), stored)
        changed += np.count_nonzero(made != stored)
    assert changed > 100_000


def test_a_float32_bundle_has_no_weights_before_rounding(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = replace(Bundle.load(tiny_bundle), precision="fp32")
    with pytest.raises(BundleError, match="stored in fp32: its weights were not rounded"):
        float16_storage.write(bundle, tmp_path / "twin")
