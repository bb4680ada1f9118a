import json
import struct
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from fye_export import random_checkpoint, weights
from fye_export.checkpoint import PE, Checkpoint
from fye_export.config import NETWORKS
from fye_rt.errors import CheckpointError
from tests.fye_export.checkpoint_files import GUIDER, change

CODES = {"F16": 2, "F32": 4}  # bytes of a number
DERIVED = {"unet.mid_block.attentions.0.unconditional": torch.arange(6.0)}


@pytest.fixture(params=["fp32", "fp16"])
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return Checkpoint.open(tiny_checkpoint)


@pytest.fixture
def file(checkpoint: Checkpoint, precision: str, tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    weights.write(path, weights.layout(checkpoint, precision), checkpoint, DERIVED)
    return path


def header(file: Path) -> tuple[dict[str, dict[str, object]], int]:
    """The entries of a safetensors file, and where its data begins."""
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    entries = json.loads(raw[8 : 8 + length])
    entries.pop("__metadata__")
    return entries, 8 + length


def test_the_safetensors_library_reads_every_tensor_under_its_name(
    checkpoint: Checkpoint, precision: str, file: Path
) -> None:
    stored = {"fp32": torch.float32, "fp16": torch.float16}[precision]
    expected = {
        f"{network}.{key}": tensor.float() if key.endswith(PE) else tensor.to(stored)
        for network in NETWORKS
        for key, tensor in checkpoint.tensors(network).items()
    }
    layout = weights.layout(checkpoint, precision)
    shared = {name: tensor.name for tensor in layout for name in tensor.shared}
    assert shared and all(name.endswith(PE) for name in shared)
    for name, first in shared.items():
        assert torch.equal(expected.pop(name), expected[first])
    with safe_open(file, "pt") as opened:
        assert set(opened.keys()) == set(expected) | set(DERIVED)
        for name, tensor in (expected | DERIVED).items():
            read = opened.get_tensor(name)
            assert read.dtype == tensor.dtype and torch.equal(read, tensor)


def test_large_tensors_begin_at_a_cache_line(file: Path) -> None:
    entries, start = header(file)
    starts = [start + entry["data_offsets"][0] for entry in entries.values() if size(entry) % 64 == 0]
    assert starts and not [offset for offset in starts if offset % 64]


def test_tensors_follow_each_other_without_gaps(file: Path) -> None:
    entries, start = header(file)
    offsets = sorted(tuple(entry["data_offsets"]) for entry in entries.values())
    assert offsets[0][0] == 0 and len(offsets) > 100
    assert all(end == begin for (_, end), (begin, _) in pairwise(offsets))
    assert start + offsets[-1][1] == file.stat().st_size


def test_recorded_offsets_lead_to_the_bytes_of_each_tensor(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    layout = weights.layout(checkpoint, "fp32")
    placed = weights.write(path, layout, checkpoint, DERIVED)
    shared = {name: tensor.name for tensor in layout for name in tensor.shared}
    raw = path.read_bytes()
    assert placed.keys() == {tensor.name for tensor in layout} | shared.keys() | DERIVED.keys()
    with safe_open(path, "pt") as opened:
        for name, place in placed.items():
            tensor = opened.get_tensor(shared.get(name, name))
            assert place.shape == tuple(tensor.shape)
            assert raw[place.offset : place.offset + place.length] == tensor.numpy().tobytes()
            part = place.rows(1, None) if len(tensor) > 1 else place
            assert raw[part.offset : part.offset + part.length] == tensor[-part.shape[0] :].numpy().tobytes()


def test_a_value_beyond_float16_is_refused_with_its_name_and_a_remedy(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    random_checkpoint.write(folder, random_checkpoint.PRESETS["tiny"], dtype=torch.float32)
    change(folder / GUIDER, lambda state: state.update({"conv_out.bias": torch.full((8,), 1e5)}))
    checkpoint = Checkpoint.open(folder)
    with pytest.raises(CheckpointError, match=r"lmk_guider\.conv_out\.bias .*65504; export with --precision fp32"):
        weights.write(tmp_path / "weights.safetensors", weights.layout(checkpoint, "fp16"), checkpoint, {})


def size(entry: dict[str, object]) -> int:
    first, end = entry["data_offsets"]
    assert CODES[entry["dtype"]] * int(torch.Size(entry["shape"]).numel()) == end - first
    return end - first
