"""The reference's tiny checkpoint and its recorded numbers, as tests/data/golden holds them.

The checkpoint's weights are seeded random numbers, so its seeds are kept instead of its 16 MB. Its makers drew them
with torch.randn, whose last bit differs between processors; here they are drawn in float64, and the few float16 values
that round differently are listed beside the seeds.
"""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

FOLDER = Path(__file__).parent / "data" / "golden"
LAYOUT = FOLDER / "ckpt"  # the config files, where the released checkpoint has them
# seed, file
NETWORKS = {
    "referencenet": (0, "follow-your-emoji/referencenet.pth"),
    "unet": (1, "follow-your-emoji/unet.pth"),
    "lmk_guider": (2, "follow-your-emoji/lmk_guider.pth"),
    "vae": (3, "sd-vae-ft-mse/diffusion_pytorch_model.safetensors"),
    "image_encoder": (4, "sd-image-variations-diffusers/image_encoder/model.safetensors"),
}
PE = ".pos_encoder.pe"
VIDEO = np.s_[..., ::4, ::4]  # of a recorded video's rows and columns, what is kept

Arrays = dict[str, NDArray[Any]]


def read(name: str) -> Arrays:
    """One of the .npz files beside this module, whole."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def write_checkpoint(folder: Path) -> None:
    shutil.copytree(LAYOUT, folder)
    recorded = read("ckpt")
    for network, (_, file) in NETWORKS.items():
        shapes = parse(recorded[f"{network}.tensors"])
        flat = draw(network, shapes)
        flat[recorded[f"{network}.corrected"]] = recorded[f"{network}.corrections"]
        if hashlib.sha256(flat.data).hexdigest() != recorded[f"{network}.sha256"]:
            raise RuntimeError(f"{network}: these are not the golden checkpoint's weights")
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
        parts = np.split(flat, ends[:-1])
        state = {
            name: torch.from_numpy(part.reshape(shape))
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }
        for name, (width, *_) in shapes.items():
            if ".attention_blocks." in name and name.endswith(".to_q.weight"):
                state[name.removesuffix(".to_q.weight") + PE] = torch.from_numpy(recorded[f"pe.{width}"])
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".pth":
            torch.save(state, path)
        else:
            save_file(state, path)


def parse(tensors: NDArray[np.str_]) -> dict[str, tuple[int, ...]]:
    """Lines of "name 32 4 3 3" to shapes by name."""
    return {name: tuple(map(int, shape)) for name, *shape in map(str.split, tensors.tolist())}


def draw(network: str, shapes: dict[str, tuple[int, ...]]) -> NDArray[np.float16]:
    """A network's weights before correction, one after another in the order of `shapes`."""
    normal = Normal(NETWORKS[network][0])
    return np.concatenate([_weight(network, name, shape, normal) for name, shape in shapes.items()])


class Normal:
    """The numbers of torch.Generator(seed) and torch.randn on a CPU, in float64 by NumPy's frozen legacy stream.

    Both are MT19937 with the same seeding. torch fills 16 values or more from 24-bit uniforms by Box-Muller in blocks
    of 16, the last block drawn anew if it is not whole; fewer than 16 one pair after another from 53-bit uniforms.
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.RandomState(seed)
        self._spare: float | None = None

    def draw(self, count: int) -> NDArray[np.float64]:
        if count < 16:
            return np.array([self._single() for _ in range(count)])
        whole = count // 16 * 16
        uniform = self._uniform(count)
        values = np.empty(count)
        values[:whole] = _box_muller(uniform[:whole])
        if whole < count:
            values[-16:] = _box_muller(self._uniform(16))
        return values

    def _single(self) -> float:
        if self._spare is not None:
            value, self._spare = self._spare, None
            return value
        high_low = self._draw(4).astype(np.uint64).reshape(2, 2)
        angle, power = ((high_low[:, 0] << np.uint64(32) | high_low[:, 1]) & np.uint64(2**53 - 1)) * 2.0**-53
        radius = np.sqrt(-2 * np.log1p(-power))
        self._spare = float(radius * np.sin(2 * np.pi * angle))
        return float(radius * np.cos(2 * np.pi * angle))

    def _uniform(self, count: int) -> NDArray[np.float64]:
        return (self._draw(count) & np.uint32(2**24 - 1)) * 2.0**-24

    def _draw(self, count: int) -> NDArray[np.uint32]:
        return self._bits.randint(0, 2**32, count, np.uint32)


def _box_muller(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    power, angle = uniform.reshape(-1, 2, 8).transpose(1, 0, 2)
    radius = np.sqrt(-2 * np.log(1 - power))
    return np.stack([radius * np.cos(2 * np.pi * angle), radius * np.sin(2 * np.pi * angle)], axis=1).ravel()


def _weight(network: str, name: str, shape: tuple[int, ...], normal: Normal) -> NDArray[np.float16]:
    values = normal.draw(int(np.prod(shape)))
    if name.endswith((".bias", ".class_embedding")):
        values *= 0.05
    elif len(shape) == 1:  # a norm's
        values = 1 + 0.1 * values
    elif ".embeddings." in name:
        values *= 0.1
    else:
        values *= (1.5 if network == "lmk_guider" else 1.0) / np.sqrt(np.prod(shape[1:]))
    return values.astype(np.float16)
