"""The seven graphs of a bundle, cut so that nothing is computed more often than it changes.

Compared with the reference implementation, the cut saves the following without changing any output:

- the reference attention that it computes for the unconditional half and discards;
- the projection of reference tokens and CLIP tokens to K and V at every step and frame, now done once per portrait;
- the unconditional half's cross-attention, whose context is `clip_fc.bias` at every token, so that it adds one constant
  vector per layer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from fye_export.blocks import TransformerBlock, attention
from fye_export.config import ModelConfig
from fye_export.networks import Guider, UNet

LAYER_LEVELS = (0, 0, 1, 1, 2, 2, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0)  # level of each spatial transformer: down, mid, up


class ImageEncoder(nn.Module):
    """CLIP's tokens of one image, before CLIP's last layer norm."""

    def __init__(self, image_encoder: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.image_encoder = image_encoder

    def forward(self, clip_pixels: Tensor) -> Tensor:
        """Encode normalised pixels: (1, 3, S, S) -> tokens (1, L, D)."""
        model = self.image_encoder.vision_model
        embeddings = model.embeddings
        patches = embeddings.patch_embedding(clip_pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([embeddings.class_embedding[None, None], patches], dim=1)
        tokens = model.pre_layrnorm(tokens + embeddings.position_embedding.weight)
        return model.encoder(inputs_embeds=tokens).last_hidden_state


class VAEEncoder(nn.Module):
    """The mean of the latent distribution, scaled."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        vae.set_attn_processor(_VAEAttention())
        self.vae = vae

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode a portrait: (1, 3, H, W) in [-1, 1] -> latents (1, 4, H/8, W/8)."""
        mean = self.vae.quant_conv(self.vae.encoder(pixels)).chunk(2, dim=1)[0]
        return mean * self.vae.config.scaling_factor


class VAEDecoder(nn.Module):
    """Decoder to displayable frames; scaling, clamp and channel order are part of the graph."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        vae.set_attn_processor(_VAEAttention())
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        """Decode latents: (1, 4, F, h, w) -> frames (F, 8h, 8w, 3) in [0, 1]."""
        z = latents[0].transpose(0, 1) / self.vae.config.scaling_factor
        x = self.vae.decoder(self.vae.post_quant_conv(z))
        return (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


class LandmarkGuider(nn.Module):
    """Landmark features of each frame."""

    def __init__(self, lmk_guider: Guider) -> None:
        super().__init__()
        self.lmk_guider = lmk_guider

    def forward(self, landmark_images: Tensor) -> Tensor:
        """Encode landmark images: (F, 3, H, W) in [0, 1] -> (F, C, H/8, W/8)."""
        return self.lmk_guider(landmark_images)


class Reference(nn.Module):
    """Everything that the denoiser needs of a portrait, projected to the denoiser's K and V.

    The reference implementation computes a batch of two but reads only the conditional row, so only that is computed.
    """

    def __init__(self, referencenet: UNet, unet: UNet) -> None:
        super().__init__()
        self.referencenet = referencenet
        self.unet = unet  # only its clip_fc, to_k and to_v are used

    def forward(self, portrait_latents: Tensor, clip_tokens: Tensor) -> tuple[Tensor, ...]:
        """Latents (1, 4, h, w), tokens (1, L, D) -> per layer: the reference's key and value, CLIP's key and value."""
        tokens = reference_tokens(self.referencenet, portrait_latents, clip_tokens)
        context = self.unet.clip_fc(clip_tokens)
        outputs: list[Tensor] = []
        for (_, transformer), reference in zip(self.unet.transformers(), tokens, strict=True):
            block = transformer.transformer_blocks[0]
            outputs += [block.attn1.to_k(reference), block.attn1.to_v(reference)]
            outputs += [block.attn2.to_k(context), block.attn2.to_v(context)]
        return tuple(outputs)


def reference_tokens(referencenet: UNet, portrait_latents: Tensor, clip_tokens: Tensor) -> list[Tensor]:
    """Compute the normalised tokens of the reference network's 16 transformer blocks.

    Args:
        referencenet: the network.
        portrait_latents: (P, 4, h, w).
        clip_tokens: (P, L, D).

    Returns:
        (P, positions, channels) per layer; the last block ends in that norm.
    """
    context = referencenet.clip_fc(clip_tokens)
    tokens: list[Tensor] = []

    def attend(layer: int, block: TransformerBlock, x: Tensor) -> Tensor:
        normed = block.norm1(x)
        tokens.append(normed)
        if layer == len(LAYER_LEVELS) - 1:
            return normed
        x = x + block.attn1(normed, normed)
        x = x + block.attn2(block.norm2(x), context)
        return x + block.ff(block.norm3(x))

    temb = referencenet.embed_time(torch.zeros(1, dtype=torch.int64, device=portrait_latents.device))
    referencenet(referencenet.conv_in(portrait_latents), temb, attend)
    return tokens


class Denoiser(nn.Module):
    """Both halves of classifier-free guidance, in one batch and with one set of weights."""

    def __init__(self, unet: UNet, *, guided: bool = True) -> None:
        super().__init__()
        self.unet = unet
        self.guided = guided
        if guided:
            for name, vector in unconditional_attention(unet).items():
                unet.get_submodule(name).register_buffer("unconditional", vector, persistent=False)

    def forward(
        self, latents: Tensor, timestep: Tensor, landmark_features: Tensor, *portrait: Tensor
    ) -> tuple[Tensor, ...]:
        """Evaluate the network once.

        Args:
            latents: (1, 4, F, h, w).
            timestep: (1,), int64.
            landmark_features: (F, C, h, w).
            portrait: outputs of `Reference`, four per layer.

        Returns:
            The v-predictions (1, 4, F, h, w): unconditional and conditional, or only conditional.
        """
        net = self.unet
        x = net.conv_in(latents[0].transpose(0, 1)) + landmark_features
        attend = partial(self._attend, portrait=portrait)
        frames = latents.shape[2]
        v = net(x, net.embed_time(timestep), attend, frames, halves=2 if self.guided else 1)
        return tuple(half.transpose(0, 1)[None] for half in self._halves(v, frames))

    def _attend(self, layer: int, block: TransformerBlock, x: Tensor, *, portrait: tuple[Tensor, ...]) -> Tensor:
        reference_key, reference_value, clip_key, clip_value = portrait[4 * layer : 4 * layer + 4]
        batch, positions, _ = x.shape
        frames = batch // 2 if self.guided else batch
        x = x.flatten(0, 1)  # rows, because a linear layer over rows exports as one Gemm
        rows = frames * positions
        normed = block.norm1(x)
        q, k, v = (
            [half.unflatten(0, (frames, positions)) for half in self._halves(project(normed), rows)]
            for project in (block.attn1.to_q, block.attn1.to_k, block.attn1.to_v)
        )
        attended = [
            attention(
                q[-1],
                torch.cat([k[-1], reference_key.expand(frames, -1, -1)], dim=1),
                torch.cat([v[-1], reference_value.expand(frames, -1, -1)], dim=1),
                block.attn1.heads,
            )
        ]
        if self.guided:
            attended.insert(0, attention(q[0], k[0], v[0], block.attn1.heads))
        x = x + block.attn1.to_out[0]((torch.cat(attended) if self.guided else attended[0]).flatten(0, 1))

        *unconditional, conditional = self._halves(x, rows)
        # all frames share K and V, so all rows are queries of one attention
        query = block.attn2.to_q(block.norm2(conditional))[None]
        crossed = attention(query, clip_key, clip_value, block.attn2.heads)[0]
        conditional = conditional + block.attn2.to_out[0](crossed)
        if self.guided:
            conditional = torch.cat([unconditional[0] + block.attn2.unconditional, conditional])
        return (conditional + block.ff(block.norm3(conditional))).unflatten(0, (batch, positions))

    def _halves(self, x: Tensor, size: int) -> tuple[Tensor, ...]:
        return (x[:size], x[size:]) if self.guided else (x,)


def unconditional_attention(unet: UNet) -> dict[str, Tensor]:
    """Compute what each cross-attention adds to the unconditional half, by name: to_out(to_v(clip_fc.bias)), (C,).

    The reference implementation replaces the CLIP tokens by zeros before `clip_fc`, so every token becomes its bias,
    and attention over equal values returns that value.
    """
    return {
        f"{name}.transformer_blocks.0.attn2": (attn := transformer.transformer_blocks[0].attn2).to_out[0](
            attn.to_v(unet.clip_fc.bias)
        )
        for name, transformer in unet.transformers()
    }


class _VAEAttention:
    """Single-head attention of the VAE's middle block, as an attention processor of diffusers."""

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        temb: None = None,
    ) -> Tensor:
        n, c, h, w = hidden_states.shape
        tokens = attn.group_norm(hidden_states).flatten(2).transpose(1, 2)
        attended = attention(attn.to_q(tokens), attn.to_k(tokens), attn.to_v(tokens), attn.heads)
        return attn.to_out[0](attended).transpose(1, 2).reshape(n, c, h, w) + hidden_states


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and shape of a graph's input or output; names in a shape are symbolic dimensions."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """Networks, inputs and outputs of one graph of the bundle.

    Attributes:
        name: name of the graph and its file.
        networks: names of the networks whose weights it uses, in the order of the module's arguments.
        module: makes the graph's module from the networks.
        inputs: inputs in the order of the module's forward.
        outputs: outputs in the order of its results.
    """

    name: str
    networks: tuple[str, ...]
    module: Callable[..., nn.Module]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def graph_specs(config: ModelConfig) -> dict[str, GraphSpec]:
    """Specify the seven graphs of a model, by name."""
    c, side = config.unet, config.image_encoder.image_size
    z = config.vae.latent_channels
    pixels = TensorSpec("pixels", (1, 3, "height", "width"))
    tokens = TensorSpec("clip_tokens", (1, config.image_encoder.tokens, c.clip_dim))
    portrait_latents = TensorSpec("portrait_latents", (1, z, "latent_height", "latent_width"))
    features = TensorSpec("landmark_features", ("frames", c.block_out_channels[0], "latent_height", "latent_width"))
    latents = TensorSpec("latents", (1, z, "frames", "latent_height", "latent_width"))
    frames = TensorSpec("frames", ("frames", "height", "width", 3))
    clip_pixels = TensorSpec("clip_pixels", (1, 3, side, side))
    landmark_images = TensorSpec("landmark_images", ("frames", 3, "height", "width"))
    portrait = []
    for layer, level in enumerate(LAYER_LEVELS):
        width = c.block_out_channels[level]
        portrait += [TensorSpec(f"reference_{kv}.{layer}", (1, f"tokens{level}", width)) for kv in ("key", "value")]
        portrait += [
            TensorSpec(f"clip_{kv}.{layer}", (1, config.image_encoder.tokens, width)) for kv in ("key", "value")
        ]
    denoiser = (latents, TensorSpec("timestep", (1,), "int64"), features, *portrait)
    unconditional, conditional = (TensorSpec(f"v_{half}", latents.shape) for half in ("unconditional", "conditional"))
    specs = (
        GraphSpec("image_encoder", ("image_encoder",), ImageEncoder, (clip_pixels,), (tokens,)),
        GraphSpec("vae_encoder", ("vae",), VAEEncoder, (pixels,), (portrait_latents,)),
        GraphSpec("reference", ("referencenet", "unet"), Reference, (portrait_latents, tokens), tuple(portrait)),
        GraphSpec("guider", ("lmk_guider",), LandmarkGuider, (landmark_images,), (features,)),
        GraphSpec("denoiser", ("unet",), Denoiser, denoiser, (unconditional, conditional)),
        GraphSpec("denoiser_cond", ("unet",), partial(Denoiser, guided=False), denoiser, (conditional,)),
        GraphSpec("vae_decoder", ("vae",), VAEDecoder, (latents,), (frames,)),
    )
    return {spec.name: spec for spec in specs}
