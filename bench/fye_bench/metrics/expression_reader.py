"""Read a face's expression from a picture with two small networks, trained on true drawn frames only.

`python -m fye_bench.metrics.expression_reader` trains them again, in minutes on one core, on characters of neither the
suite nor the mini model's training. The same seed gives the same reader up to rounding.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fye_bench.arguments import command, option, run
from fye_bench.metrics.expression import EYE_CROP, MOUTH_CROP, QUANTITIES, expression, readable, regions
from fye_bench.metrics.truth import FIRST_MOTION, FIRST_READER, Image, Shown
from fye_rt.cli import terminal
from fye_rt.cli.terminal import Bars
from fye_rt.errors import InputError
from fye_rt.files import atomic_file
from fye_training import face
from fye_training.identity import FAMILIES, held_out, identity
from fye_training.performance import poses, resting
from fye_training.portrait import render
from fye_training.shape import Shape
from fye_training.topology import Array

WEIGHTS = Path(__file__).with_name("expression_reader.npz")
# columns of QUANTITIES: outputs of the eye network for each eye, and of the mouth network
RIGHT, LEFT, MOUTH = [0, 2, 3, 4], [1, 2, 3, 5], [6, 7, 8]
MIRRORED = np.array((1.0, -1.0, 1.0, 1.0))  # a mirrored eye looks the other way
# centre and spread of the quantities in training, which are the networks' zero and unit
MIDDLE = np.array((0.3, 0.3, 0.0, 0.0, 0.85, 0.85, 0.1, 0.8, 0.0))
SPREAD = np.array((0.12, 0.12, 0.08, 0.08, 0.15, 0.15, 0.12, 0.12, 0.08))

SEED = 0
IDENTITIES, FRAMES, SIZES = 800, 16, (128, 128, 192, 256)
EPOCHS, BATCH, RATE = 7, 128, 2e-3


class ExpressionReader:
    """Reads the quantities of `expression.QUANTITIES` from pictures.

    Args:
        weights: weights of both networks, by name.

    Raises:
        InputError: the weights belong to another network.
    """

    def __init__(self, weights: Mapping[str, NDArray[np.floating]]) -> None:
        self._networks = networks()
        try:
            self._networks.load_state_dict({key: torch.from_numpy(np.float32(value)) for key, value in weights.items()})
        except RuntimeError as error:
            raise InputError(f"these are not an expression reader's weights: {error}") from error
        self._networks.eval()

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> "ExpressionReader":
        """Load the package's reader, or one from another file.

        Raises:
            InputError: the file is missing or holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(dict(file))
        except (OSError, ValueError) as error:
            command = f"python -m fye_bench.metrics.expression_reader -o {path}"
            raise InputError(f"{path}: {error}; run: {command}") from error

    @torch.inference_mode()
    def read(self, frames: Image, shape: Shape, shown: Shown) -> Array:
        """Read the expressions in F pictures.

        Args:
            frames: uint8 (F, H, W, 3).
            shape: shape of the identity in the pictures.
            shown: its face in the pictures.

        Returns:
            float64 (F, 9), in the order of QUANTITIES; the gaze is the mean of both eyes.
        """
        crops = regions(frames, shape, shown)
        eyes = self._networks["eye"](_normal(crops.eyes.reshape(-1, *EYE_CROP, 3)))
        mouth = self._networks["mouth"](_normal(crops.mouth))
        right, left = eyes.double().numpy().reshape(-1, 2, 4).transpose(1, 0, 2)
        left = left * MIRRORED
        result = np.empty((len(frames), len(QUANTITIES)))
        result[:, RIGHT], result[:, LEFT] = right, left
        result[:, 2:4] = (right[:, 1:3] + left[:, 1:3]) / 2.0
        result[:, MOUTH] = mouth.double().numpy()
        scaled: Array = MIDDLE + result * SPREAD
        return scaled


def networks() -> nn.ModuleDict:
    """Build the network of the eyes, which sees the left one mirrored, and the network of the mouth."""

    def network(size: tuple[int, int], outputs: int) -> nn.Sequential:
        cells = (size[0] // 8) * (size[1] // 8)
        layers: list[nn.Module] = []
        for before, after, stride in ((3, 16, 2), (16, 32, 2), (32, 32, 1), (32, 24, 2)):
            layers += [nn.Conv2d(before, after, 3, stride, 1), nn.GELU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24 * cells, 48), nn.GELU(), nn.Linear(48, outputs))

    return nn.ModuleDict({"eye": network(EYE_CROP, 4), "mouth": network(MOUTH_CROP, 3)})


def _normal(crops: Image) -> Tensor:
    """Scale each crop of uint8 (N, H, W, 3) to mean 0, deviation 1, as (N, 3, H, W): neither light nor skin matters."""
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
    deviation, mean = torch.std_mean(pixels, dim=(1, 2, 3), keepdim=True)
    return (pixels - mean) / (deviation + 4.0)


# N crops, their quantities in the network's units, and which ones are visible
Examples = tuple[Image, NDArray[np.float32], NDArray[np.float32]]


def examples(identities: int, bars: Bars) -> dict[str, Examples]:
    """Draw true frames of the reader's own characters, as training data of each network."""
    columns: dict[str, list[tuple[Image, Array, NDArray[np.bool_]]]] = {"eye": [], "mouth": []}
    for number in range(identities):
        bars("draw", number, identities)
        side = SIZES[number // len(FAMILIES) % len(SIZES)]
        character = identity(held_out(FIRST_READER + number), FAMILIES[number % len(FAMILIES)])
        motion_seed = FIRST_MOTION + FIRST_READER + number
        acting = resting(1) + poses(motion_seed, FRAMES - 1)
        motion = face.motion(
            character.shape, acting, (side, side), face.placement(character.shape, (side, side), motion_seed)
        )
        shown = Shown.of(motion, (side, side))
        crops = regions(render(character, motion, (side, side)), character.shape, shown)
        truth = expression(character.shape, acting)
        seen = readable(character.shape, truth, shown)
        truth = (truth - MIDDLE) / SPREAD
        columns["eye"].append((crops.eyes[:, 0], truth[:, RIGHT], seen[:, RIGHT]))
        columns["eye"].append((crops.eyes[:, 1], truth[:, LEFT] * MIRRORED, seen[:, LEFT]))
        columns["mouth"].append((crops.mouth, truth[:, MOUTH], seen[:, MOUTH]))
    bars("draw", identities, identities)
    data = {}
    for name, rows in columns.items():
        cut, quantities, visible = map(np.concatenate, zip(*rows, strict=True))
        data[name] = cut, quantities.astype(np.float32), visible.astype(np.float32)
    return data


def train(identities: int = IDENTITIES, epochs: int = EPOCHS, bars: Bars | None = None) -> dict[str, Any]:
    """Train both networks and return their weights by name, in float16."""
    bars = bars or Bars(shown=False)
    torch.manual_seed(SEED)
    reader = networks()
    for name, (crops, truth, seen) in examples(identities, bars).items():
        network = reader[name]
        optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-3)
        steps = epochs * (len(crops) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
        for step, chosen in enumerate(_batches(len(crops), epochs)):
            outputs, target = network(_varied(_normal(crops[chosen]))), torch.from_numpy(truth[chosen])
            error = F.smooth_l1_loss(outputs, target, reduction="none", beta=0.3) * torch.from_numpy(seen[chosen])
            optimizer.zero_grad()
            error.mean().backward()
            optimizer.step()
            schedule.step()
            bars(f"train {name}", step + 1, steps)
    return {key: value.numpy().astype(np.float16) for key, value in reader.state_dict().items()}


def _batches(count: int, epochs: int) -> Iterator[NDArray[np.intp]]:
    random = np.random.default_rng(SEED)
    for _ in range(epochs):
        order = random.permutation(count)
        yield from order[: count // BATCH * BATCH].reshape(-1, BATCH)


def _varied(pixels: Tensor) -> Tensor:
    """Soften half of the crops and add a little noise to all: generated frames are less crisp than drawn ones."""
    amount = torch.rand(len(pixels), 1, 1, 1) * (torch.rand(len(pixels), 1, 1, 1) < 0.5)
    soft = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return pixels + amount * (soft - pixels) + 0.05 * torch.rand(len(pixels), 1, 1, 1) * torch.randn_like(pixels)


@command("python -m fye_bench.metrics.expression_reader")
def main(
    output: Annotated[
        Path, option("NPZ", "Output file.", "-o", "--output", show_default="the package's own")
    ] = WEIGHTS,
) -> None:
    """Train the expression reader on true drawn frames and write its weights."""
    torch.set_num_threads(1)
    with terminal.working() as bars:
        weights = train(bars=bars)
    with atomic_file(output) as temporary:
        np.savez_compressed(temporary, **weights)
    terminal.say(f"{output}: {output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    run(main)
