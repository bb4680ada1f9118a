"""Plans, writes and reads weights.safetensors, which stores each tensor once for all graphs."""

import json
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from fye_export import networks
from fye_export.checkpoint import Checkpoint
from fye_export.config import NETWORKS, PE, ModelConfig
from fye_export.onnx_graph import Weight
from fye_rt.bundle import Bundle
from fye_rt.errors import CheckpointError

_CODES = {"float16": "F16", "float32": "F32"}
_ALIGNMENT = 64  # bytes: a cache line, so that engines can compute on the mapped file


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor to be written.

    Attributes:
        network: network that it belongs to.
        key: its state-dict name in that network.
        shape: its shape.
        dtype: its type in the file.
        shared: names of equal tensors, which are not written again.
    """

    network: str
    key: str
    shape: tuple[int, ...]
    dtype: str
    shared: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the tensor in the file."""
        return f"{self.network}.{self.key}"

    @property
    def bytes(self) -> int:
        """Size of the tensor in the file, in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def layout(checkpoint: Checkpoint, precision: str, read: Collection[str] | None = None) -> list[StoredTensor]:
    """List the tensors to write in file order: those of whole cache lines come first, so that all of them are aligned.

    Positional encodings stay float32, as in the released files, and equal ones are written once.

    Args:
        checkpoint: source of the tensors.
        precision: "fp32" or "fp16".
        read: names of the tensors that graphs read; None selects all.
    """
    tensors: dict[object, StoredTensor] = {}
    for network in NETWORKS:
        for key, tensor in checkpoint.tensors(network).items():
            encoding = key.endswith(PE)
            dtype = "float16" if precision == "fp16" and not encoding else "float32"
            stored = StoredTensor(network, key, tuple(tensor.shape), dtype)
            if read is not None and stored.name not in read:
                continue
            content = (stored.shape, tensor.numpy().tobytes()) if encoding else stored.name
            if content in tensors:
                first = tensors[content]
                tensors[content] = replace(first, shared=(*first.shared, stored.name))
            else:
                tensors[content] = stored
    return sorted(tensors.values(), key=lambda tensor: tensor.bytes % _ALIGNMENT != 0)


def write(
    path: Path, tensors: list[StoredTensor], checkpoint: Checkpoint, derived: Mapping[str, Tensor]
) -> dict[str, Weight]:
    """Stream the tensors from the checkpoint, then the derived ones (float32), one in memory at a time.

    Returns:
        Location of each tensor by name, including shared ones.

    Raises:
        CheckpointError: a value does not fit into float16.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    placed: dict[str, Weight] = {}
    end = 0
    sizes = [(t.name, t.dtype, t.shape, t.bytes) for t in tensors]
    sizes += [(name, "float32", tuple(t.shape), 4 * t.numel()) for name, t in derived.items()]
    for name, dtype, shape, length in sizes:
        header[name] = {"dtype": _CODES[dtype], "shape": shape, "data_offsets": [end, end + length]}
        placed[name] = Weight(dtype, shape, end, length)
        end += length
    for tensor in tensors:
        placed |= dict.fromkeys(tensor.shared, placed[tensor.name])
    text = json.dumps(header, separators=(",", ":")).encode()
    start = -(-(8 + len(text)) // _ALIGNMENT) * _ALIGNMENT
    with path.open("wb") as file:
        file.write(struct.pack("<Q", start - 8) + text.ljust(start - 8))
        for array in _arrays(tensors, checkpoint):
            file.write(array.data)
        for vector in derived.values():
            file.write(vector.float().contiguous().numpy().data)
    return {name: Weight(w.dtype, w.shape, start + w.offset, w.length) for name, w in placed.items()}


def read(bundle: Bundle, network: str) -> dict[str, np.ndarray]:
    """Read the state dict of a network (`fye_export.config.NETWORKS`) from a bundle, in the stored precision.

    Tensors that no graph reads are zeros.
    """
    with torch.device("meta"):
        module = networks.build(ModelConfig.from_dict(dict(bundle.model)), network)
    shared = bundle.manifest["weights"].get("shared", {})
    with safe_open(bundle.path / bundle.weights, "np") as stored:
        names = {name: name for name in stored.keys()} | shared  # noqa: SIM118
        state = {}
        for key, tensor in module.state_dict().items():
            name = names.get(f"{network}.{key}")
            state[key] = np.zeros(tensor.shape, np.float32) if name is None else stored.get_tensor(name)
    return state


def _arrays(tensors: list[StoredTensor], checkpoint: Checkpoint) -> Iterator[np.ndarray]:
    for stored in tensors:
        tensor = checkpoint.tensors(stored.network)[stored.key].to(getattr(torch, stored.dtype))
        if stored.dtype == "float16" and not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{stored.name} has values beyond float16's 65504; export with --precision fp32 instead"
            )
        yield tensor.contiguous().numpy()
