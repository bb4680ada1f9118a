"""A checkpoint in float32 whose weights round to those of a float16 bundle: what did storing them in float16 cost?

    python -m fye_bench.unrounded BUNDLE DIR [--seed 0]
    fye export DIR -o TWIN --precision fp32
    fye eval compare ...    (docs/evaluation.md)

The weights that a float16 bundle was made of are often gone. Each of them lay somewhere between the two midpoints to
its neighbours; this draws all of them evenly from there. The bundle is then as far from the twin as it is, in
distribution, from what it was rounded from. No training is involved.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from fye_export import layout, networks
from fye_export.config import ModelConfig
from fye_rt import Bundle
from fye_rt.errors import BundleError, FyeError


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
    with safe_open(bundle.path / bundle.weights, "np") as stored:
        keys = stored.keys()
        names = dict(zip(keys, keys, strict=True)) | bundle.manifest["weights"].get("shared", {})

        def weights(network: str) -> dict[str, Tensor]:
            with torch.device("meta"):
                shapes = {key: tensor.shape for key, tensor in networks.build(config, network).state_dict().items()}
            made = {}
            for key, shape in shapes.items():
                name = names.get(f"{network}.{key}")
                # what no graph reads is not in a bundle
                value = np.zeros(shape, np.float32) if name is None else unrounded(stored.get_tensor(name), generator)
                made[key] = torch.from_numpy(value)
            return made

        layout.write(path, config, weights, torch.float32)


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


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fye_bench.unrounded",
        description="Write a checkpoint in float32 whose weights round to those of a float16 bundle.",
    )
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("path", metavar="DIR", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        write(Bundle.load(arguments.bundle), arguments.path, seed=arguments.seed)
    except FyeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main())
