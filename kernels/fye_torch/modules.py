"""Networks that call the kernels, for channels-last tensors.

`switched` returns a copy of a network that shares all weights and replaces a few modules by others of the same
signature. `Denoiser` is the graph of that name with its own attention.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

from fye_export import graphs
from fye_export.blocks import Attention, Projections, TemporalAttention, TemporalTransformer, TransformerBlock
from fye_export.networks import UNet
from fye_kernels import forecast_step, geglu, norm_silu, reference_attention, temporal_attention

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Operations:
    """Operations that the modules call: the kernels, or their plain PyTorch versions."""

    reference_attention: Callable[..., Tensor]
    temporal_attention: Callable[..., Tensor]
    norm_silu: Callable[..., Tensor]
    geglu: Callable[..., Tensor]
    forecast_step: Callable[..., None]


KERNELS = Operations(
    reference_attention.reference_attention,
    temporal_attention.temporal_attention,
    norm_silu.norm_silu,
    geglu.geglu,
    forecast_step.forecast_step,
)
_MODULES = (reference_attention, temporal_attention, norm_silu, geglu, forecast_step)
PLAIN = Operations(*(module.reference for module in _MODULES))


def switched(network: Network, operations: Operations = KERNELS) -> Network:
    """Copy a network, with modules that call `operations` around the same weights.

    The network is a UNet of `fye_export.networks` or a VAE, with its parameters in channels-last memory.
    """
    for module in network.modules():
        if isinstance(module, TransformerBlock):
            _join(module.attn1)
        elif isinstance(module, TemporalAttention):
            _join(module)
    tensors = [*network.parameters(), *network.buffers()]
    copied = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    _switch(copied, operations)
    return copied


def _join(projections: Projections) -> None:
    """Make the query, key and value weights parts of one matrix (3 C, C), `joined`, without extra memory."""
    if hasattr(projections, "joined"):
        return
    layers = (projections.to_q, projections.to_k, projections.to_v)
    joined = torch.cat([layer.weight.detach() for layer in layers])
    projections.register_buffer("joined", joined, persistent=False)
    for layer, part in zip(layers, joined.chunk(3), strict=True):
        layer.weight = nn.Parameter(part, requires_grad=False)


def _switch(module: nn.Module, operations: Operations) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, Decoder):  # SiLU directly follows its last norm
            child.conv_norm_out, child.conv_act = Norm(child.conv_norm_out, operations, silu=True), nn.Identity()
        if isinstance(child, ResnetBlock2D):
            module.set_submodule(name, Resnet(child, operations))
        elif isinstance(child, TemporalTransformer):
            module.set_submodule(name, Temporal(child, operations))
            _switch(module.get_submodule(name), operations)
        elif isinstance(child, nn.GroupNorm) and not isinstance(module, Temporal):
            module.set_submodule(name, Norm(child, operations))
        elif isinstance(child, nn.Conv2d) and child.kernel_size == (1, 1):
            module.set_submodule(name, Pointwise(child))
        elif isinstance(child, GEGLU):
            module.set_submodule(name, Gate(child, operations))
        else:
            _switch(child, operations)


class Norm(nn.Module):
    """A group norm, optionally followed by SiLU."""

    def __init__(self, norm: nn.GroupNorm, operations: Operations, *, silu: bool = False) -> None:
        super().__init__()
        self.weight, self.bias, self.groups, self.eps = norm.weight, norm.bias, norm.num_groups, norm.eps
        self._run = partial(operations.norm_silu, silu=silu)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """Normalise x (N, C, h, w), after adding `time` (N or 1, C) to every position."""
        return self._run(x, self.groups, self.weight, self.bias, self.eps, time)


class Pointwise(nn.Module):
    """A 1x1 convolution as a linear layer over tokens, which also adds the bias."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C', h, w)."""
        return F.linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)


class Resnet(nn.Module):
    """Two convolutions with a residual connection; the first one's bias is added with the time embedding."""

    def __init__(self, resnet: ResnetBlock2D, operations: Operations) -> None:
        super().__init__()
        self.norm1, self.norm2 = (Norm(norm, operations, silu=True) for norm in (resnet.norm1, resnet.norm2))
        self.conv1, self.conv2, self.time_emb_proj = resnet.conv1, resnet.conv2, resnet.time_emb_proj
        self.conv_shortcut = None if resnet.conv_shortcut is None else Pointwise(resnet.conv_shortcut)

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        """(N, C, h, w), embedding (N or 1, T) -> (N, C', h, w)."""
        y = F.conv2d(self.norm1(x), self.conv1.weight, None, padding=1)
        time = self.conv1.bias[None]
        if temb is not None:
            time = time + self.time_emb_proj(F.silu(temb))
        y = self.conv2(self.norm2(y, time))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + y


class Gate(nn.Module):
    """The first half of a feed-forward layer."""

    def __init__(self, gate: GEGLU, operations: Operations) -> None:
        super().__init__()
        self.proj, self._run = gate.proj, operations.geglu

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., 4 C)."""
        return self._run(self.proj(x))


class Temporal(nn.Module):
    """A motion transformer that never permutes tensors to bring frames side by side."""

    def __init__(self, transformer: TemporalTransformer, operations: Operations) -> None:
        super().__init__()
        self.norm = Norm(transformer.norm, operations)
        self.proj_in, self.proj_out = transformer.proj_in, transformer.proj_out
        self.transformer_blocks = transformer.transformer_blocks
        self._attend = operations.temporal_attention
        self._biases: dict[tuple[int, int], Tensor] = {}

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B*F, C, h, w), frames of one clip side by side in the batch -> the same shape."""
        block: Any = self.transformer_blocks[0]
        y = self.proj_in(self.norm(x).permute(0, 2, 3, 1).flatten(1, 2))
        for attend, norm in zip(block.attention_blocks, block.norms, strict=True):
            q, k, v = F.linear(norm(y), attend.joined).chunk(3, dim=-1)
            attended = self._attend(q, k, v, attend.heads, frames, self._bias(attend, frames))
            y = y + attend.to_out[0](attended)
        y = self.proj_out(y + block.ff(block.ff_norm(y)))
        return x + y.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)

    def _bias(self, attend: Any, frames: int) -> Tensor:
        """Return what each frame's positional encoding adds to query, key and value, (3, F, C)."""
        key = (id(attend), frames)
        if key not in self._biases:
            positions = attend.pos_encoder.pe[0, :frames].float()
            weights = (project.weight.float() for project in (attend.to_q, attend.to_k, attend.to_v))
            biases = torch.stack([positions @ weight.T for weight in weights])
            self._biases[key] = biases.to(attend.to_q.weight.dtype)
        return self._biases[key]


class Denoiser(graphs.Denoiser):
    """`fye_export.graphs.Denoiser` over a switched UNet."""

    def __init__(self, unet: UNet, *, guided: bool = True, operations: Operations = KERNELS) -> None:
        super().__init__(unet, guided=guided)
        self._operations = operations

    def forward(
        self, latents: Tensor, timestep: Tensor, landmark_features: Tensor, *portrait: Tensor
    ) -> tuple[Tensor, ...]:
        """Evaluate the network once; arguments and outputs as in `fye_export.graphs.Denoiser.forward`."""
        features = landmark_features.contiguous(memory_format=torch.channels_last)
        return super().forward(latents, timestep, features, *portrait)

    def _attend(self, layer: int, block: TransformerBlock, x: Tensor, *, portrait: tuple[Tensor, ...]) -> Tensor:
        reference_key, reference_value, clip_key, clip_value = portrait[4 * layer : 4 * layer + 4]
        frames = len(x) // 2 if self.guided else len(x)
        if self.guided and layer == 0:
            attended = self._both_halves(block.attn1, block.norm1(x[:frames]), reference_key, reference_value)
        else:
            q, k, v = F.linear(block.norm1(x), block.attn1.get_buffer("joined")).chunk(3, dim=-1)
            unconditional = frames if self.guided else 0
            attended = self._operations.reference_attention(
                q, k, v, reference_key, reference_value, block.attn1.heads, unconditional
            )
        x = x + block.attn1.to_out[0](attended)

        conditional = x[-frames:]
        # all frames share K and V, so all rows are queries of one attention
        query = block.attn2.to_q(block.norm2(conditional)).flatten(0, 1)[None]
        empty = clip_key[:, :0], clip_value[:, :0]
        crossed = self._operations.reference_attention(query, clip_key, clip_value, *empty, block.attn2.heads)
        conditional += block.attn2.to_out[0](crossed).view_as(conditional)
        if self.guided:
            x[:frames] += block.attn2.get_buffer("unconditional")
        return x + block.ff(block.norm3(x))

    def _both_halves(self, attn: Attention, x: Tensor, reference_key: Tensor, reference_value: Tensor) -> Tensor:
        """Compute the first attention; both halves are the same before it, so frames attend to themselves once."""
        q, k, v = F.linear(x, attn.get_buffer("joined")).chunk(3, dim=-1)
        empty = reference_key[:, :0], reference_value[:, :0]
        attend = self._operations.reference_attention
        sums = torch.empty((2, len(q), attn.heads, q.shape[1]), dtype=torch.float32, device=q.device)
        frame = attend(q, k, v, *empty, attn.heads, lse=sums[0])
        keys_and_values = (tensor.expand(len(q), -1, -1) for tensor in (reference_key, reference_value))
        portrait = attend(q, *keys_and_values, *empty, attn.heads, lse=sums[1])
        return torch.cat([frame, reference_attention.merge(portrait, sums[1], frame, sums[0])])
