"""Make this folder from the reference material: python -m tests.data.golden.pack ../shared/reference/golden."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from tests.golden_files import FOLDER, LAYOUT, NETWORKS, PE, VIDEO, Arrays, draw, parse

PIPELINES = ("pipeline_8f", "pipeline_40f_ctx24_ov4", "pipeline_long_20f_tile8_ov3")


def main(golden: Path) -> None:
    """Write every file but this one."""
    for file in (golden / "ckpt").rglob("config.json"):
        copy = LAYOUT / file.relative_to(golden / "ckpt")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    _save("ckpt", _checkpoint(golden / "ckpt"))
    _save("modules", select(load_file(golden / "modules.safetensors")))
    _save("unet", select(load_file(golden / "unet.safetensors")))
    for name in PIPELINES:
        with np.load(golden / f"{name}.npz") as file:
            _save(name, select(dict(file)))


def select(recorded: Arrays) -> Arrays:
    """What is kept of recorded arrays: conditional rows of the reference, two frames of the guider, some pixels."""
    kept = {}
    for name, array in recorded.items():
        if name.startswith("ref.") and name != "ref.latents":
            kept[name] = array[1:]
        elif name.startswith("guider."):
            kept[name] = array[:, :, :2]
        elif name == "video_f16":
            kept[name] = array[VIDEO]
        elif name not in ("video_sample_f32", "noise_pred_after_cfg_step0", "clip.image_embeds"):
            kept[name] = array
    return kept


def _checkpoint(folder: Path) -> Arrays:
    kept: Arrays = {}
    for network, (_, file) in NETWORKS.items():
        path = folder / file
        if path.suffix == ".pth":
            state = {name: tensor.numpy() for name, tensor in torch.load(path, weights_only=True).items()}
        else:
            state = load_file(path)
        for name in [name for name in state if name.endswith(PE)]:
            pe = state.pop(name)
            kept[f"pe.{pe.shape[-1]}"] = pe
        lines = [" ".join([name, *map(str, state[name].shape)]) for name in sorted(state)]
        tensors = np.array(lines)
        true = np.concatenate([state[name].ravel() for name in sorted(state)])
        drawn = draw(network, parse(tensors))
        corrected = np.flatnonzero(true.view(np.uint16) != drawn.view(np.uint16)).astype(np.uint32)
        kept[f"{network}.tensors"] = tensors
        kept[f"{network}.corrected"] = corrected
        kept[f"{network}.corrections"] = true[corrected]
        kept[f"{network}.sha256"] = np.array(hashlib.sha256(true.data).hexdigest())
    return kept


def _save(name: str, arrays: Arrays) -> None:
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
