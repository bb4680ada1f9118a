"""The VAE and decoder stages."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fye_export import networks
from fye_rt import media
from fye_training.losses import emphasis, kl_divergence, reconstruction_loss
from fye_training.pool import Pool
from fye_training.presets import Preset, Stage

ENCODE_BATCH = 64


class AutoencoderTask:
    """Training task: L1, edges and a little KL divergence on drawn frames, weighted like the facial loss."""

    def __init__(
        self, preset: Preset, stage: Stage, pool: Pool, seed: int, device: torch.device, held_out: NDArray[np.uint8]
    ) -> None:
        self._stage, self._pool, self._seed, self._kl = stage, pool, seed, preset.kl
        self._held_out = held_out
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vae = networks.build(preset.model, "vae")
        self.module: nn.Module = placed(vae, device).train().requires_grad_(True)
        if stage.learns == "decoder":
            for part in (vae.encoder, vae.quant_conv):
                part.requires_grad_(False)
        self._device = device

    def losses(self, step: int) -> dict[str, Tensor]:
        """Losses of one batch; see `fye_training.loop.Task`."""
        choice = self._pool.choose(step, self._stage.portraits, self._stage.targets)
        chunks = self._pool.window(step)

        def chosen(name: str) -> NDArray[np.uint8]:
            where = zip(choice.chunk, choice.identity, choice.targets, strict=True)
            return np.concatenate([getattr(chunks[c], name)[i, k] for c, i, k in where])

        pixels = to_pixels(chosen("frames"), self._device)
        expression, face = (torch.from_numpy(chosen(name)).to(self._device) / 255 for name in ("expression", "face"))
        weight = emphasis(expression, face, self._stage.facial_at(step))
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        if self._stage.crop and not self._stage.cooling(step):
            pixels, weight = crops(pixels, expression, weight, self._stage.crop, generator)
        elif self._stage.crop:  # whole frames, with as many pixels in all
            frames = len(pixels) * self._stage.crop**2 // pixels[0, 0].numel()
            pixels, weight = pixels[:frames], weight[:frames]
        mean, log_variance = distribution(self.module, pixels)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        decoded = decode(self.module, mean + (log_variance / 2).exp() * noise)
        reconstruction, kl = reconstruction_loss(decoded.float(), pixels, weight), kl_divergence(mean, log_variance)
        return {"loss": reconstruction + self._kl * kl, "reconstruction": reconstruction, "kl": kl}

    def sheet(self, path: Path) -> dict[str, float]:
        """Write held-out frames above their reconstructions."""
        pixels = to_pixels(self._held_out, self._device)
        decoded = decode(self.module, distribution(self.module, pixels)[0])
        error = ((decoded - pixels) / 2).square().mean(dim=(1, 2, 3))
        rows = [np.concatenate(list(images), axis=1) for images in (self._held_out, to_images(decoded))]
        media.write_image(path, np.concatenate(rows))
        return {"psnr": float(-10 * error.log10().mean())}


def crops(
    pixels: Tensor, expression: Tensor, weight: Tensor, side: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Cut a square piece from each frame, preferably at eyes, brows and mouth, which have most of the detail.

    Args:
        pixels: (N, 3, H, W).
        expression: expression mask (N, H/8, W/8).
        weight: (N, H/8, W/8).
        side: side of the pieces, a multiple of 8.
        generator: random numbers for the pieces' corners, which are multiples of 8.

    Returns:
        Pieces of pixels (N, 3, side, side) and of weight (N, side/8, side/8).
    """
    cells = side // 8
    odds = F.avg_pool2d(expression[:, None].cpu(), cells, stride=1)[:, 0] + 0.02
    cell_numbers = torch.multinomial(odds.flatten(1), 1, generator=generator)[:, 0].tolist()
    corners = [divmod(number, odds.shape[2]) for number in cell_numbers]
    return (
        torch.stack([pixels[n, :, 8 * y : 8 * y + side, 8 * x : 8 * x + side] for n, (y, x) in enumerate(corners)]),
        torch.stack([weight[n, y : y + cells, x : x + cells] for n, (y, x) in enumerate(corners)]),
    )


def memory_format(device: torch.device) -> torch.memory_format:
    """Memory format of activations: on a CPU a channels-last group norm takes 3 times as long in its backward pass."""
    return torch.contiguous_format if device.type == "cpu" else torch.channels_last


def placed(module: nn.Module, device: torch.device) -> nn.Module:
    """Move the module to `device`, in the layout of `memory_format`."""
    return module.to(device, memory_format=memory_format(device))  # type: ignore[call-overload]


def to_pixels(frames: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Convert uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [-1, 1]."""
    pixels = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels.contiguous(memory_format=memory_format(device))


def to_images(pixels: Tensor) -> NDArray[np.uint8]:
    """Convert pixels back to images: the inverse of `to_pixels`, clamped."""
    images = ((pixels.float() + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1)
    return images.round().to(torch.uint8).cpu().numpy()


def distribution(vae: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance of the latents, unscaled, float32 (N, 4, h, w) each."""
    mean, log_variance = vae.quant_conv(vae.encoder(pixels)).float().chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)


def decode(vae: nn.Module, latents: Tensor) -> Tensor:
    """Decode unscaled latents to pixels in about [-1, 1]."""
    return vae.decoder(vae.post_quant_conv(latents))


@torch.no_grad()
def encode(vae: nn.Module, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Encode frames uint8 (N, H, W, 3) to the means of their latents, unscaled float32 (N, 4, H/8, W/8)."""
    device = next(vae.parameters()).device
    batches = (to_pixels(frames[i : i + ENCODE_BATCH], device) for i in range(0, len(frames), ENCODE_BATCH))
    return np.concatenate([distribution(vae, pixels)[0].cpu().numpy() for pixels in batches])
