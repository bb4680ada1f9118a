"""A checkpoint in float32 whose weights round to those of a float16 bundle: what did storing them in float16 cost?

    python -m fye_bench.studies.float16_storage BUNDLE DIR [--seed 0]
    fye export DIR -o TWIN --precision fp32
    fye eval compare ...    (docs/measurements/backends.md)

The weights that a float16 bundle was made of are often gone. Each of them lay somewhere between the two midpoints to
its neighbours; this draws all of them evenly from there. The bundle is then as far from the twin as it is, in
distribution, from what it was rounded from. No training is involved.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fye_bench.arguments import run
from fye_export import layout, weights
from fye_export.config import ModelConfig
from fye_rt import Bundle
from fye_rt.errors import BundleError


def write(bundle: Bundle, path: str | Path, *, seed: int = 0) -> None:
    """Write the twin's checkpoint, in the released layout.

    Args:
        bundle: stored in float16.
        path: a folder that does not exist yet, or is empty.
        seed: of what was rounded away.

    Raises:
        BundleError: the bundle is stored in float32.
        OutputError: the folder has something in it, or cannot be written.
    """
    if bundle.precision != "fp16":
        raise BundleError(f"{bundle.path} is stored in {bundle.precision}: nothing of it was rounded")
    config = ModelConfig.from_dict(dict(bundle.model))
    generator = np.random.default_rng(seed)

    def made(network: str) -> dict[str, Tensor]:
        stored = weights.read(bundle, network)
        return {key: torch.from_numpy(unrounded(value, generator)) for key, value in stored.items()}

    layout.write(path, config, made, torch.float32)


def unrounded(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Numbers in float32 that round to these in float16, drawn evenly; float32 comes back as it is."""
    if values.dtype != np.float16:
        return values
    exact = values.astype(np.float32)
    below, above = (np.nextafter(values, np.float16(end)).astype(np.float32) for end in (-np.inf, np.inf))
    low, high = (exact + below) / 2, (exact + above) / 2
    drawn = (low + (high - low) * generator.random(values.shape, np.float32)).astype(np.float32)
    # a midpoint itself may round the other way
    return np.where(drawn.astype(np.float16) == values, drawn, exact)


def main(argv: Sequence[str]) -> int:
    """Write the twin; see the module."""
    parser = argparse.ArgumentParser(
        prog="python -m fye_bench.studies.float16_storage",
        description="Write a checkpoint in float32 whose weights round to those of a float16 bundle.",
    )
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("path", metavar="DIR", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    write(Bundle.load(arguments.bundle), arguments.path, seed=arguments.seed)
    return 0


if __name__ == "__main__":
    run(main)
