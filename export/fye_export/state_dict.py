"""Reads a weight file as a plain dictionary of tensors: memory-mapped, and unpickled only with restrictions."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fye_rt.errors import CheckpointError
from fye_rt.files import refuse_pointer

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_POSITION_IDS = "vision_model.embeddings.position_ids"  # 0, 1, 2, ...: a buffer that old transformers versions saved
MAX_ENTRIES = 100_000  # of one file; a full Stable Diffusion checkpoint has 1,900
_MAX_DEPTH = 4  # {"state_dict": {"unet": {...}}} has 2
_OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_VAE_ATTENTION = re.compile(
    r"((?:en|de)coder\.mid_block\.attentions\.0\.)(query|key|value|proj_attn|to_q|to_k|to_v|to_out\.0)\.(weight|bias)"
)


def read(path: Path, name: str) -> dict[str, Tensor]:
    """Read a .safetensors file, or a .pth, .bin or .ckpt that holds only tensors.

    The tensors are views of the memory-mapped file and use no memory until they are read; only torch.save's format
    from before version 1.6 is read as a whole. Wrappers that training frameworks leave behind are removed:
    `{"state_dict": {...}}` around the tensors, and `module.` before every key.

    Args:
        path: the file; its suffix decides how it is read.
        name: name of the file in messages.

    Raises:
        CheckpointError: the file is unreadable or truncated, or is not a dictionary of float16, bfloat16 or float32
            tensors.
    """
    refuse_pointer(path, CheckpointError)
    state = _read_safetensors(path, name) if path.suffix == ".safetensors" else _read_pickle(path, name)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state or not all(isinstance(key, str) for key in state):
        raise CheckpointError(f"{name} does not hold a dictionary of named tensors; use the file as it was released")
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return checked(state, name)


def read_flat(path: Path, name: str) -> dict[str, Any]:
    """Read a weight file of unknown layout; the entries of nested dictionaries get names with dots.

    Nothing about the values is checked: `checked` does that for those that are used.

    Args:
        path: the file; its suffix decides how it is read.
        name: name of the file in messages.

    Raises:
        CheckpointError: the file is unreadable or truncated, holds something else, or more than `MAX_ENTRIES` entries.
    """
    refuse_pointer(path, CheckpointError)
    state = _read_safetensors(path, name) if path.suffix == ".safetensors" else _read_pickle(path, name)
    flat: dict[str, Any] = {}
    entries = 0

    def add(prefix: str, values: Mapping[Any, Any], depth: int) -> None:
        nonlocal entries
        for key, value in values.items():
            entries += 1  # counted on the way: a dictionary may hold itself many times
            if entries > MAX_ENTRIES:
                raise CheckpointError(
                    f"{name} holds more than {MAX_ENTRIES:,} entries; use the file as it was released"
                )
            if isinstance(value, Mapping) and depth < _MAX_DEPTH:
                add(f"{prefix}{key}.", value, depth + 1)
            else:
                flat[f"{prefix}{key}"] = value

    if not isinstance(state, Mapping):
        raise CheckpointError(f"{name} does not hold a dictionary of named tensors; use the file as it was released")
    add("", state, 1)
    return flat


def checked(state: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Return the entries of a state dict as plain tensors, without CLIP's old `position_ids`.

    Raises:
        CheckpointError: an entry is not a dense tensor of float16, bfloat16 or float32, or claims more than it stores.
    """
    return {key: _tensor(name, key, value) for key, value in state.items() if key != _POSITION_IDS}


def modern_vae(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the VAE's two attentions their current names and shapes.

    Older files use the names query, key, value and proj_attn, and may store the projections as 1x1 convolutions
    (C, C, 1, 1).
    """
    renamed = {}
    for key, value in state.items():
        if match := _VAE_ATTENTION.fullmatch(key):
            prefix, projection, parameter = match.groups()
            modern = f"{prefix}{_OLD_VAE_ATTENTION.get(projection, projection)}.{parameter}"
            if value.ndim == 4 and value.shape[2:] == (1, 1):
                value = value[:, :, 0, 0]
            # if a file has both names, keep the old one, so that it is refused as surplus
            key = modern if modern == key or modern not in state else key
        renamed[key] = value
    return renamed


def _read_safetensors(path: Path, name: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {name}: {error}; it is damaged or incomplete, get it again") from error


def _read_pickle(path: Path, name: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise CheckpointError(f"cannot read {name}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle can raise anything
        match = re.search(r"GLOBAL (\S+)", str(error))  # the rest of torch's message advises to unpickle everything
        reason = f"it holds a {match[1]}, and only tensors are ever unpickled" if match else "it is damaged"
        raise CheckpointError(
            f"cannot read {name}: {reason}; use the file as it was released, or a .safetensors"
        ) from error


def _tensor(name: str, key: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise CheckpointError(f"{name}: {key} is a {type(value).__name__}, not a tensor; remove it from the file")
    if value.dtype not in DTYPES or value.layout != torch.strided or value.device.type != "cpu":
        kind = f"{value.layout} {value.dtype} on {value.device.type}".replace("torch.", "")
        raise CheckpointError(f"{name}: {key} is {kind}; expected dense float16, bfloat16 or float32")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        # strides of 0 let a few bytes claim terabytes
        raise CheckpointError(f"{name}: {key} has shape {tuple(value.shape)}, more than the file holds for it")
    return value.detach()
