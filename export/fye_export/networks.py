"""The five networks in PyTorch, with the key names of the released checkpoint.

The UNets use diffusers' blocks wherever these fit. Callers pass in how tokens attend, because that differs between the
reference network, the denoiser of the exported graphs, and the reference implementation.
"""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise

import torch
from diffusers import AutoencoderKL
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from fye_export.blocks import Attend, MotionModule, SpatialTransformer
from fye_export.config import GuiderConfig, ModelConfig, UNetConfig


class Upsample(nn.Module):
    """Nearest-neighbour resize to the next skip's size (double, unless sizes are odd), then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        """(N, C, h, w) -> (N, C, *size)."""
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


class Level(nn.Module):
    """One level of a UNet: ResNet blocks, each followed by the level's transformer and motion module, if any."""

    def __init__(self, config: UNetConfig, channels: list[tuple[int, int]], *, spatial: int, motion: bool) -> None:
        super().__init__()
        time_channels, groups, eps = 4 * config.block_out_channels[0], config.norm_num_groups, config.norm_eps
        self.resnets = nn.ModuleList(
            ResnetBlock2D(in_channels=c_in, out_channels=c_out, temb_channels=time_channels, groups=groups, eps=eps)
            for c_in, c_out in channels
        )
        width = channels[-1][1]
        if spatial:
            self.attentions = nn.ModuleList(SpatialTransformer(config, width) for _ in range(spatial))
        if motion:
            self.motion_modules = nn.ModuleList(MotionModule(width) for _ in range(len(channels) - (spatial == 1)))


class UNet(nn.Module):
    """Stable Diffusion 1.5's UNet; `motion=True` is the denoiser, `motion=False` the reference network.

    The reference network ends in the first norm of its last transformer block and has no output convolution.
    """

    def __init__(self, config: UNetConfig, *, motion: bool) -> None:
        super().__init__()
        self.config = config
        a, b, c, d = config.block_out_channels
        self.clip_fc = nn.Linear(config.clip_dim, config.cross_attention_dim)
        self.conv_in = nn.Conv2d(config.in_channels, a, 3, padding=1)
        self.time_proj = Timesteps(a, config.flip_sin_to_cos, config.freq_shift)
        self.time_embedding = TimestepEmbedding(a, 4 * a)
        self.down_blocks = nn.ModuleList(
            Level(config, channels, spatial=spatial, motion=motion)
            for channels, spatial in (
                ([(a, a), (a, a)], 2),
                ([(a, b), (b, b)], 2),
                ([(b, c), (c, c)], 2),
                ([(c, d), (d, d)], 0),
            )
        )
        for level, width in zip(self.down_blocks[:-1], (a, b, c), strict=True):
            level.downsamplers = nn.ModuleList([Downsample2D(width, use_conv=True, padding=1, name="op")])
        self.mid_block = Level(config, [(d, d), (d, d)], spatial=1, motion=motion)
        self.up_blocks = nn.ModuleList(
            Level(config, channels, spatial=spatial, motion=motion)
            for channels, spatial in (
                ([(d + d, d), (d + d, d), (d + c, d)], 0),
                ([(d + c, c), (c + c, c), (c + b, c)], 3),
                ([(c + b, b), (b + b, b), (b + a, b)], 3),
                ([(b + a, a), (a + a, a), (a + a, a)], 3),
            )
        )
        for level, width in zip(self.up_blocks[:-1], (d, c, b), strict=True):
            level.upsamplers = nn.ModuleList([Upsample(width)])
        if motion:
            self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, a, eps=config.norm_eps)
            self.conv_out = nn.Conv2d(a, config.in_channels, 3, padding=1)
        else:
            self.set_submodule("up_blocks.3.attentions.2", SpatialTransformer(config, a, truncated=True))

    def transformers(self) -> Iterator[tuple[str, SpatialTransformer]]:
        """Yield the 16 spatial transformers with their names, in the order of layer numbers: down, mid, up."""
        for block in ("down_blocks.0", "down_blocks.1", "down_blocks.2", "mid_block", "up_blocks.1", "up_blocks.2",
                      "up_blocks.3"):  # fmt: skip
            for i, transformer in enumerate(self.get_submodule(block).attentions):
                yield f"{block}.attentions.{i}", transformer

    def embed_time(self, timestep: Tensor) -> Tensor:
        """Embed timesteps: (N,) -> (N, 4 * first level's channels)."""
        return self.time_embedding(self.time_proj(timestep).to(self.conv_in.weight.dtype))

    def forward(self, x: Tensor, temb: Tensor, attend: Attend, frames: int = 1, halves: int = 1) -> Tensor:
        """Run all levels.

        Args:
            x: (N, C, h, w), the output of conv_in (with the landmark features added).
            temb: (1 or N, 4C), from `embed_time`.
            attend: maps the tokens of a transformer block.
            frames: frames per clip, side by side in the batch; only the motion modules use it.
            halves: 2 repeats the batch after the first ResNet block. The unconditional and the conditional half are
                bit-identical until the first attention, so everything before it is computed once.

        Returns:
            The denoiser's prediction (halves * N, 4, h, w), or the reference network's last tokens.
        """
        layer = 0

        def stage(level: nn.Module, i: int, x: Tensor) -> Tensor:
            nonlocal layer
            if hasattr(level, "attentions"):
                x = level.attentions[i](x, layer, attend)
                layer += 1
            return level.motion_modules[i](x, frames) if hasattr(level, "motion_modules") else x

        skips = [x]
        for depth, level in enumerate(self.down_blocks):
            for i, resnet in enumerate(level.resnets):
                x = resnet(x, temb)
                if depth == i == 0 and halves > 1:
                    x, skips[0] = torch.cat([x] * halves), torch.cat([skips[0]] * halves)
                x = stage(level, i, x)
                skips.append(x)
            if depth < 3:
                x = level.downsamplers[0](x)
                skips.append(x)

        x = self.mid_block.resnets[0](x, temb)
        x = stage(self.mid_block, 0, x)
        x = self.mid_block.resnets[1](x, temb)

        for depth, level in enumerate(self.up_blocks):
            for i, resnet in enumerate(level.resnets):
                x = resnet(torch.cat([x, skips.pop()], dim=1), temb)
                if depth == 3 and i == 2 and not hasattr(self, "conv_out"):
                    last = level.attentions[2]
                    return attend(layer, last.transformer_blocks[0], last.tokens(x))
                x = stage(level, i, x)
            if depth < 3:
                x = level.upsamplers[0](x, skips[-1].shape[2:])
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Guider(nn.Module):
    """Landmark guider: converts landmark images to features at latent resolution."""

    def __init__(self, config: GuiderConfig) -> None:
        super().__init__()
        channels = config.block_out_channels
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for c, wider in pairwise(channels):
            self.blocks.append(nn.Conv2d(c, c, 3, padding=1))
            self.blocks.append(nn.Conv2d(c, wider, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(channels[-1], config.out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Landmark images (F, 3, H, W) in [0, 1] -> (F, C, H/8, W/8)."""
        x = F.silu(self.conv_in(images))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)


def build(config: ModelConfig, name: str) -> nn.Module:
    """Build one of the five networks (`fye_export.config.NETWORKS`) with fresh weights, in eval mode."""
    if name == "unet":
        network: nn.Module = UNet(config.unet, motion=True)
    elif name == "referencenet":
        network = UNet(config.unet, motion=False)
    elif name == "lmk_guider":
        network = Guider(config.lmk_guider)
    elif name == "vae":
        levels = len(config.vae.block_out_channels)
        network = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            **asdict(config.vae),
        )
    elif name == "image_encoder":
        network = CLIPVisionModelWithProjection(CLIPVisionConfig(**asdict(config.image_encoder)))
    else:
        raise ValueError(f"no network is called {name!r}")
    return network.eval().requires_grad_(False)
