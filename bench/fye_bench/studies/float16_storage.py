"""Measure the cost of float16 storage: write a float32 checkpoint whose weights round to those of a float16 bundle.

    python -m fye_bench.studies.float16_storage BUNDLE DIR [--seed 0]
    fye export DIR -o TWIN --precision fp32
    fye eval compare ...    (docs/measurements/backends.md)

The original weights are often lost. Each lay between the midpoints to its two neighbours, and is drawn evenly from that
interval. The bundle's distance to this twin then has the distribution of its distance to the lost weights. No training
is involved.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from fye_bench.arguments import command, run
from fye_export import layout, weights
from fye_export.config import ModelConfig
from fye_rt import Bundle
from fye_rt.errors import BundleError


def write(bundle: Bundle, path: str | Path, *, seed: int = 0) -> None:
    """Write the twin's checkpoint, in the released layout.

    Args:
        bundle: bundle stored in float16.
        path: a new or empty folder.
        seed: random seed of the rounding errors.

    Raises:
        BundleError: the bundle is stored in float32.
        OutputError: the folder is not empty or cannot be written.
    """
    if bundle.precision != "fp16":
        raise BundleError(
            f"{bundle.path} is stored in {bundle.precision}: its weights were not rounded; give a bundle in fp16"
        )
    config = ModelConfig.from_dict(dict(bundle.model))
    generator = np.random.default_rng(seed)

    def read(network: str) -> dict[str, Tensor]:
        stored = weights.read(bundle, network)
        return {key: torch.from_numpy(unrounded(value, generator)) for key, value in stored.items()}

    layout.write(path, config, read, torch.float32)


def unrounded(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw numbers in float32 that round to these in float16, evenly; float32 values are returned unchanged."""
    if values.dtype != np.float16:
        return values
    exact = values.astype(np.float32)
    below, above = (np.nextafter(values, np.float16(end)).astype(np.float32) for end in (-np.inf, np.inf))
    low, high = (exact + below) / 2, (exact + above) / 2
    drawn = (low + (high - low) * generator.random(values.shape, np.float32)).astype(np.float32)
    # a midpoint itself may round the other way
    return np.where(drawn.astype(np.float16) == values, drawn, exact)


@command("python -m fye_bench.studies.float16_storage")
def main(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle that is stored in float16.")],
    path: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into: new, or empty.")],
    seed: Annotated[int, typer.Option(help="Seed of the rounding errors.")] = 0,
) -> None:
    """Write a checkpoint in float32 whose weights round to those of a float16 bundle."""
    write(Bundle.load(bundle), path, seed=seed)


if __name__ == "__main__":
    run(main)
