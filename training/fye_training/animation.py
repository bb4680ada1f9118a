"""The image and motion stages: single frames, then clips."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fye_rt import media
from fye_rt.backends.host import HostWorkspace
from fye_rt.denoise import denoise
from fye_rt.forecasts.solvers import ddim
from fye_rt.noise import frame_noise
from fye_rt.schedule import SchedulerConfig, schedule
from fye_rt.windows import blended_windows
from fye_training.autoencoder import decode, to_images
from fye_training.forward import Animation
from fye_training.losses import alpha_bars, facial_loss, shared_noise, v_target
from fye_training.pool import Choice, Chunk, Pool
from fye_training.presets import Stage

SHEET_STEPS = 15
SHEET_GUIDANCE = 2.0


class AnimationTask:
    """Training task: v-prediction with the fine-grained facial loss.

    Args:
        module: the networks; parameters with `requires_grad` are trained.
        stage: batch sizes and loss weights.
        pool: training frames with scaled latents.
        seed: seed of noise, timesteps and dropped portraits.
        vae: decoder for the sample sheets.
        scaling_factor: scaling factor of the VAE's latents.
        held_out: identities on the sheets; each one's first frame is its portrait.
    """

    def __init__(
        self,
        module: Animation,
        stage: Stage,
        pool: Pool,
        seed: int,
        vae: nn.Module,
        scaling_factor: float,
        held_out: Chunk,
    ) -> None:
        self.module: nn.Module = module
        self._stage, self._pool, self._seed = stage, pool, seed
        self._vae, self._scaling_factor, self._held_out = vae, scaling_factor, held_out
        self._device = next(module.parameters()).device
        self._alpha_bars = alpha_bars().to(self._device)

    def losses(self, step: int) -> dict[str, Tensor]:
        """Losses of one batch; see `fye_training.loop.Task`."""
        stage = self._stage
        choice = self._pool.choose(step, stage.portraits, stage.targets)
        batch = Batch(self._pool.window(step), choice, self._device)
        random = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        shape = batch.targets.shape
        noise = shared_noise(shape, random) if stage.shared_noise else torch.randn(shape, generator=random)
        noise = noise.to(self._device)
        timesteps = self._timesteps(random).to(self._device)
        hidden = torch.rand(stage.portraits, generator=random) < stage.dropped
        dropped = min(int(hidden.sum()), stage.portraits - 1)
        noisy, target = v_target(batch.targets, noise, self._alpha_bars[timesteps][..., None, None, None])
        v = self.module(noisy, timesteps, batch.landmarks, batch.portraits, batch.clip_pixels, dropped).float()
        plain = (v - target).square().mean()
        return {"loss": facial_loss(v, target, batch.expression, batch.face, stage.facial_at(step)), "mse": plain}

    def _timesteps(self, random: torch.Generator) -> Tensor:
        """Timesteps (P, T), spread evenly over the schedule in random order; the same for all frames of a clip."""
        portraits, targets = self._stage.portraits, self._stage.targets
        count = portraits if self._stage.strides else portraits * targets
        even = (torch.arange(count) + torch.rand(count, generator=random)) / count
        timesteps = (even * len(self._alpha_bars)).long()[torch.randperm(count, generator=random)]
        return timesteps.reshape(portraits, -1).expand(portraits, targets).contiguous()

    def sheet(self, path: Path) -> dict[str, float]:
        """Write landmarks, true frames and generated frames of each held-out identity, its portrait on the left."""
        rows: list[NDArray[np.uint8]] = []
        errors: list[tuple[float, float]] = []
        chunk = self._held_out
        for i in range(len(chunk.frames)):
            portrait, true, landmarks = chunk.frames[i, 0], chunk.frames[i, 1:], chunk.landmarks[i, 1:]
            latents = sample(self.module, chunk, i, SHEET_STEPS, SHEET_GUIDANCE)
            generated = to_images(decode(self._vae, latents / self._scaling_factor))
            errors.append((_psnr(generated, true), _psnr(np.broadcast_to(portrait, true.shape), true)))
            blank = np.zeros_like(portrait)
            for first, images in ((blank, landmarks), (portrait, true), (blank, generated)):
                rows.append(np.concatenate([first, *images], axis=1))
        media.write_image(path, np.concatenate(rows))
        psnr, psnr_of_copying = np.mean(errors, axis=0)
        return {"psnr": float(psnr), "psnr_of_copying": float(psnr_of_copying)}


class Batch:
    """Tensors of a choice's P portraits with T targets each; `Animation.forward` gives the shapes."""

    def __init__(self, chunks: Sequence[Chunk], choice: Choice, device: torch.device) -> None:
        where = list(zip(choice.chunk, choice.identity, choice.portrait, choice.targets, strict=True))

        def stacked(arrays: list[NDArray[np.generic]]) -> Tensor:
            return torch.from_numpy(np.stack(arrays)).to(device)

        self.targets = stacked([chunks[c].latents[i, k] for c, i, _, k in where])
        self.portraits = stacked([chunks[c].latents[i, p] for c, i, p, _ in where])
        self.clip_pixels = stacked([chunks[c].clip_pixels[i, p] for c, i, p, _ in where])
        self.landmarks = stacked([chunks[c].landmarks[i, k] for c, i, _, k in where]).movedim(-1, 2) / 255
        self.expression = stacked([chunks[c].expression[i, k] for c, i, _, k in where]) / 255
        self.face = stacked([chunks[c].face[i, k] for c, i, _, k in where]) / 255


@torch.no_grad()
def sample(module: nn.Module, chunk: Chunk, identity: int, steps: int, guidance: float, seed: int = 0) -> Tensor:
    """Animate an identity's first frame with the landmarks of its other frames, through the runtime's own loop.

    Returns:
        Scaled latents (K - 1, 4, h, w).
    """
    device = next(module.parameters()).device
    portrait = torch.from_numpy(chunk.latents[identity, :1]).to(device).expand(2, -1, -1, -1)
    clip = torch.from_numpy(chunk.clip_pixels[identity, :1]).to(device).expand(2, -1, -1, -1)
    images = torch.from_numpy(chunk.landmarks[identity, 1:]).to(device).movedim(-1, 1) / 255
    landmarks = images.expand(2, *images.shape)
    config = SchedulerConfig()
    steps_taken = schedule(steps, config)
    frames = len(images)

    def evaluate(
        latents: NDArray[np.float32], timestep: int, _: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        noisy = torch.from_numpy(latents[0]).to(device).transpose(0, 1).expand(2, -1, -1, -1, -1)
        times = torch.full((2, frames), timestep, device=device)
        v = module(noisy, times, landmarks, portrait, clip, dropped=1).float().transpose(1, 2)
        return v[:1].cpu().numpy(), v[1:].cpu().numpy()

    height, width = chunk.latents.shape[-2:]
    windows = blended_windows(frames, "context", frames, 0)
    workspace = HostWorkspace(evaluate, steps_taken.timesteps.tolist(), windows, guidance)
    noise = frame_noise(seed, range(frames), height, width)
    result = denoise(workspace, steps_taken, ddim(steps_taken), windows, noise)
    return torch.from_numpy(result[0]).to(device).transpose(0, 1)


def _psnr(image: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    error = np.square(image.astype(np.float64) - truth).mean(axis=(-3, -2, -1))
    return float((20 * np.log10(255) - 10 * np.log10(np.maximum(error, 1e-3))).mean())
