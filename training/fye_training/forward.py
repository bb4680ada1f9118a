"""The training forward pass: v-predictions for several targets of each portrait.

It uses the networks of `fye_export.networks`, wired like the exported graphs (`fye_export.graphs`) and batched over
portraits: a target attends to itself and to its own portrait's reference tokens.
"""

from functools import partial

import torch
from torch import Tensor, nn

from fye_export import networks
from fye_export.blocks import TransformerBlock, attention
from fye_export.config import ModelConfig
from fye_export.graphs import reference_tokens

TRAINED = ("unet", "referencenet", "lmk_guider", "image_encoder")


class Animation(nn.Module):
    """The four networks that learn to animate; the VAE is trained before them and stays frozen.

    Args:
        config: sizes of the networks.
        motion: whether to include the motion modules, through which frames of a clip attend to each other; without
            them every target is a separate picture.
    """

    def __init__(self, config: ModelConfig, *, motion: bool) -> None:
        super().__init__()
        for name in TRAINED:
            self.add_module(name, networks.build(config, name))
        if not motion:
            for level in [level for level in self.unet.modules() if hasattr(level, "motion_modules")]:
                del level.motion_modules

    def forward(
        self, noisy: Tensor, timesteps: Tensor, landmarks: Tensor, portraits: Tensor, clip_pixels: Tensor, dropped: int
    ) -> Tensor:
        """Predict v.

        Args:
            noisy: (P, T, 4, h, w), noisy latents of T targets of each of P portraits; consecutive frames if the
                networks have motion modules.
            timesteps: (P, T), int64.
            landmarks: (P, T, 3, 8h, 8w) in [0, 1].
            portraits: (P, 4, h, w), latents.
            clip_pixels: (P, 3, S, S), normalised.
            dropped: number of portraits, counted from the first, that are hidden from the denoiser, so that it
                learns the unconditional half of guidance.

        Returns:
            v, (P, T, 4, h, w).
        """
        targets = noisy.shape[1]
        tokens = self._tokens(clip_pixels)
        references = reference_tokens(self.referencenet, portraits[dropped:], tokens[dropped:])
        # unconditional: zeros in place of CLIP's tokens before clip_fc, whose bias remains
        context = self.unet.clip_fc(torch.cat([torch.zeros_like(tokens[:dropped]), tokens[dropped:]]))
        x = self.unet.conv_in(noisy.flatten(0, 1)) + self.lmk_guider(landmarks.flatten(0, 1))
        if x.is_cpu:
            # PyTorch 2.13 crashes in the backward pass of a channels-last group norm whose input is frozen
            x = x.contiguous()
        temb = self.unet.embed_time(timesteps.flatten())
        attend = partial(_attend, references=references, context=context, dropped=dropped * targets, targets=targets)
        return self.unet(x, temb, attend, frames=targets).unflatten(0, noisy.shape[:2])

    def _tokens(self, clip_pixels: Tensor) -> Tensor:
        model = self.image_encoder.vision_model
        embeddings = model.embeddings
        patches = embeddings.patch_embedding(clip_pixels).flatten(2).transpose(1, 2)
        start = embeddings.class_embedding.expand(len(patches), 1, -1)
        tokens = torch.cat([start, patches], dim=1) + embeddings.position_embedding.weight
        return model.encoder(inputs_embeds=model.pre_layrnorm(tokens)).last_hidden_state


def _attend(
    layer: int,
    block: TransformerBlock,
    x: Tensor,
    *,
    references: list[Tensor],
    context: Tensor,
    dropped: int,
    targets: int,
) -> Tensor:
    """One block of the denoiser: x (P * T, L, C), of which the first `dropped` rows don't see their portrait."""
    layers, reference = block.attn1, references[layer]
    normed = block.norm1(x)
    q, k, v = layers.to_q(normed), layers.to_k(normed), layers.to_v(normed)
    portrait = (project(reference).repeat_interleave(targets, dim=0) for project in (layers.to_k, layers.to_v))
    keys, values = (torch.cat([x[dropped:], y], dim=1) for x, y in zip((k, v), portrait, strict=True))
    result = attention(q[dropped:], keys, values, layers.heads)
    if dropped:
        result = torch.cat([attention(q[:dropped], k[:dropped], v[:dropped], layers.heads), result])
    x = x + layers.to_out[0](result)
    # one attention per portrait: all its targets are queries to its tokens
    query = block.norm2(x).reshape(len(context), -1, x.shape[2])
    x = x + block.attn2(query, context).reshape(x.shape)
    return x + block.ff(block.norm3(x))


@torch.no_grad()
def fresh(config: ModelConfig, *, motion: bool, seed: int) -> Animation:
    """Untrained networks, the same for the same seed.

    Queries start equal to keys, and the reference network equal to the denoiser: at the first step every position
    attends to similar positions, in the portrait too, which a network this small need not learn by itself.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Animation(config, motion=motion)
    weights = dict(model.unet.named_parameters())
    for name, weight in model.referencenet.named_parameters():
        weight.copy_(weights[name])
    for name, module in model.named_modules():
        if name.startswith(("unet.", "referencenet.")) and isinstance(module, TransformerBlock):
            module.attn1.to_q.weight.copy_(module.attn1.to_k.weight)
        if name.endswith(("unet.conv_out", "lmk_guider.conv_out", "temporal_transformer.proj_out")):
            # at first the output is 0, and landmarks and motion modules add nothing
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return model
