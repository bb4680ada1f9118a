"""The reference implementation in plain PyTorch: the control for every speed-up.

It has the networks, weights and, up to rounding, the frames of the exported graphs, but does all of the work that the
graphs leave out, in every evaluation:

- Guidance is a batch of two through the whole network: latents, landmark features and timestep are duplicated.
- Self-attention with the portrait runs for both halves, over the concatenation of a frame's tokens with the portrait's,
  which are repeated for every frame and projected to K and V again. The unconditional half's result is then thrown
  away: plain self-attention overwrites it through a boolean mask built on the host, with two copies of all tokens.
- Cross-attention repeats the CLIP tokens for every frame and projects them to K and V again, even for the unconditional
  half, whose tokens are all equal. `clip_fc` is part of every evaluation.
- Between layers the tensors are (B, C, F, h, w). Every "inflated" convolution and group norm, every spatial
  transformer and every motion module folds the frames into the batch and unfolds them after it. Inside a motion module
  each of the two attentions brings the frames to the token axis and back. As in the reference implementation these are
  reshapes of transposed views: PyTorch copies where the strides leave it no choice.
- Spatial attention is fused (scaled_dot_product_attention, the memory class of the reference implementation's
  xformers); temporal attention is two batched matrix products around a softmax.

Once per clip, the reference network runs with both halves, the guider runs on all frames, and the VAE decodes one frame
at a time. Divisions by scale factors of 1 and dropout are left out; they would only slow the control down.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fye_export.blocks import TemporalAttention, TransformerBlock
from fye_export.networks import UNet
from fye_rt.denoise import OnStep
from fye_rt.errors import OptionError
from fye_rt.options import Options
from fye_rt.schedule import SchedulerConfig, schedule
from fye_rt.windows import blended_windows


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """The denoiser's inputs from a portrait; row 0 of each tensor belongs to the unconditional half.

    Attributes:
        reference: the reference network's tokens (2, h*w, C) for each of the 16 spatial transformers (down, mid, up).
        clip_tokens: (2, L, D); the unconditional row is zero.
    """

    reference: tuple[Tensor, ...]
    clip_tokens: Tensor


class Baseline:
    """The four stages of an animation in PyTorch, on the device and in the dtype of the networks.

    Args:
        networks: modules of `fye_export.networks` by name: unet, referencenet, lmk_guider, vae, image_encoder.
        scheduler: the model's noise schedule.
    """

    def __init__(self, networks: Mapping[str, nn.Module], scheduler: SchedulerConfig) -> None:
        self.networks = networks
        self.scheduler = scheduler
        weight = networks["unet"].conv_in.weight
        self.device, self.dtype = weight.device, weight.dtype

    @torch.inference_mode()
    def encode_portrait(self, image: NDArray[np.uint8], clip_pixels: NDArray[np.float32]) -> Portrait:
        """Run CLIP, the VAE's encoder and the reference network.

        Args:
            image: uint8 (H, W, 3), H and W multiples of 8.
            clip_pixels: float32 (3, S, S), normalised for CLIP.
        """
        vae = self.networks["vae"]
        tokens = self.networks["image_encoder"](self._tensor(clip_pixels)[None]).last_hidden_state
        tokens = torch.cat([torch.zeros_like(tokens), tokens])
        pixels = self._tensor(image.transpose(2, 0, 1)[None].astype(np.float32) / 255 * 2 - 1)
        latents = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
        return Portrait(self.reference_tokens(latents, tokens), tokens)

    @torch.inference_mode()
    def reference_tokens(self, latents: Tensor, clip_tokens: Tensor) -> tuple[Tensor, ...]:
        """Run the reference network's part of `encode_portrait`, once for each half.

        Args:
            latents: latents of the portrait, (1, 4, h, w).
            clip_tokens: (2, L, D), the first row zero.

        Returns:
            `Portrait.reference`: the output of the first layer norm of each transformer block.
        """
        net = self.networks["referencenet"]
        context = net.clip_fc(clip_tokens)
        saved: list[Tensor] = []

        def attend(layer: int, block: TransformerBlock, x: Tensor) -> Tensor:
            normed = block.norm1(x)
            saved.append(normed)
            if not isinstance(block, TransformerBlock):  # the last one ends here
                return normed
            x = block.attn1(normed, normed) + x
            x = block.attn2(block.norm2(x), context) + x
            return block.ff(block.norm3(x)) + x

        timestep = torch.zeros(2, dtype=torch.int64, device=self.device)
        net(net.conv_in(latents.repeat(2, 1, 1, 1)), net.embed_time(timestep), attend)
        return tuple(saved)

    @torch.inference_mode()
    def encode_motion(self, landmark_images: NDArray[np.uint8]) -> Tensor:
        """Encode landmark images, uint8 (F, H, W, 3), as the guider's features (1, C, F, H/8, W/8)."""
        guider = self.networks["lmk_guider"]
        x = self._tensor(landmark_images.transpose(3, 0, 1, 2)[None].astype(np.float32) / 255)
        x = F.silu(_inflated(guider.conv_in, x))
        for conv in guider.blocks:
            x = F.silu(_inflated(conv, x))
        return _inflated(guider.conv_out, x)

    @torch.inference_mode()
    def evaluate(
        self, latents: Tensor, timestep: int, features: Tensor, portrait: Portrait, *, guided: bool = True
    ) -> Tensor:
        """Evaluate the network once: one step for one window.

        Args:
            latents: (1, 4, f, h, w), f <= 32.
            timestep: 0 to 999.
            features: `encode_motion` of the same frames.
            portrait: from `encode_portrait`.
            guided: evaluate both halves instead of the conditional one alone.

        Returns:
            v-predictions (2, 4, f, h, w), unconditional first; (1, 4, f, h, w) when not guided.
        """
        reference, tokens = portrait.reference, portrait.clip_tokens
        if guided:
            latents, features = latents.repeat(2, 1, 1, 1, 1), features.repeat(2, 1, 1, 1, 1)
        else:
            reference, tokens = tuple(rows[1:] for rows in reference), tokens[1:]
        return _unet(self.networks["unet"], latents, timestep, features, reference, tokens)

    @torch.inference_mode()
    def denoise(
        self,
        portrait: Portrait,
        features: Tensor,
        noise: NDArray[np.float32],
        options: Options,
        on_step: OnStep | None = None,
    ) -> NDArray[np.float32]:
        """Denoise a clip, evaluating every step; latents have the networks' dtype between steps.

        Args:
            portrait: from `encode_portrait`.
            features: `encode_motion` of all frames.
            noise: float32 (1, 4, F, H/8, W/8).
            options: only steps, guidance and windows count; the reference implementation's windows are "reference".
                `noise` and the networks decide noise and compute precision.
            on_step: called with (index, timestep, latents) after every step; the latents are float32 and read-only.

        Returns:
            Latents, float32 (1, 4, F, H/8, W/8).

        Raises:
            OptionError: the options have a forecast or another solver.
        """
        for name, value, allowed in (
            ("forecast", options.forecasting.method, "off"),
            ("solver", options.solver, "ddim"),
        ):
            if value != allowed:
                raise OptionError(f"{name}={value!r} is not valid for the baseline; allowed: {allowed}")
        latents = self._tensor(noise)
        frames, guided = latents.shape[2], options.guidance > 1
        steps = schedule(options.steps, self.scheduler)
        for i, timestep in enumerate(map(int, steps.timesteps)):
            prediction = latents.new_zeros((2 if guided else 1, *latents.shape[1:]))
            for window in blended_windows(frames, options.windows, options.window_size, options.window_overlap):
                index = window.frames.tolist()
                v = self.evaluate(latents[:, :, index], timestep, features[:, :, index], portrait, guided=guided)
                # the reference implementation forgets these weights with guidance of 1 or below
                prediction[:, :, index] += v * self._tensor(window.weights)[:, None, None]
            if guided:
                unconditional, conditional = prediction.chunk(2)
                prediction = unconditional + options.guidance * (conditional - unconditional)
            latents = _ddim(latents, prediction, float(steps.alpha_bar_t[i]), float(steps.alpha_bar_prev[i]))
            if on_step is not None:
                on_step(i, timestep, latents.float().numpy(force=True))
        return latents.float().numpy(force=True)

    @torch.inference_mode()
    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Decode latents, float32 (1, 4, F, h, w), to frames, float32 (F, 8h, 8w, 3) in [0, 1]."""
        vae = self.networks["vae"]
        z = self._tensor(latents)[0].transpose(0, 1) / vae.config.scaling_factor
        video = torch.cat([vae.decode(z[i : i + 1]).sample for i in range(len(z))])
        return (video / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float().contiguous().numpy(force=True)

    def _tensor(self, array: NDArray[np.floating]) -> Tensor:
        # copied because PyTorch warns of read-only arrays
        return torch.from_numpy(np.array(array)).to(self.device, self.dtype)


def _ddim(x: Tensor, v: Tensor, alpha_bar: float, alpha_bar_prev: float) -> Tensor:
    clean = alpha_bar**0.5 * x - (1 - alpha_bar) ** 0.5 * v
    epsilon = alpha_bar**0.5 * v + (1 - alpha_bar) ** 0.5 * x
    return alpha_bar_prev**0.5 * clean + (1 - alpha_bar_prev) ** 0.5 * epsilon


def _unet(
    net: UNet, latents: Tensor, timestep: int, features: Tensor, reference: tuple[Tensor, ...], clip_tokens: Tensor
) -> Tensor:
    batch = len(latents)
    temb = net.embed_time(torch.tensor([timestep], device=latents.device).expand(batch))
    context = net.clip_fc(clip_tokens)
    saved = iter(reference)

    def layers(level: nn.Module, i: int, x: Tensor) -> Tensor:
        if hasattr(level, "attentions"):
            x = _spatial_transformer(level.attentions[i], x, context, next(saved))
        return _temporal_transformer(level.motion_modules[i].temporal_transformer, x)

    x = _inflated(net.conv_in, latents) + features
    skips = [x]
    for level in net.down_blocks:
        for i, resnet in enumerate(level.resnets):
            x = layers(level, i, _resnet(resnet, x, temb))
            skips.append(x)
        if hasattr(level, "downsamplers"):
            x = _inflated(level.downsamplers[0].conv, x)
            skips.append(x)

    x = layers(net.mid_block, 0, _resnet(net.mid_block.resnets[0], x, temb))
    x = _resnet(net.mid_block.resnets[1], x, temb)

    for level in net.up_blocks:
        for i, resnet in enumerate(level.resnets):
            x = layers(level, i, _resnet(resnet, torch.cat([x, skips.pop()], dim=1), temb))
        if hasattr(level, "upsamplers"):
            x = F.interpolate(x, size=skips[-1].shape[2:], mode="nearest")
            x = _inflated(level.upsamplers[0].conv, x)
    return _inflated(net.conv_out, F.silu(_inflated(net.conv_norm_out, x)))


def _fold(x: Tensor) -> Tensor:
    """(B, C, F, h, w) -> (B*F, C, h, w)."""
    return x.transpose(1, 2).flatten(0, 1)


def _unfold(x: Tensor, frames: int) -> Tensor:
    """(B*F, C, h, w) -> (B, C, F, h, w)."""
    return x.unflatten(0, (-1, frames)).transpose(1, 2)


def _inflated(operation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a convolution or group norm of single frames to (B, C, F, h, w)."""
    return _unfold(operation(_fold(x)), x.shape[2])


def _resnet(block: nn.Module, x: Tensor, temb: Tensor) -> Tensor:
    y = _inflated(block.conv1, F.silu(_inflated(block.norm1, x)))
    y = y + block.time_emb_proj(F.silu(temb))[:, :, None, None, None]
    y = _inflated(block.conv2, F.silu(_inflated(block.norm2, y)))
    return (x if block.conv_shortcut is None else _inflated(block.conv_shortcut, x)) + y


def _spatial_transformer(transformer: nn.Module, x: Tensor, context: Tensor, reference: Tensor) -> Tensor:
    """(B, C, F, h, w), context (B, L, D), reference (B, h*w, C) -> (B, C, F, h, w)."""
    frames = x.shape[2]
    context, reference = (rows[:, None].repeat(1, frames, 1, 1).flatten(0, 1) for rows in (context, reference))
    x = _fold(x)
    tokens = transformer.tokens(x)
    tokens = _transformer_block(transformer.transformer_blocks[0], tokens, context, reference, guided=len(x) > frames)
    return _unfold(transformer.proj_out(_as_images(tokens, x)) + x, frames)


def _as_images(tokens: Tensor, like: Tensor) -> Tensor:
    """(N, h*w, C) -> (N, C, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, like.shape[2:]).contiguous()


def _transformer_block(block: TransformerBlock, x: Tensor, context: Tensor, reference: Tensor, guided: bool) -> Tensor:
    normed = block.norm1(x)
    attended = block.attn1(normed, torch.cat([normed, reference], dim=1)) + x
    if guided:
        half = len(x) // 2
        unconditional = torch.tensor([1.0] * half + [0.0] * half).to(x.device).bool()
        merged = attended.clone()
        plain = block.attn1(normed[unconditional], normed[unconditional])
        merged[unconditional] = plain + x[unconditional]
        attended = merged.clone()
    x = block.attn2(block.norm2(attended), context) + attended
    return block.ff(block.norm3(x)) + x


def _temporal_transformer(transformer: nn.Module, x: Tensor) -> Tensor:
    """(B, C, F, h, w) -> the same shape."""
    frames = x.shape[2]
    x = _fold(x)
    tokens = transformer.proj_in(transformer.norm(x).flatten(2).transpose(1, 2))
    block = transformer.transformer_blocks[0]
    for attention, norm in zip(block.attention_blocks, block.norms, strict=True):
        y = norm(tokens).unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1)  # (B*h*w, F, C)
        y = _naive_attention(attention, y + attention.pos_encoder.pe[:, :frames])
        tokens = y.unflatten(0, (-1, tokens.shape[1])).transpose(1, 2).flatten(0, 1) + tokens
    tokens = transformer.proj_out(block.ff(block.ff_norm(tokens)) + tokens)
    return _unfold(_as_images(tokens, x) + x, frames)


def _naive_attention(attention: TemporalAttention, x: Tensor) -> Tensor:
    """Self-attention over (N, L, C) with all scores in memory."""
    heads = attention.heads
    q, k, v = (
        project(x).unflatten(2, (heads, -1)).transpose(1, 2).flatten(0, 1)
        for project in (attention.to_q, attention.to_k, attention.to_v)
    )
    scores = torch.baddbmm(q.new_empty(1, 1, 1), q, k.mT, beta=0, alpha=q.shape[2] ** -0.5)
    y = torch.bmm(scores.softmax(dim=-1), v)
    return attention.to_out[0](y.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2))
