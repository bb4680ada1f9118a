from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fye_training import autoencoder
from fye_training.autoencoder import AutoencoderTask, crops
from fye_training.pool import Choice, Chunk, Order, Pool, draw_chunk
from fye_training.presets import PRESETS


def test_crops_keep_their_weights_and_show_mostly_the_face() -> None:
    pixels = torch.arange(40 * 3 * 64 * 64).reshape(40, 3, 64, 64).float()
    expression = torch.zeros(40, 8, 8)
    expression[:, 1:3, 5:7] = 1
    weight = 10 * pixels[:, 0, ::8, ::8]
    pieces, weights = crops(pixels, expression, weight, 32, torch.Generator().manual_seed(0))
    assert pieces.shape == (40, 3, 32, 32) and weights.shape == (40, 4, 4)
    assert torch.equal(10 * pieces[:, 0, ::8, ::8], weights)
    starts = (pieces[:, 0, 0, 0].long() - torch.arange(40) * 3 * 64 * 64) // 8
    rows, columns = starts // 64, starts % 8
    assert len({*zip(rows.tolist(), columns.tolist(), strict=True)}) > 8
    inside = (rows <= 1) & (rows >= 0) & (columns >= 3)  # both rows and columns of the mask lie in the piece
    assert 0.4 < inside.float().mean() < 0.95
    again, _ = crops(pixels, expression, weight, 32, torch.Generator().manual_seed(0))
    assert torch.equal(again, pieces)


class OneChunk:
    """A pool that never moves on."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk

    def window(self, step: int) -> list[Chunk]:
        return [self.chunk]

    def choose(self, step: int, portraits: int, targets: int) -> Choice:
        numbers = np.arange(portraits) % len(self.chunk.frames)
        return Choice(np.zeros_like(numbers), numbers, np.zeros_like(numbers), np.ones((portraits, targets), np.int64))


def test_the_autoencoder_trains_on_crops_first_and_whole_frames_later(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = PRESETS["tiny"]
    stage = replace(preset.stages["vae"], steps=10, portraits=8, targets=1, crop=32)
    chunk = draw_chunk(Order(seed=0, identities=2, frames=2, size=64, clip_side=32), 0)
    pool = cast(Pool, OneChunk(chunk))
    task = AutoencoderTask(preset, stage, pool, 0, torch.device("cpu"), chunk.frames[:, 0])
    seen: list[tuple[int, ...]] = []
    original = autoencoder.distribution

    def watched(vae: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(tuple(pixels.shape))
        return original(vae, pixels)

    monkeypatch.setattr(autoencoder, "distribution", watched)
    for step in (0, 8, 9):
        assert torch.isfinite(task.losses(step)["loss"])
    assert seen == [(8, 3, 32, 32), (8, 3, 32, 32), (2, 3, 64, 64)]
