"""Writes a checkpoint of zeros at full size, one .safetensors a network, without using the disk."""

import json
from math import prod
from pathlib import Path

import torch

from fye_export import networks
from fye_export.config import NETWORKS, ModelConfig


def write(folder: Path, config: ModelConfig) -> None:
    """Write the five files without any config.json; their zeros are holes, so that 5 GB occupy a few hundred KB."""
    folder.mkdir()
    for name in NETWORKS:
        with torch.device("meta"):
            shapes = {key: tuple(value.shape) for key, value in networks.build(config, name).state_dict().items()}
        header, end = {}, 0
        for key, shape in shapes.items():
            begin, end = end, end + 2 * prod(shape)
            header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        with (folder / f"{name}.safetensors").open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
